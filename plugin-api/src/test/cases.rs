//! Calls of every op, on random numbers away from kinks: what its gradient is tried with, and what two hosts are compared by.

use std::slice;

use super::random::Stream;
use crate::ops::OPS;

/// One input.
#[derive(Clone, Debug)]
pub enum Input {
    /// Shape and elements of an `f64`.
    Float(Vec<usize>, Vec<f64>),
    /// Classes or indices.
    Ids(Vec<u32>),
    /// An optional one that is not there.
    None,
}

/// One call of an op.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name and version.
    pub op: &'static str,
    /// Its inputs.
    pub inputs: Vec<Input>,
    /// Its integers.
    pub ints: Vec<i64>,
    /// Its floats.
    pub floats: Vec<f64>,
    /// How many results it gives.
    pub outputs: usize,
}

/// Numbers of a shape, in places that no two inputs share.
fn floats(op: &str, at: usize, shape: &[usize], positive: bool) -> Input {
    let n = shape.iter().product();
    let data = Stream::new(at as u64, op).normals(n, 0.0, 1.0);
    // Off 0, where some have a kink and others no value.
    let away = |x: f64| if positive { 0.2 + x.abs() } else { x + 0.05 * x.signum() };
    Input::Float(shape.to_vec(), data.into_iter().map(away).collect())
}

/// At least one call of each op.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |op: &'static str, inputs: Vec<Input>, ints: &[i64], floats: &[f64]| {
        let outputs = OPS.iter().find(|of| of.name == op).map_or(0, |of| of.outputs);
        all.push(Case { op, inputs, ints: ints.to_vec(), floats: floats.to_vec(), outputs });
    };
    let x = |op: &'static str, shapes: &[&[usize]]| -> Vec<Input> {
        shapes.iter().enumerate().map(|(at, shape)| floats(op, at, shape, false)).collect()
    };
    let positive = |op: &'static str, shapes: &[&[usize]]| -> Vec<Input> {
        shapes.iter().enumerate().map(|(at, shape)| floats(op, at, shape, true)).collect()
    };
    let with = |inputs: Vec<Input>, more: &[Input]| [inputs, more.to_vec()].concat();
    for op in ["add@1", "sub@1", "mul@1", "div@1"] {
        for shapes in [[&[2, 3][..], &[2, 3]], [&[2, 3], &[3]], [&[2, 1, 3], &[4, 1]], [&[2, 3], &[]]] {
            add(op, positive(op, &shapes), &[], &[]);
        }
    }
    for op in [
        "neg@1",
        "relu@1",
        "gelu@1",
        "gelu_tanh@1",
        "tanh@1",
        "sigmoid@1",
        "silu@1",
        "exp@1",
        "square@1",
        "abs@1",
        "sign@1",
    ] {
        add(op, x(op, &[&[3, 4]]), &[], &[]);
    }
    for op in ["log@1", "sqrt@1"] {
        add(op, positive(op, &[&[3, 4]]), &[], &[]);
    }
    for op in ["softmax@1", "log_softmax@1", "sum@1", "mean@1"] {
        add(op, x(op, &[&[2, 3, 4]]), &[], &[]);
    }
    add("affine@1", x("affine@1", &[&[2, 3]]), &[], &[-1.5, 0.25]);
    add("clamp_min@1", x("clamp_min@1", &[&[3, 4]]), &[], &[0.0]);
    for shapes in [[&[3, 4][..], &[4, 2]], [&[2, 3, 4], &[2, 4, 5]], [&[2, 3, 4], &[4, 5]]] {
        add("matmul@1", x("matmul@1", &shapes), &[], &[]);
    }
    add("linear@1", with(x("linear@1", &[&[5, 4], &[3, 4]]), &[Input::None]), &[], &[]);
    add("linear@1", x("linear@1", &[&[5, 4], &[3, 4], &[3]]), &[], &[]);
    add("low_rank@1", x("low_rank@1", &[&[5, 3], &[5, 4], &[2, 4], &[3, 2]]), &[], &[0.7]);
    add("low_rank_norm@1", x("low_rank_norm@1", &[&[3, 4], &[2, 4], &[3, 2]]), &[], &[0.7]);
    add("layer_norm@1", x("layer_norm@1", &[&[3, 5], &[5], &[5]]), &[], &[1e-5]);
    add("layer_norm@1", with(x("layer_norm@1", &[&[3, 5], &[5]]), &[Input::None]), &[], &[1e-5]);
    add("dropout@1", x("dropout@1", &[&[3, 4]]), &[], &[0.4]);
    add("squared_distance@1", with(x("squared_distance@1", &[&[2, 3], &[2, 3]]), &[Input::None]), &[], &[]);
    add("squared_distance@1", positive("squared_distance@1", &[&[2, 3], &[2, 3], &[2, 3]]), &[], &[]);
    for op in ["sum_dim@1", "mean_dim@1"] {
        for ints in [[0, 0], [1, 1], [-1, 0]] {
            add(op, x(op, &[&[2, 3, 4]]), &ints, &[]);
        }
    }
    for ints in [[0, 1], [-2, -1], [0, 2]] {
        add("transpose@1", x("transpose@1", &[&[2, 3, 4]]), &ints, &[]);
    }
    add("reshape@1", x("reshape@1", &[&[2, 3, 4]]), &[4, -1], &[]);
    add("narrow@1", x("narrow@1", &[&[2, 5, 3]]), &[1, 1, 3], &[]);
    add("concat@1", x("concat@1", &[&[2, 3], &[2, 1], &[2, 4]]), &[1], &[]);
    add("concat@1", x("concat@1", &[&[2, 3], &[1, 3]]), &[0], &[]);
    let ids = Input::Ids(vec![2, 0, 2, 1]);
    add("index_select@1", with(x("index_select@1", &[&[3, 4]]), slice::from_ref(&ids)), &[0], &[]);
    add("index_select@1", with(x("index_select@1", &[&[2, 3]]), slice::from_ref(&ids)), &[1], &[]);
    add("detach@1", x("detach@1", &[&[2, 3]]), &[], &[]);
    add("keep@1", x("keep@1", &[&[2, 3]]), &[], &[]);
    add("cast@1", x("cast@1", &[&[2, 3]]), &[2], &[]);
    let conv = "conv2d@1";
    // Map, stride, padding, dilation, groups.
    let plain = [4, 5, 1, 1, 1, 1, 1, 1, 1];
    add(conv, x(conv, &[&[2 * 20, 3], &[2, 3, 3, 3], &[2]]), &plain, &[]);
    let strided = [4, 5, 2, 1, 0, 1, 1, 2, 2];
    add(conv, with(x(conv, &[&[20, 4], &[6, 2, 3, 2]]), &[Input::None]), &strided, &[]);
    let conv = "conv_transpose2d@1";
    // Output padding stands before the groups.
    add(conv, x(conv, &[&[2 * 6, 3], &[3, 2, 3, 3], &[2]]), &[2, 3, 1, 1, 1, 1, 1, 1, 0, 0, 1], &[]);
    let strided = [2, 3, 2, 2, 1, 0, 1, 1, 1, 0, 2];
    add(conv, with(x(conv, &[&[6, 4], &[4, 1, 3, 2]]), &[Input::None]), &strided, &[]);
    for corners in [0, 1] {
        add("upsample_bilinear2d@1", x("upsample_bilinear2d@1", &[&[2 * 6, 2]]), &[2, 3, 5, 7, corners], &[]);
    }
    add("upsample_nearest2d@1", x("upsample_nearest2d@1", &[&[2 * 6, 2]]), &[2, 3, 5, 7], &[]);
    let targets = Input::Ids(vec![1, 3, u32::MAX, 0, 2]);
    let cross = "cross_entropy@1";
    let logits = || with(x(cross, &[&[5, 4]]), slice::from_ref(&targets));
    add(cross, with(logits(), &[Input::None]), &[], &[0.0]);
    add(cross, with(logits(), &[Input::Float(vec![4], vec![0.5, 1.0, 2.0, 0.25])]), &[], &[0.3]);
    let linear = "linear_cross_entropy@1";
    let map = |op| with(x(op, &[&[5, 3], &[4, 3]]), slice::from_ref(&targets));
    add(linear, with(map(linear), &[Input::None]), &[], &[]);
    add(linear, with(map(linear), &[floats(linear, 3, &[4], false)]), &[], &[]);
    let likelihood = "linear_log_likelihood@1";
    add(likelihood, with(map(likelihood), &[floats(likelihood, 3, &[4], false)]), &[0, 2, 5], &[]);
    add("linear_argmax@1", with(x("linear_argmax@1", &[&[5, 3], &[4, 3]]), &[Input::None]), &[], &[]);
    add("linear_argmax@1", x("linear_argmax@1", &[&[5, 3], &[4, 3], &[4]]), &[], &[]);
    all
}
