//! B of a product as the kernels take it: packed for the call, or a weight at rest.

use std::ops::Range;

use super::micro::PANEL;
use super::pack::{BLOCK, Format, Strided, pack};
use super::rest::{Direction, Packed, TILE};
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
}

impl<'a> PackedView<'a> {
    /// Packs `b` into scratch.
    pub(crate) fn pack(b: Strided<'_>, k: usize, n: usize, precision: Precision, scratch: &'a mut [f32]) -> Self {
        Self::pack_as(b, k, n, Format::of(precision), scratch)
    }

    pub(super) fn pack_as(b: Strided<'_>, k: usize, n: usize, format: Format, scratch: &'a mut [f32]) -> Self {
        pack(b, k, n, format, scratch);
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
            _ => 0,
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
        }
    }
}

impl Packed {
    /// As B of a product.
    pub(crate) fn view(&self, direction: Direction) -> PackedView<'_> {
        PackedView::at_rest(self, direction)
    }
}
