//! Dropout whose masks are counted per example.

use candle_core::{Result, Tensor};

use crate::random::Stream;
use crate::{Tape, Value, slices};

/// Elements `start..end` of a tensor take the first numbers of `stream`.
struct Span {
    stream: Stream,
    start: usize,
    end: usize,
}

/// Whether each element stays, one byte each.
fn mask(spans: &[Span], count: usize, p: f64) -> Vec<u8> {
    // A word below the threshold drops: p = 0 drops none, p = 1 all.
    let threshold = (p * 2f64.powi(32)).round() as u64;
    let mut mask = vec![0u8; count];
    let mut words = [0u32; 256];
    for span in spans {
        for (i, part) in mask[span.start..span.end].chunks_mut(words.len()).enumerate() {
            span.stream.fill_u32((i * words.len()) as u64, &mut words[..part.len()]);
            for (keep, word) in part.iter_mut().zip(&words) {
                *keep = u8::from(u64::from(*word) >= threshold);
            }
        }
    }
    mask
}

/// `x` times the mask and `scale`.
fn apply(x: &Tensor, mask: &[u8], scale: f64) -> Result<Tensor> {
    let fast = slices::read([x], |[x]| {
        let scale = scale as f32;
        x.iter().zip(mask).map(|(x, keep)| if *keep == 0 { 0.0 } else { x * scale }).collect::<Vec<_>>()
    });
    match fast {
        Some(y) => Tensor::from_vec(y, x.dims(), x.device()),
        None => {
            let mask = Tensor::from_slice(mask, x.dims(), x.device())?.to_dtype(x.dtype())?;
            (x * mask.affine(scale, 0.0)?)?.contiguous()
        }
    }
}

impl Tape {
    /// Sets each element to zero with probability `p` and multiplies the others by 1 / (1 - p). Leaves `x` alone where the
    /// tape's options have no dropout.
    ///
    /// Numbers are counted per example where the rows of `x` are the tokens of the tape's layout or one per example;
    /// otherwise by the flat index, the same for every micro-batch.
    pub fn dropout(&self, x: &Value, p: f64) -> Result<Value> {
        if !(0.0..=1.0).contains(&p) {
            candle_core::bail!("a dropout probability must lie in [0, 1], got {p}");
        }
        let Some(spans) = self.dropout_spans(x.dims(), p)? else { return Ok(x.clone()) };
        if p == 0.0 {
            return Ok(x.clone());
        }
        let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
        let mask = mask(&spans, x.tensor().elem_count(), p);
        let output = apply(x.tensor(), &mask, scale)?;
        Ok(self.record(output, &[x], move |gradient, vjp| vjp.give(0, apply(&gradient, &mask, scale)?)))
    }

    /// Takes the number of this op, also where p is zero, so that the others' numbers do not depend on it.
    fn dropout_spans(&self, dims: &[usize], p: f64) -> Result<Option<Vec<Span>>> {
        let Some(dropout) = &self.options().dropout else { return Ok(None) };
        let op = Stream::new(dropout.seed, "dropout").at(&[dropout.step, self.next_dropout(p)]);
        let count: usize = dims.iter().product();
        let rows = dims.first().copied().unwrap_or(1);
        let width = count.checked_div(rows).unwrap_or(0);
        let layout = self.layout();
        if let Some(layout) = &layout
            && layout.sequences() != dropout.examples.len()
        {
            candle_core::bail!(
                "the tape's layout has {} sequences, its dropout options number {} examples",
                layout.sequences(),
                dropout.examples.len()
            );
        }
        let examples = dropout.examples.iter().map(|example| op.at(&[*example]));
        let spans = match layout {
            Some(layout) if layout.tokens() == rows => examples
                .zip(layout.ranges())
                .map(|(stream, rows)| Span { stream, start: rows.start * width, end: rows.end * width })
                .collect(),
            _ if dropout.examples.len() == rows => {
                let span = |(i, stream)| Span { stream, start: i * width, end: (i + 1) * width };
                examples.enumerate().map(span).collect()
            }
            _ => vec![Span { stream: op, start: 0, end: count }],
        };
        Ok(Some(spans))
    }
}
