//! How the labels of words spell entities, and the same in IOB2.
//!
//! - **IOB2**: `B-X` begins every entity, `I-X` goes on in it.
//! - **IOB1**: `I-X` begins one too; `B-X` only where one of the same type ends just before (Ramshaw and Marcus 1995, arXiv:cmp-lg/9505040).
//! - **BIOES** and **BILOU**: its last word has E or L, a single word S or U (Ratinov and Roth 2009).

use std::fmt;

/// A way to spell entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Iob1,
    Iob2,
    Bioes,
    Bilou,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iob1 => "IOB1",
            Self::Iob2 => "IOB2",
            Self::Bioes => "BIOES",
            Self::Bilou => "BILOU",
        })
    }
}

/// What a label says: its letter and the type of its entity; `O` has none. `None` where it spells no entity.
pub(super) fn tag(label: &str) -> Option<(u8, &str)> {
    if label == "O" {
        return Some((b'O', ""));
    }
    let (letter, kind) = label.split_once('-')?;
    match letter.as_bytes() {
        &[letter @ (b'B' | b'I' | b'E' | b'S' | b'L' | b'U')] if !kind.is_empty() => Some((letter, kind)),
        _ => None,
    }
}

/// What the labels of a file have shown so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// A label that spells no entity.
    other: bool,
    /// Letters that occur.
    letters: [bool; 26],
    /// An entity that `I` begins.
    begun_by_i: bool,
    /// A `B` that IOB1 would not write.
    unneeded_b: bool,
}

impl Seen {
    /// Takes the labels of a sentence.
    pub(super) fn add(&mut self, labels: &[String]) {
        let mut last = (b'O', "");
        for label in labels {
            let Some(tag) = tag(label) else {
                self.other = true;
                continue;
            };
            self.letters[usize::from(tag.0 - b'A')] = true;
            let goes_on = last.0 != b'O' && last.1 == tag.1;
            self.begun_by_i |= tag.0 == b'I' && !goes_on;
            self.unneeded_b |= tag.0 == b'B' && !goes_on;
            last = tag;
        }
    }

    fn has(&self, letters: &[u8]) -> bool {
        letters.iter().any(|letter| self.letters[usize::from(letter - b'A')])
    }

    /// The scheme, where the labels spell entities.
    pub(super) fn scheme(&self) -> Option<Scheme> {
        match (self.has(b"LU"), self.has(b"ES")) {
            _ if self.other || !self.has(b"BIESLU") => None,
            (true, true) => None,
            (true, false) => Some(Scheme::Bilou),
            (false, true) => Some(Scheme::Bioes),
            (false, false) if self.begun_by_i && !self.unneeded_b => Some(Scheme::Iob1),
            (false, false) => Some(Scheme::Iob2),
        }
    }
}

impl Scheme {
    /// Rewrites the labels of a sentence in IOB2.
    pub(super) fn to_iob2(self, labels: &mut [String]) {
        if self == Self::Iob2 {
            return;
        }
        let mut last = String::new();
        for label in labels {
            let Some((letter, kind)) = tag(label) else { continue };
            let kind = kind.to_owned();
            let letter = match (self, letter) {
                (_, b'O') => {
                    last.clear();
                    continue;
                }
                (Self::Iob1, b'I') if last != kind => "B",
                (_, b'S' | b'U') => "B",
                (_, b'E' | b'L') => "I",
                (_, b'B') => "B",
                (_, _) => "I",
            };
            *label = format!("{letter}-{kind}");
            last = kind;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[track_caller]
    fn check(sentences: &[&str], scheme: Option<Scheme>, expected: &[&str]) {
        let split = |text: &&str| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
        let mut seen = Seen::default();
        sentences.iter().for_each(|sentence| seen.add(&split(sentence)));
        assert_eq!(seen.scheme(), scheme);
        for (sentence, expected) in sentences.iter().zip(expected) {
            let mut labels = split(sentence);
            scheme.unwrap().to_iob2(&mut labels);
            assert_eq!(labels, split(expected));
        }
    }

    #[test]
    fn schemes_are_told_apart_and_become_iob2() {
        let same = ["B-X I-X O B-X B-X", "B-Y O"];
        check(&same, Some(Scheme::Iob2), &same);
        check(&["I-X I-X O I-Y B-Y I-X", "I-Y"], Some(Scheme::Iob1), &["B-X I-X O B-Y B-Y B-X", "B-Y"]);
        check(&["B-X I-X E-X O S-X S-Y"], Some(Scheme::Bioes), &["B-X I-X I-X O B-X B-Y"]);
        check(&["B-X L-X O", "U-Y-Z"], Some(Scheme::Bilou), &["B-X I-X O", "B-Y-Z"]);
        // An error of annotation does not make IOB1 of it.
        check(&["B-X I-X O I-X"], Some(Scheme::Iob2), &["B-X I-X O I-X"]);
        for none in ["O O", "DT NN", "O B-X NN", "E-X L-X", "B- O", "X-Y"] {
            check(&[none], None, &[]);
        }
    }
}
