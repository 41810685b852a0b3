//! Cross entropy against torch and finite differences.

use fthost_autograd::{DType, Device, Tape, Tensor, Value, check};

use super::{assert_close, flat, normal};

const IGNORED: u32 = u32::MAX;

fn logits() -> Tensor {
    Tensor::new(&[[1.5f64, -0.25, 0.5], [0.0, 2.0, -1.0], [3.0, 3.0, 3.0], [-2.0, 0.5, 1.0]], &Device::Cpu).unwrap()
}

fn targets(classes: &[u32]) -> Tensor {
    Tensor::new(classes, &Device::Cpu).unwrap()
}

/// `F.cross_entropy(x, [0, 2, -100, 1], weight, label_smoothing=s)` of torch 2.x in float64, and its gradient's first row.
#[test]
fn is_torchs() {
    let weights = Tensor::new(&[1.0f64, 2.0, 0.5], &Device::Cpu).unwrap();
    let cases = [
        (None, 0.0, 1.5357661295924458, [-0.117115254316, 0.037573068236, 0.07954218608]),
        (None, 0.1, 1.5440994629257792, [-0.094893032094, 0.026461957125, 0.068431074969]),
        (Some(&weights), 0.0, 1.150563508954708, [-0.1003845037, 0.03220548706, 0.06817901664]),
        (Some(&weights), 0.1, 1.1819409138756247, [-0.078248054952, 0.01369462613, 0.064553428822]),
    ];
    for (weights, smoothing, loss, first_row) in cases {
        for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 1e-6), (DType::BF16, 1e-2)] {
            let tape = Tape::recording();
            let x = tape.variable(logits().to_dtype(dtype).unwrap());
            let (sum, weight) = tape.cross_entropy(&x, &targets(&[0, 2, IGNORED, 1]), weights, smoothing).unwrap();
            let mean = tape.affine(&sum, 1.0 / weight, 0.0).unwrap();
            assert_close(&flat(mean.tensor()), &[loss], tolerance);
            let gradients = tape.backward(&mean).unwrap();
            let gradient = flat(gradients.of(&x).unwrap());
            assert_close(&gradient[..3], &first_row, tolerance);
            assert_eq!(gradient[6..9], [0.0; 3]);
        }
    }
}

#[test]
fn gradients_are_right() {
    let weights = normal("w", &[5]).abs().unwrap();
    for (weights, smoothing) in [(None, 0.0), (None, 0.3), (Some(&weights), 0.0), (Some(&weights), 0.2)] {
        let x = normal("x", &[4, 5]).affine(3.0, 0.0).unwrap();
        check::gradients(&[x], |tape, v| {
            Ok(tape.cross_entropy(&v[0], &targets(&[4, IGNORED, 0, 2]), weights, smoothing)?.0)
        })
        .unwrap();
    }
}

#[test]
fn micro_batches_add_up() {
    let x = normal("x", &[6, 4]).to_dtype(DType::F32).unwrap();
    let classes = [0, 3, IGNORED, 1, 2, 2];
    let run = |start: usize, end: usize| {
        let rows = Value::constant(x.narrow(0, start, end - start).unwrap());
        let (sum, weight) = Tape::evaluation().cross_entropy(&rows, &targets(&classes[start..end]), None, 0.1).unwrap();
        (flat(sum.tensor())[0], weight)
    };
    let (whole, parts) = (run(0, 6), [run(0, 2), run(2, 6)]);
    assert_eq!(whole.1, 5.0);
    assert_eq!(parts[0].1 + parts[1].1, 5.0);
    assert_close(&[parts[0].0 + parts[1].0], &[whole.0], 1e-6);
}

#[test]
fn extremes_stay_finite() {
    let x = Value::constant(Tensor::new(&[[1e4f32, -1e4], [-1e4, 1e4]], &Device::Cpu).unwrap());
    let (loss, weight) = Tape::evaluation().cross_entropy(&x, &targets(&[0, 0]), None, 0.0).unwrap();
    assert_eq!((flat(loss.tensor()), weight), (vec![2e4], 2.0));
    let (loss, weight) = Tape::evaluation().cross_entropy(&x, &targets(&[IGNORED, IGNORED]), None, 0.1).unwrap();
    assert_eq!((flat(loss.tensor()), weight), (vec![0.0], 0.0));
}

#[test]
fn mistakes_are_named() {
    let error = |targets: Tensor, weights: Option<&Tensor>, smoothing| {
        let x = Value::constant(logits());
        Tape::evaluation().cross_entropy(&x, &targets, weights, smoothing).unwrap_err().to_string()
    };
    assert!(error(targets(&[0, 1, 2, 3]), None, 0.0).contains("target 3 of row 3 is not one of 3 classes"));
    assert!(error(targets(&[0]), None, 0.0).contains("wants u32 targets [4]"));
    assert!(error(targets(&[0; 4]), Some(&normal("w", &[2])), 0.0).contains("3 classes want as many weights"));
    assert!(error(targets(&[0; 4]), None, 1.5).contains("label smoothing"));
}
