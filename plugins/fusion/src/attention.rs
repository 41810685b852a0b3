//! Two streams that attend to each other.

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{DenseLayer, Stream};

/// What norms add to the variance, as torch's.
const EPS: f64 = 1e-5;

/// One stream: how its rows are projected, and how it attends to the other's.
struct Side {
    projection: DenseLayer, // [width, width of the stream]
    query: DenseLayer,      // [width, width], as the other three
    key: DenseLayer,
    value: DenseLayer,
    output: DenseLayer,
    norm: [Param; 2], // [width]
}

/// Both.
pub(crate) struct Crossed {
    sides: [Side; 2],
    width: usize,
    heads: usize,
}

/// A stream's rows, as many for each example: where it has fewer, its first one stands in the places of those that it lacks.
struct Padded {
    /// `[examples, most, width]`
    rows: Tensor,
    /// 0 for a row, and for a place without one a number that no softmax sees, `[examples, 1, 1, most]`.
    mask: Tensor,
    /// The mean of each example's rows, `[examples, 1, width]`.
    mean: Tensor,
}

impl Padded {
    /// Of projected rows `[rows, width]`.
    fn new(rows: &Tensor, offsets: &[u32]) -> Result<Self> {
        const UNSEEN: f64 = 1e9;
        let width = rows.shape()?[1];
        let lengths: Vec<u32> = offsets.windows(2).map(|ends| ends[1] - ends[0]).collect();
        let most = lengths.iter().copied().max().unwrap_or(0);
        let (examples, size) = (lengths.len(), most as usize);
        // Where each example starts, and which of its rows stands in a place.
        let places = || {
            let examples = offsets.iter().zip(&lengths);
            examples.flat_map(|(&start, &length)| (0..most).map(move |at| (start, (at < length).then_some(at))))
        };
        let ids: Vec<u32> = places().map(|(start, at)| start + at.unwrap_or(0)).collect();
        let there: Vec<f32> = places().map(|(_, at)| if at.is_some() { 1.0 } else { 0.0 }).collect();
        let lengths: Vec<f32> = lengths.iter().map(|&length| length as f32).collect();
        let rows = rows.rows(&ids)?.reshape([examples, size, width])?;
        let there = Tensor::from_slice(&there, [examples, 1, size])?;
        let mean = there.matmul(&rows)?.div(&Tensor::from_slice(&lengths, [examples, 1, 1])?)?;
        let mask = there.affine(UNSEEN, -UNSEEN)?.reshape([examples, 1, 1, size])?;
        Ok(Self { rows, mask, mean })
    }
}

impl Side {
    fn declare(model: &mut Model, stream: &Stream, width: usize) -> Result<Self> {
        let name = format!("{}_attention", stream.name);
        let mut dense = |end: &str, inputs| DenseLayer::declare(model, &format!("{name}.{end}"), [width, inputs], true);
        let (projection, query, key) =
            (dense("projection", stream.width)?, dense("query", width)?, dense("key", width)?);
        let (value, output) = (dense("value", width)?, dense("output", width)?);
        let mut norm = |end: &str, init| model.head_param(&format!("{name}.norm.{end}"), [width], init);
        let norm = [norm("weight", Init::Ones)?, norm("bias", Init::Zeros)?];
        Ok(Self { projection, query, key, value, output, norm })
    }

    /// What this stream's mean row becomes once it has seen the other's rows, `[examples, width]`.
    fn attend(&self, own: &Padded, other: &Padded, [width, heads]: [usize; 2]) -> Result<Tensor> {
        let (examples, size) = (own.mean.shape()?[0], width / heads);
        // [examples, n, width] to [examples, heads, n, size]
        let by_head = |x: Tensor| {
            let n = x.shape()?[1];
            x.reshape([examples, n, heads, size])?.transpose(1, 2)
        };
        let query = by_head(self.query.forward(&own.mean)?)?; // [examples, heads, 1, size]
        let key = by_head(self.key.forward(&other.rows)?)?; // [examples, heads, most, size]
        let value = by_head(self.value.forward(&other.rows)?)?;
        let scores = query.matmul(&key.t()?)?.mul_scalar(1.0 / (size as f64).sqrt())?; // [examples, heads, 1, most]
        let seen = scores.add(&other.mask)?.softmax()?.matmul(&value)?; // [examples, heads, 1, size]
        let found = self.output.forward(&seen.reshape([examples, width])?)?; // [examples, width]
        let [weight, bias] = &self.norm;
        own.mean.reshape([examples, width])?.add(&found)?.layer_norm(weight, Some(bias), EPS)
    }
}

impl Crossed {
    /// Declares the layers; `width` is a multiple of `heads`.
    pub(crate) fn declare(
        model: &mut Model,
        [first, second]: [&Stream; 2],
        width: usize,
        heads: usize,
    ) -> Result<Self> {
        let sides = [Side::declare(model, first, width)?, Side::declare(model, second, width)?];
        Ok(Self { sides, width, heads })
    }

    /// Both streams' rows, each of which has seen the other's, side by side: `[examples, 2 width]`.
    pub(crate) fn forward(&self, [a, b]: [&Features<'_>; 2]) -> Result<Tensor> {
        let ([first, second], sizes) = (&self.sides, [self.width, self.heads]);
        let a = Padded::new(&first.projection.forward(a.tensor)?, a.offsets)?;
        let b = Padded::new(&second.projection.forward(b.tensor)?, b.offsets)?;
        Tensor::concat(&[&first.attend(&a, &b, sizes)?, &second.attend(&b, &a, sizes)?], -1)
    }
}
