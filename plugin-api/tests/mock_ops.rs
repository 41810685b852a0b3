//! The mock host's ops: gradients by finite differences, values by hand and by torch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use fthost_plugin_api::{
    Window,
    ops::OPS,
    prelude::*,
    test::{
        Host,
        raw::{self, Case, Input, Ran},
    },
};

fn run(case: &Case) -> Ran {
    raw::run(case).unwrap_or_else(|error| panic!("{case:?}: {error}"))
}

/// The weighed sum of the first result.
fn weighed(case: &Case) -> f64 {
    let (results, _) = run(case);
    results[0].1.iter().zip(raw::seed(results[0].1.len())).map(|(x, weight)| x * weight).sum()
}

/// Which inputs no gradient flows into, by the ops' definitions.
fn constants(op: &str) -> &'static [usize] {
    match op {
        "low_rank_norm@1" => &[0, 1, 2],
        "squared_distance@1" => &[1, 2],
        "detach@1" | "keep@1" | "sign@1" => &[0],
        "cross_entropy@1" => &[2],
        "linear_argmax@1" => &[0, 1, 2],
        _ => &[],
    }
}

#[test]
fn every_ops_gradient_is_that_of_finite_differences() {
    const STEP: f64 = 1e-6;
    let mut tried = BTreeSet::new();
    for case in raw::cases() {
        let (_, gradients) = run(&case);
        for (at, gradient) in gradients.iter().enumerate() {
            let Input::Float(shape, data) = case.inputs[at].clone() else { continue };
            if constants(case.op).contains(&at) {
                assert!(gradient.is_none(), "{}, input {at}: it is a constant", case.op);
                continue;
            }
            let gradient = gradient.as_ref().unwrap_or_else(|| panic!("{}, input {at} gets no gradient", case.op));
            for element in 0..data.len() {
                let moved = |by: f64| {
                    let (mut case, mut data) = (case.clone(), data.clone());
                    data[element] += by;
                    case.inputs[at] = Input::Float(shape.clone(), data);
                    weighed(&case)
                };
                let found = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                let expected = gradient[element];
                let fits = (found - expected).abs() < 1e-6 * (1.0 + found.abs());
                assert!(
                    fits,
                    "{} {:?}, input {at}, element {element}: {expected}, by differences {found}",
                    case.op, case.ints
                );
            }
        }
        tried.insert(case.op);
    }
    let listed: BTreeSet<&str> = OPS.iter().map(|op| op.name).collect();
    assert_eq!(tried, listed, "each op has a case");
}

/// Elements of what is computed in a call.
fn of(body: impl FnOnce() -> Result<Tensor>) -> Vec<f64> {
    Host::new().call(|_| body()?.to_vec_f64()).unwrap()
}

fn tensor(data: &[f64], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(data, shape)
}

#[track_caller]
fn near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-12 * (1.0 + expected.abs()), "{found} is not {expected}");
    }
}

#[test]
fn values_are_those_of_torch() {
    let x = || tensor(&[-2.0, -0.5, 0.0, 1.0, 3.0], &[5]);
    // torch 2: gelu(x), gelu(x, approximate="tanh"), silu(x) in float64.
    near(&of(|| x()?.gelu()), &[-0.04550026389635842, -0.15426876936299344, 0.0, 0.8413447460685429, 2.99595030590511]);
    near(&of(|| x()?.relu()), &[0.0, 0.0, 0.0, 1.0, 3.0]);
    near(
        &of(|| x()?.sigmoid()),
        &[0.11920292202211755, 0.3775406687981454, 0.5, 0.7310585786300049, 0.9525741268224334],
    );
    near(&of(|| x()?.silu()), &[-0.2384058440442351, -0.1887703343990727, 0.0, 0.7310585786300049, 2.8577223804673]);
    // 0.5 (1 + tanh(sqrt(2 / pi) (1 + 0.044715))) by hand.
    let tanh = ((2.0 / std::f64::consts::PI).sqrt() * 1.044715).tanh();
    near(&of(|| tensor(&[1.0], &[1])?.gelu_tanh()), &[0.5 * (1.0 + tanh)]);
    let logits = || tensor(&[1.0, 2.0, 3.0, 0.0, 0.0, 0.0], &[2, 3]);
    let third = 1.0 / 3.0;
    near(
        &of(|| logits()?.softmax()),
        &[0.09003057317038046, 0.24472847105479764, 0.6652409557748218, third, third, third],
    );
    near(&of(|| tensor(&[800.0, 0.0], &[1, 2])?.log_softmax()), &[0.0, -800.0]);
    // (1, 3) has mean 2 and variance 1.
    let norm = |x: &Tensor| x.layer_norm(&tensor(&[2.0, 2.0], &[2])?, Some(&tensor(&[0.5, 0.5], &[2])?), 0.0);
    near(&of(|| norm(&tensor(&[1.0, 3.0], &[1, 2])?)), &[-1.5, 2.5]);
}

#[test]
fn losses_are_those_of_torch() {
    let logits = || tensor(&[1.0, 2.0, 3.0, 0.0, 0.0, 0.0], &[2, 3]);
    let loss = |targets: &'static [u32], weights: Option<&'static [f64]>, smoothing: f64| {
        Host::new()
            .call(|_| {
                let targets = Tensor::from_slice(targets, [2])?;
                let weights = weights.map(|weights| Tensor::from_slice(weights, [3])).transpose()?;
                let weights = weights.as_ref().map(|weights| weights as &dyn Operand);
                let (sum, weight) = logits()?.cross_entropy(&targets, weights, smoothing)?;
                Ok([sum.to_scalar()?, weight.to_scalar()?])
            })
            .unwrap()
    };
    let (first, second) = (2.4076059644443806, 3f64.ln());
    near(&loss(&[0, 1], None, 0.0), &[first + second, 2.0]);
    near(&loss(&[0, u32::MAX], None, 0.0), &[first, 1.0]);
    near(&loss(&[0, 1], Some(&[2.0, 0.5, 1.0]), 0.0), &[2.0 * first + 0.5 * second, 2.5]);
    // Half of each target is spread over all classes.
    let spread = (first + (first - 1.0) + (first - 2.0)) / 3.0;
    near(&loss(&[0, 1], None, 0.5), &[0.5 * first + 0.5 * spread + second, 2.0]);
}

#[test]
fn maps_are_swept_as_by_torch() {
    let picture = || tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], &[9, 1]);
    let ones = || tensor(&[1.0; 4], &[1, 1, 2, 2]);
    near(&of(|| picture()?.conv2d([3, 3], &ones()?, None, &Window::default())), &[12.0, 16.0, 24.0, 28.0]);
    let padded = Window { stride: [2, 2], padding: [1, 1], ..Window::default() };
    near(&of(|| picture()?.conv2d([3, 3], &ones()?, None, &padded)), &[1.0, 5.0, 11.0, 28.0]);
    let two = || tensor(&[1.0, 2.0], &[2, 1]);
    let doubled = Window { stride: [2, 2], ..Window::default() };
    near(&of(|| two()?.conv_transpose2d([1, 2], &ones()?, None, &doubled)), &[1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
    near(&of(|| two()?.upsample_bilinear2d([1, 2], [1, 4], false)), &[1.0, 1.25, 1.75, 2.0]);
    near(&of(|| two()?.upsample_bilinear2d([1, 2], [1, 3], true)), &[1.0, 1.5, 2.0]);
    near(&of(|| two()?.upsample_nearest2d([1, 2], [1, 4])), &[1.0, 1.0, 2.0, 2.0]);
}

#[test]
fn integers_move_and_do_not_reckon() {
    let ids = Host::new().call(|_| Tensor::from_slice(&[3u32, 1, 2], [3])?.narrow(0, 1, 2)?.to_vec_u32()).unwrap();
    assert_eq!(ids, [1, 2]);
    let cut = Host::new().call(|_| tensor(&[2.9, 0.0], &[2])?.to_vec_u32()).unwrap();
    assert_eq!(cut, [2, 0]);
    let error = Host::new().call(|_| Tensor::from_slice(&[3u32], [1])?.exp().map(drop)).unwrap_err().to_string();
    assert!(error.ends_with("exp@1 on [1]: input 0 is U32, and must be a float: cast it"), "{error}");
}

#[test]
fn errors_name_op_and_shapes() {
    let error =
        Host::new().call(|_| tensor(&[1.0; 6], &[2, 3])?.matmul(&tensor(&[1.0; 4], &[2, 2])?).map(drop)).unwrap_err();
    let expected = "failed in a test's call: matmul@1 on [2, 3], [2, 2]: these are no matrices to be multiplied: [.., m, k] and [.., k, n]";
    assert_eq!(error.to_string(), expected);
    let error = Host::new().call(|_| tensor(&[1.0; 6], &[2, 3])?.sum_dim(2, false).map(drop)).unwrap_err();
    assert!(error.to_string().ends_with("sum_dim@1 on [2, 3]: dimension 2 is outside a tensor of rank 2"), "{error}");
    let error = Host::new().call(|_| tensor(&[1.0; 6], &[2, 3])?.narrow(1, 2, 2).map(drop)).unwrap_err();
    assert!(error.to_string().contains("elements 2 to 4 are outside a dimension of size 3"), "{error}");
}
