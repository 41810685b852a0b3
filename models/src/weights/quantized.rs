//! Weights that are quantised as they are loaded: what their file holds, in few bits.

use std::sync::OnceLock;

use fthost_autograd::{Codes, Levels, Quantization, Source};
use half::f16;

use super::Stored;

/// How weights are quantised as they are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantize {
    /// Four bits: the quantiles of a normal distribution, a scale for 64 elements, which is itself quantised to eight bits (Dettmers et al.
    /// 2023, arXiv:2305.14314; what bitsandbytes calls `nf4` with `bnb_4bit_use_double_quant`).
    Nf4,
    /// Eight bits, a scale for 32 elements: llama.cpp's `Q8_0`.
    Q8_0,
}

impl Quantize {
    /// By the name that run files have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nf4 => "nf4",
            Self::Q8_0 => "q8_0",
        }
    }

    fn quantization(self) -> Quantization {
        match self {
            Self::Nf4 => Quantization { block: 64, levels: Levels::Book(NF4), has_offsets: false },
            Self::Q8_0 => Quantization { block: 32, levels: Levels::Byte, has_offsets: false },
        }
    }

    /// Whether rows of this many elements can be: they are whole blocks.
    pub(crate) fn takes(self, width: usize) -> bool {
        width.is_multiple_of(self.quantization().block)
    }
}

/// Appendix E of the paper.
pub(super) const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Scales of NF4 that have a scale in common.
const SCALES: usize = 256;

/// A matrix of a file, quantised. Its values are those of its codes: what the file holds is only ever read to make them.
#[derive(Debug)]
pub(crate) struct Quantized {
    stored: Stored,
    elements: usize,
    kind: Quantize,
    /// NF4's scales as they are kept: one follows from those of all others.
    scales: OnceLock<Vec<f32>>,
}

impl Quantized {
    /// Of so many elements, in rows that [can be](Quantize::takes).
    pub(crate) fn new(stored: Stored, elements: usize, kind: Quantize) -> Self {
        Self { stored, elements, kind, scales: OnceLock::new() }
    }

    fn scales(&self) -> &[f32] {
        self.scales.get_or_init(|| {
            /// Blocks that are read at once.
            const PIECE: usize = 1 << 10;
            let block = self.kind.quantization().block;
            let mut greatest = Vec::with_capacity(self.elements / block);
            let mut room = vec![0f32; PIECE * block];
            for start in (0..self.elements).step_by(room.len()) {
                let values = &mut room[..(self.elements - start).min(PIECE * block)];
                self.stored.read(start, values);
                greatest.extend(values.chunks(block).map(greatest_of));
            }
            twice_quantized(&greatest)
        })
    }

    /// Codes of whole blocks, from the block of this number on.
    fn quantize(&self, first: usize, values: &[f32], into: &mut Codes) {
        let block = self.kind.quantization().block;
        let blocks = values.chunks(block).zip(into.codes.chunks_mut(block)).zip(&mut into.scales);
        match self.kind {
            Quantize::Nf4 => {
                let kept = &self.scales()[first..];
                for (((values, codes), scale), kept) in blocks.zip(kept) {
                    let inverse = greatest_of(values).recip();
                    codes.iter_mut().zip(values).for_each(|(code, x)| *code = nearest_level(x * inverse));
                    *scale = *kept;
                }
            }
            Quantize::Q8_0 => {
                for ((values, codes), scale) in blocks {
                    let step = greatest_of(values) / 127.0;
                    let inverse = if step == 0.0 { 0.0 } else { step.recip() };
                    codes
                        .iter_mut()
                        .zip(values)
                        .for_each(|(code, x)| *code = ((x * inverse).round() as i8).cast_unsigned());
                    *scale = f16::from_f32(step).to_f32();
                }
            }
        }
    }
}

impl Source for Quantized {
    fn read(&self, start: usize, into: &mut [f32]) {
        let of = self.kind.quantization();
        let first = start / of.block;
        let blocks = (start + into.len()).div_ceil(of.block) - first;
        let mut values = vec![0f32; blocks * of.block];
        let mut codes = Codes { codes: vec![0; values.len()], scales: vec![0.0; blocks], offsets: Vec::new() };
        self.stored.read(first * of.block, &mut values);
        self.quantize(first, &values, &mut codes);
        codes.values(&of, &mut values);
        into.copy_from_slice(&values[start - first * of.block..][..into.len()]);
    }

    fn quantization(&self) -> Option<Quantization> {
        Some(self.kind.quantization())
    }

    fn read_codes(&self, start: usize, into: &mut Codes) {
        let mut values = vec![0f32; into.codes.len()];
        self.stored.read(start, &mut values);
        self.quantize(start / self.kind.quantization().block, &values, into);
    }
}

fn greatest_of(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |greatest: f32, x| greatest.max(x.abs()))
}

/// The number of the level of [`NF4`] that is nearest; the lower one in the middle between two. 0 has its own also where all of a block
/// are 0, and so none has a share of the greatest.
fn nearest_level(x: f32) -> u8 {
    if x.is_nan() {
        return 7;
    }
    NF4.windows(2).filter(|pair| x > (pair[0] + pair[1]) / 2.0).count() as u8
}

/// Scales as bitsandbytes keeps them: what they are above their mean in eight bits, of which 256 have a scale in common.
fn twice_quantized(scales: &[f32]) -> Vec<f32> {
    let book = dynamic_book();
    let mean = (scales.iter().map(|x| f64::from(*x)).sum::<f64>() / scales.len().max(1) as f64) as f32;
    let above: Vec<f32> = scales.iter().map(|x| x - mean).collect();
    let mut kept = Vec::with_capacity(scales.len());
    for some in above.chunks(SCALES) {
        let greatest = greatest_of(some);
        let inverse = if greatest == 0.0 { 0.0 } else { greatest.recip() };
        kept.extend(some.iter().map(|x| nearest(&book, x * inverse) * greatest + mean));
    }
    kept
}

fn nearest(book: &[f32], x: f32) -> f32 {
    let above = book.partition_point(|level| *level < x).min(book.len() - 1);
    let below = above.saturating_sub(1);
    if x - book[below] <= book[above] - x { book[below] } else { book[above] }
}

/// The 256 levels of eight bits that say exponent and fraction in a number of bits that changes (Dettmers 2016, arXiv:1511.04561): 2^i
/// fractions of the exponent i - 6, either sign, and 0 and 1.
fn dynamic_book() -> Vec<f32> {
    let mut book = vec![0.0, 1.0];
    for i in 0..7i32 {
        let steps = 1usize << i;
        // Bounds between 0.1 and 1, as torch.linspace rounds them: from either end.
        let step = 0.9f32 / steps as f32;
        let bound =
            |k: usize| if k < steps.div_ceil(2) { 0.1 + step * k as f32 } else { 1.0 - step * (steps - k) as f32 };
        let scale = 10f64.powi(i - 6) as f32;
        for k in 0..steps {
            let level = scale * ((bound(k) + bound(k + 1)) / 2.0);
            book.extend([level, -level]);
        }
    }
    book.sort_by(f32::total_cmp);
    book
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use candle_core::{DType, Device};

    use super::super::Weights;
    use super::*;

    /// What tests/reference/make_quantized.py has written.
    fn reference() -> Weights {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/quantized.safetensors");
        Weights::from_bytes("quantized.safetensors", std::fs::read(file).unwrap()).unwrap()
    }

    fn values(weights: &Weights, name: &str) -> Vec<f32> {
        let tensor = weights.tensor(name, &Device::Cpu).unwrap();
        tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
    }

    const SHAPE: [usize; 2] = [64, 320];

    fn quantized(kind: Quantize) -> (Quantized, Vec<f32>) {
        let quantized = Quantized::new(reference().stored("weight", &SHAPE).unwrap(), 64 * 320, kind);
        let mut all = vec![f32::NAN; 64 * 320];
        quantized.read(0, &mut all);
        (quantized, all)
    }

    #[test]
    fn levels_are_those_of_bitsandbytes() {
        let reference = reference();
        assert_eq!(values(&reference, "nf4_levels"), NF4);
        for (ours, theirs) in dynamic_book().iter().zip(values(&reference, "scale_levels")) {
            assert!((ours - theirs).abs() <= 2e-7 * theirs.abs(), "{ours:e} {theirs:e}");
        }
    }

    #[test]
    fn nf4_is_that_of_bitsandbytes() {
        let (quantized, found) = quantized(Quantize::Nf4);
        let reference = reference();
        // Where all are 0, theirs take the lowest level of a scale that need not be 0: what we keep is 0.
        let zeros = 7 * 320 / 64..8 * 320 / 64;
        let expected = values(&reference, "nf4");
        let mut otherwise = 0;
        for (i, (found, expected)) in found.chunks(64).zip(expected.chunks(64)).enumerate() {
            if zeros.contains(&i) {
                assert!(found.iter().all(|x| *x == 0.0));
                continue;
            }
            let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // On the CPU its scales that lie about half-way between two levels become either.
            otherwise += usize::from(apart > 1e-7);
            assert!(apart < 2e-3, "block {i}: {apart:e}");
        }
        assert!(otherwise <= 8, "{otherwise} of 320 blocks");
        let mut codes = Codes { codes: vec![0; 320], scales: vec![0.0; 5], offsets: Vec::new() };
        quantized.read_codes(9 * 320, &mut codes);
        let theirs = candle_core::safetensors::load(
            concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/quantized.safetensors"),
            &Device::Cpu,
        )
        .unwrap();
        assert_eq!(codes.codes, theirs["nf4_codes"].to_vec2::<u8>().unwrap()[9]);
    }

    #[test]
    fn q8_0_is_that_of_llama_cpp() {
        assert_eq!(quantized(Quantize::Q8_0).1, values(&reference(), "q8_0"));
    }

    #[test]
    fn any_piece_holds_the_same_values_as_codes_do() {
        for kind in [Quantize::Nf4, Quantize::Q8_0] {
            let (quantized, all) = quantized(kind);
            for (start, length) in [(0, 20_480), (320, 640), (5, 1000), (700, 3), (31, 2), (20_479, 1), (0, 0)] {
                let mut piece = vec![f32::NAN; length];
                quantized.read(start, &mut piece);
                assert_eq!(piece, all[start..start + length], "{kind:?} from {start}");
            }
            let of = quantized.quantization().unwrap();
            let blocks = 640 / of.block;
            let mut codes = Codes { codes: vec![0; 640], scales: vec![0.0; blocks], offsets: Vec::new() };
            quantized.read_codes(320, &mut codes);
            let mut piece = vec![f32::NAN; 640];
            codes.values(&of, &mut piece);
            assert_eq!(piece, all[320..960]);
        }
    }
}
