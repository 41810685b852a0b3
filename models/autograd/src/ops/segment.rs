//! One row per sequence from a row per token.

use candle_core::{DType, Result, Tensor};

use super::reduce::sum_over;
use crate::{Layout, Tape, Value};

/// The least length that rows are divided by, as in torch's `normalize`.
const SHORTEST: f64 = 1e-12;

fn check(x: &Value, layout: &Layout) -> Result<()> {
    let (tokens, _) = x.dims2()?;
    if tokens != layout.tokens() || layout.ranges().any(|range| range.is_empty()) {
        candle_core::bail!(
            "{tokens} rows cannot be taken together to {} sequences of {} tokens, none of them empty",
            layout.sequences(),
            layout.tokens()
        );
    }
    Ok(())
}

impl Tape {
    /// The mean over each sequence's rows: `[tokens, width]` to `[sequences, width]`. Half floats are summed in `f32`.
    pub fn segment_mean(&self, x: &Value, layout: &Layout) -> Result<Value> {
        check(x, layout)?;
        let (device, dtype) = (x.tensor().device(), x.dtype());
        let wide = if matches!(dtype, DType::BF16 | DType::F16) { DType::F32 } else { dtype };
        let of_row = layout.ranges().enumerate().flat_map(|(i, range)| std::iter::repeat_n(i as u32, range.len()));
        let of_row = Tensor::from_iter(of_row, device)?; // [tokens]
        let lengths: Vec<f64> = layout.ranges().map(|range| range.len() as f64).collect();
        let lengths = Tensor::from_vec(lengths, (layout.sequences(), 1), device)?.to_dtype(wide)?;

        let zeros = Tensor::zeros((layout.sequences(), x.dims()[1]), wide, device)?;
        let sum = zeros.index_add(&of_row, &x.tensor().to_dtype(wide)?.contiguous()?, 0)?;
        let mean = sum.broadcast_div(&lengths)?.to_dtype(dtype)?;
        Ok(self.record(mean, &[x], move |g, vjp| {
            let share = g.to_dtype(wide)?.broadcast_div(&lengths)?.to_dtype(dtype)?;
            vjp.give(0, share.index_select(&of_row, 0)?)
        }))
    }

    /// The greatest of each sequence's rows, column by column: `[tokens, width]` to `[sequences, width]`. The gradient goes to the first
    /// of equal ones.
    pub fn segment_max(&self, x: &Value, layout: &Layout) -> Result<Value> {
        check(x, layout)?;
        let rows = x.tensor().contiguous()?;
        let greatest = layout.ranges().map(|range| -> Result<Tensor> {
            let place = rows.narrow(0, range.start, range.len())?.argmax_keepdim(0)?; // [1, width]
            place.broadcast_add(&Tensor::new(&[[range.start as u32]], rows.device())?)
        });
        let places = Tensor::cat(&greatest.collect::<Result<Vec<_>>>()?, 0)?; // [sequences, width]
        let output = rows.gather(&places, 0)?;
        let dims = x.dims().to_vec();
        Ok(self.record(output, &[x], move |g, vjp| {
            let zeros = Tensor::zeros(dims, g.dtype(), g.device())?;
            vjp.give(0, zeros.scatter_add(&places, &g.contiguous()?, 0)?)
        }))
    }

    /// Each row divided by its length: `[rows, width]`. One that is shorter than 1e-12 is divided by that.
    pub fn normalize(&self, x: &Value) -> Result<Value> {
        x.dims2()?;
        let length = sum_over(&x.tensor().sqr()?, &[1])?.sqrt()?.maximum(SHORTEST)?; // [rows, 1]
        let output = x.tensor().broadcast_div(&length)?;
        let y = output.clone();
        Ok(self.record(output, &[x], move |g, vjp| {
            // (g - y (g . y)) / |x|; where the length is held at its least, y is so short that the second part is nothing.
            let along = sum_over(&(&g * &y)?, &[1])?;
            vjp.give(0, (&g - y.broadcast_mul(&along)?)?.broadcast_div(&length)?)
        }))
    }
}
