//! PNG: pictures, and masks whose values are indices of classes.

use std::io::Cursor;

use image::metadata::Orientation;
use png::{BitDepth, ColorType, Decoder, DecodingError, Encoder, Reader, Transformations};

use crate::fault::Fault;
use crate::plane::{Mask, Picture, Plane, to_rgb};

/// A PNG whose header has been read.
pub(crate) struct Png<'a> {
    reader: Reader<Cursor<&'a [u8]>>,
    /// Height and width as stored, and how the picture is turned.
    pub(crate) stored: (usize, usize),
    pub(crate) orientation: Option<Orientation>,
}

impl<'a> Png<'a> {
    /// Reads what stands before the pixels. A `picture`'s are made 8 bits of each colour, a mask's are left as they are.
    pub(crate) fn open(bytes: &'a [u8], picture: bool) -> Result<Self, Fault> {
        let mut decoder = Decoder::new(Cursor::new(bytes));
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        // Of 16 bits the upper 8 are taken, as Pillow does for colours.
        let transformations = if picture { Transformations::normalize_to_color8() } else { Transformations::IDENTITY };
        decoder.set_transformations(transformations);
        let reader = decoder.read_info().map_err(fault)?;
        let info = reader.info();
        let orientation = info.exif_metadata.as_deref().and_then(Orientation::from_exif_chunk);
        let stored = (info.height as usize, info.width as usize);
        Ok(Self { reader, stored, orientation })
    }

    fn bytes(&mut self) -> Result<Vec<u8>, Fault> {
        let size = self.reader.output_buffer_size().ok_or_else(|| Fault::broken("its size does not fit in memory"))?;
        let mut bytes = vec![0; size];
        self.reader.next_frame(&mut bytes).map_err(fault)?;
        Ok(bytes)
    }

    /// Decodes into pixels of red, green and blue. What is transparent keeps its colour.
    pub(crate) fn read(mut self, over: Option<[u8; 3]>, pixels: &mut [[u8; 3]]) -> Result<(), Fault> {
        let channels = match self.reader.output_color_type().0 {
            ColorType::Rgb => {
                self.reader.next_frame(pixels.as_flattened_mut()).map_err(fault)?;
                return Ok(());
            }
            ColorType::Grayscale => 1,
            ColorType::GrayscaleAlpha => 2,
            ColorType::Rgba => 4,
            ColorType::Indexed => return Err(Fault::broken("its palette is missing")),
        };
        to_rgb(&self.bytes()?, channels, over, pixels);
        Ok(())
    }

    /// Decodes into indices: the values of a grey picture, or the places in a palette.
    pub(crate) fn read_indices(mut self) -> Result<Vec<[u8; 1]>, Fault> {
        let (colour, depth) = self.reader.output_color_type();
        if !matches!(colour, ColorType::Grayscale | ColorType::Indexed) {
            return Err(Fault::NoIndices("it has colours"));
        }
        let bits = match depth {
            BitDepth::One => 1,
            BitDepth::Two => 2,
            BitDepth::Four => 4,
            BitDepth::Eight => 8,
            BitDepth::Sixteen => return Err(Fault::NoIndices("it has 16 bits for each pixel")),
        };
        let (bytes, (_, width)) = (self.bytes()?, self.stored);
        let mask = (1u16 << bits) - 1;
        // A row begins at a whole byte; in a byte the first pixel stands in the upper bits.
        let rows = bytes.chunks_exact((width * bits).div_ceil(8));
        let value = |row: &[u8], x: usize| (u16::from(row[x * bits / 8]) >> (8 - bits - x * bits % 8)) & mask;
        Ok(rows.flat_map(|row| (0..width).map(move |x| [value(row, x) as u8])).collect())
    }
}

/// A picture's PNG.
pub(crate) fn encode(picture: &Picture) -> Vec<u8> {
    encoded(picture, ColorType::Rgb)
}

/// A mask's PNG.
pub(crate) fn encode_grey(mask: &Mask) -> Vec<u8> {
    encoded(mask, ColorType::Grayscale)
}

fn encoded<const C: usize>(picture: &Plane<C>, colour: ColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, picture.width() as u32, picture.height() as u32);
    encoder.set_color(colour);
    encoder.set_depth(BitDepth::Eight);
    // Writing into memory fails for sizes alone, and a picture's pixels are as many as its size says.
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(picture.bytes()));
    debug_assert!(written.is_ok(), "{written:?}");
    bytes
}

fn fault(error: DecodingError) -> Fault {
    match error {
        DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Fault::Truncated,
        error => Fault::broken(error),
    }
}
