//! Weights at rest: packed once, for the product with them and for that with their transpose.
//!
//! A weight `[out, in]` lies in panels of 32 outputs, lane after lane along the inputs. As B of `x W^T` it is read where it lies, or
//! widened where the processor has no products of bf16. For `g W` a panel of B is turned around, tile by tile, when its block is
//! due. Either serves all rows of A at once, so it costs a few per cent of the product; a second copy would double the memory. Of a
//! quantised weight the codes lie in panels, and lanes of either product are made of them ([`CodePanels`]).

use std::ops::Range;

use super::few;
use super::micro::PANEL;
use super::pack::{Format, Strided, pack_columns};
use super::quantized::CodePanels;
use super::taps::{Shape, Taps, by_tap};
use crate::Precision;
use crate::kernels::multiversion;
use crate::kernels::scratch::{self, LANES, Line, lanes, lanes_mut};
use crate::quantized::{Codes, Quantization};

/// Lanes and columns of a tile that is turned around at once.
pub(super) const TILE: usize = 8;

/// Which product with a weight `[out, in]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// `x W^T`
    Forward,
    /// `g W`
    Backward,
}

/// What the lanes of a panel are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A float in each lane.
    Float,
    /// Two bf16 in each lane, neighbours along the inputs.
    Bf16,
}

/// A weight `[out, in]` at rest. One of a convolution, `[out, channels, kh, kw]`, lies tap after tap: in = (kh, kw, channels).
#[derive(Debug)]
pub(crate) struct Packed {
    out: usize,
    width: usize,
    taps: usize,
    /// What the kernels of its products read.
    format: Format,
    /// Panel after panel, each of `lanes` times 32; lanes and columns beyond the weight's own are zero.
    lines: Vec<Line>,
    /// What there is instead of lanes where it is quantised.
    codes: Option<CodePanels>,
}

impl Packed {
    /// Rows of a weight that make a panel.
    pub(crate) const ROWS: usize = PANEL;

    /// A weight of these dimensions for products in `precision`, its rows still to come. Memory of `old`, which is no longer needed,
    /// is used again.
    pub(crate) fn new(shape: Shape, precision: Precision, old: Option<Self>) -> Self {
        Self::with_format(shape, Format::of(precision), old)
    }

    pub(super) fn with_format(Shape { out, width, taps }: Shape, format: Format, old: Option<Self>) -> Self {
        let mut lines = old.map_or_else(Vec::new, |old| old.lines);
        lines.clear();
        let mut packed = Self { out, width, taps, format, lines, codes: None };
        packed.lines.reserve_exact(out.div_ceil(PANEL) * packed.panel_lines());
        packed
    }

    /// A quantised matrix for products in `precision`, whose rows are whole blocks and still to come.
    pub(crate) fn quantized(Shape { out, width, taps }: Shape, precision: Precision, of: Quantization) -> Self {
        Self::quantized_as(Shape { out, width, taps }, Format::of(precision), of)
    }

    fn quantized_as(Shape { out, width, taps }: Shape, format: Format, of: Quantization) -> Self {
        debug_assert_eq!(taps, 1);
        let codes = Some(CodePanels::new(of, width, out.div_ceil(PANEL)));
        Self { out, width, taps, format, lines: Vec::new(), codes }
    }

    /// [`push`](Self::push) of a quantised one.
    pub(crate) fn push_codes(&mut self, rows: &Codes) {
        if let Some(codes) = &mut self.codes {
            codes.push(rows);
        }
    }

    fn form(&self) -> Form {
        match self.format {
            Format::F32 | Format::RoundedF16 => Form::Float,
            Format::RoundedBf16 | Format::Pairs => Form::Bf16,
        }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Lanes of a panel.
    fn lanes(&self) -> usize {
        let lanes = match self.form() {
            Form::Float => self.width,
            Form::Bf16 => self.width.div_ceil(2),
        };
        lanes.next_multiple_of(TILE)
    }

    fn panel_lines(&self) -> usize {
        self.lanes() * PANEL / LANES
    }

    /// Appends a panel: the weight's next [`ROWS`](Self::ROWS) rows, or what is left of them.
    pub(crate) fn push(&mut self, rows: &[f32]) {
        let start = self.lines.len();
        self.lines.resize(start + self.panel_lines(), Line::ZERO);
        let (width, format) = (self.width, self.kept_format());
        by_tap(rows, width, self.taps, |rows| fill(rows, width, format, lanes_mut(&mut self.lines[start..])));
    }

    /// Whether the panel of this number holds these rows, to the bit.
    pub(crate) fn holds(&self, panel: usize, rows: &[f32]) -> bool {
        if let Some(codes) = &self.codes {
            return codes.has(panel) && self.quantized_holds(codes, panel, rows);
        }
        let size = self.panel_lines();
        let Some(kept) = self.lines.get(panel * size..(panel + 1) * size) else { return false };
        scratch::with(size * LANES, |packed| {
            packed.fill(0.0);
            by_tap(rows, self.width, self.taps, |rows| fill(rows, self.width, self.kept_format(), packed));
            lanes(kept).iter().zip(packed).all(|(kept, packed)| kept.to_bits() == packed.to_bits())
        })
    }

    fn quantized_holds(&self, codes: &CodePanels, panel: usize, rows: &[f32]) -> bool {
        scratch::with(self.width * PANEL, |made| {
            codes.lanes(panel, 0..self.width, Format::F32, made);
            let same = |(i, row): (usize, &[f32])| {
                row.iter().zip(made.chunks(PANEL)).all(|(x, lane)| x.to_bits() == lane[i].to_bits())
            };
            rows.chunks(self.width.max(1)).enumerate().all(same)
        })
    }

    /// How it is packed.
    fn kept_format(&self) -> Format {
        match self.form() {
            Form::Float => self.format,
            Form::Bf16 => Format::Pairs,
        }
    }

    /// The dimensions k and n of B.
    pub(super) fn operand(&self, direction: Direction) -> (usize, usize) {
        match direction {
            Direction::Forward => (self.width, self.out),
            Direction::Backward => (self.out, self.width),
        }
    }

    /// Whether kernels read the panels where they lie.
    pub(super) fn lies_ready(&self, direction: Direction) -> bool {
        direction == Direction::Forward && self.codes.is_none() && self.kept_format() == self.format
    }

    /// The panel of this number of `W^T` as it is kept, where kernels for a few rows read it so.
    pub(super) fn kept(&self, panel: usize) -> Option<few::Kept<'_>> {
        let size = self.lanes() * PANEL;
        let lanes = || &lanes(&self.lines)[panel * size..][..size];
        match (&self.codes, self.format) {
            (Some(codes), Format::F32) => Some(codes.kept(panel)),
            (None, Format::F32 | Format::RoundedF16) => Some(few::Kept::Floats(lanes())),
            (None, Format::RoundedBf16) => Some(few::Kept::Pairs(lanes())),
            _ => None,
        }
    }

    /// The lanes `block` of B's panel of this number, by way of scratch where they do not lie ready.
    pub(super) fn panel<'s>(
        &'s self,
        direction: Direction,
        panel: usize,
        block: &Range<usize>,
        scratch: &'s mut [f32],
    ) -> &'s [f32] {
        if let Some(codes) = &self.codes {
            match direction {
                Direction::Forward => codes.lanes(panel, block.clone(), self.format, scratch),
                Direction::Backward => self.turn_codes(codes, panel * PANEL, block, scratch),
            }
            return &scratch[..block.len() * PANEL];
        }
        let kept = Kept { lanes: lanes(&self.lines), stride: self.lanes() * PANEL };
        match direction {
            Direction::Forward => {
                let start = panel * kept.stride;
                if self.lies_ready(direction) {
                    return &kept.lanes[start + block.start * PANEL..start + block.end * PANEL];
                }
                // Blocks begin at even elements, so at whole pairs.
                let pairs = block.start / 2..block.end.div_ceil(2);
                widen(&kept.lanes[start + pairs.start * PANEL..start + pairs.end * PANEL], scratch);
            }
            Direction::Backward => turn(kept, self.format, panel * PANEL, block, scratch),
        }
        &scratch[..block.len() * PANEL]
    }

    /// The lanes `block` of the panel of `W` that begins with this input: 32 inputs of one panel of outputs after the other.
    fn turn_codes(&self, codes: &CodePanels, input: usize, block: &Range<usize>, out: &mut [f32]) {
        let (kept_format, per_panel) = (self.kept_format(), self.format.lanes(PANEL));
        let lanes = kept_format.lanes(PANEL);
        let mut tile = [Line::ZERO; PANEL * PANEL / LANES];
        let tile = &mut lanes_mut(&mut tile)[..lanes * PANEL];
        let first = input / (PANEL / lanes);
        let mut at = block.start;
        while at < block.end {
            let panel = at / per_panel;
            let end = block.end.min((panel + 1) * per_panel);
            codes.lanes(panel, first..first + lanes, kept_format, tile);
            let within = at - panel * per_panel..end - panel * per_panel;
            let kept = Kept { lanes: tile, stride: tile.len() };
            turn(kept, self.format, 0, &within, &mut out[(at - block.start) * PANEL..]);
            at = end;
        }
    }

    /// Channels of a weight whose taps [`panel_of_taps`](Self::panel_of_taps) can tell apart.
    pub(crate) fn turns_taps(&self) -> bool {
        let inputs = if self.form() == Form::Bf16 { 2 } else { 1 };
        (self.width / self.taps).is_multiple_of(TILE * inputs)
    }

    pub(super) fn channels(&self) -> usize {
        self.width / self.taps
    }

    /// Outputs of one tap in a B of taps: the weight's, and zeros up to a whole number of tiles.
    pub(super) fn padded_out(&self) -> usize {
        self.out.next_multiple_of(TILE)
    }

    /// The lanes `block` of the panel from channel `column` on of a B with, tap after tap as `taps` has them, the outputs along k.
    pub(super) fn panel_of_taps(&self, taps: &Taps, column: usize, block: &Range<usize>, scratch: &mut [f32]) {
        let kept = Kept { lanes: lanes(&self.lines), stride: self.lanes() * PANEL };
        let per_tap = self.format.lanes(self.padded_out());
        let mut at = block.start;
        while at < block.end {
            let tap = at / per_tap;
            let end = block.end.min((tap + 1) * per_tap);
            let outputs = at - tap * per_tap..end - tap * per_tap;
            let first = taps.of_weight(tap) * self.channels() + column;
            turn(kept, self.format, first, &outputs, &mut scratch[(at - block.start) * PANEL..]);
            at = end;
        }
    }
}

/// Packs the rows of a panel.
fn fill(rows: &[f32], width: usize, format: Format, panel: &mut [f32]) {
    let columns = rows.len().checked_div(width).unwrap_or(0);
    let lanes = format.lanes(width);
    pack_columns(
        Strided::rows(rows, width).transposed(),
        width,
        0..lanes,
        0..columns,
        format,
        &mut panel[..lanes * PANEL],
    );
}

/// All panels of a weight.
#[derive(Clone, Copy)]
struct Kept<'a> {
    lanes: &'a [f32],
    /// From one panel to the next.
    stride: usize,
}

#[inline(always)]
fn low(pair: f32) -> f32 {
    f32::from_bits(pair.to_bits() << 16)
}

#[inline(always)]
fn high(pair: f32) -> f32 {
    f32::from_bits(pair.to_bits() & 0xFFFF_0000)
}

#[inline(always)]
fn widen_body<const FMA: bool>(pairs: &[f32], out: &mut [f32]) {
    for (pairs, out) in pairs.as_chunks::<PANEL>().0.iter().zip(out.as_chunks_mut::<{ 2 * PANEL }>().0) {
        let (first, second) = out.split_at_mut(PANEL);
        first.iter_mut().zip(pairs).for_each(|(x, pair)| *x = low(*pair));
        second.iter_mut().zip(pairs).for_each(|(x, pair)| *x = high(*pair));
    }
}

multiversion! {
    /// Lanes of pairs as twice as many of floats.
    fn widen(pairs: &[f32], out: &mut [f32]) = widen_body
}

#[inline(always)]
fn turn_body<const FMA: bool>(kept: Kept<'_>, format: Format, input: usize, block: &Range<usize>, out: &mut [f32]) {
    // Inputs of a kept lane, and outputs of a lane of B.
    let (inputs, outputs) = match format {
        Format::F32 | Format::RoundedF16 => (1, 1),
        Format::RoundedBf16 => (2, 1),
        Format::Pairs => (2, 2),
    };
    let first = input / inputs; // kept lane
    let beyond = kept.stride / PANEL;
    for start in (block.start * outputs..block.end * outputs).step_by(TILE) {
        let from = &kept.lanes[start / PANEL * kept.stride + start % PANEL..];
        let rows = &mut out[(start / outputs - block.start) * PANEL..][..TILE / outputs * PANEL];
        for (i, lane) in (first..first + PANEL / inputs).step_by(TILE).enumerate() {
            let tile = match lane < beyond {
                true => turned::<FMA>(&from[lane * PANEL..]),
                false => [[0.0; TILE]; TILE],
            };
            match format {
                Format::F32 | Format::RoundedF16 => {
                    for (row, tile) in rows.as_chunks_mut::<PANEL>().0.iter_mut().zip(&tile) {
                        row[i * TILE..][..TILE].copy_from_slice(tile);
                    }
                }
                Format::RoundedBf16 => {
                    for (row, tile) in rows.as_chunks_mut::<PANEL>().0.iter_mut().zip(&tile) {
                        let row = row[2 * i * TILE..][..2 * TILE].as_chunks_mut::<2>().0;
                        row.iter_mut().zip(tile).for_each(|(pair, x)| *pair = [low(*x), high(*x)]);
                    }
                }
                Format::Pairs => {
                    let tile = tile.as_chunks::<2>().0;
                    for (row, [even, odd]) in rows.as_chunks_mut::<PANEL>().0.iter_mut().zip(tile) {
                        let row = row[2 * i * TILE..][..2 * TILE].as_chunks_mut::<2>().0;
                        for ((pair, a), b) in row.iter_mut().zip(even).zip(odd) {
                            let (a, b) = (a.to_bits(), b.to_bits());
                            *pair = [a & 0xFFFF | b << 16, a >> 16 | b & 0xFFFF_0000].map(f32::from_bits);
                        }
                    }
                }
            }
        }
    }
}

multiversion! {
    /// The lanes `block` of the panel of `W` that begins with this input, from panels of `W^T`.
    fn turn(kept: Kept<'_>, format: Format, input: usize, block: &Range<usize>, out: &mut [f32]) = turn_body
}

/// Eight columns of eight lanes, column by column.
#[inline(always)]
fn turned<const FMA: bool>(from: &[f32]) -> [[f32; TILE]; TILE] {
    assert!(from.len() >= (TILE - 1) * PANEL + TILE);
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: eight floats stand at each of eight lanes, and only a version that was compiled with avx2 comes here: on this
        // target none has a fused multiply-add without.
        return unsafe { turned_avx(from.as_ptr()) };
    }
    let mut tile = [[0.0; TILE]; TILE];
    for (i, lane) in from.chunks(PANEL).take(TILE).enumerate() {
        for (column, x) in tile.iter_mut().zip(lane) {
            column[i] = *x;
        }
    }
    tile
}

/// # Safety
/// The processor has avx, and eight floats stand at each of eight lanes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[inline]
unsafe fn turned_avx(from: *const f32) -> [[f32; TILE]; TILE] {
    use std::arch::x86_64::*;
    // SAFETY: by contract.
    let lane = |i: usize| unsafe { _mm256_loadu_ps(from.add(i * PANEL)) };
    let pair = |i: usize| {
        let (a, b) = (lane(i), lane(i + 1));
        [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)]
    };
    // Columns 0 and 4, 1 and 5, 2 and 6, 3 and 7 of four lanes.
    let four = |i: usize| {
        let ([a, b], [c, d]) = (pair(i), pair(i + 2));
        [
            _mm256_shuffle_ps::<0b0100_0100>(a, c),
            _mm256_shuffle_ps::<0b1110_1110>(a, c),
            _mm256_shuffle_ps::<0b0100_0100>(b, d),
            _mm256_shuffle_ps::<0b1110_1110>(b, d),
        ]
    };
    let (upper, lower) = (four(0), four(4));
    let mut tile = [[0.0; TILE]; TILE];
    for (j, (upper, lower)) in upper.into_iter().zip(lower).enumerate() {
        // SAFETY: a row of the tile is eight floats.
        unsafe {
            _mm256_storeu_ps(tile[j].as_mut_ptr(), _mm256_permute2f128_ps::<0x20>(upper, lower));
            _mm256_storeu_ps(tile[j + 4].as_mut_ptr(), _mm256_permute2f128_ps::<0x31>(upper, lower));
        }
    }
    tile
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pack::packed_len;
    use super::super::view::PackedView;
    use super::*;
    use crate::quantized::Levels;

    fn random(len: usize) -> Vec<f32> {
        let mut data = vec![0.0; len];
        crate::random::Stream::keyed(1, &[len as u64]).fill_uniform(&mut data, -1.0, 1.0);
        data
    }

    fn packed(weight: &[f32], width: usize, format: Format, old: Option<Packed>) -> Packed {
        let mut packed = Packed::with_format(Shape { out: weight.len() / width, width, taps: 1 }, format, old);
        weight.chunks(width * Packed::ROWS).for_each(|rows| packed.push(rows));
        packed
    }

    const FORMATS: [Format; 4] = [Format::F32, Format::RoundedF16, Format::RoundedBf16, Format::Pairs];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Block by block and panel by panel what a copy for that product alone would hold.
        #[test]
        fn one_packing_serves_both_products(out in 1usize..900, width in 1usize..900, format in 0usize..4) {
            let (weight, format) = (random(out * width), FORMATS[format]);
            let rows = Strided::rows(&weight, width);
            let kept = packed(&weight, width, format, None);
            for (direction, b) in [(Direction::Forward, rows.transposed()), (Direction::Backward, rows)] {
                let view = kept.view(direction);
                let (k, n) = (view.k, view.n);
                let mut scratch = vec![f32::NAN; packed_len(k, n, format)];
                let alone = PackedView::pack_as(b, k, n, format, &mut scratch);
                let mut scratch = vec![f32::NAN; view.panel_scratch()];
                for block in super::super::blocks(format.lanes(k)) {
                    for column in (0..n).step_by(PANEL) {
                        let expected = alone.panel(column, &block, &mut []).chunks(PANEL);
                        let found = view.panel(column, &block, &mut scratch).chunks(PANEL);
                        let columns = PANEL.min(n - column);
                        for (expected, found) in expected.zip(found) {
                            let bits = |lane: &[f32]| lane[..columns].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                            prop_assert_eq!(bits(expected), bits(found), "{:?} {:?} {:?}", direction, block, column);
                        }
                    }
                }
            }
        }
    }

    /// A quantised weight in each way, and its values.
    fn quantized(out: usize, width: usize, kind: usize, format: Format) -> (Packed, Vec<f32>) {
        let book = std::array::from_fn(|i| (i as f32 - 7.0) * 0.21);
        let (block, levels) =
            [(32, Levels::Nibble { zero: 8 }), (64, Levels::Book(book)), (16, Levels::Byte)][kind % 3];
        let of = Quantization { block, levels, has_offsets: kind >= 3 };
        let mut packed = Packed::quantized_as(Shape { out, width, taps: 1 }, format, of);
        let bits = random(out * width);
        let mut values = Vec::new();
        for rows in bits.chunks(width * Packed::ROWS) {
            let code = |x: &f32| (x.to_bits() >> 7) as u8 & if kind % 3 == 2 { 255 } else { 15 };
            let scales = random(rows.len() / block).into_iter().map(|x| x * 0.1).collect();
            let offsets = if of.has_offsets { random(rows.len() / block) } else { Vec::new() };
            let codes = Codes { codes: rows.iter().map(code).collect(), scales, offsets };
            packed.push_codes(&codes);
            let mut some = vec![f32::NAN; rows.len()];
            codes.values(&of, &mut some);
            values.extend(some);
        }
        (packed, values)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// What is made of codes is what a weight of their values holds.
        #[test]
        fn codes_are_read_as_their_values(out in 1usize..300, blocks in 1usize..14, kind in 0usize..6, format in 0usize..4) {
            let (width, format) = (64 * blocks, FORMATS[format]);
            let (codes, values) = quantized(out, width, kind, format);
            let floats = packed(&values, width, format, None);
            for direction in [Direction::Forward, Direction::Backward] {
                let (one, other) = (codes.view(direction), floats.view(direction));
                let mut scratch = [one, other].map(|view| vec![f32::NAN; view.panel_scratch()]);
                let [scratch, others] = &mut scratch;
                for block in super::super::blocks(format.lanes(one.k)) {
                    for column in (0..one.n).step_by(PANEL) {
                        let columns = PANEL.min(one.n - column);
                        let found = one.panel(column, &block, scratch).chunks(PANEL);
                        let expected = other.panel(column, &block, others).chunks(PANEL);
                        for (found, expected) in found.zip(expected) {
                            let bits = |lane: &[f32]| lane[..columns].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                            prop_assert_eq!(bits(found), bits(expected), "{:?} {:?} {:?}", direction, block, column);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn other_codes_are_told_apart() {
        for kind in 0..6 {
            let (codes, mut values) = quantized(40, 128, kind, Format::F32);
            let same = |values: &[f32]| {
                values.chunks(128 * Packed::ROWS).enumerate().all(|(panel, rows)| codes.holds(panel, rows))
            };
            assert!(same(&values));
            values[39 * 128 + 127] += 0.25;
            assert!(!same(&values));
        }
    }

    #[test]
    fn other_rows_are_told_apart() {
        let (width, rows) = (50, 40);
        for format in FORMATS {
            let mut weight = random(rows * width);
            // Memory of another weight is used again.
            let kept = packed(&weight, width, format, Some(packed(&random(7000), 70, format, None)));
            let same = |weight: &[f32]| {
                weight.chunks(width * Packed::ROWS).enumerate().all(|(panel, rows)| kept.holds(panel, rows))
            };
            assert!(same(&weight));
            weight[39 * width + 49] += 0.25;
            assert!(!same(&weight));
        }
    }
}
