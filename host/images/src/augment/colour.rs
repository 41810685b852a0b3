//! Colours: the ops of Pillow's `ImageEnhance` and `ImageOps`, which torchvision calls, level for level.

use std::array;

use crate::grey::lightness;
use crate::plane::{Picture, Plane};

/// From `a` at 0 over `b` at 1 and beyond, cut to the levels there are; fractions are cut off, as Pillow does.
fn blend(a: u8, b: u8, factor: f32) -> u8 {
    // The cast to u8 saturates.
    (f32::from(a) + factor * (f32::from(b) - f32::from(a))) as u8
}

/// Every level of a channel becomes another.
fn map_levels(picture: &mut Picture, tables: &[[u8; 256]; 3]) {
    for pixel in picture.pixels_mut() {
        *pixel = array::from_fn(|c| tables[c][usize::from(pixel[c])]);
    }
}

fn table(level: impl Fn(u8) -> u8) -> [u8; 256] {
    array::from_fn(|i| level(i as u8))
}

/// Black at 0, the picture at 1, brighter beyond.
pub(super) fn brightness(picture: &mut Picture, factor: f32) {
    map_levels(picture, &[table(|level| blend(0, level, factor)); 3]);
}

/// The mean lightness at 0, the picture at 1.
pub(super) fn contrast(picture: &mut Picture, factor: f32) {
    let sum: u64 = picture.pixels().iter().map(|pixel| u64::from(lightness(*pixel))).sum();
    let mean = (sum as f64 / picture.pixels().len() as f64 + 0.5) as u8;
    map_levels(picture, &[table(|level| blend(mean, level, factor)); 3]);
}

/// Grey at 0, the picture at 1.
pub(super) fn saturation(picture: &mut Picture, factor: f32) {
    for pixel in picture.pixels_mut() {
        let grey = lightness(*pixel);
        *pixel = pixel.map(|level| blend(grey, level, factor));
    }
}

/// Smoothed at 0, the picture at 1, sharpened beyond. The outermost pixels stay.
pub(super) fn sharpness(picture: &mut Picture, factor: f32) {
    let (height, width) = picture.size();
    let smooth = |y: usize, x: usize| -> [u8; 3] {
        let rows = [picture.row(y - 1), picture.row(y), picture.row(y + 1)];
        array::from_fn(|c| {
            let around: u32 = rows.iter().flat_map(|row| &row[x - 1..=x + 1]).map(|pixel| u32::from(pixel[c])).sum();
            // Weights of 1 around 5, over 13.
            let sum = around + 4 * u32::from(rows[1][x][c]);
            (sum as f32 / 13.0 + 0.5) as u8
        })
    };
    *picture = Plane::from_fn(height, width, |y, x| {
        let own = picture.row(y)[x];
        if y == 0 || x == 0 || y + 1 == height || x + 1 == width {
            return own;
        }
        let smooth = smooth(y, x);
        array::from_fn(|c| blend(smooth[c], own[c], factor))
    });
}

/// Hues turned by so many 255ths of a circle.
pub(super) fn hue(picture: &mut Picture, turn: u8) {
    for pixel in picture.pixels_mut() {
        let [hue, saturation, value] = to_hsv(*pixel);
        *pixel = from_hsv([hue.wrapping_add(turn), saturation, value]);
    }
}

/// Smith's hexcone, in bytes.
fn to_hsv(pixel: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = pixel;
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    if most == least {
        return [0, 0, most];
    }
    let range = f32::from(most - least);
    let below = |level: u8| f32::from(most - level) / range;
    // Pillow keeps its numbers in single precision, and so the same levels are cut off.
    let sixth = if r == most {
        below(b) - below(g)
    } else if g == most {
        (2.0 + f64::from(below(r)) - f64::from(below(b))) as f32
    } else {
        (4.0 + f64::from(below(g)) - f64::from(below(r))) as f32
    };
    let hue = (f64::from(sixth) / 6.0 + 1.0).fract() as f32;
    let byte = |share: f32| (f64::from(share) * 255.0) as u8;
    [byte(hue), byte(range / f32::from(most)), most]
}

fn from_hsv([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let sixth = f64::from(hue) * 6.0 / 255.0;
    let (part, saturation) = (sixth.fract() as f32, f32::from(saturation) / 255.0);
    let level = |less: f64| (f64::from(value) * (1.0 - less)).round() as u8;
    let low = level(f64::from(saturation));
    let (down, up) = (level(f64::from(saturation * part)), level(f64::from(saturation) * (1.0 - f64::from(part))));
    match sixth as u8 % 6 {
        0 => [value, up, low],
        1 => [down, value, low],
        2 => [low, value, up],
        3 => [low, down, value],
        4 => [up, low, value],
        _ => [value, low, down],
    }
}

/// Only the upper bits of a level stay.
pub(super) fn posterize(picture: &mut Picture, bits: u32) {
    let mask = !(0xFF_u8.checked_shr(bits).unwrap_or(0));
    map_levels(picture, &[table(|level| level & mask); 3]);
}

/// Levels from a threshold on are inverted.
pub(super) fn solarize(picture: &mut Picture, threshold: f64) {
    map_levels(picture, &[table(|level| if f64::from(level) < threshold { level } else { 255 - level }); 3]);
}

fn histograms(picture: &Picture) -> [[usize; 256]; 3] {
    let mut counts = [[0; 256]; 3];
    for pixel in picture.pixels() {
        (0..3).for_each(|c| counts[c][usize::from(pixel[c])] += 1);
    }
    counts
}

/// Each channel is stretched over all levels.
pub(super) fn autocontrast(picture: &mut Picture) {
    let stretch = |counts: [usize; 256]| {
        let low = counts.iter().position(|count| *count > 0).unwrap_or(0);
        let high = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
        if high <= low {
            return table(|level| level);
        }
        let scale = 255.0 / (high - low) as f64;
        table(|level| (f64::from(level) * scale - low as f64 * scale) as u8)
    };
    map_levels(picture, &histograms(picture).map(stretch));
}

/// Each channel gets as many pixels of each level as can be.
pub(super) fn equalize(picture: &mut Picture) {
    let even = |counts: [usize; 256]| {
        let levels = counts.iter().filter(|count| **count > 0).count();
        let last = counts.iter().rev().find(|count| **count > 0).copied().unwrap_or(0);
        let step = (counts.iter().sum::<usize>() - last) / 255;
        if levels <= 1 || step == 0 {
            return table(|level| level);
        }
        let mut below = step / 2;
        counts.map(|count| {
            let level = (below / step).min(255) as u8;
            below += count;
            level
        })
    };
    map_levels(picture, &histograms(picture).map(even));
}
