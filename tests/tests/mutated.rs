//! Files that were changed at random in every part of them: none ends the host, keeps it, or has its code run before its notes are accepted.
//!
//! `FTHOST_MUTATED` says how many are made of each library, and `FTHOST_MUTATED_FROM` with which number they begin. Each follows from its number
//! alone: a finding is repeated by these two.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fthost_tests::{Outcome, Workdir, on_one_line, root, skipped};
use object::{Object, ObjectSection, ObjectSegment};

use crate::c_plugin::compile_traced;

/// What is changed.
const FAMILIES: [&str; 9] = [
    "ELF header",
    "program headers",
    "section headers",
    "dynamic section",
    "notes",
    "symbols, relocations and versions",
    "code and data",
    "end of the file",
    "anything",
];
/// Made of each library where nobody says how many.
const FEW: u64 = 180;
/// A file that has not been refused after this time, by a trial of two seconds, hangs.
const HANGS: Duration = Duration::from_secs(30);

/// Numbers that follow from a number (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// A library, and where its parts lie.
struct Library {
    bytes: Vec<u8>,
    /// The bytes of each of the first seven families.
    parts: Vec<Vec<Range<usize>>>,
}

impl Library {
    fn new(bytes: Vec<u8>) -> Self {
        let number = |at: usize, size: usize| {
            bytes[at..at + size].iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
        };
        let (programs, sections) = (number(32, 8), number(40, 8));
        let file = object::File::parse(&*bytes).unwrap();
        let named = |names: &[&str]| {
            let of = file.sections().filter(|section| section.name().is_ok_and(|name| names.contains(&name)));
            of.filter_map(|section| section.file_range()).map(|(at, size)| at as usize..(at + size) as usize).collect()
        };
        let loaded = file.segments().map(|segment| segment.file_range());
        let parts = vec![
            vec![0..64],
            vec![programs..programs + number(54, 2) * number(56, 2)],
            vec![sections..sections + number(58, 2) * number(60, 2)],
            named(&[".dynamic"]),
            named(&[".note.fthost"]),
            named(&[
                ".dynsym",
                ".dynstr",
                ".hash",
                ".gnu.hash",
                ".gnu.version",
                ".gnu.version_r",
                ".rela.dyn",
                ".rela.plt",
                ".relr.dyn",
                ".init_array",
                ".fini_array",
            ]),
            loaded.map(|(at, size)| at as usize..(at + size) as usize).collect(),
        ];
        assert!(parts.iter().all(|part| part.iter().any(|range| !range.is_empty())), "the library has all parts");
        Self { bytes, parts }
    }

    /// The file of a number, and its family.
    fn mutated(&self, number: u64) -> (&'static str, Vec<u8>) {
        let family = (number % FAMILIES.len() as u64) as usize;
        let mut numbers = Numbers(number);
        let mut bytes = self.bytes.clone();
        match self.parts.get(family) {
            Some(ranges) => (0..=numbers.below(3)).for_each(|_| change(&mut bytes, ranges, &mut numbers)),
            None if FAMILIES[family] == "end of the file" => bytes.truncate(numbers.below(self.bytes.len())),
            None => {
                let from = if numbers.below(4) == 0 { 0 } else { numbers.below(bytes.len()) };
                let size = 1 + numbers.below(4096);
                bytes[from..].iter_mut().take(size).for_each(|byte| *byte = numbers.next() as u8);
            }
        }
        (FAMILIES[family], bytes)
    }
}

/// Changes one place: a bit, a byte, or a word to what a word should not be.
fn change(bytes: &mut [u8], ranges: &[Range<usize>], numbers: &mut Numbers) {
    let ranges: Vec<&Range<usize>> = ranges.iter().filter(|range| !range.is_empty()).collect();
    let range = ranges[numbers.below(ranges.len())];
    let at = range.start + numbers.below(range.len());
    let whole = bytes.len() as u64;
    match numbers.below(4) {
        0 => bytes[at] ^= 1 << numbers.below(8),
        1 => bytes[at] = numbers.next() as u8,
        kind => {
            let size = if kind == 2 { 4 } else { 8 };
            let at = at / size * size;
            let words = [0, 1, whole, whole - 1, 0x7fff_ffff, u64::from(u32::MAX), u64::MAX, 1 << 47, numbers.next()];
            let word = words[numbers.below(words.len())].to_le_bytes();
            bytes[at..].iter_mut().zip(&word[..size]).for_each(|(byte, new)| *byte = *new);
        }
    }
}

/// Runs the host on a file, `None` where it does not come back.
fn inspected(workdir: &Workdir, cache: &Path) -> Option<Outcome> {
    let mut command = workdir.command(["inspect", "./plugin.so"]);
    command.env("FTHOST_CACHE", cache).env("FTHOST_TRACE", workdir.path().join("trace"));
    command.stdin(Stdio::null());
    // The system's own, so that what does not come back is ended.
    let mut timed = Command::new("timeout");
    timed.args(["--signal=KILL", &HANGS.as_secs().to_string()]).arg(command.get_program()).args(command.get_args());
    timed.current_dir(workdir.path());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => timed.env(name, value),
            None => timed.env_remove(name),
        };
    }
    let began = Instant::now();
    let outcome = workdir.run(timed);
    (began.elapsed() < HANGS).then_some(outcome)
}

/// What is wrong with how the host took a file.
fn fault(outcome: Option<&Outcome>, ran: bool) -> Option<String> {
    /// How errors read that come after notes are accepted, when code of the file may have run.
    const LATER: [&str; 5] = [
        "cannot be loaded",
        "refused to connect",
        "cannot say what it holds",
        "is not what its notes say",
        "fails to say",
    ];
    let Some(Outcome { code, stdout, stderr }) = outcome else { return Some("the host did not come back".into()) };
    let words = on_one_line(stderr);
    match code {
        Some(0) if !stdout.is_empty() => None,
        Some(1) if !words.contains("./plugin.so ") => Some(format!("the error does not name the file: {stderr}")),
        Some(1) if ran && !LATER.iter().any(|text| words.contains(text)) => {
            Some(format!("its code ran, and then it was refused: {stderr}"))
        }
        Some(1) => None,
        other => Some(format!("the host ended with {other:?}: {stderr}")),
    }
}

/// Takes a library apart, and its mutated files through the host.
fn all_are_taken(name: &str, bytes: Vec<u8>) {
    let number = |variable: &str, default: u64| {
        std::env::var(variable).map_or(default, |text| text.parse().expect("a number of files"))
    };
    let library = Library::new(bytes);
    let (workdir, cache) = (Workdir::new(), Workdir::new());
    let trace = workdir.path().join("trace");
    let (mut faults, mut slowest) = (Vec::new(), Duration::ZERO);
    // By family: opened, refused before any code ran, refused later.
    let mut counts: BTreeMap<&str, [u32; 3]> = BTreeMap::new();
    let from = number("FTHOST_MUTATED_FROM", 0);
    for number in from..from + number("FTHOST_MUTATED", FEW) {
        let (family, bytes) = library.mutated(number);
        workdir.write("plugin.so", bytes);
        let _ = fs::remove_file(&trace);
        let began = Instant::now();
        let outcome = inspected(&workdir, cache.path());
        slowest = slowest.max(began.elapsed());
        let ran = trace.exists();
        faults.extend(fault(outcome.as_ref(), ran).map(|fault| format!("{name} {number} ({family}): {fault}")));
        let opened = outcome.is_some_and(|outcome| outcome.code == Some(0));
        counts.entry(family).or_default()[if opened { 0 } else { 1 + usize::from(ran) }] += 1;
    }
    eprintln!("{name}: slowest {slowest:.2?}; opened, refused before any code ran, refused later");
    counts.iter().for_each(|(family, counts)| eprintln!("  {family}: {counts:?}"));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_plugin_in_c() {
    let workdir = Workdir::new();
    match compile_traced(workdir.path()) {
        Some(library) => all_are_taken("C", fs::read(library).unwrap()),
        None => skipped("no C compiler"),
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_plugin_in_rust() {
    all_are_taken("Rust", fs::read(root().join("tests/golden/1.0/libcosine.so")).unwrap());
}
