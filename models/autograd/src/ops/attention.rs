//! Attention of packed sequences: softmax(q k^T / sqrt(dim)) v, each sequence and head by itself.

use std::ops::Range;

use candle_core::{D, DType, Result, Tensor};

use crate::kernels::attention::{self as fast, Geometry, Mask, Operands, Wanted};
use crate::random::Stream;
use crate::{Layout, Tape, Value, slices};

impl Tape {
    /// Multi-head attention without a causal mask. `q` `[query tokens, width]`; `k`, `v` `[key tokens, width]`; sequence `i` of
    /// `q_layout` reads sequence `i` of `kv_layout`, and all read `prefix`'s keys and values `[p, width]`. Probabilities are
    /// dropped with probability `dropout` where the tape's options say so. Gives `[query tokens, width]`.
    #[allow(clippy::too_many_arguments)] // the operands of one op
    pub fn attention(
        &self,
        q: &Value,
        k: &Value,
        v: &Value,
        heads: usize,
        q_layout: &Layout,
        kv_layout: &Layout,
        prefix: Option<(&Value, &Value)>,
        dropout: f64,
    ) -> Result<Value> {
        let (tokens, width) = q.tensor().dims2()?;
        let kv = [kv_layout.tokens(), width];
        if heads == 0 || width % heads != 0 {
            candle_core::bail!("a width of {width} cannot be split among {heads} heads");
        }
        if tokens != q_layout.tokens() || k.dims() != kv || v.dims() != kv {
            candle_core::bail!(
                "attention of layouts with {} and {} tokens got q {:?}, k {:?}, v {:?}",
                q_layout.tokens(),
                kv_layout.tokens(),
                q.dims(),
                k.dims(),
                v.dims()
            );
        }
        if q_layout.sequences() != kv_layout.sequences() {
            candle_core::bail!(
                "{} sequences of queries cannot attend to {} of keys",
                q_layout.sequences(),
                kv_layout.sequences()
            );
        }
        let prefix_rows = match prefix {
            Some((pk, pv)) if pk.dims().len() == 2 && pk.dims()[1] == width && pk.dims() == pv.dims() => pk.dims()[0],
            Some((pk, pv)) => {
                candle_core::bail!("prefixes of shape [p, {width}] are due, got {:?} and {:?}", pk.dims(), pv.dims())
            }
            None => 0,
        };
        let geometry = Geometry {
            heads,
            dim: width / heads,
            queries: q_layout.clone(),
            keys: kv_layout.clone(),
            prefix: prefix_rows,
            parallel: self.options().parallel_ops,
        };
        let mask = self.attention_mask(q_layout.sequences(), dropout)?;
        let contiguous = |x: &Value| x.tensor().contiguous();
        let mut tensors = vec![contiguous(q)?, contiguous(k)?, contiguous(v)?];
        let mut inputs = vec![q, k, v];
        if let Some((pk, pv)) = prefix {
            tensors.extend([contiguous(pk)?, contiguous(pv)?]);
            inputs.extend([pk, pv]);
        }

        let done = read(&tensors, |x| fast::forward(&geometry, x, mask.as_ref()));
        if let Some((y, log_sums)) = done {
            let y = Tensor::from_vec(y, (tokens, width), q.tensor().device())?;
            return Ok(self.record(y, &inputs, move |g, vjp| {
                let wanted =
                    Wanted { q: vjp.wants(0), k: vjp.wants(1) || vjp.wants(3), v: vjp.wants(2) || vjp.wants(4) };
                let g = g.contiguous()?;
                let gradients = slices::read([&g], |[g]| {
                    read(&tensors, |x| fast::backward(&geometry, x, g, &log_sums, mask.as_ref(), wanted))
                });
                let Some(gradients) = gradients.flatten() else {
                    candle_core::bail!("the gradient of f32 attention came as {:?}", g.dtype());
                };
                let of = [gradients.q, gradients.k, gradients.v, gradients.prefix_k, gradients.prefix_v];
                for (i, (tensor, gradient)) in tensors.iter().zip(of).enumerate() {
                    if vjp.wants(i) {
                        vjp.give(i, Tensor::from_vec(gradient, tensor.dims(), tensor.device())?)?;
                    }
                }
                Ok(())
            }));
        }

        let runs = runs(&geometry);
        let parts = |tensors: &[Tensor], run: &Range<usize>| -> Result<[Tensor; 3]> {
            let (pk, pv) = (tensors.get(3), tensors.get(4));
            Ok([
                queries_of(&tensors[0], run, &geometry)?,
                keys_of(&tensors[1], pk, run, &geometry)?,
                keys_of(&tensors[2], pv, run, &geometry)?,
            ])
        };
        let mut results = Vec::with_capacity(runs.len());
        let mut saved = Vec::with_capacity(runs.len());
        for run in runs {
            let [q, k, v] = parts(&tensors, &run)?;
            let keep = match &mask {
                Some(mask) => Some(keep_of(mask, &run, &geometry, &q)?),
                None => None,
            };
            let p = probabilities(&q, &k, geometry.scale())?; // [sequences * heads, queries, keys]
            let kept = masked(&p, keep.as_ref())?;
            results.push(join_heads(&kept.matmul(&v)?, run.len(), heads)?);
            saved.push(Run { sequences: run, q, k, v, p, keep });
        }
        let y = if results.is_empty() { tensors[0].zeros_like()? } else { Tensor::cat(&results, 0)? };
        Ok(self.record(y, &inputs, move |g, vjp| {
            let mut gradients: [Vec<Tensor>; 5] = Default::default();
            for run in &saved {
                let g = queries_of(&g, &run.sequences, &geometry)?;
                let [dq, dk, dv] = run.gradients(&g, geometry.scale())?;
                gradients[0].push(join_heads(&dq, run.sequences.len(), heads)?);
                for (i, full) in [(1, dk), (2, dv)] {
                    let rows = join_heads(&full, run.sequences.len(), heads)?; // [sequences * keys, width]
                    let (n, p) = (run.sequences.len(), geometry.prefix);
                    let rows = rows.reshape((n, (), width))?;
                    let own = rows.dims()[1] - p;
                    gradients[i].push(rows.narrow(1, p, own)?.contiguous()?.reshape((n * own, width))?);
                    if p > 0 {
                        gradients[i + 2].push(rows.narrow(1, 0, p)?.sum(0)?);
                    }
                }
            }
            for (i, pieces) in gradients.into_iter().enumerate() {
                if !vjp.wants(i) {
                    continue;
                }
                let gradient = match pieces.as_slice() {
                    [] => tensors[i].zeros_like()?,
                    pieces if i < 3 => Tensor::cat(pieces, 0)?,
                    [first, rest @ ..] => rest.iter().try_fold(first.clone(), |sum, piece| sum + piece)?,
                };
                vjp.give(i, gradient)?;
            }
            Ok(())
        }))
    }

    /// Takes this op's number in the pass, also where nothing is dropped, so that the others' do not depend on it.
    fn attention_mask(&self, sequences: usize, p: f64) -> Result<Option<Mask>> {
        if !(0.0..=1.0).contains(&p) {
            candle_core::bail!("a dropout probability must lie in [0, 1], got {p}");
        }
        let Some(dropout) = &self.options().dropout else { return Ok(None) };
        let op = Stream::new(dropout.seed, "dropout").at(&[dropout.step, self.next_dropout()]);
        if p == 0.0 {
            return Ok(None);
        }
        if dropout.examples.len() != sequences {
            candle_core::bail!(
                "attention of {sequences} sequences cannot count its dropout by {} examples",
                dropout.examples.len()
            );
        }
        Ok(Some(Mask { streams: dropout.examples.iter().map(|example| op.at(&[*example])).collect(), p }))
    }
}

/// Runs the fast form where all tensors are contiguous `f32` on the CPU.
fn read<R>(tensors: &[Tensor], f: impl FnOnce(Operands<'_>) -> R) -> Option<R> {
    match tensors {
        [q, k, v] => slices::read([q, k, v], |[q, k, v]| f(Operands { q, k, v, prefix_k: &[], prefix_v: &[] })),
        [q, k, v, pk, pv] => {
            slices::read([q, k, v, pk, pv], |[q, k, v, prefix_k, prefix_v]| f(Operands { q, k, v, prefix_k, prefix_v }))
        }
        _ => None,
    }
}

/// Neighbouring sequences of equal lengths: they go through one batched product.
fn runs(geometry: &Geometry) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for s in 0..geometry.queries.sequences() {
        match runs.last_mut() {
            Some(run) if geometry.lengths(run.start) == geometry.lengths(s) => run.end = s + 1,
            _ => runs.push(s..s + 1),
        }
    }
    runs
}

/// What a run's backward pass needs; tensors are `[sequences * heads, rows, dim]`.
struct Run {
    sequences: Range<usize>,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    p: Tensor,
    keep: Option<Tensor>,
}

impl Run {
    fn gradients(&self, g: &Tensor, scale: f64) -> Result<[Tensor; 3]> {
        let p = self.p.to_dtype(self.q.dtype())?;
        let dv = masked(&p, self.keep.as_ref())?.transpose(1, 2)?.contiguous()?.matmul(g)?;
        let dp = masked(&g.matmul(&self.v.transpose(1, 2)?.contiguous()?)?, self.keep.as_ref())?;
        let dp = dp.to_dtype(self.p.dtype())?;
        let ds = (&self.p * dp.broadcast_sub(&(&dp * &self.p)?.sum_keepdim(D::Minus1)?)?)?;
        let ds = ds.affine(scale, 0.0)?.to_dtype(self.q.dtype())?;
        Ok([ds.matmul(&self.k)?, ds.transpose(1, 2)?.contiguous()?.matmul(&self.q)?, dv])
    }
}

/// The softmax, in `f32` where the operands are half floats.
fn probabilities(q: &Tensor, k: &Tensor, scale: f64) -> Result<Tensor> {
    let scores = q.matmul(&k.transpose(1, 2)?.contiguous()?)?;
    let float = if scores.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let scores = scores.to_dtype(float)?.affine(scale, 0.0)?;
    if scores.elem_count() == 0 {
        return Ok(scores);
    }
    let e = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
}

fn masked(x: &Tensor, keep: Option<&Tensor>) -> Result<Tensor> {
    match keep {
        Some(keep) => x * keep.to_dtype(x.dtype())?,
        None => Ok(x.clone()),
    }
}

/// `[n * rows, heads * dim]` to `[n * heads, rows, dim]`.
fn split_heads(x: &Tensor, n: usize, heads: usize) -> Result<Tensor> {
    let (total, width) = x.dims2()?;
    let (rows, dim) = (total / n, width / heads);
    x.reshape((n, rows, heads, dim))?.transpose(1, 2)?.contiguous()?.reshape((n * heads, rows, dim))
}

/// `[n * heads, rows, dim]` to `[n * rows, heads * dim]`.
fn join_heads(x: &Tensor, n: usize, heads: usize) -> Result<Tensor> {
    let (_, rows, dim) = x.dims3()?;
    x.reshape((n, heads, rows, dim))?.transpose(1, 2)?.contiguous()?.reshape((n * rows, heads * dim))
}

fn queries_of(q: &Tensor, run: &Range<usize>, geometry: &Geometry) -> Result<Tensor> {
    let start = geometry.queries.offsets()[run.start] as usize;
    let end = geometry.queries.offsets()[run.end] as usize;
    split_heads(&q.narrow(0, start, end - start)?, run.len(), geometry.heads)
}

fn keys_of(k: &Tensor, prefix: Option<&Tensor>, run: &Range<usize>, geometry: &Geometry) -> Result<Tensor> {
    let start = geometry.keys.offsets()[run.start] as usize;
    let end = geometry.keys.offsets()[run.end] as usize;
    let (n, width) = (run.len(), k.dims()[1]);
    let own = k.narrow(0, start, end - start)?;
    let Some(prefix) = prefix else { return split_heads(&own, n, geometry.heads) };
    let p = geometry.prefix;
    let prefix = prefix.unsqueeze(0)?.broadcast_as((n, p, width))?.contiguous()?;
    let all = Tensor::cat(&[prefix, own.reshape((n, (end - start) / n, width))?], 1)?;
    split_heads(&all.reshape((n * p + end - start, width))?, n, geometry.heads)
}

/// The mask of a run, `[sequences * heads, queries, keys]`.
fn keep_of(mask: &Mask, run: &Range<usize>, geometry: &Geometry, like: &Tensor) -> Result<Tensor> {
    let (queries, keys) = geometry.lengths(run.start);
    let mut keep = vec![0f32; run.len() * geometry.heads * queries * keys];
    let blocks = run.clone().flat_map(|s| (0..geometry.heads).map(move |head| (s, head)));
    for ((s, head), out) in blocks.zip(keep.chunks_exact_mut((queries * keys).max(1))) {
        mask.fill(geometry, s, head, keys, out);
    }
    Tensor::from_vec(keep, (run.len() * geometry.heads, queries, keys), like.device())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use candle_core::Device;

    use super::*;
    use crate::{Dropout, TapeOptions, check};

    fn random(seed: u64, dims: (usize, usize), dtype: DType) -> Tensor {
        let mut data = vec![0f32; dims.0 * dims.1];
        Stream::keyed(seed, &[11]).fill_uniform(&mut data, -1.5, 1.5);
        Tensor::from_vec(data, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    struct Case {
        heads: usize,
        width: usize,
        queries: Vec<usize>,
        keys: Vec<usize>,
        prefix: usize,
        dropout: f64,
    }

    impl Case {
        fn inputs(&self, dtype: DType) -> Vec<Tensor> {
            let (q, k): (usize, usize) = (self.queries.iter().sum(), self.keys.iter().sum());
            let mut inputs = vec![
                random(1, (q, self.width), dtype),
                random(2, (k, self.width), dtype),
                random(3, (k, self.width), dtype),
            ];
            if self.prefix > 0 {
                inputs.push(random(4, (self.prefix, self.width), dtype));
                inputs.push(random(5, (self.prefix, self.width), dtype));
            }
            inputs
        }

        fn op(&self, tape: &Tape, v: &[Value]) -> Result<Value> {
            let layout = |lengths: &[usize]| Layout::from_lengths(lengths.iter().copied());
            let prefix = (self.prefix > 0).then(|| (&v[3], &v[4]));
            let (q, kv) = (layout(&self.queries), layout(&self.keys));
            tape.attention(&v[0], &v[1], &v[2], self.heads, &q, &kv, prefix, self.dropout)
        }

        fn options(&self, parallel_ops: bool) -> TapeOptions {
            let examples = (0..self.queries.len() as u64).map(|i| i * 3 + 1).collect();
            let dropout = Some(Dropout { seed: 5, step: 2, examples });
            TapeOptions { recording: true, parallel_ops, dropout, ..TapeOptions::default() }
        }

        /// The result and all gradients.
        fn run(&self, dtype: DType, parallel: bool) -> Vec<Vec<f64>> {
            let tape = Tape::new(self.options(parallel));
            let values: Vec<Value> = self.inputs(dtype).into_iter().map(|t| tape.variable(t)).collect();
            let y = self.op(&tape, &values).unwrap();
            let seed = random(9, y.tensor().dims2().unwrap(), dtype);
            let gradients = tape.backward_from(vec![(y.clone(), seed)]).unwrap();
            let mut all = vec![y.into_tensor()];
            all.extend(values.iter().map(|v| gradients.of(v).unwrap().clone()));
            all.iter().map(|t| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()).collect()
        }
    }

    fn cases() -> Vec<Case> {
        let case = |heads, width, queries: &[usize], keys: &[usize], prefix, dropout| Case {
            heads,
            width,
            queries: queries.to_vec(),
            keys: keys.to_vec(),
            prefix,
            dropout,
        };
        vec![
            case(2, 6, &[3, 1, 2], &[3, 1, 2], 0, 0.0),
            case(2, 4, &[2, 2, 3], &[2, 2, 3], 2, 0.3),
            case(1, 3, &[1, 1, 1], &[4, 2, 2], 0, 0.25),
            case(3, 96, &[23, 5, 64, 17, 17], &[23, 5, 64, 17, 17], 0, 0.0),
            case(2, 128, &[40, 1, 13], &[40, 1, 13], 5, 0.1),
            case(2, 48, &[1, 1], &[130, 33], 3, 0.0),
            case(1, 20, &[2, 0, 3], &[2, 0, 3], 0, 0.0),
        ]
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for case in &cases()[..3] {
            // The check's own tapes drop nothing out: this one computes on a tape that does, leaf by leaf.
            check::gradients(&case.inputs(DType::F64), |tape, v| case.op(tape, v)).unwrap();
        }
    }

    #[test]
    fn the_fast_form_agrees_with_the_composite() {
        for case in cases() {
            let exact = case.run(DType::F64, false);
            let fast = case.run(DType::F32, false);
            for (i, (fast, exact)) in fast.iter().zip(&exact).enumerate() {
                let scale = exact.iter().fold(1.0f64, |a, x| a.max(x.abs()));
                let error = fast.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / scale;
                assert!(error < 2e-6, "width {}, result {i}: off by {error}", case.width);
            }
            assert_eq!(fast, case.run(DType::F32, true), "threads changed the bits");
        }
    }

    #[test]
    fn dropout_is_counted_by_example() {
        let case = &cases()[1];
        let inputs = case.inputs(DType::F32);
        let of = |from: usize, sequences: Range<usize>| {
            let lengths = &case.queries[sequences.clone()];
            let rows: usize = lengths.iter().sum();
            let options = case.options(false);
            let mut dropout = options.dropout.clone().unwrap();
            dropout.examples = dropout.examples[sequences].to_vec();
            let tape = Tape::new(TapeOptions { dropout: Some(dropout), ..options });
            let v: Vec<Value> = inputs[..3].iter().map(|t| Value::constant(t.narrow(0, from, rows).unwrap())).collect();
            let layout = Layout::from_lengths(lengths.iter().copied());
            let y = tape.attention(&v[0], &v[1], &v[2], case.heads, &layout, &layout, None, 0.5).unwrap();
            y.tensor().to_vec2::<f32>().unwrap()
        };
        let whole = of(0, 0..3);
        assert_eq!(whole[..2], of(0, 0..1));
        assert_eq!(whole[2..], of(2, 1..3));
        let plain =
            case.op(&Tape::evaluation(), &inputs.iter().map(|t| Value::constant(t.clone())).collect::<Vec<_>>());
        assert_ne!(whole, plain.unwrap().tensor().to_vec2::<f32>().unwrap());
    }

    #[test]
    fn wrong_shapes_are_named() {
        let v = |rows| Value::constant(random(1, (rows, 6), DType::F32));
        let layout = Layout::from_lengths([2, 1]);
        let tape = Tape::evaluation();
        let of = |q: &Value, heads| tape.attention(q, &v(3), &v(3), heads, &layout, &layout, None, 0.0);
        assert!(of(&v(3), 4).unwrap_err().to_string().contains("4 heads"));
        assert!(of(&v(4), 2).unwrap_err().to_string().contains("[4, 6]"));
    }
}
