//! Event files that TensorBoard reads: `events.out.tfevents.<unix time>.<host>`.
//!
//! A file is a row of TFRecords, each an `Event` message of TensorFlow's `event.proto`. Twenty-three fields of ten messages
//! are all that is written, so they are written by hand: a protobuf crate would bring a compiler for them.
//!
//! ```text
//! record, little-endian: length u64 | masked CRC-32C of the length u32 | data | masked CRC-32C of the data u32
//! Event: wall_time double = 1, step int64 = 2, file_version string = 3, summary Summary = 5, session_log SessionLog = 7
//! Summary: repeated Value value = 1
//! Value: tag string = 1, simple_value float = 2, image Image = 4, tensor TensorProto = 8, metadata SummaryMetadata = 9
//! Image: height int32 = 1, width int32 = 2, colorspace int32 = 3, of which RGB = 3, encoded_image_string bytes = 4
//! TensorProto: dtype enum = 1, of which STRING = 7, tensor_shape TensorShapeProto = 2, repeated string_val bytes = 8
//! TensorShapeProto: repeated dim Dim = 2; Dim: size int64 = 1
//! SummaryMetadata: plugin_data PluginData = 1; PluginData: plugin_name string = 1
//! SessionLog: status enum = 1, of which START = 1
//! ```

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fthost_images::Picture;

use crate::{Error, Result};

/// Writes one event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Starts a new file in `folder`, which is made where it is missing. A file that is there already is never touched: TensorBoard
    /// reads all files of a folder as one run.
    pub fn create(folder: &Path) -> Result<Self> {
        let failed = |source| Error::io(format!("cannot write TensorBoard's events to {}", folder.display()))(source);
        fs::create_dir_all(folder).map_err(failed)?;
        let now = unix_seconds();
        let host = rustix::system::uname().nodename().to_string_lossy().replace('/', "_");
        let name = format!("events.out.tfevents.{:010}.{host}", now as u64);
        let mut number = 1u32;
        let (path, file) = loop {
            // Two files within a second get different names. TensorBoard reads any whose name holds `tfevents`, in their order.
            let path = folder.join(if number == 1 { name.clone() } else { format!("{name}.{number}") });
            match File::create_new(&path) {
                Ok(file) => break (path, file),
                Err(source) if source.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(failed(source)),
            }
        };
        let mut writer = Self { path, file: BufWriter::new(file) };
        writer.write(&event(now, 0, &Content::FileVersion))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a value at a step. It is kept as `f32`, as TensorBoard does; one that is not finite is kept too.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<()> {
        self.write(&event(unix_seconds(), step, &Content::Scalar { tag, value: value as f32 }))
    }

    /// Writes a picture at a step.
    pub fn image(&mut self, tag: &str, step: u64, picture: &Picture) -> Result<()> {
        self.write(&event(unix_seconds(), step, &Content::Image { tag, picture }))
    }

    /// Writes a text at a step, which TensorBoard reads as Markdown: what the `add_text` of torch's SummaryWriter writes.
    pub fn text(&mut self, tag: &str, step: u64, text: &str) -> Result<()> {
        self.write(&event(unix_seconds(), step, &Content::Text { tag, text }))
    }

    /// Voids what earlier files of the folder say of `step` and later ones: to be called by a run that is resumed there, since the
    /// interrupted one may have gone on beyond its last checkpoint.
    pub fn resume_at(&mut self, step: u64) -> Result<()> {
        self.write(&event(unix_seconds(), step, &Content::SessionStart))
    }

    /// Brings what was written to the disk, for a TensorBoard that watches.
    pub fn flush(&mut self) -> Result<()> {
        let Self { path, file } = self;
        file.flush().map_err(Error::io(format!("cannot write {}", path.display())))
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        let Self { path, file } = self;
        file.write_all(&record(event)).map_err(Error::io(format!("cannot write {}", path.display())))
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What an event says.
enum Content<'a> {
    /// The first event of a file.
    FileVersion,
    Scalar {
        tag: &'a str,
        value: f32,
    },
    Image {
        tag: &'a str,
        picture: &'a Picture,
    },
    Text {
        tag: &'a str,
        text: &'a str,
    },
    SessionStart,
}

/// TensorFlow's number for red, green and blue.
const RGB: u64 = 3;
/// TensorFlow's number for tensors of strings.
const STRING: u8 = 7;
/// What torch adds to the tags of texts.
const TEXT: &str = "/text_summary";
/// The part of TensorBoard that shows them.
const TEXT_PLUGIN: &[u8] = b"text";

/// The wire types of protobuf's fields.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

fn event(wall_time: f64, step: u64, content: &Content<'_>) -> Vec<u8> {
    let mut event = Vec::new();
    event.push(key(1, FIXED64));
    event.extend(wall_time.to_le_bytes());
    if step > 0 {
        event.push(key(2, VARINT));
        varint(&mut event, step);
    }
    match content {
        Content::FileVersion => bytes(&mut event, 3, b"brain.Event:2"),
        Content::Scalar { tag, value: scalar } => {
            let mut value = Vec::new();
            bytes(&mut value, 1, tag.as_bytes());
            value.push(key(2, FIXED32));
            value.extend(scalar.to_le_bytes());
            let mut summary = Vec::new();
            bytes(&mut summary, 1, &value);
            bytes(&mut event, 5, &summary);
        }
        Content::Image { tag, picture } => {
            let mut image = Vec::new();
            for (field, number) in [(1, picture.height() as u64), (2, picture.width() as u64), (3, RGB)] {
                image.push(key(field, VARINT));
                varint(&mut image, number);
            }
            bytes(&mut image, 4, &picture.to_png());
            let mut value = Vec::new();
            bytes(&mut value, 1, tag.as_bytes());
            bytes(&mut value, 4, &image);
            let mut summary = Vec::new();
            bytes(&mut summary, 1, &value);
            bytes(&mut event, 5, &summary);
        }
        Content::Text { tag, text } => {
            let mut tensor = vec![key(1, VARINT), STRING];
            // One string: a shape of one dimension whose size is 1.
            bytes(&mut tensor, 2, &[key(2, BYTES), 2, key(1, VARINT), 1]);
            bytes(&mut tensor, 8, text.as_bytes());
            let (mut plugin, mut metadata) = (Vec::new(), Vec::new());
            bytes(&mut plugin, 1, TEXT_PLUGIN);
            bytes(&mut metadata, 1, &plugin);
            let mut value = Vec::new();
            bytes(&mut value, 1, format!("{tag}{TEXT}").as_bytes());
            bytes(&mut value, 8, &tensor);
            bytes(&mut value, 9, &metadata);
            let mut summary = Vec::new();
            bytes(&mut summary, 1, &value);
            bytes(&mut event, 5, &summary);
        }
        Content::SessionStart => bytes(&mut event, 7, &[key(1, VARINT), 1]),
    }
    event
}

fn key(field: u8, wire_type: u8) -> u8 {
    field << 3 | wire_type
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn bytes(message: &mut Vec<u8>, field: u8, content: &[u8]) {
    message.push(key(field, BYTES));
    varint(message, content.len() as u64);
    message.extend(content);
}

/// A TFRecord.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

/// CRC-32C, masked as TFRecords do: a CRC of data that holds CRCs would be weak.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    /// A field's number and its value, as far as events have them.
    #[derive(Debug, PartialEq)]
    enum Field<'a> {
        Varint(u64),
        Fixed64(f64),
        Bytes(&'a [u8]),
        Fixed32(f32),
    }

    fn take<const N: usize>(data: &mut &[u8]) -> [u8; N] {
        let (taken, rest) = data.split_at(N);
        *data = rest;
        taken.try_into().unwrap()
    }

    fn take_varint(data: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let [byte] = take(data);
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
        let mut fields = Vec::new();
        while !message.is_empty() {
            let key = take_varint(&mut message);
            let value = match (key & 7) as u8 {
                VARINT => Field::Varint(take_varint(&mut message)),
                FIXED64 => Field::Fixed64(f64::from_le_bytes(take(&mut message))),
                FIXED32 => Field::Fixed32(f32::from_le_bytes(take(&mut message))),
                BYTES => {
                    let length = take_varint(&mut message) as usize;
                    let (content, rest) = message.split_at(length);
                    message = rest;
                    Field::Bytes(content)
                }
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, value));
        }
        fields
    }

    /// The records of a file, their checksums checked bit by bit rather than by the crate that wrote them.
    fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while !file.is_empty() {
            let length: [u8; 8] = take(&mut file);
            assert_eq!(u32::from_le_bytes(take(&mut file)), slow_masked_crc(&length));
            let (data, rest) = file.split_at(u64::from_le_bytes(length) as usize);
            file = rest;
            assert_eq!(u32::from_le_bytes(take(&mut file)), slow_masked_crc(data));
            records.push(data.to_vec());
        }
        records
    }

    fn slow_masked_crc(data: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for &byte in data {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            }
        }
        let crc = !crc;
        crc.rotate_right(15).wrapping_add(0xa282_ead8)
    }

    /// Tag, step and value of a scalar's event.
    fn scalar(event: &[u8]) -> (String, u64, f32) {
        let fields_of_event = fields(event);
        let [(1, Field::Fixed64(_)), between @ .., (5, Field::Bytes(summary))] = &fields_of_event[..] else {
            panic!("{fields_of_event:?}")
        };
        let step = match between {
            [] => 0,
            [(2, Field::Varint(step))] => *step,
            other => panic!("{other:?}"),
        };
        let value = fields(summary);
        let [(1, Field::Bytes(value))] = &value[..] else { panic!("{value:?}") };
        let value = fields(value);
        let [(1, Field::Bytes(tag)), (2, Field::Fixed32(value))] = &value[..] else { panic!("{value:?}") };
        (String::from_utf8(tag.to_vec()).unwrap(), step, *value)
    }

    #[test]
    fn a_picture_is_a_png_with_its_size() {
        let picture = Picture::new(2, 3, vec![[1, 2, 3]; 6]).unwrap();
        let event = event(0.5, 7, &Content::Image { tag: "worst/1", picture: &picture });
        let of = |message, wanted: u64| {
            fields(message).into_iter().filter(move |(field, _)| *field == wanted).map(|(_, value)| value)
        };
        let inner = |message, wanted| match of(message, wanted).next() {
            Some(Field::Bytes(bytes)) => bytes,
            other => panic!("{other:?}"),
        };
        let value = inner(inner(&event, 5), 1);
        assert_eq!(inner(value, 1), b"worst/1");
        let image = inner(value, 4);
        let numbers: Vec<Field<'_>> = (1..=3).flat_map(|field| of(image, field)).collect();
        assert_eq!(numbers, [Field::Varint(2), Field::Varint(3), Field::Varint(3)]);
        assert_eq!(inner(image, 4), picture.to_png());
    }

    #[test]
    fn records_are_tensorboards_to_the_byte() {
        let check = |wall_time, step, content: &Content<'_>, expected: &str| {
            let written = record(&event(wall_time, step, content));
            assert_eq!(written.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected);
        };
        // What the RecordWriter of tensorboard 2.21.0 writes for the same events.
        check(
            1_700_000_000.0,
            0,
            &Content::FileVersion,
            "1800000000000000a37f4b220900000040fc54d9411a0d627261696e2e4576656e743a32eced8f9d",
        );
        check(
            1_700_000_000.5,
            300,
            &Content::Scalar { tag: "train/loss", value: 0.25 },
            "2100000000000000017becf60900002040fc54d94110ac022a130a110a0a747261696e2f6c6f7373150000803e0da12f0e",
        );
        // What torch's SummaryWriter makes of a text.
        check(
            1_700_000_000.5,
            300,
            &Content::Text { tag: "answers/samples/1", text: "größe" },
            "4d000000000000003d63d4a60900002040fc54d94110ac022a3f0a3d0a1e616e73776572732f73616d706c65732f312f746578745f73756d6d61\
             72794211080712041202080142076772c3b6c39f654a080a060a0474657874206465f6",
        );
    }

    #[test]
    fn files_are_read_back() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("run/tensorboard");
        let mut writer = EventWriter::create(&folder).unwrap();
        writer.scalar("train/loss", 1, 0.25).unwrap();
        writer.scalar("train/lr", 300, 1e-5).unwrap();
        writer.scalar("größe", 0, f64::INFINITY).unwrap();
        writer.flush().unwrap();
        let name = writer.path().file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("events.out.tfevents.1") && !name.ends_with('.'), "{name}");

        let records = records(&fs::read(writer.path()).unwrap());
        assert_eq!(records.len(), 4);
        assert_eq!(fields(&records[0])[1], (3, Field::Bytes(b"brain.Event:2")));
        assert_eq!(scalar(&records[1]), ("train/loss".into(), 1, 0.25));
        assert_eq!(scalar(&records[2]), ("train/lr".into(), 300, 1e-5));
        assert_eq!(scalar(&records[3]), ("größe".into(), 0, f32::INFINITY));
    }

    #[test]
    fn a_resumed_run_starts_a_file_of_its_own() {
        let home = tempfile::tempdir().unwrap();
        let first = EventWriter::create(home.path()).unwrap();
        let before = fs::read(first.path()).unwrap();
        let mut second = EventWriter::create(home.path()).unwrap();
        assert!(second.path() > first.path());
        second.resume_at(7).unwrap();
        second.flush().unwrap();
        assert_eq!(fs::read(first.path()).unwrap(), before);
        let records = records(&fs::read(second.path()).unwrap());
        assert_eq!(fields(&records[1])[1..], [(2, Field::Varint(7)), (7, Field::Bytes(&[8, 1]))]);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        let error = EventWriter::create(&file.join("below")).unwrap_err();
        assert!(error.to_string().contains("file/below"), "{error}");
    }

    proptest! {
        #[test]
        fn any_scalar_is_read_back(tag: String, step in 0..=i64::MAX as u64, value: f64) {
            let written = record(&event(0.0, step, &Content::Scalar { tag: &tag, value: value as f32 }));
            let records = records(&written);
            prop_assert_eq!(scalar(&records[0]), (tag, step, value as f32));
        }
    }
}
