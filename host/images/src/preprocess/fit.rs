//! A picture brought to a model's size.

use crate::error::{Error, Result};
use crate::grey::grey;
use crate::normalise::{Normalise, Normalised};
use crate::plane::{Mask, Picture, Plane};
use crate::resize::{Filter, resized};

/// How much longer than wide a picture is at most when its shorter side is brought to a length.
const STRIP: usize = 64;

/// To which size a picture is brought before it is cut. All are `(height, width)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// It keeps its size.
    Keep,
    /// This size; the ratio of its sides is lost.
    Exact(usize, usize),
    /// The shorter side this long, the longer one rounded down.
    Shorter(usize),
    /// As small as covers this size, rounded.
    Cover(usize, usize),
    /// As large as fits into this size, rounded.
    Within(usize, usize),
}

impl Resize {
    /// The size that a picture of this one gets.
    fn size(self, (height, width): (usize, usize)) -> (usize, usize) {
        let at_least_one = |(height, width): (usize, usize)| (height.max(1), width.max(1));
        let divided = |ratio: f64| {
            let side = |side: usize| (side as f64 / ratio).round_ties_even() as usize;
            at_least_one((side(height), side(width)))
        };
        let ratios = |h: usize, w: usize| (height as f64 / h as f64, width as f64 / w as f64);
        match self {
            Self::Keep => (height, width),
            Self::Exact(height, width) => (height, width),
            Self::Shorter(side) => {
                let (short, long) = (height.min(width), height.max(width));
                let longer = (side as f64 * long as f64 / short as f64) as usize;
                if width <= height { (longer, side) } else { (side, longer) }
            }
            Self::Cover(h, w) => {
                let (a, b) = ratios(h, w);
                divided(a.min(b))
            }
            Self::Within(h, w) => {
                let (a, b) = ratios(h, w);
                divided(a.max(b))
            }
        }
    }
}

/// Where a cut begins whose margins differ by one pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Centre {
    /// Half of the margins rounded down: Transformers.
    Down,
    /// Rounded to the nearest, halves to even: torchvision and timm.
    Even,
}

/// How a picture becomes what a model takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// The size before it is cut.
    pub resize: Resize,
    /// How it is brought to that size.
    pub filter: Filter,
    /// The part in the middle that is taken: `(height, width)`.
    pub crop: Option<(usize, usize)>,
    /// Where that begins.
    pub centre: Centre,
    /// What surrounds a picture that is smaller than the part.
    pub fill: [u8; 3],
    /// What shows where a picture lets something through; where nothing is said, its colours as if it did not.
    pub over: Option<[u8; 3]>,
    /// What its levels become; it says whether there are three channels or one.
    pub normalise: Normalise,
}

impl std::fmt::Display for Preprocess {
    /// `224 x 224 pixels, the middle of the picture with its shorter side at 256, bicubic`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (height, width) = self.size();
        write!(f, "{width} x {height} pixels")?;
        if self.crop.is_some() {
            write!(f, ", the middle of the picture")?;
        }
        match self.resize {
            Resize::Keep => Ok(()),
            Resize::Exact(height, width) if self.crop.is_some() => write!(f, " at {width} x {height}, {}", self.filter),
            Resize::Exact(..) => write!(f, ", {}", self.filter),
            Resize::Shorter(side) => write!(f, " with its shorter side at {side}, {}", self.filter),
            Resize::Cover(height, width) => write!(f, " that covers {width} x {height}, {}", self.filter),
            Resize::Within(height, width) => write!(f, " that fits into {width} x {height}, {}", self.filter),
        }?;
        match self.over {
            Some([red, green, blue]) => write!(f, ", over the colour {red} {green} {blue}"),
            None => Ok(()),
        }
    }
}

impl Preprocess {
    /// The same for another size of the model's input. What is cut away stays the same share.
    #[must_use]
    pub fn with_size(mut self, (height, width): (usize, usize)) -> Self {
        let (old_height, old_width) = self.size();
        let scaled = |side: usize, new: usize, old: usize| (side as f64 * new as f64 / old as f64 + 1e-9) as usize;
        let both = |h, w| (scaled(h, height, old_height), scaled(w, width, old_width));
        self.resize = match self.resize {
            Resize::Keep => Resize::Keep,
            Resize::Exact(h, w) => Resize::Exact(both(h, w).0, both(h, w).1),
            Resize::Shorter(side) if height == width => Resize::Shorter(scaled(side, height, old_height)),
            Resize::Shorter(side) => Resize::Cover(both(side, side).0, both(side, side).1),
            Resize::Cover(h, w) => Resize::Cover(both(h, w).0, both(h, w).1),
            Resize::Within(h, w) => Resize::Within(both(h, w).0, both(h, w).1),
        };
        self.crop = self.crop.map(|_| (height, width));
        self
    }

    /// The same of whole pictures: brought to the model's size as they are, so that nothing is cut away.
    #[must_use]
    pub fn whole(self) -> Self {
        let (height, width) = self.size();
        Self { resize: Resize::Exact(height, width), crop: None, ..self }
    }

    /// Height and width of the model's input.
    pub fn size(&self) -> (usize, usize) {
        match (self.crop, self.resize) {
            (Some(size), _) => size,
            (None, Resize::Exact(height, width)) => (height, width),
            // `checked` lets no other through.
            (None, _) => (1, 1),
        }
    }

    /// Channels of the model's input: 3, or 1 of a grey model.
    pub fn channels(&self) -> usize {
        self.normalise.channels()
    }

    /// Refuses what gives no fixed size, and sizes of nothing.
    pub(super) fn checked(self, place: &str) -> Result<Self> {
        let sides = match self.resize {
            Resize::Keep => [1, 1],
            Resize::Shorter(side) => [side, side],
            Resize::Exact(h, w) | Resize::Cover(h, w) | Resize::Within(h, w) => [h, w],
        };
        let (height, width) = self.crop.unwrap_or((1, 1));
        if let Some(side) = [height, width].iter().chain(&sides).find(|side| !(1..=1 << 14).contains(*side)) {
            return Err(Error::settings(place, format!("a side of {side} pixels"), "sides are 1 to 16384 pixels long"));
        }
        if self.crop.is_none() && !matches!(self.resize, Resize::Exact(..)) {
            return Err(Error::settings(
                place,
                "pictures would keep sizes of their own: neither `size` with height and width nor a crop says one",
                "set do_center_crop and crop_size, or size = { height, width }",
            ));
        }
        Ok(self)
    }

    /// Grey for a grey model.
    pub(crate) fn coloured(&self, picture: Picture) -> Picture {
        if self.channels() == 1 { grey(picture) } else { picture }
    }

    /// Brought to the size before the cut. `filter` is the nearest for a mask.
    pub(crate) fn resized<const C: usize>(&self, plane: Plane<C>, filter: Filter) -> Plane<C> {
        let plane = if matches!(self.resize, Resize::Shorter(_) | Resize::Cover(..)) { middle(plane) } else { plane };
        let size = self.resize.size(plane.size());
        if size == plane.size() { plane } else { resized(&plane, size, filter) }
    }

    /// The picture in the model's size, as it is evaluated.
    pub fn fit(&self, picture: Picture) -> Picture {
        let picture = self.resized(self.coloured(picture), self.filter);
        match self.crop {
            Some(size) => centre_crop(&picture, size, self.centre, self.fill),
            None => picture,
        }
    }

    /// The mask of such a picture, alike; around a small one stands `void`.
    pub fn fit_mask(&self, mask: Mask, void: u8) -> Mask {
        let mask = self.resized(mask, Filter::Nearest);
        match self.crop {
            Some(size) => centre_crop(&mask, size, self.centre, [void]),
            None => mask,
        }
    }

    /// What the model takes of a picture in its size.
    pub fn normalise(&self, picture: &Picture) -> Normalised {
        self.normalise.apply(picture)
    }
}

/// A strip's middle, [`STRIP`] times as long as wide: a line of a million pixels would be made as wide as the model wants and fill memory.
fn middle<const C: usize>(plane: Plane<C>) -> Plane<C> {
    let (height, width) = plane.size();
    let (h, w) = (height.min(width * STRIP), width.min(height * STRIP));
    if (h, w) == (height, width) { plane } else { plane.crop((height - h) / 2, (width - w) / 2, h, w) }
}

/// The part in the middle; what is smaller is surrounded first.
fn centre_crop<const C: usize>(plane: &Plane<C>, size: (usize, usize), centre: Centre, fill: [u8; C]) -> Plane<C> {
    let missing = (size.0.saturating_sub(plane.height()), size.1.saturating_sub(plane.width()));
    let padded;
    let plane = if missing == (0, 0) {
        plane
    } else {
        let (rows, columns) = missing;
        padded = plane.pad([rows / 2, rows.div_ceil(2), columns / 2, columns.div_ceil(2)], fill);
        &padded
    };
    let begin = |side: usize, part: usize| {
        let half = (side - part) / 2;
        // Halves go to even where they do not go down.
        half + usize::from(centre == Centre::Even && (side - part) % 2 == 1 && half % 2 == 1)
    };
    plane.crop(begin(plane.height(), size.0), begin(plane.width(), size.1), size.0, size.1)
}

/// `(level * factor + offset - mean) / std`, and divided by `again`, for each channel.
pub(super) fn normalise(
    place: &str,
    channels: usize,
    factor: f64,
    offset: f64,
    moments: Option<(&[f64], &[f64])>,
    again: Option<&[f64]>,
) -> Result<Normalise> {
    let wrong = |message: String| {
        Err(Error::settings(place, message, "give a mean and a deviation above 0 for each channel, 3 of them or 1"))
    };
    let (mean, std) = moments.unwrap_or((&[0.0; 3][..channels.min(3)], &[1.0; 3][..channels.min(3)]));
    if ![1, 3].contains(&channels) || mean.len() != channels || std.len() != channels {
        return wrong(format!("{channels} channels with {} means and {} deviations", mean.len(), std.len()));
    }
    let again = again.unwrap_or(&[1.0; 3]);
    if again.len() < channels {
        return wrong(format!("{channels} channels with {} deviations", again.len()));
    }
    let bad = |std: &f64| !std.is_finite() || *std <= 0.0;
    if !factor.is_finite() || factor == 0.0 || !mean.iter().all(|m| m.is_finite()) {
        return wrong(format!("levels times {factor} less {mean:?} are no numbers for a model"));
    }
    if let Some(std) = std.iter().chain(&again[..channels]).find(|std| bad(std)) {
        return wrong(format!("a deviation of {std}"));
    }
    Ok(Normalise::new(channels, |c, level| (level * factor + offset - mean[c]) / std[c] / again[c]))
}
