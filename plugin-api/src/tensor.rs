//! Tensors: handles whose methods call the host's ops.
//!
//! A plugin holds no numbers. Every method below is one op of [`ops`](crate::ops) that the host runs on its device and
//! records on its tape, so what a plugin computes is differentiable without more.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    Error, Result,
    abi::{
        host::{self, Element},
        tables::dtype,
    },
    ops::{self, OPS},
};

/// Element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// Unsigned 32-bit integer.
    U32,
    /// 16-bit brain float.
    BF16,
    /// 16-bit float.
    F16,
    /// Byte.
    U8,
    /// Signed 64-bit integer.
    I64,
}

impl DType {
    const ALL: [(Self, u32); 7] = [
        (Self::F32, dtype::F32),
        (Self::F64, dtype::F64),
        (Self::U32, dtype::U32),
        (Self::BF16, dtype::BF16),
        (Self::F16, dtype::F16),
        (Self::U8, dtype::U8),
        (Self::I64, dtype::I64),
    ];

    pub(crate) fn code(self) -> u32 {
        Self::ALL.iter().find(|(of, _)| *of == self).map_or(0, |(_, code)| *code)
    }

    pub(crate) fn from_code(code: u32) -> Result<Self> {
        let found = Self::ALL.iter().find(|(_, of)| *of == code);
        found.map(|(of, _)| *of).ok_or_else(|| Error::new(format!("element type {code} is newer than this plugin")))
    }
}

/// What an op takes besides the tensor it is called on: a [`Tensor`], a [`Param`](crate::Param) or a [`Kept`].
pub trait Operand {
    /// The handle on the wire.
    #[doc(hidden)]
    fn handle(&self) -> u64;
}

impl Operand for Tensor {
    fn handle(&self) -> u64 {
        self.handle
    }
}

impl Operand for Kept {
    fn handle(&self) -> u64 {
        self.0
    }
}

impl<T: Operand + ?Sized> Operand for &T {
    fn handle(&self) -> u64 {
        (**self).handle()
    }
}

/// A tensor of the host, for the length of the call into the plugin in which it was made or given.
///
/// It cannot leave its thread nor hide in a hook: state that must live longer is a [`Param`](crate::Param) or a [`Kept`].
/// All ops fail where shapes do not fit, with the host's message that names op and shapes.
/// A dimension may be negative and then counts from the end.
#[derive(Debug)]
pub struct Tensor {
    handle: u64,
    ownership: Ownership,
    not_send: PhantomData<*const ()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    /// Made by an op of ours: released when dropped.
    Owned,
    /// Lent for the call; may be handed back as it is.
    Lent,
    /// A parameter or a kept tensor, which lives on.
    Shared,
}

impl Tensor {
    pub(crate) fn owned(handle: u64) -> Self {
        Self { handle, ownership: Ownership::Owned, not_send: PhantomData }
    }

    pub(crate) fn borrowed(handle: u64) -> Self {
        Self { handle, ownership: Ownership::Lent, not_send: PhantomData }
    }

    pub(crate) fn shared(handle: u64) -> Self {
        Self { handle, ownership: Ownership::Shared, not_send: PhantomData }
    }

    /// Hands the tensor to the host, which owns the handle from here.
    pub(crate) fn give(self) -> Result<u64> {
        if self.ownership == Ownership::Shared {
            // The parameter's own handle must live on, so the host gets one more.
            return self.mul_scalar(1.0)?.give();
        }
        let handle = self.handle;
        std::mem::forget(self);
        Ok(handle)
    }

    fn op(&self, op: usize) -> Result<Self> {
        call(op, &[self.handle], &[], &[])
    }

    fn op_ints(&self, op: usize, ints: &[i64]) -> Result<Self> {
        call(op, &[self.handle], ints, &[])
    }

    fn op_floats(&self, op: usize, floats: &[f64]) -> Result<Self> {
        call(op, &[self.handle], &[], floats)
    }

    fn binary(&self, op: usize, other: &impl Operand) -> Result<Self> {
        call(op, &[self.handle, other.handle()], &[], &[])
    }
}

/// Making tensors and reading them.
impl Tensor {
    /// Numbers in row-major order, as `f32`, `f64` or `u32` on the run's device.
    ///
    /// # Errors
    /// Where the numbers do not fill the shape.
    #[expect(private_bounds, reason = "the host knows three element types, and an author cannot add one")]
    pub fn from_slice<T: Element>(data: &[T], shape: impl AsRef<[usize]>) -> Result<Self> {
        host::tensor_new(data, shape.as_ref()).map(Self::owned)
    }

    /// A scalar in `f32`.
    pub fn scalar(value: f64) -> Result<Self> {
        Self::from_slice(&[value as f32], [])
    }

    /// Its dimensions; none for a scalar.
    pub fn shape(&self) -> Result<Vec<usize>> {
        Ok(host::tensor_info(self.handle)?.1)
    }

    /// Its element type.
    pub fn dtype(&self) -> Result<DType> {
        DType::from_code(host::tensor_info(self.handle)?.0)
    }

    /// Its elements in row-major order, converted where it has another type.
    pub fn to_vec_f32(&self) -> Result<Vec<f32>> {
        self.read(DType::F32)
    }

    /// Its elements in row-major order, converted where it has another type.
    pub fn to_vec_f64(&self) -> Result<Vec<f64>> {
        self.read(DType::F64)
    }

    /// Its elements in row-major order, converted where it has another type.
    pub fn to_vec_u32(&self) -> Result<Vec<u32>> {
        self.read(DType::U32)
    }

    /// The value of a tensor with one element.
    pub fn to_scalar(&self) -> Result<f64> {
        match self.to_vec_f64()?[..] {
            [value] => Ok(value),
            ref values => Err(Error::new(format!("to_scalar wants one element, and the tensor has {}", values.len()))),
        }
    }

    fn read<T: Element>(&self, dtype: DType) -> Result<Vec<T>> {
        let (code, shape) = host::tensor_info(self.handle)?;
        let len = shape.iter().product();
        if code == T::CODE {
            return host::tensor_read(self.handle, len);
        }
        host::tensor_read(self.cast(dtype)?.handle, len)
    }
}

/// Arithmetic. Shapes broadcast as in numpy.
impl Tensor {
    /// `self + other`
    pub fn add(&self, other: &impl Operand) -> Result<Self> {
        self.binary(const { ops::index("add@1") }, other)
    }

    /// `self - other`
    pub fn sub(&self, other: &impl Operand) -> Result<Self> {
        self.binary(const { ops::index("sub@1") }, other)
    }

    /// `self * other`, elementwise
    pub fn mul(&self, other: &impl Operand) -> Result<Self> {
        self.binary(const { ops::index("mul@1") }, other)
    }

    /// `self / other`, elementwise
    pub fn div(&self, other: &impl Operand) -> Result<Self> {
        self.binary(const { ops::index("div@1") }, other)
    }

    /// `-self`
    pub fn neg(&self) -> Result<Self> {
        self.op(const { ops::index("neg@1") })
    }

    /// `mul * self + add`
    pub fn affine(&self, mul: f64, add: f64) -> Result<Self> {
        self.op_floats(const { ops::index("affine@1") }, &[mul, add])
    }

    /// `self + value`
    pub fn add_scalar(&self, value: f64) -> Result<Self> {
        self.affine(1.0, value)
    }

    /// `self * value`
    pub fn mul_scalar(&self, value: f64) -> Result<Self> {
        self.affine(value, 0.0)
    }

    /// e to the power of each element
    pub fn exp(&self) -> Result<Self> {
        self.op(const { ops::index("exp@1") })
    }

    /// Natural logarithm
    pub fn log(&self) -> Result<Self> {
        self.op(const { ops::index("log@1") })
    }

    /// Square root
    pub fn sqrt(&self) -> Result<Self> {
        self.op(const { ops::index("sqrt@1") })
    }

    /// Square
    pub fn square(&self) -> Result<Self> {
        self.op(const { ops::index("square@1") })
    }

    /// Absolute value; the derivative at 0 is 0
    pub fn abs(&self) -> Result<Self> {
        self.op(const { ops::index("abs@1") })
    }

    /// -1, 0 or 1, without gradient
    pub fn sign(&self) -> Result<Self> {
        self.op(const { ops::index("sign@1") })
    }

    /// The larger of each element and `min`
    pub fn maximum_scalar(&self, min: f64) -> Result<Self> {
        self.op_floats(const { ops::index("clamp_min@1") }, &[min])
    }
}

/// Matrix products.
impl Tensor {
    /// `[.., m, k]` times `[.., k, n]`: `[.., m, n]`. Leading dimensions are equal, or `other` has rank 2.
    pub fn matmul(&self, other: &impl Operand) -> Result<Self> {
        self.binary(const { ops::index("matmul@1") }, other)
    }

    /// `self weight^T + bias`: `self` `[.., in]`, `weight` `[out, in]`, `bias` `[out]`; returns `[.., out]`.
    pub fn linear(&self, weight: &impl Operand, bias: Option<&dyn Operand>) -> Result<Self> {
        let bias = bias.map_or(0, Operand::handle);
        call(const { ops::index("linear@1") }, &[self.handle, weight.handle(), bias], &[], &[])
    }

    /// `self + scale (x a^T) b^T`: `self` `[.., out]`, `x` `[.., in]`, `a` `[rank, in]`, `b` `[out, rank]`.
    pub fn add_low_rank(&self, x: &impl Operand, a: &impl Operand, b: &impl Operand, scale: f64) -> Result<Self> {
        let inputs = [self.handle, x.handle(), a.handle(), b.handle()];
        call(const { ops::index("low_rank@1") }, &inputs, &[], &[scale])
    }

    /// Euclidean norms of the rows of `self + scale b a`, `[out]`: `self` `[out, in]`, `a` `[rank, in]`, `b` `[out, rank]`.
    /// No gradient flows back. Of parameters the host computes it once a step.
    pub fn low_rank_norm(&self, a: &impl Operand, b: &impl Operand, scale: f64) -> Result<Self> {
        call(const { ops::index("low_rank_norm@1") }, &[self.handle, a.handle(), b.handle()], &[], &[scale])
    }
}

/// Activations, norms and dropout.
impl Tensor {
    /// `max(x, 0)`; the derivative at 0 is 0
    pub fn relu(&self) -> Result<Self> {
        self.op(const { ops::index("relu@1") })
    }

    /// `x Phi(x)`, exact
    pub fn gelu(&self) -> Result<Self> {
        self.op(const { ops::index("gelu@1") })
    }

    /// GELU's tanh approximation
    pub fn gelu_tanh(&self) -> Result<Self> {
        self.op(const { ops::index("gelu_tanh@1") })
    }

    /// Hyperbolic tangent
    pub fn tanh(&self) -> Result<Self> {
        self.op(const { ops::index("tanh@1") })
    }

    /// `1 / (1 + exp(-x))`
    pub fn sigmoid(&self) -> Result<Self> {
        self.op(const { ops::index("sigmoid@1") })
    }

    /// `x sigmoid(x)`
    pub fn silu(&self) -> Result<Self> {
        self.op(const { ops::index("silu@1") })
    }

    /// The activation that a Hugging Face config or an option names.
    ///
    /// # Errors
    /// Where the name is none of `relu`, `gelu`, `gelu_tanh`, `tanh`, `sigmoid`, `silu` and their aliases.
    pub fn activation(&self, name: &str) -> Result<Self> {
        match name {
            "relu" => self.relu(),
            "gelu" => self.gelu(),
            "gelu_tanh" | "gelu_new" | "gelu_pytorch_tanh" => self.gelu_tanh(),
            "tanh" => self.tanh(),
            "sigmoid" => self.sigmoid(),
            "silu" | "swish" => self.silu(),
            _ => {
                Err(Error::new(format!("no activation `{name}`: there are relu, gelu, gelu_tanh, tanh, sigmoid, silu")))
            }
        }
    }

    /// Softmax over the last dimension
    pub fn softmax(&self) -> Result<Self> {
        self.op(const { ops::index("softmax@1") })
    }

    /// Logarithm of the softmax over the last dimension
    pub fn log_softmax(&self) -> Result<Self> {
        self.op(const { ops::index("log_softmax@1") })
    }

    /// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension of size n; `weight`, `bias`: `[n]`.
    pub fn layer_norm(&self, weight: &impl Operand, bias: Option<&dyn Operand>, eps: f64) -> Result<Self> {
        let bias = bias.map_or(0, Operand::handle);
        call(const { ops::index("layer_norm@1") }, &[self.handle, weight.handle(), bias], &[], &[eps])
    }

    /// In training zero with probability `p` and `x / (1 - p)` else; in evaluation `x`.
    pub fn dropout(&self, p: f64) -> Result<Self> {
        self.op_floats(const { ops::index("dropout@1") }, &[p])
    }
}

/// Reductions.
impl Tensor {
    /// Sum of all elements, a scalar
    pub fn sum(&self) -> Result<Self> {
        self.op(const { ops::index("sum@1") })
    }

    /// Mean of all elements, a scalar
    pub fn mean(&self) -> Result<Self> {
        self.op(const { ops::index("mean@1") })
    }

    /// Sum over one dimension, which `keep` leaves there with size 1
    pub fn sum_dim(&self, dim: isize, keep: bool) -> Result<Self> {
        self.op_ints(const { ops::index("sum_dim@1") }, &[dim as i64, i64::from(keep)])
    }

    /// Mean over one dimension, which `keep` leaves there with size 1
    pub fn mean_dim(&self, dim: isize, keep: bool) -> Result<Self> {
        self.op_ints(const { ops::index("mean_dim@1") }, &[dim as i64, i64::from(keep)])
    }

    /// Euclidean norm over one dimension, which `keep` leaves there with size 1
    pub fn norm_dim(&self, dim: isize, keep: bool) -> Result<Self> {
        self.square()?.sum_dim(dim, keep)?.sqrt()
    }

    /// Each row of the last dimension divided by its Euclidean norm; one that is shorter than 1e-6, by 1e-6
    pub fn normalize(&self) -> Result<Self> {
        // Under a root, because that of 0 has no slope.
        const LEAST_SQUARE: f64 = 1e-12;
        self.div(&self.square()?.sum_dim(-1, true)?.maximum_scalar(LEAST_SQUARE)?.sqrt()?)
    }
}

/// Shapes, indices and types.
impl Tensor {
    /// The last two dimensions swapped
    pub fn t(&self) -> Result<Self> {
        self.transpose(-2, -1)
    }

    /// Two dimensions swapped
    pub fn transpose(&self, d0: isize, d1: isize) -> Result<Self> {
        self.op_ints(const { ops::index("transpose@1") }, &[d0 as i64, d1 as i64])
    }

    /// The same elements, row-major, in another shape
    pub fn reshape(&self, shape: impl AsRef<[usize]>) -> Result<Self> {
        let dims: Vec<i64> = shape.as_ref().iter().map(|&dim| dim as i64).collect();
        self.op_ints(const { ops::index("reshape@1") }, &dims)
    }

    /// Elements `start .. start + len` of one dimension
    pub fn narrow(&self, dim: isize, start: usize, len: usize) -> Result<Self> {
        self.op_ints(const { ops::index("narrow@1") }, &[dim as i64, start as i64, len as i64])
    }

    /// Tensors joined along one dimension; their others are equal
    pub fn concat(tensors: &[&dyn Operand], dim: isize) -> Result<Self> {
        let inputs: Vec<u64> = tensors.iter().map(|tensor| tensor.handle()).collect();
        call(const { ops::index("concat@1") }, &inputs, &[dim as i64], &[])
    }

    /// The slices at `ids` (`u32` `[n]`) along one dimension, which gets size n
    pub fn index_select(&self, ids: &impl Operand, dim: isize) -> Result<Self> {
        call(const { ops::index("index_select@1") }, &[self.handle, ids.handle()], &[dim as i64], &[])
    }

    /// The rows at `ids`: of a table `[rows, width]` and ids `[n]` an embedding `[n, width]`
    pub fn rows(&self, ids: &[u32]) -> Result<Self> {
        self.index_select(&Self::from_slice(ids, [ids.len()])?, 0)
    }

    /// The same values without history: no gradient flows back
    pub fn detach(&self) -> Result<Self> {
        self.op(const { ops::index("detach@1") })
    }

    /// Another element type
    pub fn cast(&self, dtype: DType) -> Result<Self> {
        self.op_ints(const { ops::index("cast@1") }, &[i64::from(dtype.code())])
    }

    /// The same values without history, for later calls and other threads
    pub fn keep(&self) -> Result<Kept> {
        self.op(const { ops::index("keep@1") })?.give().map(Kept)
    }
}

/// Losses, each as a sum: see [`Loss`](crate::Loss).
impl Tensor {
    /// Cross entropy of logits (`self`, `[rows, classes]`) against classes (`u32` `[rows]`; `u32::MAX` does not count),
    /// with weights of the classes (`[classes]`) and label smoothing in `[0, 1)`.
    ///
    /// Returns the sum of the terms and the sum of their weights, both scalars; their quotient is torch's mean.
    pub fn cross_entropy(
        &self,
        targets: &impl Operand,
        class_weights: Option<&dyn Operand>,
        label_smoothing: f64,
    ) -> Result<(Self, Self)> {
        let weights = class_weights.map_or(0, Operand::handle);
        let inputs = [self.handle, targets.handle(), weights];
        let [sum, weight] = call_many(const { ops::index("cross_entropy@1") }, &inputs, &[], &[label_smoothing])?;
        Ok((sum, weight))
    }

    /// [`cross_entropy`](Self::cross_entropy) of the logits `self W^T + b` (`self` `[rows, in]`, `weight` `[classes, in]`, `bias`
    /// `[classes]`) with classes `[rows]` (`u32`; `u32::MAX` does not count), for more classes than logits have room: a vocabulary.
    ///
    /// Returns the sum of the terms and their number, both scalars.
    pub fn linear_cross_entropy(
        &self,
        weight: &impl Operand,
        bias: Option<&dyn Operand>,
        targets: &impl Operand,
    ) -> Result<(Self, Self)> {
        let inputs = [self.handle, weight.handle(), targets.handle(), bias.map_or(0, Operand::handle)];
        let [sum, number] = call_many(const { ops::index("linear_cross_entropy@1") }, &inputs, &[], &[])?;
        Ok((sum, number))
    }

    /// The sum over each sequence of the log-probabilities of classes `[rows]` (`u32`; `u32::MAX` does not count) by the logits
    /// `self W^T + b`, shapes as in [`linear_cross_entropy`](Self::linear_cross_entropy). `offsets` are those of
    /// [`Features`](crate::Features): `sequences + 1` entries.
    ///
    /// Returns the sums and how many rows count in each, both `[sequences]`.
    pub fn linear_log_likelihood(
        &self,
        weight: &impl Operand,
        bias: Option<&dyn Operand>,
        targets: &impl Operand,
        offsets: &[u32],
    ) -> Result<(Self, Self)> {
        let inputs = [self.handle, weight.handle(), targets.handle(), bias.map_or(0, Operand::handle)];
        let offsets: Vec<i64> = offsets.iter().map(|&offset| i64::from(offset)).collect();
        let [sums, numbers] = call_many(const { ops::index("linear_log_likelihood@1") }, &inputs, &offsets, &[])?;
        Ok((sums, numbers))
    }

    /// The class with the largest of the logits `self W^T + b` for each row, `u32` `[rows]`, without gradient; shapes as in
    /// [`linear_cross_entropy`](Self::linear_cross_entropy).
    pub fn linear_argmax(&self, weight: &impl Operand, bias: Option<&dyn Operand>) -> Result<Self> {
        let inputs = [self.handle, weight.handle(), bias.map_or(0, Operand::handle)];
        call(const { ops::index("linear_argmax@1") }, &inputs, &[], &[])
    }

    /// Sum of `weights (self - anchor)^2`, a scalar, without weights of the squared differences alone. All have one shape. No gradient
    /// flows into `anchor` and `weights`. For whole models: it needs no memory of their size but the gradient.
    pub fn squared_distance(&self, anchor: &impl Operand, weights: Option<&dyn Operand>) -> Result<Self> {
        let weights = weights.map_or(0, Operand::handle);
        call(const { ops::index("squared_distance@1") }, &[self.handle, anchor.handle(), weights], &[], &[])
    }

    /// Sum of the squared differences, a scalar
    pub fn squared_error(&self, other: &impl Operand) -> Result<Self> {
        self.sub(other)?.square()?.sum()
    }

    /// `sum p (log p - log q)` over all rows of logits, a scalar: how far `q` (`other`) is from `p` (`self`)
    pub fn kl_divergence(&self, other: &Self) -> Result<Self> {
        let (log_p, log_q) = (self.log_softmax()?, other.log_softmax()?);
        log_p.exp()?.mul(&log_p.sub(&log_q)?)?.sum()
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        if self.ownership == Ownership::Owned {
            release(self.handle);
        }
    }
}

/// Values that stay for later calls, on any thread, until dropped: anchors, importances, teachers. No history, so no
/// gradient flows back.
#[derive(Debug)]
pub struct Kept(u64);

impl Kept {
    /// As a tensor, for its methods. Ops take a `&Kept` as it is where it is the other operand.
    pub fn tensor(&self) -> Tensor {
        Tensor::shared(self.0)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        release(self.0);
    }
}

fn release(handle: u64) {
    if let Err(error) = host::tensor_release(handle) {
        tracing::warn!("a tensor was not released: {error}");
    }
}

pub(crate) fn call(op: usize, inputs: &[u64], ints: &[i64], floats: &[f64]) -> Result<Tensor> {
    call_many(op, inputs, ints, floats).map(|[output]| output)
}

fn call_many<const N: usize>(op: usize, inputs: &[u64], ints: &[i64], floats: &[f64]) -> Result<[Tensor; N]> {
    let mut outputs = [0; N];
    host::call_op(resolve(op)?, inputs, ints, floats, &mut outputs)?;
    Ok(outputs.map(Tensor::owned))
}

/// The host's number of an op of [`OPS`], asked for once.
fn resolve(op: usize) -> Result<u32> {
    /// The number plus one; 0 is not asked yet.
    static RESOLVED: [AtomicU64; OPS.len()] = [const { AtomicU64::new(0) }; OPS.len()];
    let known = RESOLVED[op].load(Ordering::Relaxed);
    if known != 0 {
        return Ok((known - 1) as u32);
    }
    let number = host::resolve_op(OPS[op].name)?;
    RESOLVED[op].store(u64::from(number) + 1, Ordering::Relaxed);
    Ok(number)
}
