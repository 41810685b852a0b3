//! The rows of a data set: token ids and what is known of each row, in memory while they are few, on disk beyond.
//!
//! Of a row on disk nothing stays in memory. Its record has a fixed size, so its place follows from its number, and
//! says where its tokens lie.

use super::bytes::{Bytes, Limits, Writer};
use super::extra::Extra;
use crate::{Error, Result};

/// What a token that stands for nothing is marked with: no word begins there, or nothing is learned there.
pub const UNCOUNTED: u32 = u32::MAX;

/// What is known of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Record {
    /// Where its token ids begin, and after them its segments and its marks, in bytes.
    start: u64,
    /// Whether it has segments: where they are all zero they are not stored.
    has_segments: bool,
    /// Whether its tokens have marks.
    has_marks: bool,
    /// Its tokens, or what an image counts as.
    pub(super) tokens: u32,
    /// Its words where its text is a list of them, and its tokens have marks; 0 elsewhere.
    pub(super) words: u32,
    /// The tokens of its first sequence where it has several; 0 elsewhere.
    pub(super) first: u32,
    /// Those of its second where it has three; 0 elsewhere.
    pub(super) second: u32,
    /// Its line in the file; `None` where there is no file.
    pub(super) line: Option<u64>,
    /// Whether tokens were cut off.
    pub(super) truncated: bool,
    /// Whether its text has no character.
    pub(super) empty: bool,
    /// The number of its label, or [`UNNUMBERED`](super::distinct::UNNUMBERED).
    pub(super) label: u32,
    /// Its label as a value; not a number where it is none.
    pub(super) value: f32,
    /// How many of its words are cut off.
    pub(super) cut: u32,
    /// Bytes of what it has besides.
    extra: u32,
}

impl Record {
    const BYTES: usize = 49;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let flags = [self.has_segments, self.truncated, self.empty, self.has_marks];
        let flags = flags.iter().rev().fold(0, |bits, &flag| bits << 1 | u8::from(flag));
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.line.unwrap_or(0).to_le_bytes()); // lines count from 1
        bytes[16..20].copy_from_slice(&self.tokens.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.label.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.value.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.words.to_le_bytes());
        bytes[32] = flags;
        bytes[33..37].copy_from_slice(&self.cut.to_le_bytes());
        bytes[37..41].copy_from_slice(&self.extra.to_le_bytes());
        bytes[41..45].copy_from_slice(&self.first.to_le_bytes());
        bytes[45..49].copy_from_slice(&self.second.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let eight =
            |at: usize| u64::from(u32::from_le_bytes(four(at + 4))) << 32 | u64::from(u32::from_le_bytes(four(at)));
        Self {
            start: eight(0),
            has_segments: bytes[32] & 1 != 0,
            has_marks: bytes[32] & 8 != 0,
            tokens: u32::from_le_bytes(four(16)),
            words: u32::from_le_bytes(four(28)),
            line: Some(eight(8)).filter(|&line| line > 0),
            truncated: bytes[32] & 2 != 0,
            empty: bytes[32] & 4 != 0,
            label: u32::from_le_bytes(four(20)),
            value: f32::from_le_bytes(four(24)),
            cut: u32::from_le_bytes(four(33)),
            extra: u32::from_le_bytes(four(37)),
            first: u32::from_le_bytes(four(41)),
            second: u32::from_le_bytes(four(45)),
        }
    }
}

/// What is new in a row that is written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NewRow<'a> {
    /// Token ids; none of an image.
    pub(super) ids: &'a [u32],
    /// The segment of each token.
    pub(super) segments: &'a [u32],
    /// Of a text of words, the number of each token's label, or where labels are not read the place of its word; [`UNCOUNTED`]
    /// where no word begins. For a language model the number of each token's word, and [`UNCOUNTED`] where it is not to be said. None of
    /// other texts.
    pub(super) marks: &'a [u32],
    /// As in [`Record`].
    pub(super) words: usize,
    /// As in [`Record`].
    pub(super) first: usize,
    /// As in [`Record`].
    pub(super) second: usize,
    /// What the row counts as.
    pub(super) tokens: usize,
    /// As in [`Record`].
    pub(super) line: Option<u64>,
    /// As in [`Record`].
    pub(super) truncated: bool,
    /// As in [`Record`].
    pub(super) empty: bool,
    /// As in [`Record`].
    pub(super) label: u32,
    /// As in [`Record`].
    pub(super) value: f32,
    /// As in [`Record`].
    pub(super) cut: usize,
    /// What it has besides, as [`Extra`] writes it.
    pub(super) extra: &'a [u8],
}

/// Writes a [`Store`], row by row.
#[derive(Debug)]
pub(super) struct StoreWriter {
    limits: Limits,
    tokens: Writer,
    records: Writer,
    id_bytes: usize,
    rows: u32,
    scratch: Vec<u8>,
}

impl StoreWriter {
    /// A writer of token ids below `vocabulary`; of 0, where rows have no ids though they count as tokens.
    pub(super) fn new(vocabulary: usize, limits: Limits) -> Self {
        let id_bytes = match vocabulary {
            0 => 0,
            1..=0x1_0000 => 2,
            _ => 4,
        };
        Self { limits, tokens: Writer::default(), records: Writer::default(), id_bytes, rows: 0, scratch: Vec::new() }
    }

    /// Writes the next row. Rows are numbered by `u32`.
    pub(super) fn push(&mut self, row: &NewRow<'_>) -> Result<Record> {
        let has_segments = row.segments.iter().any(|&segment| segment != 0);
        let record = Record {
            start: self.tokens.len(),
            has_segments,
            has_marks: !row.marks.is_empty(),
            tokens: row.tokens as u32,
            words: row.words as u32,
            first: row.first as u32,
            second: row.second as u32,
            line: row.line,
            truncated: row.truncated,
            empty: row.empty,
            label: row.label,
            value: row.value,
            cut: row.cut as u32,
            extra: row.extra.len() as u32,
        };
        self.scratch.clear();
        if self.id_bytes == 4 {
            self.scratch.extend(row.ids.iter().flat_map(|id| id.to_le_bytes()));
        } else {
            self.scratch.extend(row.ids.iter().flat_map(|&id| (id as u16).to_le_bytes()));
        }
        if has_segments {
            self.scratch.extend(row.segments.iter().map(|&segment| segment as u8));
        }
        self.scratch.extend(row.marks.iter().flat_map(|mark| mark.to_le_bytes()));
        self.scratch.extend(row.extra);
        self.tokens.push(&self.scratch)?;
        self.records.push(&record.to_bytes())?;
        let one_more = self.rows.checked_add(1);
        self.rows = one_more.ok_or_else(|| Error::usage(format!("a data set has at most {} rows", u32::MAX)))?;
        if self.tokens.in_memory() + self.records.in_memory() > self.limits.memory {
            self.tokens.spill(&self.limits.folder)?;
            self.records.spill(&self.limits.folder)?;
        }
        Ok(record)
    }

    /// Ends the writing.
    pub(super) fn finish(self) -> Result<Store> {
        Ok(Store {
            tokens: self.tokens.finish()?,
            records: self.records.finish()?,
            id_bytes: self.id_bytes,
            rows: self.rows,
        })
    }
}

/// Rows that are complete. Any number of threads may read them.
#[derive(Debug)]
pub(super) struct Store {
    tokens: Bytes,
    records: Bytes,
    /// Bytes of a token id: two or four, none of pictures.
    id_bytes: usize,
    rows: u32,
}

impl Store {
    /// Number of rows.
    pub(super) fn len(&self) -> u32 {
        self.rows
    }

    /// Bytes in memory.
    pub(super) fn in_memory(&self) -> usize {
        self.tokens.in_memory() + self.records.in_memory()
    }

    /// What is known of a row.
    pub(super) fn record(&self, row: u32) -> Result<Record> {
        let mut bytes = [0; Record::BYTES];
        self.records.read(u64::from(row) * Record::BYTES as u64, &mut bytes)?;
        Ok(Record::from_bytes(&bytes))
    }

    /// Visits all rows in their order.
    pub(super) fn each_record(&self, mut visit: impl FnMut(u32, &Record) -> Result<()>) -> Result<()> {
        const AT_ONCE: usize = 4096;
        let mut bytes = Vec::new();
        for first in (0..self.rows).step_by(AT_ONCE) {
            bytes.resize(AT_ONCE.min((self.rows - first) as usize) * Record::BYTES, 0);
            self.records.read(u64::from(first) * Record::BYTES as u64, &mut bytes)?;
            for (row, record) in (first..).zip(bytes.as_chunks().0) {
                visit(row, &Record::from_bytes(record))?;
            }
        }
        Ok(())
    }

    /// The mark of each of a row's tokens; none where they have none.
    pub(super) fn marks(&self, record: &Record) -> Result<Vec<u32>> {
        if !record.has_marks {
            return Ok(Vec::new());
        }
        let tokens = record.tokens as usize;
        let before = tokens * (self.id_bytes + usize::from(record.has_segments));
        let mut bytes = vec![0; tokens * 4];
        self.tokens.read(record.start + before as u64, &mut bytes)?;
        Ok(bytes.as_chunks().0.iter().map(|&mark| u32::from_le_bytes(mark)).collect())
    }

    /// What a row has besides.
    pub(super) fn extra(&self, record: &Record) -> Result<Extra> {
        if record.extra == 0 {
            return Ok(Extra::default());
        }
        let marks = if record.has_marks { 4 } else { 0 };
        let before = record.tokens as usize * (self.id_bytes + usize::from(record.has_segments) + marks);
        let mut bytes = vec![0; record.extra as usize];
        self.tokens.read(record.start + before as u64, &mut bytes)?;
        Extra::from_bytes(&bytes)
    }

    /// Appends a row's token ids and the segment of each.
    pub(super) fn append(&self, record: &Record, ids: &mut Vec<u32>, segments: &mut Vec<u32>) -> Result<()> {
        let tokens = record.tokens as usize;
        let size = self.id_bytes;
        let mut bytes = vec![0; tokens * (size + usize::from(record.has_segments))];
        self.tokens.read(record.start, &mut bytes)?;
        let (id_bytes, segment_bytes) = bytes.split_at(tokens * size);
        if size == 4 {
            ids.extend(id_bytes.as_chunks().0.iter().map(|&id| u32::from_le_bytes(id)));
        } else {
            ids.extend(id_bytes.as_chunks().0.iter().map(|&id| u32::from(u16::from_le_bytes(id))));
        }
        if record.has_segments {
            segments.extend(segment_bytes.iter().map(|&segment| u32::from(segment)));
        } else {
            segments.resize(segments.len() + tokens, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    /// Ids and segments of a row.
    type Row = (Vec<u32>, Vec<u32>);

    fn rows(vocabulary: u32) -> impl Strategy<Value = Vec<Row>> {
        let token = (0..vocabulary, prop_oneof![9 => Just(0u32), 1 => 1u32..4]);
        let row = proptest::collection::vec(token, 1..9).prop_map(|tokens| tokens.into_iter().unzip());
        proptest::collection::vec(row, 1..60)
    }

    /// The marks of the `i`th row's tokens: every other row is a list of words.
    fn marks(i: usize, tokens: usize) -> Vec<u32> {
        let mark = |place: usize| if place.is_multiple_of(2) { UNCOUNTED } else { (i * 7 + place) as u32 };
        (0..tokens).map(mark).take(if i % 2 == 1 { tokens } else { 0 }).collect()
    }

    /// The `i`th row of a store, apart from its tokens.
    fn new_row<'a>(i: usize, (ids, segments): &'a Row, marks: &'a [u32]) -> NewRow<'a> {
        let line = (!i.is_multiple_of(5)).then_some((i as u64) << 33 | 1);
        let value = if i.is_multiple_of(3) { f32::NAN } else { i as f32 / 7.0 };
        let (truncated, empty) = (i.is_multiple_of(2), i.is_multiple_of(7));
        let (tokens, words, label) = (ids.len(), marks.len() * 3, i as u32 ^ 0x8000_0001);
        let (cut, first, second) = (i * 3, i * 5, i * 7);
        NewRow {
            ids,
            segments,
            marks,
            words,
            first,
            second,
            tokens,
            line,
            truncated,
            empty,
            label,
            value,
            cut,
            extra: &[],
        }
    }

    /// Every third row has more.
    fn extra(i: usize) -> Extra {
        Extra { id: (i % 3 == 2).then(|| format!("row {i}")), ..Extra::default() }
    }

    fn store(rows: &[Row], vocabulary: usize, memory: usize) -> Store {
        let mut writer = StoreWriter::new(vocabulary, Limits { memory, folder: std::env::temp_dir() });
        for (i, row) in rows.iter().enumerate() {
            let extra = extra(i).to_bytes().unwrap();
            writer.push(&NewRow { extra: &extra, ..new_row(i, row, &marks(i, row.0.len())) }).unwrap();
        }
        writer.finish().unwrap()
    }

    fn check(rows: &[Row], store: &Store) {
        let mut visited = Vec::new();
        let visit = |row, record: &Record| {
            visited.push((row, *record));
            Ok(())
        };
        store.each_record(visit).unwrap();
        assert_eq!((store.len() as usize, visited.len()), (rows.len(), rows.len()));
        for (i, (row, record)) in visited.into_iter().enumerate().rev() {
            let marks = marks(i, rows[i].0.len());
            let expected = new_row(i, &rows[i], &marks);
            assert_eq!((row as usize, record.tokens as usize), (i, expected.tokens));
            assert_eq!((record.words as usize, store.marks(&record).unwrap()), (expected.words, marks.clone()));
            assert_eq!((record.line, record.label), (expected.line, expected.label));
            assert_eq!((record.first as usize, record.second as usize), (expected.first, expected.second));
            assert_eq!((record.cut as usize, store.extra(&record).unwrap()), (expected.cut, extra(i)));
            assert_eq!((record.truncated, record.empty), (expected.truncated, expected.empty));
            assert_eq!(record.value.to_bits(), expected.value.to_bits());
            let (mut ids, mut segments) = (vec![7], vec![8]);
            store.append(&store.record(row).unwrap(), &mut ids, &mut segments).unwrap();
            assert_eq!((&ids[1..], &segments[1..]), (expected.ids, expected.segments));
        }
    }

    #[test]
    fn a_store_spills_beyond_its_limit_only() {
        let rows = vec![(vec![1, 2], vec![0, 0]); 100];
        let more: usize = (0..100).map(|i| extra(i).to_bytes().unwrap().len()).sum();
        let all = 100 * (Record::BYTES + 4) + 50 * 2 * 4 + more; // every other row has marks
        assert_eq!(store(&rows, 1 << 16, all).in_memory(), all);
        assert_eq!(store(&rows, 1 << 16, all - 1).in_memory(), 0);
        assert_eq!(store(&rows, (1 << 16) + 1, usize::MAX).in_memory(), 100 * (Record::BYTES + 8) + 400 + more);
    }

    /// A picture counts as tokens, and has none.
    #[test]
    fn what_a_row_without_ids_has_besides_is_read_back() {
        let mut writer = StoreWriter::new(0, Limits { memory: usize::MAX, folder: std::env::temp_dir() });
        let extras: Vec<Extra> =
            (0..3).map(|i| Extra { id: Some(format!("rose/{i}.jpg")), ..Extra::default() }).collect();
        for extra in &extras {
            writer.push(&NewRow { tokens: 197, extra: &extra.to_bytes().unwrap(), ..NewRow::default() }).unwrap();
        }
        let store = writer.finish().unwrap();
        for (row, expected) in (0..).zip(&extras) {
            let record = store.record(row).unwrap();
            assert_eq!((record.tokens, &store.extra(&record).unwrap()), (197, expected));
        }
    }

    #[test]
    fn many_rows_are_visited_in_order() {
        let rows: Vec<Row> = (0..9000).map(|i| (vec![i], vec![i % 2])).collect();
        check(&rows, &store(&rows, 9000, usize::MAX));
        check(&rows, &store(&rows, 9000, 1000));
    }

    proptest! {
        /// Whatever is written is read back, from memory and from disk, with narrow and wide ids.
        #[test]
        fn rows_are_read_back(narrow in rows(1 << 16), wide in rows(200_000), memory in 0usize..3000) {
            check(&narrow, &store(&narrow, 1 << 16, memory));
            check(&wide, &store(&wide, 200_000, memory));
        }
    }
}
