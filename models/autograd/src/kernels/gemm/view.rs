//! B of a product as the kernels take it: packed for the call, or a weight at rest.

use std::ops::Range;

use super::few::Kept;
use super::micro::PANEL;
use super::pack::{BLOCK, Format, Strided, pack};
use super::rest::{Direction, Packed, TILE};
use super::taps::Taps;
use crate::Precision;

/// B of a product, `k` by `n`, in panels of 32 columns, lane after lane along k. Columns beyond `n` count as zero.
#[derive(Clone, Copy)]
pub(crate) struct PackedView<'a> {
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) format: Format,
    panels: Panels<'a>,
}

/// Where a packed B lies.
#[derive(Clone, Copy)]
enum Panels<'a> {
    /// Block after block of k, each with all its panels.
    Ready(&'a [f32]),
    /// In a weight at rest.
    AtRest(&'a Packed, Direction),
    /// In a convolution's weight at rest, for the gradient of its input.
    Taps(&'a Packed, Taps),
}

impl<'a> PackedView<'a> {
    /// Packs `b` into scratch.
    pub(crate) fn pack(b: Strided<'_>, k: usize, n: usize, precision: Precision, scratch: &'a mut [f32]) -> Self {
        Self::pack_as(b, k, n, Format::of(precision), scratch)
    }

    /// [`pack`](Self::pack) on the threads of the pool where `parallel` says so.
    pub(crate) fn pack_by_all(
        b: Strided<'_>,
        k: usize,
        n: usize,
        precision: Precision,
        scratch: &'a mut [f32],
        parallel: bool,
    ) -> Self {
        pack(b, k, n, Format::of(precision), scratch, parallel);
        Self { k, n, format: Format::of(precision), panels: Panels::Ready(scratch) }
    }

    pub(super) fn pack_as(b: Strided<'_>, k: usize, n: usize, format: Format, scratch: &'a mut [f32]) -> Self {
        pack(b, k, n, format, scratch, false);
        Self { k, n, format, panels: Panels::Ready(scratch) }
    }

    pub(super) fn at_rest(weight: &'a Packed, direction: Direction) -> Self {
        let (k, n) = weight.operand(direction);
        Self { k, n, format: weight.format(), panels: Panels::AtRest(weight, direction) }
    }

    /// Floats of scratch that [`panel`](Self::panel) works in: none where all panels lie ready.
    pub(super) fn panel_scratch(&self) -> usize {
        match self.panels {
            Panels::AtRest(weight, direction) if !weight.lies_ready(direction) => (BLOCK + TILE) * PANEL,
            Panels::Taps(..) => (BLOCK + TILE) * PANEL,
            _ => 0,
        }
    }

    /// The panel that begins with column `column` as a weight keeps it, where products of a few rows read it so.
    pub(super) fn kept(&self, column: usize) -> Option<Kept<'a>> {
        match self.panels {
            Panels::AtRest(weight, Direction::Forward) => weight.kept(column / PANEL),
            _ => None,
        }
    }

    /// The lanes `block` of the panel that begins with column `column`.
    pub(super) fn panel<'s>(&self, column: usize, block: &Range<usize>, scratch: &'s mut [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        match self.panels {
            Panels::Ready(lanes) => {
                &lanes[block.start * self.n.next_multiple_of(PANEL) + column * block.len()..][..block.len() * PANEL]
            }
            Panels::AtRest(weight, direction) => weight.panel(direction, column / PANEL, block, scratch),
            Panels::Taps(weight, taps) => {
                weight.panel_of_taps(&taps, column, block, scratch);
                &scratch[..block.len() * PANEL]
            }
        }
    }
}

impl Packed {
    /// As B of a product.
    pub(crate) fn view(&self, direction: Direction) -> PackedView<'_> {
        PackedView::at_rest(self, direction)
    }

    /// As B of a product of gradients: tap after tap the outputs along k, padded to whole tiles, and a column for each channel. Only
    /// where it [turns](Self::turns_taps).
    pub(crate) fn view_of_taps(&self, taps: Taps) -> PackedView<'_> {
        debug_assert!(self.turns_taps());
        PackedView {
            k: taps.len() * self.padded_out(),
            n: self.channels(),
            format: self.format(),
            panels: Panels::Taps(self, taps),
        }
    }
}
