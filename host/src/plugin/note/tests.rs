#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use fthost_plugin_api::abi::tables::{ABI_MAJOR, ABI_MINOR, NOTE_METHOD, NOTE_NAME, NOTE_PLUGIN, NOTE_SECTION};
use object::elf;
use serde_json::{Value, json};

use super::header::MACHINE;
use super::*;

const HEADER: usize = 64;

/// A note as linkers lay it out.
fn note(owner: &str, kind: u32, text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [owner.len() as u32 + 1, text.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    for part in [format!("{owner}\0"), text.to_owned()] {
        bytes.extend(part.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// A shared library with nothing but notes, no name and no symbol: headers, notes, what a dynamic section needs, section names, section
/// headers. Addresses are places in the file.
fn library(notes: &[u8]) -> Vec<u8> {
    let names = format!("\0{NOTE_SECTION}\0.shstrtab\0");
    let mut bytes = vec![0; HEADER + 2 * 56];
    let notes_at = bytes.len();
    bytes.extend(notes);
    let mut put_at_end = |part: &[u8]| {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let at = bytes.len();
        bytes.extend(part);
        at
    };
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let strings_at = put_at_end(&[0]);
    let symbols_at = put_at_end(&[0; 24]);
    // One bucket and one chain, both empty.
    let hash_at = put_at_end(&[1_u32, 1, 0, 0].map(u32::to_le_bytes).concat());
    let entries = [(5, strings_at as u64), (10, 1), (6, symbols_at as u64), (11, 24), (4, hash_at as u64), (0, 0)];
    let entries: Vec<u64> = entries.iter().flat_map(|&(tag, value)| [tag, value]).collect();
    let dynamic_at = put_at_end(&words(&entries));
    let names_at = put_at_end(names.as_bytes());
    let sections_at = put_at_end(&[]);
    let mut section = |name: usize, kind: u32, at: usize, size: usize| {
        bytes.extend((name as u32).to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        // flags, address, offset, size, link and info, alignment, entry size
        bytes.extend(words(&[0, 0, at as u64, size as u64, 0, 4, 0]));
    };
    section(0, 0, 0, 0);
    section(1, 7, notes_at, notes.len());
    section(NOTE_SECTION.len() + 2, 3, names_at, names.len());
    bytes[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(16, &3u16.to_le_bytes()); // a shared library
    put(18, &MACHINE.0.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(40, &(sections_at as u64).to_le_bytes());
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &2u16.to_le_bytes());
    put(58, &64u16.to_le_bytes());
    put(60, &3u16.to_le_bytes());
    put(62, &2u16.to_le_bytes());
    let segments = [(1, 5, 0, sections_at, 0x1000), (2, 4, dynamic_at, entries.len() * 8, 8)];
    for (i, (kind, flags, at, size, align)) in segments.into_iter().enumerate() {
        let (at, size) = (at as u64, size as u64);
        let kind_and_flags = kind | flags << 32;
        put(HEADER + 56 * i, &words(&[kind_and_flags, at, at, at, size, size, align]));
    }
    bytes
}

fn plugin_note() -> Value {
    json!({
        "abi_major": ABI_MAJOR, "abi_minor": ABI_MINOR, "min_host_minor": 0, "name": "lora", "version": "0.1.0",
        "license": "MIT", "panic": "unwind", "compiler": "rustc", "ops": ["linear@1"],
    })
}

fn plugin(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut text = plugin_note();
    change(&mut text);
    let mut notes = note("other", 9, "somebody else's");
    notes.extend(note(NOTE_NAME, NOTE_PLUGIN, &text.to_string()));
    notes.extend(note(NOTE_NAME, NOTE_METHOD, r#"{"kind": "strategy", "name": "lora", "summary": "LoRA"}"#));
    library(&notes)
}

#[test]
fn a_plugin_is_read() {
    let (note, methods) = read(plugin(|_| {}).as_slice()).unwrap();
    assert_eq!((note.name.as_str(), methods[0].name.as_str()), ("lora", "lora"));
}

#[test]
fn what_is_no_plugin_of_this_host_is_refused_with_a_reason() {
    let check = |bytes: &[u8], expected: &str| {
        let message = read(bytes).unwrap_err().message;
        assert!(message.contains(expected), "{expected:?} is not in {message:?}");
    };
    check(b"", "is empty");
    check(b"# a script\necho hello\n", "is a text file");
    check(&[0x80, 0, 1, 2, 3, 0xff], "is not a shared library");
    check(b"MZ\x90\0", "is a Windows library");
    check(&[0xcf, 0xfa, 0xed, 0xfe, 7], "is a macOS library");
    check(b"\x7fELF\x01\x01\x01", "is a 32-bit library");
    check(b"\x7fELF\x02\x02\x01", "is a big-endian library");
    check(b"\x7fELF\x02\x01\x01\0", "is cut off");
    let with = |at: usize, value: u16| {
        let mut bytes = plugin(|_| {});
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    check(&with(18, 243), "was built for RISC-V, and this machine is");
    check(&with(16, 1), "is an object file, not a shared library");
    check(&with(16, 2), "is a program, not a shared library");
    check(&library(&[]), "is a shared library but no fthost plugin");
    let minors = format!("was built for fthost ABI 2.{ABI_MINOR}, this host has 1.{ABI_MINOR}");
    check(&plugin(|note| note["abi_major"] = json!(ABI_MAJOR + 1)), &minors);
    let later = format!("needs fthost ABI 1.{}, this host has 1.{ABI_MINOR}", ABI_MINOR + 7);
    check(&plugin(|note| note["min_host_minor"] = json!(ABI_MINOR + 7)), &later);
    check(&plugin(|note| note["ops"] = json!(["linear@1", "fly@3"])), "needs the op fly@3, which this host");
    check(&plugin(|note| note["panic"] = json!("abort")), "was built with panic = \"abort\"");
    check(&plugin(|note| note["name"] = json!(3)), "has a plugin note that does not read");
}

/// At whatever byte a file ends, it is refused; nothing is read beyond its end.
#[test]
fn every_truncation_is_refused() {
    let whole = plugin(|_| {});
    for len in 0..whole.len() {
        assert!(read(&whole[..len]).is_err(), "{len} of {} bytes were accepted", whole.len());
    }
}

#[test]
fn files_are_checked_before_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let check_path = |path: &Path, expected: &str| {
        let message = check(path).unwrap_err().to_string();
        assert!(message.contains(expected), "{expected:?} is not in {message:?}");
    };
    check_path(folder.path(), "is a folder, not a plugin");
    check_path(&folder.path().join("none.so"), "cannot be opened");
    let path = folder.path().join("liblora.so");
    std::fs::write(&path, plugin(|_| {})).unwrap();
    assert_eq!(check(&path).unwrap().sha256.len(), 64);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    check_path(&path, "can be written by every user");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    // Sparse files cost nothing on the disk, and all their zeros in memory.
    let sparse = std::fs::File::options().write(true).open(&path).unwrap();
    sparse.set_len(4 << 30).unwrap();
    check_path(&path, "has 4096 MB, and a plugin's file may have 256 MB");
    sparse.set_len(200 << 20).unwrap();
    check_path(&path, "is empty for the most part: of its 200 MB, 0 MB are there");
    let pipe = folder.path().join("pipe.so");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    check_path(&pipe, "is not a regular file");
}

/// Notes of these types and texts, in a library.
fn noted(notes: &[(u32, &str)]) -> Vec<u8> {
    library(&notes.iter().flat_map(|(kind, text)| note(NOTE_NAME, *kind, text)).collect::<Vec<u8>>())
}

#[test]
fn a_plugin_is_one_note_and_its_methods_one_each() {
    let plugin = plugin_note().to_string();
    let method = |kind: &str, name: &str| json!({ "kind": kind, "name": name }).to_string();
    let (first, second, same) = (method("strategy", "a"), method("scheduler", "a"), method("strategy", "a"));
    let check = |notes: &[(u32, &str)], expected: &str| {
        let message = read(noted(notes).as_slice()).unwrap_err().message;
        assert!(message.contains(expected), "{expected:?} is not in {message:?}");
    };
    read(noted(&[(NOTE_METHOD, &first), (NOTE_PLUGIN, &plugin), (NOTE_METHOD, &second)]).as_slice()).unwrap();
    check(&[(NOTE_PLUGIN, &plugin)], "has a note about the plugin and none about a method");
    check(&[(NOTE_METHOD, &first)], "is a shared library but no fthost plugin");
    check(&[(NOTE_PLUGIN, &plugin), (NOTE_PLUGIN, &plugin), (NOTE_METHOD, &first)], "has 2 notes about the plugin");
    let twice = [(NOTE_PLUGIN, plugin.as_str()), (NOTE_METHOD, &first), (NOTE_METHOD, &second), (NOTE_METHOD, &same)];
    check(&twice, "has two notes about the strategy \"a\"");
    check(&[(NOTE_PLUGIN, &plugin), (NOTE_METHOD, "{}")], "has a note about a method that does not read");
    check(&[(NOTE_PLUGIN, &" ".repeat(2 << 20))], "has a .note.fthost section of more than 1 MB");
}

#[test]
fn notes_steer_no_terminal() {
    let plugin = plugin_note().to_string().replace("MIT", "MIT\\u001b[2J");
    let method = r#"{"kind": "strategy", "name": "a\nb", "summary": "\u001b]0;title\u0007\u009b1m"}"#;
    let (note, methods) = read(noted(&[(NOTE_PLUGIN, &plugin), (NOTE_METHOD, method)]).as_slice()).unwrap();
    assert_eq!(note.license, r"MIT\u001b[2J");
    assert_eq!(methods[0].name, r"a\nb");
    assert_eq!(methods[0].summary, r"\u001b]0;title\u0007\u009b1m");
}

/// The plugins that were built for 1.0, of this machine.
#[cfg(target_arch = "x86_64")]
fn golden() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/1.0");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "so")).collect()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn what_linkers_make_is_accepted() {
    for path in golden() {
        check(&path).unwrap();
        assert_eq!(list(&path).unwrap().sha256, check(&path).unwrap().sha256);
        assert_eq!(methods(&path), check(&path).unwrap().methods);
    }
    // Libraries of the system, of other linkers and with tables that ours have not, are refused for their notes alone.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut libraries: Vec<&str> = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).collect();
    libraries.retain(|path| path.contains(".so"));
    assert!(!libraries.is_empty());
    for library in libraries {
        let bytes = std::fs::read(library).unwrap();
        let header = header::check(bytes.as_slice()).unwrap();
        let layout =
            layout::Layout::read(header, bytes.as_slice()).unwrap_or_else(|refusal| panic!("{library}: {refusal:?}"));
        let dynamic = dynamic::Dynamic::read(&layout).unwrap_or_else(|refusal| panic!("{library}: {refusal:?}"));
        versions::check(&layout, &dynamic).unwrap_or_else(|refusal| panic!("{library}: {refusal:?}"));
        relocations::check(&layout, &dynamic).unwrap_or_else(|refusal| panic!("{library}: {refusal:?}"));
    }
}

/// What the loader would follow is refused where it leads outside of the file or to what it cannot be.
#[test]
#[cfg(target_arch = "x86_64")]
fn what_the_loader_takes_on_trust_is_checked() {
    let whole = std::fs::read(golden().into_iter().find(|path| path.ends_with("libc_constant.so")).unwrap()).unwrap();
    let word = |at: usize| u64::from_le_bytes(whole[at..at + 8].try_into().unwrap());
    let with = |at: usize, value: u64| {
        let mut bytes = whole.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        read(bytes.as_slice()).map(drop).map_err(|refusal| refusal.message)
    };
    let refused = |at: usize, value: u64, what: &str| {
        let message = with(at, value).expect_err(what);
        assert!(message.contains("is a damaged library") || message.contains("is cut off"), "{what}: {message}");
    };
    let headers = word(32) as usize;
    let mut dynamic = 0..0;
    for at in (0..usize::from(whole[56])).map(|i| headers + 56 * i) {
        let kind = elf::ProgramType(word(at) as u32);
        if kind == elf::PT_DYNAMIC {
            dynamic = word(at + 8) as usize..(word(at + 8) + word(at + 32)) as usize;
        }
        if [elf::PT_LOAD, elf::PT_DYNAMIC, elf::PT_GNU_RELRO, elf::PT_GNU_EH_FRAME, elf::PT_NOTE].contains(&kind) {
            refused(at + 16, 1 << 40, "an address far away");
            refused(at + 40, u64::MAX, "a size without end");
        }
        if kind == elf::PT_LOAD {
            refused(at, word(at) & u64::from(u32::MAX), "a segment that cannot be read");
            refused(at + 48, 3, "an odd alignment");
            refused(at + 8, word(at + 8) + 1, "a place that is not aligned");
        }
    }
    let mut seen = 0;
    for at in dynamic.step_by(16).take_while(|at| word(*at) != 0) {
        let tag = elf::DynamicTag(word(at) as i64);
        // It is written to where calls are bound late, which they are not here.
        if [elf::DT_PLTGOT, elf::DT_VERNEEDNUM].contains(&tag) {
            continue;
        }
        seen += 1;
        refused(at + 8, 1 << 40, &format!("{tag:?}"));
        refused(at + 8, u64::MAX - 7, &format!("{tag:?}"));
    }
    assert!(seen > 20, "the dynamic section has {seen} entries");
}

/// Whatever a byte is changed to, reading ends without a panic.
#[test]
fn no_byte_makes_reading_panic() {
    let whole = plugin(|_| {});
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, whole[at] ^ 4] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let _ = read(bytes.as_slice());
        }
    }
}
