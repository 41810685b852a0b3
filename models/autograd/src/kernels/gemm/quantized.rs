//! Panels of a quantised weight: codes lane after lane, beside them the scales of each block of lanes. Products read lanes that are made of
//! them block by block, in scratch, so that nothing but the codes lies in memory.

use std::ops::Range;

use super::few::Kept;
use super::micro::PANEL;
use super::pack::{Format, convert, interleave};
use crate::kernels::multiversion;
use crate::quantized::{Codes, Levels, Quantization};

/// A quantised weight in panels of 32 outputs.
#[derive(Debug)]
pub(super) struct CodePanels {
    of: Quantization,
    /// Elements of a row.
    width: usize,
    /// Panel after panel, for each element of a row the codes of 32 outputs. Of four bits two share a byte: the outputs `i` and `i + 16`.
    codes: Vec<u8>,
    /// Panel after panel, for each block of a row those of 32 outputs.
    scales: Vec<f32>,
    offsets: Vec<f32>,
    /// Whether a level of at most eight bits times its scale is never rounded: so it is where scales have the bits of a half.
    exact: bool,
}

/// Whether a product with any whole number of eight bits is a float.
fn is_short(scale: f32) -> bool {
    let size = scale.abs();
    size == 0.0 || scale.to_bits().trailing_zeros() >= 8 && (1e-30..1e30).contains(&size)
}

impl CodePanels {
    /// Of rows of this many elements, which are whole blocks; so many panels will come.
    pub(super) fn new(of: Quantization, width: usize, panels: usize) -> Self {
        debug_assert!(width.is_multiple_of(of.block));
        let mut new = Self { of, width, codes: Vec::new(), scales: Vec::new(), offsets: Vec::new(), exact: true };
        new.codes.reserve_exact(panels * new.panel_bytes());
        new.scales.reserve_exact(panels * new.panel_blocks());
        if of.has_offsets {
            new.offsets.reserve_exact(panels * new.panel_blocks());
        }
        new
    }

    /// Bytes of the codes of one element of all rows of a panel.
    fn lane_bytes(&self) -> usize {
        PANEL * self.of.levels.bits() / 8
    }

    fn panel_bytes(&self) -> usize {
        self.width * self.lane_bytes()
    }

    /// Scales of a panel.
    fn panel_blocks(&self) -> usize {
        self.width / self.of.block * PANEL
    }

    /// Appends a panel: the next 32 rows, or what is left of them. What lies beyond is zero.
    pub(super) fn push(&mut self, rows: &Codes) {
        let (bytes, width) = (self.lane_bytes(), self.width);
        let start = self.codes.len();
        let (whole, zero) = (bytes == PANEL, self.of.levels.zero());
        self.codes.resize(start + self.panel_bytes(), if whole { zero } else { zero | zero << 4 });
        for (i, row) in rows.codes.chunks(width.max(1)).enumerate() {
            let (byte, shift, others) = match i {
                _ if whole => (i, 0, 0),
                0..16 => (i, 0, 0xF0),
                _ => (i - 16, 4, 0x0F),
            };
            for (lane, code) in self.codes[start..].chunks_mut(bytes).zip(row) {
                lane[byte] = lane[byte] & others | code << shift;
            }
        }
        let blocks = width / self.of.block;
        let size = self.panel_blocks();
        let put = |kept: &mut Vec<f32>, given: &[f32]| {
            let start = kept.len();
            kept.resize(start + size, 0.0);
            for (i, row) in given.chunks(blocks.max(1)).enumerate() {
                kept[start..].chunks_mut(PANEL).zip(row).for_each(|(block, x)| block[i] = *x);
            }
        };
        self.exact &= rows.scales.iter().copied().all(is_short);
        put(&mut self.scales, &rows.scales);
        if self.of.has_offsets {
            put(&mut self.offsets, &rows.offsets);
        }
    }

    /// A panel as it lies.
    pub(super) fn kept(&self, panel: usize) -> Kept<'_> {
        let blocks = |kept: &'_ [f32]| match kept.is_empty() {
            true => 0..0,
            false => panel * self.panel_blocks()..(panel + 1) * self.panel_blocks(),
        };
        Kept::Codes {
            of: &self.of,
            codes: &self.codes[panel * self.panel_bytes()..][..self.panel_bytes()],
            scales: &self.scales[blocks(&self.scales)],
            offsets: &self.offsets[blocks(&self.offsets)],
            exact: self.exact,
        }
    }

    /// Whether there is a panel of this number.
    pub(super) fn has(&self, panel: usize) -> bool {
        (panel + 1) * self.panel_bytes() <= self.codes.len()
    }

    /// Some lanes of a panel, of one element for each row or, in pairs, of two; zeros beyond the width.
    pub(super) fn lanes(&self, panel: usize, lanes: Range<usize>, format: Format, out: &mut [f32]) {
        let out = &mut out[..lanes.len() * PANEL];
        if format != Format::Pairs {
            let there = lanes.start.min(self.width)..lanes.end.min(self.width);
            let (made, beyond) = out.split_at_mut(there.len() * PANEL);
            self.floats(panel, there, made);
            beyond.fill(0.0);
            if format != Format::F32 {
                let mut line = [0f32; PANEL];
                for lane in made.as_chunks_mut::<PANEL>().0 {
                    line.copy_from_slice(lane);
                    convert(format, &line, lane);
                }
            }
            return;
        }
        /// Pairs that are made at once.
        const RUN: usize = 8;
        let mut floats = [0f32; 2 * RUN * PANEL];
        for (i, out) in out.chunks_mut(RUN * PANEL).enumerate() {
            let first = 2 * (lanes.start + i * RUN);
            let elements = first.min(self.width)..(first + 2 * out.len() / PANEL).min(self.width);
            let (made, beyond) = floats.split_at_mut(elements.len() * PANEL);
            self.floats(panel, elements, made);
            beyond.fill(0.0);
            for (out, both) in out.chunks_mut(PANEL).zip(floats.chunks(2 * PANEL)) {
                interleave(&both[..PANEL], &both[PANEL..], out);
            }
        }
    }

    /// Some elements of all rows of a panel.
    fn floats(&self, panel: usize, elements: Range<usize>, out: &mut [f32]) {
        let (bytes, block) = (self.lane_bytes(), self.of.block);
        let codes = &self.codes[panel * self.panel_bytes()..][..self.panel_bytes()];
        let scales = &self.scales[panel * self.panel_blocks()..];
        let offsets = self.offsets.get(panel * self.panel_blocks()..);
        let mut at = elements.start;
        while at < elements.end {
            let end = elements.end.min((at / block + 1) * block);
            let of = |all: &[f32]| all.as_chunks::<PANEL>().0[at / block];
            let (scale, offset) = (of(scales), offsets.filter(|offsets| !offsets.is_empty()).map(of));
            let made = &mut out[(at - elements.start) * PANEL..(end - elements.start) * PANEL];
            let codes = &codes[at * bytes..end * bytes];
            match self.of.levels {
                Levels::Nibble { zero } => nibbles(codes, zero, &scale, offset.as_ref(), made),
                Levels::Book(ref book) => from_book(codes, book, &scale, offset.as_ref(), made),
                Levels::Byte => whole_bytes(codes, &scale, offset.as_ref(), made),
            }
            at = end;
        }
    }
}

/// Scales and shifts the levels that lanes hold. Rounded after either: that is what the values are.
#[inline(always)]
fn scaled(lane: &mut [f32; PANEL], scale: &[f32; PANEL], offset: Option<&[f32; PANEL]>) {
    match offset {
        Some(offset) => {
            for ((x, scale), offset) in lane.iter_mut().zip(scale).zip(offset) {
                *x = *x * scale + offset;
            }
        }
        None => lane.iter_mut().zip(scale).for_each(|(x, scale)| *x *= scale),
    }
}

#[inline(always)]
fn nibbles_body<const FMA: bool>(
    codes: &[u8],
    zero: u8,
    scale: &[f32; PANEL],
    offset: Option<&[f32; PANEL]>,
    out: &mut [f32],
) {
    let zero = f32::from(zero);
    for (lane, codes) in out.as_chunks_mut::<PANEL>().0.iter_mut().zip(codes.as_chunks::<16>().0) {
        for (i, code) in codes.iter().enumerate() {
            lane[i] = f32::from(code & 15) - zero;
            lane[i + 16] = f32::from(code >> 4) - zero;
        }
        scaled(lane, scale, offset);
    }
}

multiversion! {
    /// Lanes of codes of four bits.
    fn nibbles(codes: &[u8], zero: u8, scale: &[f32; PANEL], offset: Option<&[f32; PANEL]>, out: &mut [f32]) = nibbles_body
}

#[inline(always)]
fn whole_bytes_body<const FMA: bool>(
    codes: &[u8],
    scale: &[f32; PANEL],
    offset: Option<&[f32; PANEL]>,
    out: &mut [f32],
) {
    for (lane, codes) in out.as_chunks_mut::<PANEL>().0.iter_mut().zip(codes.as_chunks::<PANEL>().0) {
        lane.iter_mut().zip(codes).for_each(|(x, code)| *x = f32::from(code.cast_signed()));
        scaled(lane, scale, offset);
    }
}

multiversion! {
    /// Lanes of codes of eight bits.
    fn whole_bytes(codes: &[u8], scale: &[f32; PANEL], offset: Option<&[f32; PANEL]>, out: &mut [f32]) = whole_bytes_body
}

#[inline(always)]
fn from_book_body<const FMA: bool>(
    codes: &[u8],
    book: &[f32; 16],
    scale: &[f32; PANEL],
    offset: Option<&[f32; PANEL]>,
    out: &mut [f32],
) {
    for (lane, codes) in out.as_chunks_mut::<PANEL>().0.iter_mut().zip(codes.as_chunks::<16>().0) {
        #[cfg(target_arch = "x86_64")]
        if FMA {
            // SAFETY: only a version that was compiled with avx2 comes here: on this target none has a fused multiply-add without.
            unsafe { looked_up(codes, book, lane) };
            scaled(lane, scale, offset);
            continue;
        }
        for (i, code) in codes.iter().enumerate() {
            lane[i] = book[usize::from(code & 15)];
            lane[i + 16] = book[usize::from(code >> 4)];
        }
        scaled(lane, scale, offset);
    }
}

multiversion! {
    /// Lanes of codes that number the levels of a book.
    fn from_book(
        codes: &[u8], book: &[f32; 16], scale: &[f32; PANEL], offset: Option<&[f32; PANEL]>, out: &mut [f32],
    ) = from_book_body
}

/// The levels of a lane, eight at once.
///
/// # Safety
/// The processor has avx2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn looked_up(codes: &[u8; 16], book: &[f32; 16], lane: &mut [f32; PANEL]) {
    use std::arch::x86_64::*;
    let book = super::few::x86::Book::new(book);
    for (i, codes) in codes.as_chunks::<8>().0.iter().enumerate() {
        let codes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*codes)));
        let (low, high) = (book.levels(codes), book.levels(_mm256_srli_epi32::<4>(codes)));
        // SAFETY: a lane has 32 floats, and i is 0 or 1.
        unsafe {
            _mm256_storeu_ps(lane.as_mut_ptr().add(8 * i), low);
            _mm256_storeu_ps(lane.as_mut_ptr().add(16 + 8 * i), high);
        }
    }
}
