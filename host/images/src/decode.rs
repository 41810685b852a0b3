//! From a file's bytes to pixels.
//!
//! What a picture is, its content says, not its name. The header is read first: what has more pixels than the limit is refused
//! before memory is taken for them. Pixels are what Pillow's `convert("RGB")` gives after `exif_transpose`, as in Transformers'
//! `load_image`: EXIF's orientation applied, grey repeated, palettes looked up, alpha dropped, the first frame of an animation.
//! Of 16 bits the upper 8 are taken (Pillow does so for colours; 16-bit grey it clips at 255, which would leave white).

use std::io::Cursor;

use image::codecs::{bmp::BmpDecoder, gif::GifDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageFormat};

use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::guard::guarded;
use crate::jpeg::Jpeg;
use crate::orientation::{swaps, upright};
use crate::plane::{Mask, Picture, Plane, to_rgb};
use crate::png::Png;

/// The most pixels that Pillow opens without an error: a quarter of a GiB of 24-bit pixels, twice.
pub const MAX_PIXELS: u64 = 2 * 89_478_485;

/// What a file's content says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG.
    Png,
    /// GIF.
    Gif,
    /// WebP, lossy or lossless.
    WebP,
    /// Windows bitmap.
    Bmp,
}

/// What stands before the pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format.
    pub format: Format,
    /// Rows of the picture as it is seen, turned by its EXIF orientation.
    pub height: usize,
    /// Columns, likewise.
    pub width: usize,
}

/// A picture whose header has been read.
enum Opened<'a> {
    Jpeg(Box<Jpeg<'a>>),
    Png(Box<Png<'a>>),
    Other(Format, Box<dyn ImageDecoder + 'a>, Option<Orientation>),
}

impl<'a> Opened<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Fault> {
        let cursor = Cursor::new(bytes);
        Ok(match image::guess_format(bytes) {
            Ok(ImageFormat::Jpeg) => Self::Jpeg(Box::new(Jpeg::open(bytes)?)),
            Ok(ImageFormat::Png) => Self::Png(Box::new(Png::open(bytes, true)?)),
            Ok(ImageFormat::Gif) => Self::Other(Format::Gif, Box::new(GifDecoder::new(cursor)?), None),
            Ok(ImageFormat::WebP) => {
                // How it is turned may be said behind the pixels.
                let size = bytes.first_chunk::<8>().map_or(0, |b| u32::from_le_bytes([b[4], b[5], b[6], b[7]]));
                if bytes.len() as u64 - 8 < u64::from(size) {
                    return Err(Fault::Truncated);
                }
                let mut decoder = WebPDecoder::new(cursor)?;
                let orientation = decoder.orientation().ok();
                Self::Other(Format::WebP, Box::new(decoder), orientation)
            }
            Ok(ImageFormat::Bmp) => Self::Other(Format::Bmp, Box::new(BmpDecoder::new(cursor)?), None),
            Ok(other) => return Err(Fault::NoPicture(unread(other))),
            Err(_) => return Err(Fault::NoPicture(None)),
        })
    }

    fn format(&self) -> Format {
        match self {
            Self::Jpeg(_) => Format::Jpeg,
            Self::Png(_) => Format::Png,
            Self::Other(format, ..) => *format,
        }
    }

    fn orientation(&self) -> Orientation {
        let orientation = match self {
            Self::Jpeg(jpeg) => jpeg.orientation,
            Self::Png(png) => png.orientation,
            Self::Other(_, _, orientation) => *orientation,
        };
        orientation.unwrap_or(Orientation::NoTransforms)
    }

    /// Height and width as they are stored.
    fn stored(&self, limit: u64) -> Result<(usize, usize), Fault> {
        let (height, width) = match self {
            Self::Jpeg(jpeg) => jpeg.stored,
            Self::Png(png) => png.stored,
            Self::Other(_, decoder, _) => {
                let (width, height) = decoder.dimensions();
                (height as usize, width as usize)
            }
        };
        within((height, width), limit)
    }

    fn header(&self, limit: u64) -> Result<Header, Fault> {
        let (height, width) = self.stored(limit)?;
        let (height, width) = if swaps(self.orientation()) { (width, height) } else { (height, width) };
        Ok(Header { format: self.format(), height, width })
    }

    fn read(self, limit: u64, over: Option<[u8; 3]>) -> Result<Picture, Fault> {
        let ((height, width), orientation) = (self.stored(limit)?, self.orientation());
        let mut pixels = vec![[0; 3]; height * width];
        match self {
            Self::Jpeg(jpeg) => jpeg.read(&mut pixels)?,
            Self::Png(png) => png.read(over, &mut pixels)?,
            Self::Other(_, mut decoder, _) => {
                let mut limits = image::Limits::default();
                limits.max_alloc = Some(limit.saturating_mul(16));
                decoder.set_limits(limits)?;
                let channels = match decoder.color_type() {
                    ColorType::L8 => 1,
                    ColorType::La8 => 2,
                    ColorType::Rgb8 => 3,
                    ColorType::Rgba8 => 4,
                    other => return Err(Fault::broken(format!("pixels of the kind {other:?} are not read"))),
                };
                let mut bytes = vec![0; height * width * channels];
                decoder.read_image_boxed(&mut bytes)?;
                to_rgb(&bytes, channels, over, &mut pixels);
            }
        }
        Ok(upright(plane((height, width), pixels)?, orientation))
    }
}

/// Refuses sizes of no pixel, and of more than the limit.
fn within((height, width): (usize, usize), limit: u64) -> Result<(usize, usize), Fault> {
    if height == 0 || width == 0 {
        return Err(Fault::broken("it has no pixels"));
    }
    if height as u64 * width as u64 > limit {
        return Err(Fault::TooLarge { height, width, limit });
    }
    Ok((height, width))
}

/// A plane of as many pixels as its header says.
fn plane<const C: usize>((height, width): (usize, usize), pixels: Vec<[u8; C]>) -> Result<Plane<C>, Fault> {
    Plane::new(height, width, pixels).ok_or(Fault::Truncated)
}

/// Formats whose pictures people have, and that are not read.
fn unread(format: ImageFormat) -> Option<&'static str> {
    Some(match format {
        ImageFormat::Tiff => "a TIFF",
        ImageFormat::Avif => "an AVIF or HEIF picture",
        ImageFormat::Ico => "an icon",
        ImageFormat::Pnm => "a PNM picture",
        ImageFormat::Hdr | ImageFormat::OpenExr => "a picture of high dynamic range",
        _ => return None,
    })
}

/// Runs a decoder; its panic is an error of the picture.
fn caught<T>(place: &str, call: impl FnOnce() -> Result<T, Fault>) -> Result<T> {
    guarded(call).unwrap_or(Err(Fault::Panic)).map_err(|fault| fault.at(place))
}

/// What a picture's header says. `place` names the file or row in errors; a picture of more than `limit` pixels is one.
pub fn header(bytes: &[u8], place: &str, limit: u64) -> Result<Header> {
    caught(place, || Opened::new(bytes)?.header(limit))
}

/// A picture from the bytes of a JPEG, PNG, WebP, GIF or BMP file: `[height, width]` pixels of red, green and blue.
///
/// `place` names the file or row in errors: of bytes that are no picture, are cut off or damaged, or hold more than `limit` pixels.
/// No bytes make it panic.
pub fn decode(bytes: &[u8], place: &str, limit: u64) -> Result<Picture> {
    decode_over(bytes, place, limit, None)
}

/// As [`decode`]; where a picture lets something through that lies below it, this colour.
pub fn decode_over(bytes: &[u8], place: &str, limit: u64, over: Option<[u8; 3]>) -> Result<Picture> {
    caught(place, || Opened::new(bytes)?.read(limit, over))
}

/// A segmentation mask from the bytes of a PNG, grey or with a palette: its values, or places in the palette, are the indices of
/// classes. EXIF's orientation is applied as to a picture.
pub fn decode_mask(bytes: &[u8], place: &str, limit: u64) -> Result<Mask> {
    caught(place, || {
        match image::guess_format(bytes) {
            Ok(ImageFormat::Png) => {}
            Ok(_) => return Err(Fault::NoIndices("it is no PNG")),
            Err(_) => return Err(Fault::NoPicture(None)),
        }
        let png = Png::open(bytes, false)?;
        let stored = within(png.stored, limit)?;
        let orientation = png.orientation.unwrap_or(Orientation::NoTransforms);
        Ok(upright(plane(stored, png.read_indices()?)?, orientation))
    })
}

/// A picture and its mask. That both have one size, their headers say before either is decoded.
pub fn decode_pair(picture: (&[u8], &str), mask: (&[u8], &str), limit: u64) -> Result<(Picture, Mask)> {
    same_size(header(picture.0, picture.1, limit)?, header(mask.0, mask.1, limit)?, picture.1, mask.1)?;
    Ok((decode(picture.0, picture.1, limit)?, decode_mask(mask.0, mask.1, limit)?))
}

/// Refuses a mask of another size than its picture's.
pub(crate) fn same_size(picture: Header, mask: Header, place: &str, mask_place: &str) -> Result<()> {
    if (picture.height, picture.width) == (mask.height, mask.width) {
        return Ok(());
    }
    let message = format!(
        "the mask has {} x {} pixels, its picture {place} {} x {}",
        mask.width, mask.height, picture.width, picture.height
    );
    Err(Error::picture(mask_place, message, "a mask has one value for each pixel of its picture"))
}

#[cfg(test)]
mod tests;
