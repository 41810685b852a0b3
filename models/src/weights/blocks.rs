//! Blocks of llama.cpp's: a few elements in few bits each, with a scale in common.

use candle_core::quantized::GgmlDType;
use candle_core::quantized::k_quants::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, GgmlType,
};

/// Whether blocks of this kind are read.
pub(super) fn known(of: GgmlDType) -> bool {
    use GgmlDType::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    matches!(of, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q2K | Q3K | Q4K | Q5K | Q6K)
}

/// The elements of whole blocks, of a kind that is [`known`].
pub(super) fn dequantize(of: GgmlDType, bytes: &[u8], into: &mut [f32]) {
    match of {
        GgmlDType::Q4_0 => floats::<BlockQ4_0>(bytes, into),
        GgmlDType::Q4_1 => floats::<BlockQ4_1>(bytes, into),
        GgmlDType::Q5_0 => floats::<BlockQ5_0>(bytes, into),
        GgmlDType::Q5_1 => floats::<BlockQ5_1>(bytes, into),
        GgmlDType::Q8_0 => floats::<BlockQ8_0>(bytes, into),
        GgmlDType::Q2K => floats::<BlockQ2K>(bytes, into),
        GgmlDType::Q3K => floats::<BlockQ3K>(bytes, into),
        GgmlDType::Q4K => floats::<BlockQ4K>(bytes, into),
        GgmlDType::Q5K => floats::<BlockQ5K>(bytes, into),
        GgmlDType::Q6K => floats::<BlockQ6K>(bytes, into),
        // Files with others are refused when they are opened.
        _ => into.fill(f32::NAN),
    }
}

fn floats<B: GgmlType>(bytes: &[u8], into: &mut [f32]) {
    let mut blocks = vec![B::zeros(); bytes.len() / size_of::<B>()];
    let length = size_of_val(blocks.as_slice());
    // SAFETY: blocks are integers and half floats without padding, of which any bytes make some.
    #[allow(unsafe_code)]
    let place = unsafe { std::slice::from_raw_parts_mut(blocks.as_mut_ptr().cast::<u8>(), length) };
    place.copy_from_slice(&bytes[..length]);
    B::to_float(&blocks, into);
}
