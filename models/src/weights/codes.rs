//! Blocks of llama.cpp's as numbers of few bits and their scales, for products that read them so. `ggml-quants.c` has the layouts.

use candle_core::quantized::GgmlDType;
use fthost_autograd::{Levels, Quantization};
use half::f16;

/// Elements of a block of the kinds that end in K.
const LONG: usize = 256;
/// Elements of any other block.
const SHORT: usize = 32;

/// How elements in blocks of this kind are quantised; `None` of kinds whose codes are not read.
pub(super) fn quantization(of: GgmlDType) -> Option<Quantization> {
    let (block, levels, has_offsets) = match of {
        GgmlDType::Q4_0 => (SHORT, Levels::Nibble { zero: 8 }, false),
        GgmlDType::Q4_1 | GgmlDType::Q4K => (SHORT, Levels::Nibble { zero: 0 }, true),
        GgmlDType::Q5_0 | GgmlDType::Q8_0 => (SHORT, Levels::Byte, false),
        GgmlDType::Q5_1 | GgmlDType::Q5K => (SHORT, Levels::Byte, true),
        GgmlDType::Q6K => (16, Levels::Byte, false),
        _ => return None,
    };
    Some(Quantization { block, levels, has_offsets })
}

/// Where the codes of some blocks go, their scales and, where there are any, their offsets.
pub(super) struct Places<'a> {
    pub(super) codes: &'a mut [u8],
    pub(super) scales: &'a mut [f32],
    pub(super) offsets: &'a mut [f32],
}

/// The codes of whole blocks, of a kind that has a [`quantization`].
pub(super) fn read(of: GgmlDType, bytes: &[u8], Places { codes, scales, offsets }: Places<'_>) {
    let long = of.block_size() == LONG;
    let (length, per_block) = if long { (LONG, scales.len() / (codes.len() / LONG).max(1)) } else { (SHORT, 1) };
    let blocks = bytes.chunks_exact(of.type_size()).zip(codes.chunks_exact_mut(length)).enumerate();
    for (i, (block, codes)) in blocks {
        let scales = &mut scales[i * per_block..(i + 1) * per_block];
        let offsets = offsets.get_mut(i * per_block..(i + 1) * per_block).unwrap_or_default();
        match of {
            GgmlDType::Q4_0 => {
                scales[0] = half_at(block, 0);
                nibbles(&block[2..], codes);
            }
            GgmlDType::Q4_1 => {
                (scales[0], offsets[0]) = (half_at(block, 0), half_at(block, 2));
                nibbles(&block[4..], codes);
            }
            GgmlDType::Q5_0 => {
                scales[0] = half_at(block, 0);
                nibbles(&block[6..], codes);
                fifth_bits(&block[2..6], codes);
                codes.iter_mut().for_each(|code| *code = code.wrapping_sub(16));
            }
            GgmlDType::Q5_1 => {
                (scales[0], offsets[0]) = (half_at(block, 0), half_at(block, 2));
                nibbles(&block[8..], codes);
                fifth_bits(&block[4..8], codes);
            }
            GgmlDType::Q8_0 => {
                scales[0] = half_at(block, 0);
                codes.copy_from_slice(&block[2..]);
            }
            GgmlDType::Q4K => {
                long_scales(block, scales, offsets);
                block[16..]
                    .chunks_exact(32)
                    .zip(codes.chunks_exact_mut(64))
                    .for_each(|(some, codes)| halves(some, codes));
            }
            GgmlDType::Q5K => {
                long_scales(block, scales, offsets);
                let (fifths, fours) = block[16..].split_at(32);
                for (i, (some, codes)) in fours.chunks_exact(32).zip(codes.chunks_exact_mut(64)).enumerate() {
                    halves(some, codes);
                    let (low, high) = codes.split_at_mut(32);
                    for ((low, high), fifth) in low.iter_mut().zip(high).zip(fifths) {
                        *low |= (fifth >> (2 * i) & 1) << 4;
                        *high |= (fifth >> (2 * i + 1) & 1) << 4;
                    }
                }
            }
            _ => sixes(block, codes, scales),
        }
    }
}

fn half_at(block: &[u8], place: usize) -> f32 {
    f16::from_le_bytes([block[place], block[place + 1]]).to_f32()
}

/// Two codes a byte: the low bits are of the first half, the high ones of the second.
fn halves(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    halves(&bytes[..SHORT / 2], codes);
}

/// A bit above the four for each code, in their order.
fn fifth_bits(bytes: &[u8], codes: &mut [u8]) {
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= (bytes[i / 8] >> (i % 8) & 1) << 4;
    }
}

/// Scale and offset of eight times 32 elements: six bits each, in twelve bytes, of the two halves before them.
fn long_scales(block: &[u8], scales: &mut [f32], offsets: &mut [f32]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let packed = &block[4..16];
    for i in 0..8 {
        let (of_scale, of_least) = match i {
            0..4 => (packed[i] & 63, packed[i + 4] & 63),
            _ => {
                let (low, top) = (packed[i + 4], [packed[i - 4] >> 6, packed[i] >> 6]);
                (low & 15 | top[0] << 4, low >> 4 | top[1] << 4)
            }
        };
        scales[i] = scale * f32::from(of_scale);
        offsets[i] = -(least * f32::from(of_least));
    }
}

/// Q6_K: four low bits, two high ones, a signed scale for each 16 elements, and one for all.
fn sixes(block: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (of_sixteen, scale) = (&rest[..16], half_at(rest, 16));
    for (x, byte) in scales.iter_mut().zip(of_sixteen) {
        *x = scale * f32::from(byte.cast_signed());
    }
    for (n, codes) in codes.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&low[64 * n..], &high[32 * n..]);
        for i in 0..32 {
            let fours = [low[i] & 15, low[i + 32] & 15, low[i] >> 4, low[i + 32] >> 4];
            for (j, four) in fours.into_iter().enumerate() {
                codes[32 * j + i] = (four | (high[i] >> (2 * j) & 3) << 4).wrapping_sub(32);
            }
        }
    }
}
