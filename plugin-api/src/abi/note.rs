//! ELF notes: what a host reads from a plugin's file before any of its code runs.
//!
//! The section [`NOTE_SECTION`](super::tables::NOTE_SECTION) holds one note for the plugin and one for each method, each
//! JSON, all built at compile time. Notes survive `strip` and linkers keep them without being asked.

use super::tables::{ABI_MAJOR, ABI_MINOR, NOTE_METHOD, NOTE_PLUGIN};
use crate::{info::MethodKind, ops};

/// Owner name with its end, padded to four bytes.
const OWNER: [u8; 8] = *b"fthost\0\0";
/// Bytes of the owner name that count: the text and one zero.
const OWNER_LEN: u32 = 7;

/// One note as it stands in the file. The alignment pads the text to four bytes.
#[repr(C, align(4))]
#[derive(Debug)]
pub struct Note<const LEN: usize> {
    owner_len: u32,
    text_len: u32,
    note_type: u32,
    owner: [u8; 8],
    text: [u8; LEN],
}

impl<const LEN: usize> Note<LEN> {
    const fn new(note_type: u32, json: Json<LEN>) -> Self {
        Self { owner_len: OWNER_LEN, text_len: LEN as u32, note_type, owner: OWNER, text: json.text }
    }
}

/// What the note about a plugin is made of.
#[derive(Clone, Copy, Debug)]
pub struct PluginFacts {
    /// The library's name.
    pub name: &'static str,
    /// Its crate's version.
    pub version: &'static str,
    /// SPDX expression.
    pub license: &'static str,
    /// Ops it needs.
    pub ops: &'static [&'static str],
    /// The least host minor that it can do with.
    pub min_host_minor: u32,
}

impl PluginFacts {
    /// Length of the note's text. An op that this crate does not know stops the build.
    pub const fn text_len(&self) -> usize {
        let mut at = 0;
        while at < self.ops.len() {
            ops::index(self.ops[at]);
            at += 1;
        }
        self.json::<0>().len
    }

    /// The note.
    pub const fn note<const LEN: usize>(&self) -> Note<LEN> {
        Note::new(NOTE_PLUGIN, self.json())
    }

    const fn json<const LEN: usize>(&self) -> Json<LEN> {
        let mut json = Json::new().raw("{\"abi_major\":").number(ABI_MAJOR).raw(",\"abi_minor\":").number(ABI_MINOR);
        json = json.raw(",\"min_host_minor\":").number(self.min_host_minor);
        json = json.raw(",\"name\":").quoted(self.name).raw(",\"version\":").quoted(self.version);
        json = json.raw(",\"license\":").quoted(self.license).raw(",\"panic\":\"unwind\",\"compiler\":");
        json = json.quoted(env!("FTHOST_COMPILER")).raw(",\"ops\":[");
        let mut at = 0;
        while at < self.ops.len() {
            json = json.raw(if at == 0 { "" } else { "," }).quoted(self.ops[at]);
            at += 1;
        }
        json.raw("]}")
    }
}

/// What the note about a method is made of.
#[derive(Clone, Copy, Debug)]
pub struct MethodFacts {
    /// What it is.
    pub kind: MethodKind,
    /// Its name in run files.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Which of Hugging Face's folders it opens; empty for none.
    pub serves: &'static str,
}

impl MethodFacts {
    /// Length of the note's text.
    pub const fn text_len(&self) -> usize {
        self.json::<0>().len
    }

    /// The note.
    pub const fn note<const LEN: usize>(&self) -> Note<LEN> {
        Note::new(NOTE_METHOD, self.json())
    }

    const fn json<const LEN: usize>(&self) -> Json<LEN> {
        let json = Json::new().raw("{\"kind\":").quoted(self.kind.as_str()).raw(",\"name\":").quoted(self.name);
        json.raw(",\"summary\":").quoted(self.summary).raw(",\"serves\":").quoted(self.serves).raw("}")
    }
}

/// The first line of a doc comment, without the blank at its start.
pub const fn first_line(text: &str) -> &str {
    let text = text.trim_ascii();
    let mut end = 0;
    while end < text.len() && text.as_bytes()[end] != b'\n' {
        end += 1;
    }
    // What `text.split_at(end)` gives; not const in Rust 1.85.
    let (line, _) = text.as_bytes().split_at(end);
    match std::str::from_utf8(line) {
        Ok(line) => line.trim_ascii(),
        Err(_) => "",
    }
}

/// JSON under construction at compile time: counts all, keeps the first `LEN` bytes. So `Json<0>` measures.
struct Json<const LEN: usize> {
    text: [u8; LEN],
    len: usize,
}

impl<const LEN: usize> Json<LEN> {
    const fn new() -> Self {
        Self { text: [0; LEN], len: 0 }
    }

    const fn byte(mut self, byte: u8) -> Self {
        if self.len < LEN {
            self.text[self.len] = byte;
        }
        self.len += 1;
        self
    }

    const fn raw(mut self, text: &str) -> Self {
        let mut at = 0;
        while at < text.len() {
            self = self.byte(text.as_bytes()[at]);
            at += 1;
        }
        self
    }

    const fn quoted(mut self, text: &str) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        self = self.byte(b'"');
        let mut at = 0;
        while at < text.len() {
            let byte = text.as_bytes()[at];
            self = match byte {
                b'"' | b'\\' => self.byte(b'\\').byte(byte),
                0..0x20 => self.raw("\\u00").byte(HEX[(byte >> 4) as usize]).byte(HEX[(byte & 15) as usize]),
                _ => self.byte(byte),
            };
            at += 1;
        }
        self.byte(b'"')
    }

    const fn number(mut self, number: u32) -> Self {
        if number >= 10 {
            self = self.number(number / 10);
        }
        self.byte(b'0' + (number % 10) as u8)
    }
}
