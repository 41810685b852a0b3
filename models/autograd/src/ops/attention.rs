//! Attention of packed sequences: softmax(q k^T / sqrt(dim)) v, each sequence and head by itself.

use candle_core::{D, DType, Device, Result, Tensor};

use crate::kernels::attention::{self as fast, Geometry, Mask, Operands, Wanted};
use crate::random::Stream;
use crate::{Attention, Layout, Sees, Tape, Value, slices};

impl Tape {
    /// Multi-head attention. `q` `[query tokens, heads * dim]`; `k`, `v` `[key tokens, kv_heads * dim]`; sequence `i` of `q_layout`
    /// reads sequence `i` of `kv_layout`, and all read `prefix`'s keys and values `[p, kv_heads * dim]`. Gives
    /// `[query tokens, heads * dim]`.
    #[allow(clippy::too_many_arguments)] // the operands of one op
    pub fn attention(
        &self,
        q: &Value,
        k: &Value,
        v: &Value,
        of: &Attention,
        q_layout: &Layout,
        kv_layout: &Layout,
        prefix: Option<(&Value, &Value)>,
    ) -> Result<Value> {
        let Attention { heads, kv_heads, dropout, .. } = *of;
        let (tokens, width) = q.tensor().dims2()?;
        if heads == 0 || width % heads != 0 {
            candle_core::bail!("a width of {width} cannot be split among {heads} heads");
        }
        if kv_heads == 0 || heads % kv_heads != 0 {
            candle_core::bail!("{kv_heads} heads of keys cannot serve {heads} heads of queries alike");
        }
        let (dim, kv_width) = (width / heads, width / heads * kv_heads);
        let kv = [kv_layout.tokens(), kv_width];
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
        if let Sees::Past { window } = of.sees {
            let longer = q_layout.ranges().zip(kv_layout.ranges()).find(|(q, k)| q.len() > k.len());
            if let Some((q, k)) = longer {
                candle_core::bail!("{} queries cannot be the last of {} keys", q.len(), k.len());
            }
            if window == Some(0) {
                candle_core::bail!("a window of no keys lets a query see nothing");
            }
        }
        let prefix_rows = match prefix {
            Some((pk, pv)) if pk.dims().len() == 2 && pk.dims()[1] == kv_width && pk.dims() == pv.dims() => {
                pk.dims()[0]
            }
            Some((pk, pv)) => {
                candle_core::bail!("prefixes of shape [p, {kv_width}] are due, got {:?} and {:?}", pk.dims(), pv.dims())
            }
            None => 0,
        };
        let geometry = Geometry {
            heads,
            kv_heads,
            dim,
            scale: of.scale.unwrap_or(1.0 / (dim as f64).sqrt()),
            sees: of.sees,
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

        let padded = Padded::new(geometry, q.tensor().device())?;
        if padded.is_empty() {
            let y = tensors[0].zeros_like()?;
            return Ok(self.record(y, &inputs, move |_, vjp| {
                for (i, tensor) in tensors.iter().enumerate() {
                    if vjp.wants(i) {
                        vjp.give(i, tensor.zeros_like()?)?;
                    }
                }
                Ok(())
            }));
        }
        let (pk, pv) = (tensors.get(3), tensors.get(4));
        let q = padded.queries(&tensors[0])?;
        let [k, v] = [padded.keys(&tensors[1], pk)?, padded.keys(&tensors[2], pv)?];
        let [k, v] = [padded.repeated(&k)?, padded.repeated(&v)?];
        let keep = mask.map(|mask| padded.keep(&mask)).transpose()?;
        let p = padded.probabilities(&q, &k)?;
        let kept = masked(&p.to_dtype(q.dtype())?, keep.as_ref())?;
        let y = padded.packed_queries(&kept.matmul(&v)?)?;
        Ok(self.record(y, &inputs, move |g, vjp| {
            let g = padded.queries(&g)?;
            let rounded = p.to_dtype(q.dtype())?;
            let dv = masked(&rounded, keep.as_ref())?.transpose(1, 2)?.contiguous()?.matmul(&g)?;
            let dp = masked(&g.matmul(&v.transpose(1, 2)?.contiguous()?)?, keep.as_ref())?.to_dtype(p.dtype())?;
            let ds = (&p * dp.broadcast_sub(&(&dp * &p)?.sum_keepdim(D::Minus1)?)?)?;
            let ds = ds.affine(padded.geometry.scale, 0.0)?.to_dtype(q.dtype())?;
            let dk = ds.transpose(1, 2)?.contiguous()?.matmul(&q)?;
            let [dk, dv] = [padded.shared(&dk)?, padded.shared(&dv)?];
            if vjp.wants(0) {
                vjp.give(0, padded.packed_queries(&ds.matmul(&k)?)?)?;
            }
            for (i, gradient) in [(1, dk), (2, dv)] {
                if vjp.wants(i) {
                    vjp.give(i, padded.packed_keys(&gradient)?)?;
                }
                if vjp.wants(i + 2) {
                    vjp.give(i + 2, padded.prefix(&gradient)?)?;
                }
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
        let op = Stream::new(dropout.seed, "dropout").at(&[dropout.step, self.next_dropout(p)]);
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

/// The form of all other types and devices: sequences are padded to the longest, so that every product is one call.
struct Padded {
    geometry: Geometry,
    /// The longest sequence of queries, and of keys without the prefix.
    longest: (usize, usize),
    queries: Rows,
    keys: Rows,
    /// Added to scores: 0, and far below all scores for keys that a query does not see; `[sequences * heads, queries, keys]`, or one row
    /// of keys for all queries.
    bias: Tensor,
}

/// Where the rows of a packed tensor stand in its padded form, and the other way round.
struct Rows {
    /// `[sequences * longest]`; padding is the row after the last.
    packed: Tensor,
    /// `[tokens]`
    padded: Tensor,
}

impl Rows {
    fn new(layout: &Layout, longest: usize, device: &Device) -> Result<Self> {
        let padding = layout.tokens() as u32;
        let mut packed = vec![padding; layout.sequences() * longest];
        let mut padded = Vec::with_capacity(layout.tokens());
        for (s, range) in layout.ranges().enumerate() {
            for (place, row) in range.enumerate() {
                packed[s * longest + place] = row as u32;
                padded.push((s * longest + place) as u32);
            }
        }
        Ok(Self { packed: Tensor::new(packed, device)?, padded: Tensor::new(padded, device)? })
    }

    /// `[tokens, width]` to `[sequences * longest, width]`, padding zero.
    fn pad(&self, x: &Tensor) -> Result<Tensor> {
        let zeros = Tensor::zeros((1, x.dims()[1]), x.dtype(), x.device())?;
        Tensor::cat(&[x, &zeros], 0)?.index_select(&self.packed, 0)
    }
}

impl Padded {
    fn new(geometry: Geometry, device: &Device) -> Result<Self> {
        let (sequences, heads, prefix) = (geometry.queries.sequences(), geometry.heads, geometry.prefix);
        let (longest, keys) = geometry.longest();
        let rows = if geometry.sees == Sees::All { 1 } else { longest };
        let mut bias = vec![FAR_BELOW; sequences * heads * rows * keys];
        for (i, bias) in bias.chunks_exact_mut((rows * keys).max(1)).enumerate() {
            for block in geometry.blocks(i / heads) {
                for (place, query) in block.queries.clone().enumerate().filter(|(_, query)| *query < rows) {
                    let seen = block.seen(place);
                    bias[query * keys + block.keys.start..][seen].fill(0.0);
                }
            }
        }
        let bias = Tensor::from_vec(bias, (sequences * heads, rows, keys), device)?;
        let own = keys.saturating_sub(prefix);
        let [queries, keys] = [(&geometry.queries, longest), (&geometry.keys, own)]
            .map(|(layout, longest)| Rows::new(layout, longest, device));
        Ok(Self { longest: (longest, own), queries: queries?, keys: keys?, bias, geometry })
    }

    /// Whether there is nothing to attend, or nothing to attend to.
    fn is_empty(&self) -> bool {
        self.longest.0 == 0 || self.longest.1 + self.geometry.prefix == 0
    }

    /// `[tokens, width]` to `[sequences * heads, queries, dim]`.
    fn queries(&self, x: &Tensor) -> Result<Tensor> {
        self.split_heads(&self.queries.pad(x)?, self.longest.0, self.geometry.heads)
    }

    /// `[tokens, kv width]` and `[prefix, kv width]` to `[sequences * kv heads, keys, dim]`, the prefix first.
    fn keys(&self, x: &Tensor, prefix: Option<&Tensor>) -> Result<Tensor> {
        let own = self.keys.pad(x)?;
        let heads = self.geometry.kv_heads;
        let Some(prefix) = prefix else { return self.split_heads(&own, self.longest.1, heads) };
        let (n, width, keys) = (self.geometry.queries.sequences(), x.dims()[1], self.geometry.prefix + self.longest.1);
        let prefix = prefix.unsqueeze(0)?.broadcast_as((n, self.geometry.prefix, width))?.contiguous()?;
        let all = Tensor::cat(&[prefix, own.reshape((n, self.longest.1, width))?], 1)?;
        self.split_heads(&all.reshape((n * keys, width))?, keys, heads)
    }

    /// How many heads of queries a head of keys serves.
    fn group(&self) -> usize {
        self.geometry.heads / self.geometry.kv_heads
    }

    /// `[sequences * kv heads, keys, dim]` to `[sequences * heads, keys, dim]`.
    fn repeated(&self, x: &Tensor) -> Result<Tensor> {
        let (n, keys, dim) = x.dims3()?;
        let all = x.unsqueeze(1)?.broadcast_as((n, self.group(), keys, dim))?.contiguous()?;
        all.reshape((n * self.group(), keys, dim))
    }

    /// The way back of [`repeated`](Self::repeated): the sum over the heads that share keys.
    fn shared(&self, x: &Tensor) -> Result<Tensor> {
        let (n, keys, dim) = x.dims3()?;
        x.reshape((n / self.group(), self.group(), keys, dim))?.sum(1)
    }

    /// The way back of [`queries`](Self::queries).
    fn packed_queries(&self, x: &Tensor) -> Result<Tensor> {
        self.join_heads(x, self.geometry.heads)?.index_select(&self.queries.padded, 0)
    }

    /// The way back of [`keys`](Self::keys) to the sequences' own rows.
    fn packed_keys(&self, x: &Tensor) -> Result<Tensor> {
        let own = self.by_sequence(x)?.narrow(1, self.geometry.prefix, self.longest.1)?.contiguous()?;
        own.reshape(((), own.dims()[2]))?.index_select(&self.keys.padded, 0)
    }

    /// The way back of [`keys`](Self::keys) to the prefix, summed over the sequences. Only where there is one: a GPU sums no empty tensor.
    fn prefix(&self, x: &Tensor) -> Result<Tensor> {
        self.by_sequence(x)?.narrow(1, 0, self.geometry.prefix)?.sum(0)
    }

    /// `[sequences * kv heads, rows, dim]` to `[sequences, rows, kv heads * dim]`.
    fn by_sequence(&self, x: &Tensor) -> Result<Tensor> {
        let rows = self.join_heads(x, self.geometry.kv_heads)?;
        rows.reshape((self.geometry.queries.sequences(), (), rows.dims()[1]))
    }

    /// The softmax, in `f32` where the operands are half floats: `[sequences * heads, queries, keys]`.
    fn probabilities(&self, q: &Tensor, k: &Tensor) -> Result<Tensor> {
        let scores = q.matmul(&k.transpose(1, 2)?.contiguous()?)?;
        let float = if scores.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let scores = scores.to_dtype(float)?.affine(self.geometry.scale, 0.0)?;
        let scores = scores.broadcast_add(&self.bias.to_dtype(float)?)?;
        let e = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
    }

    /// The mask, `[sequences * heads, queries, keys]`.
    fn keep(&self, mask: &Mask) -> Result<Tensor> {
        let heads = self.geometry.heads;
        let (blocks, keys) = (self.geometry.queries.sequences() * heads, self.geometry.prefix + self.longest.1);
        let mut keep = vec![0f32; blocks * self.longest.0 * keys];
        for (i, block) in keep.chunks_exact_mut(self.longest.0 * keys).enumerate() {
            for of in self.geometry.blocks(i / heads) {
                let from = of.queries.start * keys + of.keys.start;
                mask.fill(&self.geometry, i / heads, i % heads, &of, keys, &mut block[from..]);
            }
        }
        Tensor::from_vec(keep, (blocks, self.longest.0, keys), self.bias.device())
    }

    /// `[sequences * rows, heads * dim]` to `[sequences * heads, rows, dim]`.
    fn split_heads(&self, x: &Tensor, rows: usize, heads: usize) -> Result<Tensor> {
        let dim = self.geometry.dim;
        x.reshape(((), rows, heads, dim))?.transpose(1, 2)?.contiguous()?.reshape(((), rows, dim))
    }

    /// `[sequences * heads, rows, dim]` to `[sequences * rows, heads * dim]`.
    fn join_heads(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let dim = self.geometry.dim;
        x.reshape(((), heads, x.dims()[1], dim))?.transpose(1, 2)?.contiguous()?.reshape(((), heads * dim))
    }
}

/// A score whose exponential is 0 beside any other's. Not infinite: a sequence without keys would come out as no number.
const FAR_BELOW: f32 = -1e30;

fn masked(x: &Tensor, keep: Option<&Tensor>) -> Result<Tensor> {
    match keep {
        Some(keep) => x * keep.to_dtype(x.dtype())?,
        None => Ok(x.clone()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::ops::Range;

    use super::*;
    use crate::{Dropout, TapeOptions, check};

    fn random(seed: u64, dims: (usize, usize), dtype: DType) -> Tensor {
        let mut data = vec![0f32; dims.0 * dims.1];
        Stream::keyed(seed, &[11]).fill_uniform(&mut data, -1.5, 1.5);
        Tensor::from_vec(data, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    struct Case {
        heads: usize,
        kv_heads: usize,
        sees: Sees,
        scale: Option<f64>,
        /// Of the queries.
        width: usize,
        queries: Vec<usize>,
        keys: Vec<usize>,
        prefix: usize,
        dropout: f64,
    }

    impl Case {
        fn inputs(&self, dtype: DType) -> Vec<Tensor> {
            let (q, k): (usize, usize) = (self.queries.iter().sum(), self.keys.iter().sum());
            let kv_width = self.width / self.heads * self.kv_heads;
            let mut inputs = vec![
                random(1, (q, self.width), dtype),
                random(2, (k, kv_width), dtype),
                random(3, (k, kv_width), dtype),
            ];
            if self.prefix > 0 {
                inputs.push(random(4, (self.prefix, kv_width), dtype));
                inputs.push(random(5, (self.prefix, kv_width), dtype));
            }
            inputs
        }

        fn op(&self, tape: &Tape, v: &[Value]) -> Result<Value> {
            let layout = |lengths: &[usize]| Layout::from_lengths(lengths.iter().copied());
            let prefix = (self.prefix > 0).then(|| (&v[3], &v[4]));
            let (q, kv) = (layout(&self.queries), layout(&self.keys));
            let Self { heads, kv_heads, scale, sees, dropout, .. } = *self;
            let of = Attention { heads, kv_heads, scale, sees, dropout };
            tape.attention(&v[0], &v[1], &v[2], &of, &q, &kv, prefix)
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
            kv_heads: heads,
            sees: Sees::All,
            scale: None,
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
            past(None, 2, case(4, 8, &[3, 1], &[3, 2], 0, 0.0)),
            past(Some(2), 1, case(2, 6, &[4, 2], &[4, 3], 1, 0.2)),
            past(None, 1, case(3, 48, &[150, 1, 64], &[150, 7, 65], 0, 0.1)),
            past(Some(20), 2, case(4, 64, &[150, 1, 65], &[150, 70, 130], 3, 0.0)),
            past(Some(70), 2, case(2, 32, &[0, 200], &[3, 201], 0, 0.1)),
        ]
    }

    fn past(window: Option<usize>, kv_heads: usize, case: Case) -> Case {
        Case { kv_heads, sees: Sees::Past { window }, scale: Some(0.3), ..case }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for case in cases().iter().filter(|case| case.queries.iter().sum::<usize>() < 8) {
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
            let of = Attention::full(case.heads, 0.5);
            let y = tape.attention(&v[0], &v[1], &v[2], &of, &layout, &layout, None).unwrap();
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
        let run = |q: &Value, of: &Attention, layout: &Layout, keys: &Layout| {
            tape.attention(q, &v(3), &v(3), of, layout, keys, None).unwrap_err().to_string()
        };
        assert!(run(&v(3), &Attention::full(4, 0.0), &layout, &layout).contains("4 heads"));
        assert!(run(&v(4), &Attention::full(2, 0.0), &layout, &layout).contains("[4, 6]"));
        let shared = Attention { kv_heads: 2, ..Attention::full(3, 0.0) };
        assert!(run(&v(3), &shared, &layout, &layout).contains("2 heads of keys cannot serve 3"));
        let past = |window| Attention { sees: Sees::Past { window }, ..Attention::full(2, 0.0) };
        let other = Layout::from_lengths([1, 2]);
        assert!(run(&v(3), &past(None), &layout, &other).contains("2 queries cannot be the last of 1 keys"));
        assert!(run(&v(3), &past(Some(0)), &layout, &layout).contains("a window of no keys"));
    }

    #[test]
    fn a_query_sees_what_its_window_says_and_nothing_else() {
        let (n, layout) = (150, Layout::from_lengths([150]));
        let v: Vec<Value> = (1..4).map(|seed| Value::constant(random(seed, (n, 8), DType::F32))).collect();
        for window in [None, Some(1), Some(40)] {
            let of = Attention { sees: Sees::Past { window }, ..Attention::full(2, 0.0) };
            let whole = Tape::evaluation().attention(&v[0], &v[1], &v[2], &of, &layout, &layout, None).unwrap();
            let whole = whole.tensor().to_vec2::<f32>().unwrap();
            for query in [0usize, 1, 39, 40, 63, 64, 149] {
                // The same query alone over the keys that it sees, all of them.
                let first = window.map_or(0, |window| (query + 1).saturating_sub(window));
                let rows = |x: &Value, from: usize, to: usize| {
                    Value::constant(x.tensor().narrow(0, from, to - from).unwrap().contiguous().unwrap())
                };
                let (one, keys) = (Layout::single_rows(1), Layout::from_lengths([query + 1 - first]));
                let [k, value] = [1, 2].map(|i| rows(&v[i], first, query + 1));
                let full = Attention::full(2, 0.0);
                let q = rows(&v[0], query, query + 1);
                let alone = Tape::evaluation().attention(&q, &k, &value, &full, &one, &keys, None).unwrap();
                let alone = &alone.tensor().to_vec2::<f32>().unwrap()[0];
                let off = whole[query].iter().zip(alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 1e-6, "window {window:?}, query {query}: off by {off}");
            }
        }
    }
}
