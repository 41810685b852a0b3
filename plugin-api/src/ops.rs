//! The ops that a host offers to plugins: the contract between [`Tensor`](crate::Tensor)'s methods and the host's table.
//!
//! An op is found once by name and version (`resolve_op("linear@1")`) and then called with handles, integers and floats
//! in the order given here. A changed meaning is a new version beside the old one; a new op breaks nobody.
//!
//! What holds for all:
//! - Inputs are tensor or parameter handles; where "or none" stands, 0 is allowed and the position is kept.
//! - A dimension among the integers may be negative and then counts from the end: -1 is the last.
//! - Floating inputs of different element types are widened to the widest; results have that type unless said otherwise.
//!   Indices and classes are `u32`.
//! - Scalars are tensors of rank 0.
//! - Inputs are never changed. A result may share storage with an input.
//! - Every op is differentiable in its floating inputs unless said otherwise, and records itself on the tape of the call.
//! - Shapes that do not fit are an error that names the op and the shapes.

/// One op: its name with version, and what it takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpSignature {
    /// Name and version, as `resolve_op` takes it.
    pub name: &'static str,
    /// Inputs, results and what is computed.
    pub inputs: &'static str,
    /// Integer attributes in order; empty for none.
    pub ints: &'static str,
    /// Float attributes in order; empty for none.
    pub floats: &'static str,
    /// How many results it gives.
    pub outputs: usize,
}

const fn op(name: &'static str, inputs: &'static str) -> OpSignature {
    OpSignature { name, inputs, ints: "", floats: "", outputs: 1 }
}

const fn with_ints(mut op: OpSignature, ints: &'static str) -> OpSignature {
    op.ints = ints;
    op
}

const fn with_floats(mut op: OpSignature, floats: &'static str) -> OpSignature {
    op.floats = floats;
    op
}

const fn with_outputs(mut op: OpSignature, outputs: usize) -> OpSignature {
    op.outputs = outputs;
    op
}

/// All ops of this version of the API. The host tests that it implements each; a host may know more.
pub const OPS: &[OpSignature] = &[
    op("add@1", "a, b -> a + b; shapes broadcast as in numpy"),
    op("sub@1", "a, b -> a - b; shapes broadcast as in numpy"),
    op("mul@1", "a, b -> a * b elementwise; shapes broadcast as in numpy"),
    op("div@1", "a, b -> a / b elementwise; shapes broadcast as in numpy"),
    op("neg@1", "x -> -x"),
    with_floats(op("affine@1", "x -> mul * x + add"), "mul, add"),
    op("matmul@1", "a [.., m, k], b [.., k, n] -> [.., m, n]; leading dimensions are equal, or b has rank 2"),
    op("linear@1", "x [.., in], weight [out, in], bias [out] or none -> x weight^T + bias [.., out]"),
    with_floats(
        op("low_rank@1", "y [.., out], x [.., in], a [rank, in], b [out, rank] -> y + scale * (x a^T) b^T [.., out]"),
        "scale",
    ),
    with_floats(
        op(
            "low_rank_norm@1",
            "weight [out, in], a [rank, in], b [out, rank] -> the Euclidean norms of the rows of weight + scale * b a, [out], \
             without gradient; of parameters computed once for each of their values",
        ),
        "scale",
    ),
    op("relu@1", "x -> max(x, 0); the derivative at 0 is 0"),
    op("gelu@1", "x -> x Phi(x), exact (erf)"),
    op("gelu_tanh@1", "x -> 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))"),
    op("tanh@1", "x -> tanh x"),
    op("sigmoid@1", "x -> 1 / (1 + exp(-x))"),
    op("silu@1", "x -> x sigmoid(x)"),
    op("exp@1", "x -> exp x"),
    op("log@1", "x -> ln x"),
    op("sqrt@1", "x -> sqrt x"),
    op("square@1", "x -> x^2"),
    op("abs@1", "x -> |x|; the derivative at 0 is 0"),
    op("sign@1", "x -> -1, 0 or 1, without gradient; since 1.1"),
    with_floats(op("clamp_min@1", "x -> max(x, min); the derivative is 1 where x >= min, else 0"), "min"),
    op("softmax@1", "x [.., n] -> softmax over the last dimension"),
    op("log_softmax@1", "x [.., n] -> log of the softmax over the last dimension"),
    with_floats(
        op(
            "layer_norm@1",
            "x [.., n], weight [n], bias [n] or none -> (x - mean) / sqrt(variance + eps) * weight + bias; \
             mean and biased variance over the last dimension",
        ),
        "eps",
    ),
    with_floats(
        op(
            "dropout@1",
            "x -> in training x / (1 - p) where a draw of the run's generator keeps it (probability 1 - p), else 0; in \
             evaluation x",
        ),
        "p in [0, 1)",
    ),
    op("sum@1", "x -> sum of all elements, a scalar"),
    op("mean@1", "x -> mean of all elements, a scalar"),
    op(
        "squared_distance@1",
        "x, anchor, weights or none, all of one shape -> sum of weights * (x - anchor)^2, a scalar; no gradient flows into anchor \
         and weights",
    ),
    with_ints(op("sum_dim@1", "x -> sum over one dimension"), "dim, keep (1 keeps it with size 1, 0 drops it)"),
    with_ints(op("mean_dim@1", "x -> mean over one dimension"), "dim, keep (1 keeps it with size 1, 0 drops it)"),
    with_ints(op("transpose@1", "x -> x with two dimensions swapped; any element type"), "d0, d1"),
    with_ints(
        op("reshape@1", "x -> its elements in row-major order under another shape; any element type"),
        "the new dimensions; one may be -1 and takes what is left",
    ),
    with_ints(
        op("narrow@1", "x -> elements start .. start + len of one dimension; any element type"),
        "dim, start, len",
    ),
    with_ints(op("concat@1", "one or more tensors, equal but for one dimension -> joined along it"), "dim"),
    with_ints(
        op("index_select@1", "x, ids u32 [n] -> the slices of x at ids along one dimension, which gets size n"),
        "dim",
    ),
    op("detach@1", "x -> x without its history: no gradient flows back"),
    with_ints(
        op("cast@1", "x -> x in another element type; differentiable between floating types"),
        "the element type's code (abi::tables::dtype)",
    ),
    op(
        "keep@1",
        "x -> its values without history, under a handle that stays valid in every later call, on every thread, until it \
         is released (anchors of L2-SP, importances of EWC)",
    ),
    with_ints(
        op(
            "conv2d@1",
            "x [images * height * width, channels], pixel (image, y, x) in row (image * height + y) * width + x; weight \
             [out, channels / groups, kh, kw], bias [out] or none -> the cross-correlation [places, out], places in the same \
             order, as torch's conv2d",
        ),
        "height, width, stride down, stride right, padding down, padding right, dilation down, dilation right, groups",
    ),
    with_ints(
        op(
            "conv_transpose2d@1",
            "x as of conv2d, weight [channels, out / groups, kh, kw], bias [out] or none -> [pixels, out], a side of n pixels \
             becoming (n - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1, as torch's conv_transpose2d",
        ),
        "height, width, stride down, stride right, padding down, padding right, dilation down, dilation right, output_padding \
         down, output_padding right, groups",
    ),
    with_ints(
        op(
            "upsample_bilinear2d@1",
            "x as of conv2d -> the maps at another size, [images * new height * new width, channels], as torch's interpolate",
        ),
        "height, width, new height, new width, align_corners (0 or 1)",
    ),
    with_ints(
        op("upsample_nearest2d@1", "x as of conv2d -> the maps at another size by the nearest pixel"),
        "height, width, new height, new width",
    ),
    with_outputs(
        with_floats(
            op(
                "cross_entropy@1",
                "logits [rows, classes], targets u32 [rows], class weights [classes] or none -> the sum over rows of \
                 w[t] * (1 - s) * -log p[t] + s / classes * sum_c w[c] * -log p[c], a scalar, s the smoothing; and the \
                 sum over rows of w[t], a scalar without gradient. Rows with target 4294967295 count in neither. As torch's \
                 cross_entropy with reduction sum, and what its mean divides by",
            ),
            "label_smoothing in [0, 1)",
        ),
        2,
    ),
    with_outputs(
        op(
            "linear_cross_entropy@1",
            "x [rows, in], weight [classes, in], targets u32 [rows], bias [classes] or none -> the sum over rows of -log p[t] of the \
             logits x weight^T + bias, a scalar, and the number of rows, a scalar without gradient. Rows with target 4294967295 count \
             in neither. The logits are never all in memory",
        ),
        2,
    ),
    with_outputs(
        with_ints(
            op(
                "linear_log_likelihood@1",
                "x [rows, in], weight [classes, in], targets u32 [rows], bias [classes] or none -> the sum over the rows of each sequence \
                 of log p[t] of the logits x weight^T + bias, [sequences], and the number of these rows, [sequences] without gradient. \
                 Rows with target 4294967295 count in neither. The logits are never all in memory",
            ),
            "the row where each sequence starts, and the number of rows: any number of integers, from 0 up",
        ),
        2,
    ),
    op(
        "linear_argmax@1",
        "x [rows, in], weight [classes, in], bias [classes] or none -> the class with the largest logit of x weight^T + bias, u32 [rows], \
         without gradient. The logits are never all in memory",
    ),
];

/// The place of an op in [`OPS`]. Evaluated at compile time, where an unknown name fails to build.
#[expect(clippy::panic, reason = "stops the build, never a run")]
pub(crate) const fn index(name: &str) -> usize {
    let mut at = 0;
    while at < OPS.len() {
        if equal(OPS[at].name.as_bytes(), name.as_bytes()) {
            return at;
        }
        at += 1;
    }
    panic!("this op is not in fthost_plugin_api::ops::OPS")
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn names_are_unique_and_versioned() {
        let names: std::collections::BTreeSet<_> = OPS.iter().map(|op| op.name).collect();
        assert_eq!(names.len(), OPS.len());
        for name in names {
            let (_, version) = name.split_once('@').expect("name@version");
            version.parse::<u32>().unwrap();
        }
    }
}
