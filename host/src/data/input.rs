//! A file's bytes as a reader takes them: decompressed, in UTF-8, with their beginning to look at first.

use std::fs::File;
use std::io::{self, Cursor, ErrorKind, Read, Seek};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::bytes::{cache_folder, unnamed_file};
use super::form::Encoding;
use super::row::data_error;
use crate::{Error, Result};

/// Bytes that are looked at to tell what a file is.
const SAMPLE: u64 = 1 << 18;
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const UTF_16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Bytes that come one after the other.
pub(super) type Bytes = Box<dyn Read + Send>;

/// An opened file.
pub(super) struct Input {
    sample: Vec<u8>,
    rest: Bytes,
    /// Whether the sample is all there is.
    pub(super) whole: bool,
    compressed: bool,
}

impl Input {
    /// Opens a file, whatever it is compressed with: its first bytes tell.
    ///
    /// # Errors
    /// Where it is missing, unreadable, damaged or in UTF-16.
    pub(super) fn open(path: &Path, encoding: Encoding) -> Result<Self> {
        let mut file = open(path)?;
        let mut magic = Vec::new();
        let failed = |error| read_error(path, error);
        file.by_ref().take(4).read_to_end(&mut magic).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let (bytes, compressed): (Bytes, bool) = if magic.starts_with(GZIP) {
            (Box::new(MultiGzDecoder::new(file)), true)
        } else if magic.starts_with(ZSTD) {
            (Box::new(zstd::Decoder::new(file).map_err(failed)?), true)
        } else {
            (Box::new(file), false)
        };
        let mut rest: Bytes = match encoding {
            Encoding::Utf8 => bytes,
            Encoding::Latin1 | Encoding::Windows1252 => {
                Box::new(Decoded { bytes, windows: encoding == Encoding::Windows1252, text: Cursor::default() })
            }
        };
        let mut sample = Vec::new();
        rest.by_ref().take(SAMPLE).read_to_end(&mut sample).map_err(failed)?;
        if encoding == Encoding::Utf8
            && UTF_16.iter().any(|mark| sample.starts_with(mark))
            && !sample.starts_with(&[0xff; 4])
        {
            return Err(data_error(path, None, "is text in UTF-16")
                .with_help("convert it, for instance by: iconv -f utf-16 -t utf-8 old > new"));
        }
        let whole = (sample.len() as u64) < SAMPLE;
        Ok(Self { sample, rest, whole, compressed })
    }

    /// The first bytes.
    pub(super) fn sample(&self) -> &[u8] {
        &self.sample
    }

    /// All bytes, from the first on.
    pub(super) fn into_reader(self) -> Bytes {
        Box::new(Cursor::new(self.sample).chain(self.rest))
    }

    /// All bytes as a file, in which any place can be sought: a temporary one where they were compressed.
    pub(super) fn into_file(self, path: &Path) -> Result<File> {
        if !self.compressed {
            return open(path);
        }
        let unpacked = || {
            let mut file = unnamed_file(&cache_folder())?;
            io::copy(&mut self.into_reader(), &mut file)?;
            file.rewind()?;
            Ok(file)
        };
        unpacked().map_err(|error| read_error(path, error))
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => data_error(path, None, "there is no such file")
            .with_help("check the name; a path in a run file is relative to the run file's folder"),
        _ => data_error(path, None, format!("cannot be read: {error}"))
            .with_help("check the permissions of the file and its folders"),
    })
}

/// What is said where bytes cannot be read: of a damaged archive that it is one.
pub(super) fn read_error(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof | ErrorKind::Other => {
            data_error(path, None, format!("is damaged or cut off: {error}"))
                .with_help("bring it again, or unpack it by the program that packed it")
        }
        _ => Error::io(format!("cannot read {}", path.display()))(error),
    }
}

/// Bytes of which each is a character, as UTF-8.
struct Decoded {
    bytes: Bytes,
    windows: bool,
    /// What was decoded and not yet read.
    text: Cursor<Vec<u8>>,
}

impl Read for Decoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.text.position() == self.text.get_ref().len() as u64 {
            let mut piece = [0; 1 << 14];
            let read = self.bytes.read(&mut piece)?;
            let text: String = piece[..read].iter().map(|&byte| character(byte, self.windows)).collect();
            self.text = Cursor::new(text.into_bytes());
        }
        self.text.read(buffer)
    }
}

/// 0x80 to 0x9f in Windows-1252; what is not assigned there is as in ISO 8859-1.
const WINDOWS: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

fn character(byte: u8, windows: bool) -> char {
    match byte {
        0x80..=0x9f if windows => WINDOWS[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io::Write;

    use super::*;

    fn read(content: &[u8], encoding: Encoding) -> Result<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, content).unwrap();
        let mut text = String::new();
        let input = Input::open(&path, encoding)?;
        input.into_reader().read_to_string(&mut text).map_err(|error| read_error(&path, error))?;
        let mut again = String::new();
        Input::open(&path, encoding)?.into_reader().read_to_string(&mut again).unwrap();
        assert_eq!(text, again);
        Ok(text)
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn compressed_files_are_read_as_what_they_hold() {
        let long = "a good film\n".repeat(1 << 16);
        for packed in [gzip(long.as_bytes()), zstd::encode_all(long.as_bytes(), 1).unwrap()] {
            assert_eq!(read(&packed, Encoding::Utf8).unwrap(), long);
            // Archives one after the other are one.
            assert_eq!(read(&[&packed[..], &packed].concat(), Encoding::Utf8).unwrap(), long.repeat(2));
            let error = read(&packed[..packed.len() / 2], Encoding::Utf8).unwrap_err().to_string();
            assert!(error.contains("is damaged or cut off"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gz");
        std::fs::write(&path, gzip(long.as_bytes())).unwrap();
        let mut text = String::new();
        let mut file = Input::open(&path, Encoding::Utf8).unwrap().into_file(&path).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, long);
    }

    #[test]
    fn bytes_become_the_characters_of_their_encoding() {
        let bytes = b"na\xefve \x93caf\xe9\x94 \x80";
        assert_eq!(read(bytes, Encoding::Latin1).unwrap(), "naïve \u{93}café\u{94} \u{80}");
        assert_eq!(read(bytes, Encoding::Windows1252).unwrap(), "naïve “café” €");
        assert_eq!(read(&bytes.repeat(1 << 15), Encoding::Windows1252).unwrap(), "naïve “café” €".repeat(1 << 15));
        let error = read(b"\xff\xfea\0b\0", Encoding::Utf8).unwrap_err();
        assert!(error.to_string().ends_with("is text in UTF-16"), "{error}");
    }
}
