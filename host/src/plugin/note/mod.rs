//! What is checked of a plugin's file before any of its code runs.
//!
//! `dlopen` runs constructors, and a truncated library kills the process inside of it, so a file is first read as data: that it
//! is a whole shared library for this machine, that it carries the notes of an fthost plugin, and that the notes say it can work
//! with this host. The bytes that were checked are the bytes that are opened.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fthost_plugin_api::abi::tables::{ABI_MAJOR, ABI_MINOR, NOTE_METHOD, NOTE_NAME, NOTE_PLUGIN, NOTE_SECTION};
use fthost_plugin_api::{MethodNote, PluginNote};
use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader, SectionHeader};
use sha2::{Digest, Sha256};

use super::bridge::ops;
use crate::report::numbers::hexadecimal;
use crate::{Error, Result};

/// Comma- or colon-separated SHA-256 digests; where it is set, only files with one of them are opened.
pub const ALLOW_VARIABLE: &str = "FTHOST_PLUGIN_SHA256";

/// The architecture of this process, as ELF and as people name it.
#[cfg(target_arch = "x86_64")]
const MACHINE: (u16, &str) = (elf::EM_X86_64.0, "x86-64");
#[cfg(target_arch = "aarch64")]
const MACHINE: (u16, &str) = (elf::EM_AARCH64.0, "AArch64");

/// A file that may be opened.
#[derive(Debug)]
pub struct Checked {
    /// Its content.
    pub bytes: Vec<u8>,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// What it says of itself.
    pub note: PluginNote,
    /// The methods it holds.
    pub methods: Vec<MethodNote>,
}

/// Reads and checks a file.
///
/// # Errors
/// One sentence for each thing that can be wrong, the file named.
pub fn check(path: &Path) -> Result<Checked> {
    let wrong = |(message, help): Refusal| {
        let error = Error::plugin(format!("{} {message}", path.display()));
        if help.is_empty() { error } else { error.with_help(help) }
    };
    check_file(path).map_err(wrong)?;
    let bytes = std::fs::read(path).map_err(Error::io(format!("cannot read the plugin {}", path.display())))?;
    let (note, methods) = read(&bytes).map_err(wrong)?;
    let sha256 = hexadecimal(&Sha256::digest(&bytes));
    check_allowed(&sha256, std::env::var(ALLOW_VARIABLE).ok().as_deref()).map_err(wrong)?;
    Ok(Checked { bytes, sha256, note, methods })
}

/// Why a file is refused, after its name; and what to do.
type Refusal = (String, String);

fn refuse<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Refusal> {
    Err((message.into(), help.into()))
}

fn check_file(path: &Path) -> Result<(), Refusal> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return refuse(format!("cannot be opened: {error}"), ""),
    };
    if metadata.is_dir() {
        return refuse("is a folder, not a plugin", "name the shared library inside it: FOLDER/libNAME.so");
    }
    if !metadata.is_file() {
        return refuse("is not a regular file", "");
    }
    if metadata.mode() & 0o002 != 0 {
        return refuse(
            "can be written by every user, so anybody could put code into this run",
            format!("chmod o-w {}", path.display()),
        );
    }
    let user = rustix::process::geteuid().as_raw();
    if user != 0 && metadata.uid() != user && metadata.uid() != 0 {
        tracing::warn!(file = %path.display(), owner = metadata.uid(), "this plugin belongs to another user, who can change it");
    }
    Ok(())
}

fn check_allowed(sha256: &str, allowed: Option<&str>) -> Result<(), Refusal> {
    let Some(allowed) = allowed else { return Ok(()) };
    let mut digests = allowed.split([',', ':', ' ']).map(str::trim).filter(|digest| !digest.is_empty());
    if digests.any(|digest| digest.eq_ignore_ascii_case(sha256)) {
        return Ok(());
    }
    refuse(
        format!("has SHA-256 {sha256}, which is not in {ALLOW_VARIABLE}"),
        "add the digest to the list if you trust the file, or unset the variable",
    )
}

/// Reads the notes of a plugin, and whether this host can work with it.
///
/// # Errors
/// Why not: what is wrong, and what to do (may be empty).
pub fn read(bytes: &[u8]) -> Result<(PluginNote, Vec<MethodNote>), Refusal> {
    let header = check_header(bytes)?;
    check_extents(header, bytes)?;
    let notes = notes(header, bytes)?;
    let of_type = |wanted| notes.iter().filter(move |(kind, _)| *kind == wanted).map(|(_, text)| *text);
    let Some(text) = of_type(NOTE_PLUGIN).next() else {
        return refuse(
            "is a shared library but no fthost plugin",
            "a plugin calls `export_plugin!` of fthost-plugin-api in a crate of type cdylib; see examples/",
        );
    };
    let note = check_note(text)?;
    let methods: Result<Vec<MethodNote>, _> = of_type(NOTE_METHOD).map(serde_json::from_slice).collect();
    match methods {
        Ok(methods) => Ok((note, methods)),
        Err(error) => refuse(format!("has a note about a method that does not read: {error}"), "rebuild the plugin"),
    }
}

/// That it is a shared library for this machine.
fn check_header(bytes: &[u8]) -> Result<&FileHeader64<LittleEndian>, Refusal> {
    const BUILD: &str = "a plugin is a shared library: cargo build -p NAME makes target/debug/libNAME.so";
    if bytes.is_empty() {
        return refuse("is empty", BUILD);
    }
    if !bytes.starts_with(b"\x7fELF") {
        let looks_like_text = std::str::from_utf8(&bytes[..bytes.len().min(512)])
            .map_or_else(|error| error.valid_up_to() > 500, |text| !text.contains('\0'));
        return match bytes {
            [b'M', b'Z', ..] => refuse("is a Windows library, not a Linux shared library", BUILD),
            [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] => refuse("is a macOS library, not a Linux shared library", BUILD),
            _ if looks_like_text => refuse("is a text file, not a shared library", BUILD),
            _ => refuse("is not a shared library (it does not begin as ELF files do)", BUILD),
        };
    }
    if bytes.get(4) == Some(&1) {
        return refuse("is a 32-bit library, and this host has 64 bits", "build the plugin for this machine");
    }
    if bytes.get(5) == Some(&2) {
        return refuse("is a big-endian library, and this host is little-endian", "build the plugin for this machine");
    }
    let header = match FileHeader64::<LittleEndian>::parse(bytes) {
        Ok(header) => header,
        Err(_) if bytes.len() < size_of::<FileHeader64<LittleEndian>>() => return cut_off(),
        Err(error) => return refuse(format!("is a damaged ELF file: {error}"), "build or copy it again"),
    };
    let machine = header.e_machine(LittleEndian).0;
    if machine != MACHINE.0 {
        let other = match machine {
            62 => "x86-64".to_owned(),
            183 => "AArch64".to_owned(),
            243 => "RISC-V".to_owned(),
            other => format!("machine {other}"),
        };
        return refuse(
            format!("was built for {other}, and this machine is {}", MACHINE.1),
            "build the plugin for this machine",
        );
    }
    if header.e_type(LittleEndian) != elf::ET_DYN {
        let what = if header.e_type(LittleEndian) == elf::ET_REL { "an object file" } else { "a program" };
        return refuse(format!("is {what}, not a shared library"), BUILD);
    }
    Ok(header)
}

fn cut_off<T>() -> Result<T, Refusal> {
    refuse("is cut off: the file is shorter than its headers say", "build or copy it again")
}

/// That everything the headers name lies in the file: mapping a truncated library ends in SIGBUS.
fn check_extents(header: &FileHeader64<LittleEndian>, bytes: &[u8]) -> Result<(), Refusal> {
    let len = bytes.len() as u64;
    let outside = |offset: u64, size: u64| offset.checked_add(size).is_none_or(|end| end > len);
    let (Ok(segments), Ok(sections)) =
        (header.program_headers(LittleEndian, bytes), header.section_headers(LittleEndian, bytes))
    else {
        return cut_off();
    };
    let segment_outside = segments.iter().any(|s| outside(s.p_offset(LittleEndian), s.p_filesz(LittleEndian)));
    let section_outside = sections.iter().any(|s| {
        s.sh_type(LittleEndian) != elf::SHT_NOBITS && outside(s.sh_offset(LittleEndian), s.sh_size(LittleEndian))
    });
    if segment_outside || section_outside { cut_off() } else { Ok(()) }
}

/// Type and text of each of our notes.
fn notes<'a>(header: &FileHeader64<LittleEndian>, bytes: &'a [u8]) -> Result<Vec<(u32, &'a [u8])>, Refusal> {
    let Ok(sections) = header.sections(LittleEndian, bytes) else { return Ok(Vec::new()) };
    let Some((_, section)) = sections.section_by_name(LittleEndian, NOTE_SECTION.as_bytes()) else {
        return Ok(Vec::new());
    };
    let read = || -> object::read::Result<Vec<(u32, &'a [u8])>> {
        let data = section.data(LittleEndian, bytes)?;
        let mut notes =
            NoteIterator::<FileHeader64<LittleEndian>>::new(LittleEndian, section.sh_addralign(LittleEndian), data)?;
        let mut found = Vec::new();
        while let Some(note) = notes.next()? {
            if note.name() == NOTE_NAME.as_bytes() {
                found.push((note.n_type(LittleEndian).0, note.desc()));
            }
        }
        Ok(found)
    };
    read().or_else(|error| refuse(format!("has a damaged {NOTE_SECTION} section: {error}"), "build or copy it again"))
}

fn check_note(text: &[u8]) -> Result<PluginNote, Refusal> {
    /// What a note of any version says.
    #[derive(serde::Deserialize)]
    struct Versions {
        abi_major: u32,
        #[serde(default)]
        abi_minor: u32,
        #[serde(default)]
        min_host_minor: u32,
    }
    let unreadable = |error: serde_json::Error| {
        (
            format!("has a plugin note that does not read: {error}"),
            "rebuild the plugin with fthost-plugin-api".to_owned(),
        )
    };
    let versions: Versions = serde_json::from_slice(text).map_err(unreadable)?;
    if versions.abi_major != ABI_MAJOR {
        let help = if versions.abi_major > ABI_MAJOR {
            "update fthost"
        } else {
            "rebuild the plugin with this host's fthost-plugin-api"
        };
        return refuse(
            format!(
                "was built for fthost ABI {}.{}, this host has {ABI_MAJOR}.{ABI_MINOR}",
                versions.abi_major, versions.abi_minor
            ),
            help,
        );
    }
    if versions.min_host_minor > ABI_MINOR {
        return refuse(
            format!("needs fthost ABI {ABI_MAJOR}.{}, this host has {ABI_MAJOR}.{ABI_MINOR}", versions.min_host_minor),
            "update fthost",
        );
    }
    let note: PluginNote = serde_json::from_slice(text).map_err(unreadable)?;
    let missing: Vec<&str> = note.ops.iter().map(String::as_str).filter(|op| ops::resolve(op).is_none()).collect();
    if !missing.is_empty() {
        let plural = if missing.len() == 1 { "" } else { "s" };
        return refuse(
            format!("needs the op{plural} {}, which this host does not have", missing.join(", ")),
            "update fthost",
        );
    }
    if note.panic != "unwind" {
        return refuse(
            format!("was built with panic = {:?}: a panic in it would end this process", note.panic),
            "remove `panic` from the plugin's Cargo profile",
        );
    }
    Ok(note)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::os::unix::fs::PermissionsExt;

    use serde_json::{Value, json};

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

    /// A shared library with nothing but a section of notes: header, notes, section names, section headers.
    fn library(notes: &[u8]) -> Vec<u8> {
        let names = format!("\0{NOTE_SECTION}\0.shstrtab\0");
        let mut bytes = vec![0; HEADER];
        bytes.extend(notes);
        let names_at = bytes.len();
        bytes.extend(names.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let sections_at = bytes.len();
        let mut section = |name: usize, kind: u32, at: usize, size: usize| {
            let mut header = Vec::new();
            header.extend((name as u32).to_le_bytes());
            header.extend(kind.to_le_bytes());
            // flags, address, offset, size, link and info, alignment, entry size
            for word in [0, 0, at as u64, size as u64, 0, 4, 0] {
                header.extend(word.to_le_bytes());
            }
            bytes.extend(header);
        };
        section(0, 0, 0, 0);
        section(1, 7, HEADER, notes.len());
        section(NOTE_SECTION.len() + 2, 3, names_at, names.len());
        bytes[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(16, &3u16.to_le_bytes()); // a shared library
        put(18, &MACHINE.0.to_le_bytes());
        put(20, &1u32.to_le_bytes());
        put(40, &(sections_at as u64).to_le_bytes());
        put(52, &64u16.to_le_bytes());
        put(54, &56u16.to_le_bytes());
        put(58, &64u16.to_le_bytes());
        put(60, &3u16.to_le_bytes());
        put(62, &2u16.to_le_bytes());
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
        let (note, methods) = read(&plugin(|_| {})).unwrap();
        assert_eq!((note.name.as_str(), methods[0].name.as_str()), ("lora", "lora"));
    }

    #[test]
    fn what_is_no_plugin_of_this_host_is_refused_with_a_reason() {
        let check = |bytes: &[u8], expected: &str| {
            let (message, _) = read(bytes).unwrap_err();
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
        check(
            &plugin(|note| note["abi_major"] = json!(ABI_MAJOR + 1)),
            "was built for fthost ABI 2.0, this host has 1.",
        );
        check(&plugin(|note| note["min_host_minor"] = json!(ABI_MINOR + 7)), "needs fthost ABI 1.7, this host has 1.0");
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
    }

    #[test]
    fn the_list_of_digests_is_kept() {
        let digest = hexadecimal(&Sha256::digest(b"plugin"));
        assert!(check_allowed(&digest, None).is_ok());
        assert!(check_allowed(&digest, Some(&format!("abc, {}", digest.to_uppercase()))).is_ok());
        assert!(check_allowed(&digest, Some("abc")).unwrap_err().0.contains("which is not in FTHOST_PLUGIN_SHA256"));
        assert!(check_allowed(&digest, Some("")).is_err());
    }
}
