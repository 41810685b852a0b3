//! What compilers make of the header: C99 and C++11 without a warning, the sizes that Rust has, and notes that a linker keeps.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use fthost_plugin_api::abi::calls::{Evaluation, Group, HeadCall, HookCall, LogRecord, OpCall, Progress, Rate};
use fthost_plugin_api::abi::tables::{
    BaseVtable, HookVtable, HostApi, Instance, NOTE_METHOD, NOTE_PLUGIN, NOTE_SECTION, PluginApi, RegularizerVtable,
    SchedulerVtable, Slice, SliceMut, Str, StrategyVtable, TaskHeadVtable, TextSink,
};
use object::elf::{FileHeader64, SHT_NOTE};
use object::read::elf::{FileHeader, NoteIterator, SectionHeader};
use object::{LittleEndian as Little, elf};

use crate::{generated, root};

/// A compiler, and the language that it is asked for.
struct Compiler {
    program: &'static str,
    standard: &'static str,
    extension: &'static str,
}

const COMPILERS: [Compiler; 4] = [
    Compiler { program: "cc", standard: "-std=c99", extension: "c" },
    Compiler { program: "c++", standard: "-std=c++11", extension: "cpp" },
    Compiler { program: "clang", standard: "-std=c99", extension: "c" },
    Compiler { program: "clang++", standard: "-std=c++11", extension: "cpp" },
];

/// A folder for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let folder = env::temp_dir().join(format!("fthost-header-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Compiler {
    /// Compiles a text without a warning; `false` where there is no such compiler.
    fn compile(&self, folder: &Path, text: &str, arguments: &[&str]) -> bool {
        let file = folder.join("source").with_extension(self.extension);
        fs::write(&file, text).unwrap();
        let mut command = Command::new(self.program);
        command.args([self.standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]).arg(root().join("include"));
        let output = match command.arg(&file).args(arguments).current_dir(folder).output() {
            Ok(output) => output,
            Err(error) => {
                eprintln!("skipped: no {} here ({error})", self.program);
                return false;
            }
        };
        assert!(
            output.status.success(),
            "{} {}: {}",
            self.program,
            self.standard,
            String::from_utf8_lossy(&output.stderr)
        );
        true
    }
}

#[test]
fn c99_and_cpp11_take_each_header_alone() {
    let folder = Folder::new("alone");
    for (file, _) in generated() {
        let Some(header) = file.strip_prefix("include/") else { continue };
        for compiler in COMPILERS {
            compiler.compile(&folder.0, &format!("#include \"{header}\"\n"), &["-fsyntax-only"]);
        }
    }
}

/// Sizes in C are those in Rust, and a field is there where its table reaches it.
#[test]
fn sizes_are_those_of_rust_and_fields_are_found_by_them() {
    macro_rules! sizes {
        ($($type:ty: $name:literal),+ $(,)?) => { [$(($name, size_of::<$type>())),+] };
    }
    let sizes = sizes! {
        HostApi: "HostApi", PluginApi: "PluginApi", BaseVtable: "BaseVtable", StrategyVtable: "StrategyVtable",
        SchedulerVtable: "SchedulerVtable", RegularizerVtable: "RegularizerVtable", TaskHeadVtable: "TaskHeadVtable",
        HookVtable: "HookVtable", Instance: "Instance", OpCall: "OpCall", LogRecord: "LogRecord", HookCall: "HookCall",
        HeadCall: "HeadCall", Progress: "Progress", Group: "Group", Rate: "Rate", Evaluation: "Evaluation", Str: "Str",
        TextSink: "TextSink", Slice<u64>: "SliceU64", SliceMut<i64>: "SliceMutI64",
    };
    let mut text = "#include \"fthost_plugin.h\"\n".to_owned();
    for (name, size) in sizes {
        // Tests may have been built with longer tables, of which C knows nothing.
        let longer = if cfg!(feature = "longer-tables") { 16 } else { 0 };
        let size = if size > 40 && name != "BaseVtable" { size - longer } else { size };
        writeln!(text, "typedef char size_of_{name}[sizeof(Ft{name}) == {size} ? 1 : -1];").unwrap();
    }
    text += "int main(void) {\n  FtRate rate = {16, 0, 0.0, 0.0};\n  if (!FTHOST_HAS(&rate, lr) || FTHOST_HAS(&rate, momentum)) return 1;\n  \
             rate.struct_size = 23;\n  if (FTHOST_HAS(&rate, momentum)) return 2;\n  rate.struct_size = 24;\n  \
             return FTHOST_HAS(&rate, momentum) ? 0 : 3;\n}\n";
    let folder = Folder::new("sizes");
    for compiler in COMPILERS {
        if compiler.compile(&folder.0, &text, &["-o", "program"]) {
            let status = Command::new(folder.0.join("program")).status().unwrap();
            assert!(status.success(), "{}: {status}", compiler.program);
        }
    }
}

/// Types and texts of the notes in a library.
fn notes(library: &Path) -> Vec<(u32, String)> {
    let bytes = fs::read(library).unwrap();
    let header = FileHeader64::<Little>::parse(bytes.as_slice()).unwrap();
    let sections = header.sections(Little, bytes.as_slice()).unwrap();
    let (_, section) = sections.section_by_name(Little, NOTE_SECTION.as_bytes()).expect("the linker keeps the section");
    assert_eq!((section.sh_type(Little), section.sh_addralign(Little)), (SHT_NOTE, 4));
    let data = section.data(Little, bytes.as_slice()).unwrap();
    let mut all = NoteIterator::<elf::FileHeader64<Little>>::new(Little, 4, data).unwrap();
    let mut found = Vec::new();
    while let Some(note) = all.next().unwrap() {
        if note.name() == b"fthost" {
            found.push((note.n_type(Little).0, String::from_utf8(note.desc().to_vec()).unwrap()));
        }
    }
    found.sort();
    found
}

/// Texts of four lengths in a row: each ends in another way.
#[test]
fn notes_are_well_formed_and_survive_what_shrinks_a_library() {
    let texts = ["{}", "{\"a\": 1}", "{\"b\": 22}", "{\"c\": 333}", "{\"d\": 4444}"];
    let mut text = format!("#include \"fthost_plugin.h\"\n\nFTHOST_PLUGIN_NOTE({:?});\n", texts[0]);
    for json in &texts[1..] {
        // Two literals, as authors put names in.
        let (start, end) = json.split_at(3);
        writeln!(text, "FTHOST_METHOD_NOTE({start:?} {end:?});").unwrap();
    }
    text += "FtStatus fthost_plugin_entry_v1(const FtHostApi *host, const FtPluginApi **out) {\n  \
             (void)host;\n  *out = NULL;\n  return FT_FAILED;\n}\n";
    let mut expected: Vec<_> = texts.map(|json| (NOTE_METHOD, json.to_owned())).to_vec();
    expected[0].0 = NOTE_PLUGIN;
    expected.sort();
    let shrinking = ["-O2", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"];
    let folder = Folder::new("notes");
    let library = folder.0.join("library.so");
    for compiler in COMPILERS {
        for more in [vec![], shrinking.to_vec(), [&shrinking[..], &["-flto"]].concat()] {
            let arguments = [&["-shared", "-fPIC", "-o", "library.so"], more.as_slice()].concat();
            if !compiler.compile(&folder.0, &text, &arguments) {
                break;
            }
            assert_eq!(notes(&library), expected, "{} {more:?}", compiler.program);
            match Command::new("strip").arg("-s").arg(&library).status() {
                Ok(status) => assert!(status.success()),
                Err(error) => eprintln!("skipped: no strip here ({error})"),
            }
            assert_eq!(notes(&library), expected, "{} {more:?}, stripped", compiler.program);
        }
    }
}
