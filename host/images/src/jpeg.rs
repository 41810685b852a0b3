//! JPEG. Decoded strictly: where entropy-coded data breaks off, a lenient decoder fills what is missing with grey.

use image::metadata::Orientation;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::fault::Fault;

/// A JPEG whose header has been read.
pub(crate) struct Jpeg<'a> {
    decoder: JpegDecoder<ZCursor<&'a [u8]>>,
    bytes: &'a [u8],
    /// Height and width as stored, and how the picture is turned.
    pub(crate) stored: (usize, usize),
    pub(crate) orientation: Option<Orientation>,
}

impl<'a> Jpeg<'a> {
    /// Reads what stands before the first scan.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, Fault> {
        let options =
            DecoderOptions::default().set_strict_mode(true).set_max_width(usize::MAX).set_max_height(usize::MAX);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers().map_err(Fault::broken)?;
        let info = decoder.info().ok_or_else(|| Fault::broken("it has no header"))?;
        let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
        let stored = (usize::from(info.height), usize::from(info.width));
        Ok(Self { decoder, bytes, stored, orientation })
    }

    /// Decodes into pixels of red, green and blue. CMYK is taken as Adobe writes it, inverted, whether it says so or not: as
    /// Pillow and browsers do.
    pub(crate) fn read(mut self, pixels: &mut [[u8; 3]]) -> Result<(), Fault> {
        if !ends(self.bytes) {
            return Err(Fault::Truncated);
        }
        let grey = self.decoder.input_colorspace() == Some(ColorSpace::Luma);
        let colours = if grey { ColorSpace::Luma } else { ColorSpace::RGB };
        let options = DecoderOptions::default()
            .set_strict_mode(true)
            .set_max_width(usize::MAX)
            .set_max_height(usize::MAX)
            .jpeg_set_out_colorspace(colours);
        self.decoder.set_options(options);
        if grey {
            let mut light = vec![0; pixels.len()];
            self.decoder.decode_into(&mut light).map_err(Fault::broken)?;
            pixels.iter_mut().zip(light).for_each(|(pixel, light)| *pixel = [light; 3]);
            return Ok(());
        }
        self.decoder.decode_into(pixels.as_flattened_mut()).map_err(Fault::broken)
    }
}

/// Whether the marker of the image's end stands where it should: not the one of a thumbnail in the header.
fn ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Anything before a marker is skipped, as decoders do; a marker may be preceded by several 0xFF.
        let Some(skip) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0xFF)) else {
            return false;
        };
        at += skip;
        let Some(fill) = bytes[at..].iter().position(|byte| *byte != 0xFF) else { return false };
        at += fill;
        let marker = bytes[at];
        at += 1;
        match marker {
            0xD9 => return true,
            // Stuffed zeros, restarts and a second start have no length.
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            _ => {
                let Some(length) = bytes.get(at..at + 2) else { return false };
                at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
}
