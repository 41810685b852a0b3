//! Linear maps: x W^T + b with a fused activation, the low-rank update, and the plain matrix product.

use candle_core::{Result, Tensor};

use crate::kernels::elementwise;
use crate::kernels::linear::{self as fast, Weight};
use crate::{Activation, Precision, Tape, Value, slices};

/// `[.., n]` as contiguous rows `[rows, n]`.
fn rows(x: &Tensor) -> Result<Tensor> {
    let width = x.dims().last().copied().unwrap_or(1);
    let rows = x.elem_count().checked_div(width).unwrap_or(0);
    x.reshape((rows, width))?.contiguous()
}

/// `x`'s leading dimensions with another last one.
fn with_last(dims: &[usize], last: usize) -> Vec<usize> {
    let mut dims = dims.to_vec();
    if let Some(end) = dims.last_mut() {
        *end = last;
    }
    dims
}

/// The matrix product by candle, its operands rounded to the precision asked for.
fn product(a: &Tensor, b: &Tensor, precision: Precision) -> Result<Tensor> {
    let low = match precision {
        Precision::Bf16 => candle_core::DType::BF16,
        Precision::F16 => candle_core::DType::F16,
        Precision::F32 => return a.matmul(b),
    };
    if a.dtype() != candle_core::DType::F32 || a.device().is_cpu() {
        return a.matmul(b);
    }
    a.to_dtype(low)?.matmul(&b.to_dtype(low)?)?.to_dtype(a.dtype())
}

/// One weight as the products of a step see it.
pub(super) struct Product {
    weight: Value, // [out, in]
    precision: Precision,
    parallel: bool,
}

impl Product {
    pub(super) fn new(tape: &Tape, weight: &Value) -> Result<Self> {
        let weight = match weight.parameter() {
            Some(_) => weight.clone(),
            None => Value::constant(weight.tensor().contiguous()?),
        };
        Ok(Self { weight, precision: tape.options().precision, parallel: tape.options().parallel_ops })
    }

    fn fast(&self) -> Weight<'_> {
        Weight { value: &self.weight, precision: self.precision, parallel: self.parallel }
    }

    /// `activation(x W^T + b)`, and what its backward pass needs if `slope` asks for it.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
        slope: bool,
    ) -> Result<(Tensor, Slope)> {
        if let Some((y, derivative)) = fast::forward(self.fast(), x, bias, activation, slope)? {
            return Ok((y, derivative.map_or(Slope::One, Slope::Derivative)));
        }
        let mut y = product(x, &self.weight.tensor().t()?, self.precision)?;
        if let Some(bias) = bias {
            y = y.broadcast_add(bias)?;
        }
        if activation == Activation::Identity {
            return Ok((y, Slope::One));
        }
        Ok((activation.forward(&y)?, Slope::At(activation, y)))
    }

    /// `g W`
    pub(super) fn input_gradient(&self, g: &Tensor) -> Result<Tensor> {
        match fast::input_gradient(self.fast(), g)? {
            Some(dx) => Ok(dx),
            None => product(g, self.weight.tensor(), self.precision),
        }
    }

    /// `g^T x`
    pub(super) fn weight_gradient(&self, g: &Tensor, x: &Tensor) -> Result<Tensor> {
        match fast::weight_gradient(g, x, 1.0, self.precision, self.parallel)? {
            Some(dw) => Ok(dw),
            None => product(&g.t()?, x, self.precision),
        }
    }
}

/// What the backward pass knows of an activation.
pub(super) enum Slope {
    /// There is none.
    One,
    /// Its derivative at each element.
    Derivative(Tensor),
    /// Its argument.
    At(Activation, Tensor),
}

impl Slope {
    fn chain(self, g: Tensor) -> Result<Tensor> {
        match self {
            Self::One => Ok(g),
            Self::Derivative(slope) => match slices::read([&g, &slope], |[g, slope]| elementwise::product(g, slope)) {
                Some(product) => Tensor::from_vec(product, g.dims(), g.device()),
                None => g * slope,
            },
            Self::At(activation, x) => activation.backward(&x, &g),
        }
    }
}

impl Tape {
    /// `x W^T + b`: `x` `[.., in]`, `weight` `[out, in]`, `bias` `[out]`; gives `[.., out]`.
    pub fn linear(&self, x: &Value, weight: &Value, bias: Option<&Value>) -> Result<Value> {
        self.linear_activation(x, weight, bias, Activation::Identity)
    }

    /// `activation(x W^T + b)`: `x` `[.., in]`, `weight` `[out, in]`, `bias` `[out]`; gives `[.., out]`.
    pub fn linear_activation(
        &self,
        x: &Value,
        weight: &Value,
        bias: Option<&Value>,
        activation: Activation,
    ) -> Result<Value> {
        let (out, width) = weight.dims2()?;
        if x.dims().last() != Some(&width) {
            candle_core::bail!(
                "a linear map takes [.., {width}] by its weight {:?}, got {:?}",
                weight.dims(),
                x.dims()
            );
        }
        if let Some(bias) = bias
            && bias.dims() != [out]
        {
            candle_core::bail!("the bias of a linear map {:?} has shape {:?}", weight.dims(), bias.dims());
        }
        let map = Product::new(self, weight)?;
        let x_rows = rows(x.tensor())?; // [tokens, in]
        let biased = bias.is_some_and(Value::requires_grad);
        let records = self.options().recording && (x.requires_grad() || weight.requires_grad() || biased);
        let (y, slope) = map.forward(&x_rows, bias.map(Value::tensor), activation, records)?; // [tokens, out]
        let y = y.reshape(with_last(x.dims(), out))?;

        let inputs = [Some(x), Some(weight), bias];
        let inputs: Vec<&Value> = inputs.into_iter().flatten().collect();
        let x_dims = x.dims().to_vec();
        let saved = weight.requires_grad().then(|| x.kept()).transpose()?;
        Ok(self.record(y, &inputs, move |g, vjp| {
            let g = slope.chain(rows(&g)?)?; // [tokens, out]
            if vjp.wants(2) {
                vjp.give(2, super::elementwise::unbroadcast(g.clone(), &[out])?)?;
            }
            if let Some(x) = &saved {
                vjp.give(1, map.weight_gradient(&g, &rows(&x.tensor()?)?)?)?;
            }
            if vjp.wants(0) {
                vjp.give(0, map.input_gradient(&g)?.reshape(x_dims)?)?;
            }
            Ok(())
        }))
    }

    /// `y + scale (x A^T) B^T`: `y` `[.., out]`, `x` `[.., in]`, `a` `[rank, in]`, `b` `[out, rank]`.
    pub fn low_rank(&self, y: Value, x: &Value, a: &Value, b: &Value, scale: f64) -> Result<Value> {
        let (rank, width) = a.dims2()?;
        let (out, columns) = b.dims2()?;
        if rank != columns || x.dims().last() != Some(&width) || y.dims() != with_last(x.dims(), out) {
            candle_core::bail!(
                "a low-rank update takes y [.., out], x [.., in], a [rank, in], b [out, rank]; got {:?}, {:?}, {:?}, {:?}",
                y.dims(),
                x.dims(),
                a.dims(),
                b.dims()
            );
        }
        let (down, up) = (Product::new(self, a)?, Product::new(self, b)?);
        let x_rows = rows(x.tensor())?; // [tokens, in]
        let y_rows = rows(y.tensor())?; // [tokens, out]
        let (h, _) = down.forward(&x_rows, None, Activation::Identity, false)?; // [tokens, rank]
        let sum = match fast::add_scaled(up.fast(), &h, scale, &y_rows)? {
            Some(sum) => sum,
            None => (&y_rows + product(&h, &up.weight.tensor().t()?, up.precision)?.affine(scale, 0.0)?)?,
        };
        let sum = sum.reshape(y.dims())?;
        let x_dims = x.dims().to_vec();
        let h = b.requires_grad().then_some(h);
        let saved = a.requires_grad().then(|| x.kept()).transpose()?;
        Ok(self.record(sum, &[&y, x, a, b], move |g, vjp| {
            let of_rows = rows(&g)?; // [tokens, out]
            if let Some(h) = &h {
                let db = match fast::weight_gradient(&of_rows, h, scale, up.precision, up.parallel)? {
                    Some(db) => db,
                    None => up.weight_gradient(&of_rows, h)?.affine(scale, 0.0)?,
                };
                vjp.give(3, db)?;
            }
            if vjp.wants(1) || vjp.wants(2) {
                let dh = up.input_gradient(&of_rows)?.affine(scale, 0.0)?; // [tokens, rank]
                if let Some(x) = &saved {
                    vjp.give(2, down.weight_gradient(&dh, &rows(&x.tensor()?)?)?)?;
                }
                if vjp.wants(1) {
                    vjp.give(1, down.input_gradient(&dh)?.reshape(x_dims)?)?;
                }
            }
            vjp.give(0, g)
        }))
    }

    /// `[.., m, k] x [.., k, n]`, with equal leading dimensions or `b` of rank 2.
    pub fn matmul(&self, a: &Value, b: &Value) -> Result<Value> {
        let (rank_a, rank_b) = (a.dims().len(), b.dims().len());
        let joined = rank_a > 2 && rank_b == 2;
        let leading = || joined || a.dims()[..rank_a - 2] == b.dims()[..rank_b - 2];
        if rank_a < 2 || rank_b < 2 || !leading() || a.dims()[rank_a - 1] != b.dims()[rank_b - 2] {
            candle_core::bail!(
                "matmul takes [.., m, k] and [.., k, n] or [k, n], got {:?} and {:?}",
                a.dims(),
                b.dims()
            );
        }
        let options = self.options();
        let (precision, parallel) = (options.precision, options.parallel_ops);
        // With a b of rank 2 all rows of a go through one product.
        let left = if joined { rows(a.tensor())? } else { a.tensor().clone() };
        let right = b.tensor().clone();
        let y = batched(&left, &right, precision, parallel)?;
        let y = if joined { y.reshape(with_last(a.dims(), right.dims()[1]))? } else { y };
        let a_dims = a.dims().to_vec();
        Ok(self.record(y, &[a, b], move |g, vjp| {
            let g = if joined { rows(&g)? } else { g };
            if vjp.wants(0) {
                vjp.give(0, batched(&g, &right.t()?, precision, parallel)?.reshape(a_dims)?)?;
            }
            if vjp.wants(1) {
                vjp.give(1, batched(&left.t()?, &g, precision, parallel)?)?;
            }
            Ok(())
        }))
    }
}

/// `a b` for equal leading dimensions; either may be a transposed view.
pub(super) fn batched(a: &Tensor, b: &Tensor, precision: Precision, parallel: bool) -> Result<Tensor> {
    match fast::matmul(a, b, precision, parallel)? {
        Some(y) => Ok(y),
        None => product(&a.contiguous()?, &b.contiguous()?, precision),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use candle_core::{DType, Device};
    use proptest::prelude::*;

    use super::*;
    use crate::{Parameter, TapeOptions, check};

    fn random(seed: u64, dims: &[usize], dtype: DType) -> Tensor {
        let mut data = vec![0f32; dims.iter().product()];
        crate::random::Stream::keyed(seed, &[7]).fill_uniform(&mut data, -1.0, 1.0);
        Tensor::from_vec(data, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn distance(a: &Tensor, b: &Tensor) -> f32 {
        assert_eq!(a.dims(), b.dims());
        let b = b.to_dtype(a.dtype()).unwrap();
        (a - b)
            .unwrap()
            .abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap()
            .to_scalar()
            .unwrap()
    }

    const ACTIVATIONS: [Activation; 6] = [
        Activation::Identity,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Silu,
    ];

    #[test]
    fn gradients_agree_with_finite_differences() {
        let f64s = |seed, dims: &[usize]| random(seed, dims, DType::F64);
        for activation in ACTIVATIONS {
            check::gradients(&[f64s(1, &[2, 3, 4]), f64s(2, &[5, 4]), f64s(3, &[5])], |tape, v| {
                tape.linear_activation(&v[0], &v[1], Some(&v[2]), activation)
            })
            .unwrap();
        }
        check::gradients(&[f64s(1, &[3, 5]), f64s(2, &[3, 4]), f64s(3, &[2, 4]), f64s(4, &[5, 2])], |tape, v| {
            tape.low_rank(v[0].clone(), &v[1], &v[2], &v[3], 0.7)
        })
        .unwrap();
        check::gradients(&[f64s(1, &[2, 3, 4]), f64s(2, &[2, 4, 2])], |tape, v| tape.matmul(&v[0], &v[1])).unwrap();
        check::gradients(&[f64s(1, &[2, 3, 4]), f64s(2, &[4, 2])], |tape, v| tape.matmul(&v[0], &v[1])).unwrap();
    }

    /// Results and gradients of one op in one float type.
    fn run(options: TapeOptions, inputs: &[Tensor], op: &dyn Fn(&Tape, &[Value]) -> Result<Value>) -> Vec<Tensor> {
        let tape = Tape::new(TapeOptions { recording: true, ..options });
        let values: Vec<Value> = inputs.iter().map(|t| tape.variable(t.clone())).collect();
        let y = op(&tape, &values).unwrap();
        let seed = random(99, y.dims(), y.dtype());
        let gradients = tape.backward_from(vec![(y.clone(), seed)]).unwrap();
        let mut all = vec![y.into_tensor()];
        all.extend(values.iter().map(|v| gradients.of(v).unwrap().clone()));
        all
    }

    fn agrees(options: TapeOptions, tolerance: f32, inputs: &[Tensor], op: &dyn Fn(&Tape, &[Value]) -> Result<Value>) {
        let exact: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(DType::F64).unwrap()).collect();
        let exact = run(TapeOptions::default(), &exact, op);
        for (i, (mine, exact)) in run(options, inputs, op).iter().zip(&exact).enumerate() {
            let scale = 1.0 + exact.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
            let error = distance(exact, mine) / scale as f32;
            assert!(error < tolerance, "result {i}: off by {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn fast_forms_agree_with_the_composite(
            m in 1usize..70, k in 1usize..90, n in 1usize..80, activation in 0usize..6, parallel: bool,
        ) {
            let options = TapeOptions { parallel_ops: parallel, ..TapeOptions::default() };
            let f32s = |seed, dims: &[usize]| random(seed, dims, DType::F32);
            agrees(options.clone(), 2e-6, &[f32s(1, &[m, k]), f32s(2, &[n, k]), f32s(3, &[n])], &|tape, v| {
                tape.linear_activation(&v[0], &v[1], Some(&v[2]), ACTIVATIONS[activation])
            });
            let r = 1 + k % 9;
            agrees(options.clone(), 2e-6, &[f32s(1, &[m, n]), f32s(2, &[m, k]), f32s(3, &[r, k]), f32s(4, &[n, r])],
                &|tape, v| tape.low_rank(v[0].clone(), &v[1], &v[2], &v[3], 0.7));
            agrees(options, 2e-6, &[f32s(1, &[2, m, k]), f32s(2, &[2, k, n])], &|tape, v| tape.matmul(&v[0], &v[1]));
        }
    }

    #[test]
    fn low_precisions_stay_within_their_rounding() {
        let inputs =
            [random(1, &[37, 150], DType::F32), random(2, &[65, 150], DType::F32), random(3, &[65], DType::F32)];
        for (precision, tolerance) in [(Precision::Bf16, 8e-3), (Precision::F16, 1e-3)] {
            agrees(TapeOptions { precision, ..TapeOptions::default() }, tolerance, &inputs, &|tape, v| {
                tape.linear_activation(&v[0], &v[1], Some(&v[2]), Activation::Gelu)
            });
        }
    }

    #[test]
    fn rows_do_not_depend_on_the_split_or_the_threads() {
        let (x, w) = (random(1, &[301, 400], DType::F32), random(2, &[130, 400], DType::F32));
        let weight = Parameter::new("weight", w, false);
        for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
            let of = |x: &Tensor, parallel_ops| {
                let tape = Tape::new(TapeOptions { precision, parallel_ops, ..TapeOptions::default() });
                let y = tape.linear(&Value::constant(x.clone()), &tape.parameter(&weight), None).unwrap();
                y.tensor().to_vec2::<f32>().unwrap()
            };
            let whole = of(&x, false);
            assert_eq!(whole, of(&x, true));
            assert_eq!(whole[100..117], of(&x.narrow(0, 100, 17).unwrap(), false));
        }
    }

    #[test]
    fn a_changed_parameter_is_packed_anew() {
        let weight = Parameter::new("weight", random(1, &[3, 4], DType::F32), false);
        let x = Value::constant(random(2, &[2, 4], DType::F32));
        let of = || Tape::evaluation().linear(&x, &Value::of_parameter(&weight, None), None).unwrap().into_tensor();
        let before = of();
        weight.set(&weight.tensor().affine(2.0, 0.0).unwrap()).unwrap();
        assert!(distance(&before.affine(2.0, 0.0).unwrap(), &of()) < 1e-6);
    }

    #[test]
    fn wrong_shapes_are_named() {
        let v = |dims: &[usize]| Value::constant(random(1, dims, DType::F32));
        let tape = Tape::evaluation();
        let error = tape.linear(&v(&[2, 3]), &v(&[5, 4]), None).unwrap_err().to_string();
        assert!(error.contains("[.., 4]"), "{error}");
        assert!(tape.matmul(&v(&[2, 3, 4]), &v(&[3, 4, 5])).is_err());
    }
}
