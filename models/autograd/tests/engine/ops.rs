//! Every op against finite differences in `f64`, and its `f32` and `bf16` forms against its `f64` one.

use fthost_autograd::{Activation, DType, Device, Layout, Result, Tape, Tensor, Value, check};

use super::{assert_close, flat, normal};

/// Finite differences in `f64`; then value and gradients in `f32` and `bf16` against `f64`.
fn check(name: &str, inputs: &[Tensor], op: impl Fn(&Tape, &[Value]) -> Result<Value>) {
    check::gradients(inputs, &op).unwrap_or_else(|error| panic!("{name}: {error}"));
    let run = |dtype: DType| -> Vec<Vec<f64>> {
        let tape = Tape::recording();
        // The numbers are those that bf16 can hold, so that only the op's own rounding differs.
        let cast = |x: &Tensor| x.to_dtype(DType::BF16).unwrap().to_dtype(dtype).unwrap();
        let values: Vec<Value> = inputs.iter().map(|x| tape.variable(cast(x))).collect();
        let output = op(&tape, &values).unwrap();
        assert!(output.tensor().is_contiguous(), "{name}");
        let mut all = vec![flat(output.tensor())];
        let seed = output.tensor().affine(0.5, 0.25).unwrap();
        let gradients = tape.backward_from(vec![(output, seed)]).unwrap();
        all.extend(values.iter().map(|value| flat(gradients.of(value).unwrap())));
        all
    };
    let exact = run(DType::F64);
    for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::BF16, 6e-2)] {
        for (actual, exact) in run(dtype).iter().zip(&exact) {
            let scale = exact.iter().fold(1.0, |max: f64, x| max.max(x.abs()));
            let worst = actual.iter().zip(exact).map(|(a, e)| (a - e).abs()).fold(0.0, f64::max);
            assert!(worst <= tolerance * scale, "{name} in {dtype:?} is off by {worst}, largest {scale}");
        }
    }
}

fn positive(name: &str, dims: &[usize]) -> Tensor {
    (normal(name, dims).abs().unwrap() + 0.3).unwrap()
}

#[test]
fn binary_ops_broadcast() {
    let shapes: &[(&[usize], &[usize])] = &[
        (&[3, 4], &[3, 4]),
        (&[3, 4], &[4]),
        (&[4], &[3, 4]),
        (&[3, 1], &[1, 5]),
        (&[2, 3, 5], &[3, 1]),
        (&[2, 1, 1], &[1, 3, 1]),
        (&[3, 4], &[]),
        (&[], &[]),
        (&[1], &[2, 1, 3]),
    ];
    for (a, b) in shapes {
        let (x, y) = (normal("a", a), positive("b", b));
        let inputs = [x, y];
        check(&format!("add {a:?} {b:?}"), &inputs, |tape, v| tape.add(&v[0], &v[1]));
        check(&format!("sub {a:?} {b:?}"), &inputs, |tape, v| tape.sub(&v[0], &v[1]));
        check(&format!("mul {a:?} {b:?}"), &inputs, |tape, v| tape.mul(&v[0], &v[1]));
        check(&format!("div {a:?} {b:?}"), &inputs, |tape, v| tape.div(&v[0], &v[1]));
    }
}

#[test]
fn sums_with_an_activation() {
    let inputs = [normal("a", &[5, 7]), normal("b", &[5, 7])];
    for activation in [Activation::Identity, Activation::Relu, Activation::HardSwish] {
        check("add_activation", &inputs, |tape, v| tape.add_activation(&v[0], &v[1], activation));
    }
}

#[test]
fn unary_ops() {
    let x = [normal("x", &[3, 7])];
    check("neg", &x, |tape, v| tape.neg(&v[0]));
    check("affine", &x, |tape, v| tape.affine(&v[0], 1.5, -0.25));
    check("exp", &x, |tape, v| tape.exp(&v[0]));
    check("square", &x, |tape, v| tape.square(&v[0]));
    check("abs", &x, |tape, v| tape.abs(&v[0]));
    check("clamp_min", &x, |tape, v| tape.clamp_min(&v[0], 0.1));
    check("cast", &x, |tape, v| tape.cast(&v[0], DType::F64));
    let x = [positive("x", &[3, 7])];
    check("log", &x, |tape, v| tape.log(&v[0]));
    check("sqrt", &x, |tape, v| tape.sqrt(&v[0]));
}

#[test]
fn activations() {
    use Activation::{Gelu, GeluTanh, HardSigmoid, HardSwish, Identity, QuickGelu, Relu, Relu6, Sigmoid, Silu, Tanh};
    let x = [normal("x", &[5, 7]).affine(2.0, 0.0).unwrap()];
    for activation in [Relu, Gelu, GeluTanh, QuickGelu, Tanh, Sigmoid, Silu, Relu6, HardSigmoid, HardSwish, Identity] {
        check(&format!("{activation:?}"), &x, |tape, v| tape.activation(&v[0], activation));
    }
}

/// torch 2.x: `F.gelu(x)`, `F.gelu(x, approximate="tanh")`, `F.silu(x)`, `x * torch.sigmoid(1.702 * x)`.
#[test]
fn activations_are_torchs() {
    let x = Tensor::new(&[-3.0f64, -0.7, 0.0, 0.4, 2.5], &Device::Cpu).unwrap();
    let check = |activation, expected: [f64; 5]| {
        let y = Tape::evaluation().activation(&Value::constant(x.clone()), activation).unwrap();
        assert_close(&flat(y.tensor()), &expected, 1e-11);
    };
    check(Activation::Gelu, [-0.004049694095, -0.169374556556, 0.0, 0.262168696644, 2.484475836686]);
    check(Activation::GeluTanh, [-0.003637392082, -0.169429865295, 0.0, 0.262161169427, 2.48491573391]);
    check(Activation::QuickGelu, [-0.018071309708, -0.163106048277, 0.0, 0.265566890288, 2.465013834951]);
    check(Activation::Silu, [-0.142277619533, -0.232268559482, 0.0, 0.239475064045, 2.310354549947]);
}

#[test]
fn corners_follow_torch() {
    for dtype in [DType::F32, DType::F64] {
        let gradient = |op: &dyn Fn(&Tape, &Value) -> Result<Value>| {
            let tape = Tape::recording();
            let x = tape.variable(Tensor::new(&[0.0f64, -1.0, 1.0], &Device::Cpu).unwrap().to_dtype(dtype).unwrap());
            let y = op(&tape, &x).unwrap();
            let loss = tape.sum(&y).unwrap();
            flat(tape.backward(&loss).unwrap().of(&x).unwrap())
        };
        assert_eq!(gradient(&|tape, x| tape.relu(x)), [0.0, 0.0, 1.0]);
        assert_eq!(gradient(&|tape, x| tape.abs(x)), [0.0, -1.0, 1.0]);
        assert_eq!(gradient(&|tape, x| tape.clamp_min(x, 0.0)), [1.0, 0.0, 1.0]);
    }
    // Activations of large numbers stay finite, and NaN stays NaN.
    let x = Value::constant(Tensor::new(&[-1e4f32, 1e4], &Device::Cpu).unwrap());
    let y = Tape::evaluation().silu(&x).unwrap();
    assert_close(&flat(y.tensor()), &[0.0, 1e4], 1e-12);
    let nan = Value::constant(Tensor::new(&[f32::NAN], &Device::Cpu).unwrap());
    assert!(flat(Tape::evaluation().relu(&nan).unwrap().tensor())[0].is_nan());
}

#[test]
fn reductions() {
    for dims in [&[2usize, 3, 5][..], &[7], &[1, 1], &[4, 1, 3]] {
        let x = [normal("x", dims)];
        check("sum", &x, |tape, v| tape.sum(&v[0]));
        check("mean", &x, |tape, v| tape.mean(&v[0]));
        check("softmax", &x, |tape, v| tape.softmax(&v[0]));
        check("log_softmax", &x, |tape, v| tape.log_softmax(&v[0]));
        for dim in 0..dims.len() {
            for keepdim in [false, true] {
                check("sum_dim", &x, |tape, v| tape.sum_dim(&v[0], dim, keepdim));
                check("mean_dim", &x, |tape, v| tape.mean_dim(&v[0], dim, keepdim));
            }
        }
    }
    let tape = Tape::evaluation();
    assert!(tape.sum_dim(&Value::constant(normal("x", &[3])), 1, false).is_err());
    assert!(tape.mean(&Value::constant(Tensor::zeros(0, DType::F32, &Device::Cpu).unwrap())).is_err());
}

#[test]
fn sequences_become_rows() {
    for (lengths, width) in [(&[3usize, 1, 6][..], 4), (&[1], 1), (&[2, 2], 7)] {
        let layout = Layout::from_lengths(lengths.iter().copied());
        let x = [normal("x", &[layout.tokens(), width])];
        check("segment_mean", &x, |tape, v| tape.segment_mean(&v[0], &layout));
        check("segment_max", &x, |tape, v| tape.segment_max(&v[0], &layout));
        check("normalize", &x, |tape, v| tape.normalize(&v[0]));
    }
    let tape = Tape::evaluation();
    let x = Value::constant(Tensor::new(&[[1f32, -2.0], [3.0, -4.0], [-5.0, 12.0]], &Device::Cpu).unwrap());
    let layout = Layout::from_lengths([2, 1]);
    assert_eq!(flat(tape.segment_mean(&x, &layout).unwrap().tensor()), [2.0, -3.0, -5.0, 12.0]);
    assert_eq!(flat(tape.segment_max(&x, &layout).unwrap().tensor()), [3.0, -2.0, -5.0, 12.0]);
    assert_close(&flat(tape.normalize(&x).unwrap().tensor())[4..], &[-5.0 / 13.0, 12.0 / 13.0], 1e-7);
    let zeros = Value::constant(Tensor::zeros((1, 2), DType::F32, &Device::Cpu).unwrap());
    assert_eq!(flat(tape.normalize(&zeros).unwrap().tensor()), [0.0, 0.0]);
    for lengths in [&[3usize, 0][..], &[2]] {
        let layout = Layout::from_lengths(lengths.iter().copied());
        let error = tape.segment_mean(&x, &layout).unwrap_err().to_string();
        assert!(error.contains("3 rows cannot be taken together"), "{error}");
    }
}

#[test]
fn distances() {
    // The last is longer than the blocks that are summed by themselves, and ends within one.
    for dims in [&[3usize, 5][..], &[1], &[0], &[40_001]] {
        let [x, anchor, weights] = ["x", "anchor", "weights"].map(|name| normal(name, dims));
        let to = |other: &Tensor, x: &Value| other.to_dtype(x.dtype());
        let plain = |tape: &Tape, v: &[Value]| tape.squared_distance(&v[0], &to(&anchor, &v[0])?, None);
        let weighted =
            |tape: &Tape, v: &[Value]| tape.squared_distance(&v[0], &to(&anchor, &v[0])?, Some(&to(&weights, &v[0])?));
        let composite = |tape: &Tape, v: &[Value], weights: Option<&Tensor>| {
            let square = tape.square(&tape.sub(&v[0], &Value::constant(to(&anchor, &v[0])?))?)?;
            match weights {
                Some(weights) => tape.sum(&tape.mul(&square, &Value::constant(to(weights, &v[0])?))?),
                None => tape.sum(&square),
            }
        };
        if x.elem_count() < 100 {
            check("squared_distance", std::slice::from_ref(&x), plain);
            check("squared_distance with weights", std::slice::from_ref(&x), weighted);
        }
        let run = |op: &dyn Fn(&Tape, &[Value]) -> Result<Value>| {
            let tape = Tape::recording();
            let x = tape.variable(x.to_dtype(DType::F32).unwrap());
            let output = op(&tape, std::slice::from_ref(&x)).unwrap();
            let value = flat(output.tensor());
            (value, flat(tape.backward(&output).unwrap().of(&x).unwrap()))
        };
        for (found, expected) in [
            (run(&plain), run(&|tape, v| composite(tape, v, None))),
            (run(&weighted), run(&|tape, v| composite(tape, v, Some(&weights)))),
        ] {
            assert_close(&found.0, &expected.0, 1e-5);
            assert_close(&found.1, &expected.1, 1e-5);
        }
    }
    let error = Tape::evaluation()
        .squared_distance(&Value::constant(normal("x", &[3])), &normal("anchor", &[4]), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("got [3] and [4]"), "{error}");
}

#[test]
fn shape_ops() {
    let x = [normal("x", &[2, 3, 5])];
    check("transpose", &x, |tape, v| tape.transpose(&v[0], 0, 2));
    check("reshape", &x, |tape, v| tape.reshape(&v[0], &[5, 6]));
    for (dim, start, len) in [(0, 1, 1), (1, 0, 2), (2, 1, 3), (2, 0, 5)] {
        check("narrow", &x, |tape, v| tape.narrow(&v[0], dim, start, len));
    }
    for dim in 0..3 {
        let ids = Tensor::new(&[1u32, 0, 1, 1], &Device::Cpu).unwrap();
        check("index_select", &x, |tape, v| tape.index_select(&v[0], &ids, dim));
    }
    for dim in 0..2 {
        let mut dims = [[3, 2]; 3];
        dims.iter_mut().enumerate().for_each(|(i, d)| d[dim] = i + 1);
        let xs: Vec<Tensor> = dims.iter().enumerate().map(|(i, d)| normal(&format!("x{i}"), d)).collect();
        check("concat", &xs, |tape, v| tape.concat(&v.iter().collect::<Vec<_>>(), dim));
    }
}
