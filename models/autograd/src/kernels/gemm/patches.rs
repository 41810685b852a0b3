//! A of a convolution's product: the patches that a window sees, gathered block by block and nowhere stored whole.

use std::ops::Range;

use super::pack::{Format, convert, interleave};
use crate::Map;
use crate::kernels::scratch;

/// One direction of a window: tap `t` of place `o` falls on pixel `o stride + t step + offset`, or outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Along {
    pub(crate) taps: usize,
    pub(crate) stride: isize,
    pub(crate) step: isize,
    pub(crate) offset: isize,
}

impl Along {
    fn pixel(&self, place: usize, tap: usize) -> isize {
        place as isize * self.stride + tap as isize * self.step + self.offset
    }
}

/// A matrix of patches: a row for each place (image, down, across), and along it, tap by tap, the channels of the pixel there; zeros
/// where a tap falls outside.
#[derive(Clone, Copy)]
pub(crate) struct Patches<'a> {
    /// `[pixels, channels]`, in lanes.
    pub(crate) data: &'a [f32],
    pub(crate) source: Map,
    /// Lanes of a pixel.
    pub(crate) channels: usize,
    /// Lanes of a tap: the channels, then zeros.
    pub(crate) padded: usize,
    /// Whether a lane of `data` is a pair of bf16, as the product's lanes are; else it is a float.
    pub(crate) pairs: bool,
    /// Places of an image, down and across.
    pub(crate) places: [usize; 2],
    /// Down and across.
    pub(crate) along: [Along; 2],
}

impl Patches<'_> {
    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.source.images * self.places[0] * self.places[1]
    }

    /// Lanes of a row.
    pub(crate) fn width(&self) -> usize {
        self.along[0].taps * self.along[1].taps * self.padded
    }

    /// The lanes `lanes` of row `row`.
    fn gather(&self, row: usize, lanes: Range<usize>, out: &mut [f32]) {
        let [height, width] = self.places;
        let (place, image) = (row % (height * width), row / (height * width));
        let [down, across] = self.along;
        let (oy, ox) = (place / width, place % width);
        let line = self.source.width * self.channels;
        // The rows of pixels under each row of taps.
        let per_row = across.taps * self.padded;
        let mut at = lanes.start;
        while at < lanes.end {
            let ty = at / per_row;
            let end = lanes.end.min((ty + 1) * per_row);
            let out = &mut out[at - lanes.start..end - lanes.start];
            let taps = at - ty * per_row..end - ty * per_row;
            at = end;
            let y = down.pixel(oy, ty);
            if y < 0 || y >= self.source.height as isize {
                out.fill(0.0);
                continue;
            }
            let line = &self.data[(image * self.source.height + y as usize) * line..][..line];
            if across.step == 1 && self.padded == self.channels {
                // Neighbouring taps are neighbouring pixels: one piece of memory, cut off at the map's sides.
                let first = across.pixel(ox, 0) * self.channels as isize + taps.start as isize;
                copy_clipped(line, first, out);
            } else {
                self.gather_taps(line, ox, taps, out);
            }
        }
    }

    /// The lanes `lanes` of a row of taps, tap by tap.
    fn gather_taps(&self, line: &[f32], ox: usize, lanes: Range<usize>, out: &mut [f32]) {
        let across = self.along[1];
        let mut at = lanes.start;
        while at < lanes.end {
            let tap = at / self.padded;
            let end = lanes.end.min((tap + 1) * self.padded);
            let out = &mut out[at - lanes.start..end - lanes.start];
            let from = at - tap * self.padded;
            at = end;
            let x = across.pixel(ox, tap);
            if x < 0 || x >= self.source.width as isize {
                out.fill(0.0);
                continue;
            }
            let pixel = &line[x as usize * self.channels..][..self.channels];
            let real = self.channels.saturating_sub(from).min(out.len());
            let (filled, rest) = out.split_at_mut(real);
            filled.copy_from_slice(&pixel[self.channels.min(from)..][..real]);
            rest.fill(0.0);
        }
    }

    /// Rows `rows` of A, of its lanes along k those of `block`: row after row in `out`. `k` is A's width in elements.
    pub(super) fn fill(&self, rows: Range<usize>, block: &Range<usize>, k: usize, format: Format, out: &mut [f32]) {
        let rows = rows.zip(out.chunks_exact_mut(block.len().max(1)));
        if format == Format::F32 || self.pairs {
            rows.for_each(|(row, out)| self.gather(row, block.clone(), out));
            return;
        }
        let factor = if format == Format::Pairs { 2 } else { 1 };
        let elements = block.start * factor..k.min(block.end * factor);
        scratch::with(elements.len(), |floats| {
            for (row, out) in rows {
                self.gather(row, elements.clone(), floats);
                convert(format, floats, out);
            }
        });
    }

    /// Rows `elements` of A's transpose, whose k are the places, of their lanes those of `block`: lane after lane in `out`.
    pub(super) fn fill_transposed(
        &self,
        elements: &Range<usize>,
        block: &Range<usize>,
        format: Format,
        out: &mut [f32],
    ) {
        let lanes = block.clone().zip(out.chunks_exact_mut(elements.len().max(1)));
        if format == Format::F32 {
            lanes.for_each(|(place, out)| self.gather(place, elements.clone(), out));
            return;
        }
        scratch::with(2 * elements.len(), |floats| {
            let (low, high) = floats.split_at_mut(elements.len());
            for (lane, out) in lanes {
                if format != Format::Pairs {
                    self.gather(lane, elements.clone(), low);
                    convert(format, low, out);
                    continue;
                }
                self.gather(2 * lane, elements.clone(), low);
                if 2 * lane + 1 < self.rows() {
                    self.gather(2 * lane + 1, elements.clone(), high);
                } else {
                    high.fill(0.0);
                }
                interleave(low, high, out);
            }
        });
    }
}

/// The elements of `line` from `first` on, zeros before its beginning and beyond its end.
fn copy_clipped(line: &[f32], first: isize, out: &mut [f32]) {
    if first >= 0 && first as usize + out.len() <= line.len() {
        out.copy_from_slice(&line[first as usize..][..out.len()]);
        return;
    }
    let before = first.min(0).unsigned_abs().min(out.len());
    let start = first.max(0) as usize;
    let end = line.len().min((first + out.len() as isize).max(0) as usize);
    let inside = end.saturating_sub(start);
    out[..before].fill(0.0);
    out[before..before + inside].copy_from_slice(&line[start.min(end)..end]);
    out[before + inside..].fill(0.0);
}
