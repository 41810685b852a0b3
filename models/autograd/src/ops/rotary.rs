//! Rotary position embeddings (Su et al. 2021, arXiv:2104.09864): queries and keys turned by angles that grow with their positions.

use candle_core::{Result, Tensor, bail};

use crate::{Angles, Tape, Value, slices};

impl Tape {
    /// Turns each head of `x`, `[tokens, heads * dim]`: with `a` the first half of a head and `b` the second, by Hugging Face's layout
    /// `(a cos - b sin, b cos + a sin)`.
    pub fn rotary(&self, x: &Value, angles: &Angles) -> Result<Value> {
        let (tokens, half) = angles.cos.dims2()?;
        match *x.dims() {
            [rows, width] if rows == tokens && half > 0 && width % (2 * half) == 0 => {}
            ref other => bail!("angles of {tokens} tokens and heads of {} cannot turn {other:?}", 2 * half),
        }
        let y = turned(x.tensor(), angles, 1.0)?;
        let angles = angles.clone();
        // Turning back is the transpose.
        Ok(self.record(y, &[x], move |g, vjp| vjp.give(0, turned(&g.contiguous()?, &angles, -1.0)?)))
    }
}

/// `direction` is 1, or -1 to turn back.
fn turned(x: &Tensor, Angles { cos, sin }: &Angles, direction: f32) -> Result<Tensor> {
    let (tokens, half) = cos.dims2()?;
    let fast = slices::read([x, cos, sin], |[x, cos, sin]| {
        let mut y = x.to_vec();
        let width = x.len() / tokens.max(1);
        for ((y, cos), sin) in y.chunks_exact_mut(width.max(1)).zip(cos.chunks_exact(half)).zip(sin.chunks_exact(half))
        {
            for head in y.chunks_exact_mut(2 * half) {
                let (a, b) = head.split_at_mut(half);
                for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                    let sin = direction * sin;
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
        y
    });
    if let Some(y) = fast {
        return Tensor::from_vec(y, x.dims(), x.device());
    }
    let heads = x.reshape((tokens, (), 2, half))?;
    let [a, b] = [heads.narrow(2, 0, 1)?, heads.narrow(2, 1, 1)?];
    let [cos, sin] = [cos, sin].map(|of| of.to_dtype(x.dtype())?.reshape((tokens, 1, 1, half)));
    let (cos, sin) = (cos?, sin?.affine(f64::from(direction), 0.0)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Tensor::cat(&[first, second], 2)?.reshape(x.dims())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use candle_core::{DType, Device};

    use super::*;
    use crate::{check, random::Stream};

    const FREQUENCIES: [f32; 3] = [1.0, 0.1, 0.01];

    fn random(rows: usize, dtype: DType) -> Tensor {
        let mut data = vec![0f32; rows * 12];
        Stream::keyed(1, &[31]).fill_uniform(&mut data, -1.0, 1.0);
        Tensor::from_vec(data, (rows, 12), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn angles(positions: &[u32], dtype: DType) -> Angles {
        Angles::new(positions, &FREQUENCIES, 1.0, dtype, &Device::Cpu).unwrap()
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let angles = angles(&[0, 1, 7], DType::F64);
        check::gradients(&[random(3, DType::F64)], |tape, v| tape.rotary(&v[0], &angles)).unwrap();
    }

    #[test]
    fn a_score_depends_on_the_distance_alone() {
        let score = |positions: [u32; 2]| {
            let x = Value::constant(random(2, DType::F32));
            let y = Tape::evaluation().rotary(&x, &angles(&positions, DType::F32)).unwrap();
            let y = y.tensor().to_vec2::<f32>().unwrap();
            y[0].iter().zip(&y[1]).map(|(a, b)| a * b).sum::<f32>()
        };
        assert!((score([3, 10]) - score([103, 110])).abs() < 1e-5);
        assert!((score([3, 10]) - score([3, 30])).abs() > 1e-2);
    }

    #[test]
    fn the_fast_form_agrees_with_the_composite() {
        let run = |dtype| {
            let x = Value::constant(random(4, dtype));
            let y = Tape::evaluation().rotary(&x, &angles(&[0, 5, 100, 9000], dtype)).unwrap();
            y.tensor().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        let (exact, fast) = (run(DType::F64), run(DType::F32));
        assert!(exact.iter().zip(&fast).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn wrong_shapes_are_named() {
        let x = Value::constant(random(4, DType::F32));
        let error = Tape::evaluation().rotary(&x, &angles(&[0, 1], DType::F32)).unwrap_err().to_string();
        assert!(error.contains("2 tokens and heads of 6 cannot turn [4, 12]"), "{error}");
    }
}
