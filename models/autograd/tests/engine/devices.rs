//! Every op on every device and in every precision against its `f64` form on the CPU: value and gradients. On a machine without a CUDA
//! device that is the CPU alone, and the test says so.

use fthost_autograd::optim::{Method, Optimizer, StepSettings};
use fthost_autograd::{
    Activation, Angles, Attention, DType, Device, Dropout, Epilogue, Layout, Map, Parameter, Precision, Result,
    ScaleShift, Sees, Tape, TapeOptions, Tensor, Value, Window,
};

use super::{flat, normal};

type Op = Box<dyn Fn(&Tape, &[Value]) -> Result<Value>>;

struct Case {
    /// The method of `Tape`, and what tells several cases of it apart.
    name: &'static str,
    inputs: Vec<Tensor>,
    op: Op,
    /// Examples that the tape's dropout counts; 0 for no dropout.
    examples: u64,
}

fn case(name: &'static str, inputs: &[&[usize]], op: impl Fn(&Tape, &[Value]) -> Result<Value> + 'static) -> Case {
    let inputs = inputs.iter().enumerate().map(|(i, dims)| normal(&format!("{name} {i}"), dims)).collect();
    Case { name, inputs, op: Box::new(op), examples: 0 }
}

/// A case whose inputs are positive.
fn positive(name: &'static str, inputs: &[&[usize]], op: impl Fn(&Tape, &[Value]) -> Result<Value> + 'static) -> Case {
    let mut case = case(name, inputs, op);
    case.inputs.iter_mut().for_each(|x| *x = (x.abs().unwrap() + 0.3).unwrap());
    case
}

/// A case on a tape that drops out.
fn dropping(examples: u64, case: Case) -> Case {
    Case { examples, ..case }
}

/// At least one case of every public method of `Tape` that is an op.
fn cases() -> Vec<Case> {
    const X: &[&[usize]] = &[&[5, 7]];
    const PAIR: &[&[usize]] = &[&[5, 7], &[7]];
    let layout = || Layout::from_lengths([3, 1, 6]);
    let mut cases = vec![
        case("add", PAIR, |t, v| t.add(&v[0], &v[1])),
        case("sub", PAIR, |t, v| t.sub(&v[0], &v[1])),
        case("mul", PAIR, |t, v| t.mul(&v[0], &v[1])),
        positive("div", PAIR, |t, v| t.div(&v[0], &v[1])),
        case("neg", X, |t, v| t.neg(&v[0])),
        case("affine", X, |t, v| t.affine(&v[0], 1.5, -0.25)),
        case("exp", X, |t, v| t.exp(&v[0])),
        positive("log", X, |t, v| t.log(&v[0])),
        positive("sqrt", X, |t, v| t.sqrt(&v[0])),
        case("square", X, |t, v| t.square(&v[0])),
        case("abs", X, |t, v| t.abs(&v[0])),
        case("clamp_min", X, |t, v| t.clamp_min(&v[0], 0.1)),
        case("cast", X, |t, v| t.cast(&v[0], DType::F32)),
        case("sum", X, |t, v| t.sum(&v[0])),
        case("mean", X, |t, v| t.mean(&v[0])),
        case("sum_dim", X, |t, v| t.sum_dim(&v[0], 0, false)),
        case("mean_dim", X, |t, v| t.mean_dim(&v[0], 1, true)),
        case("softmax", X, |t, v| t.softmax(&v[0])),
        case("log_softmax", X, |t, v| t.log_softmax(&v[0])),
        case("transpose", X, |t, v| t.transpose(&v[0], 0, 1)),
        case("reshape", X, |t, v| t.reshape(&v[0], &[7, 5])),
        case("narrow", X, |t, v| t.narrow(&v[0], 1, 2, 3)),
        case("concat", &[&[2, 7], &[3, 7]], |t, v| t.concat(&[&v[0], &v[1]], 0)),
        case("index_select", X, |t, v| {
            t.index_select(&v[0], &Tensor::new(&[1u32, 0, 4, 1], v[0].tensor().device())?, 0)
        }),
        case("embedding", X, |t, v| t.embedding(&v[0], &[4, 0, 0, 2])),
        case("select_rows", X, |t, v| t.select_rows(&v[0], &[4, 1])),
        case("prepend_rows", &[&[10, 4], &[2, 4]], move |t, v| t.prepend_rows(&v[0], &v[1], &layout())),
        case("segment_mean", &[&[10, 4]], move |t, v| t.segment_mean(&v[0], &layout())),
        case("segment_max", &[&[10, 4]], move |t, v| t.segment_max(&v[0], &layout())),
        case("normalize", X, |t, v| t.normalize(&v[0])),
        case("linear", &[&[20, 33], &[17, 33], &[17]], |t, v| t.linear(&v[0], &v[1], Some(&v[2]))),
        case("linear", &[&[20, 33], &[17, 33]], |t, v| t.linear(&v[0], &v[1], None)),
        case("linear_activation", &[&[20, 33], &[17, 33], &[17]], |t, v| {
            t.linear_activation(&v[0], &v[1], Some(&v[2]), Activation::Gelu)
        }),
        case("low_rank", &[&[9, 6], &[9, 8], &[3, 8], &[6, 3]], |t, v| {
            t.low_rank(v[0].clone(), &v[1], &v[2], &v[3], 2.0)
        }),
        case("low_rank_norm", &[&[6, 8], &[3, 8], &[6, 3]], |t, v| t.low_rank_norm(&v[0], &v[1], &v[2], 2.0)),
        case("matmul", &[&[2, 5, 7], &[2, 7, 3]], |t, v| t.matmul(&v[0], &v[1])),
        case("layer_norm", &[&[6, 16], &[16], &[16]], |t, v| t.layer_norm(&v[0], &v[1], Some(&v[2]), 1e-5)),
        case("residual_layer_norm", &[&[6, 16], &[6, 16], &[16], &[16]], |t, v| {
            t.residual_layer_norm(&v[0], &v[1], &v[2], Some(&v[3]), 1e-5)
        }),
        case("attention", &[&[10, 8], &[10, 8], &[10, 8]], move |t, v| {
            t.attention(&v[0], &v[1], &v[2], &Attention::full(2, 0.0), &layout(), &layout(), None)
        }),
        case("attention", &[&[10, 8], &[10, 8], &[10, 8], &[2, 8], &[2, 8]], move |t, v| {
            t.attention(&v[0], &v[1], &v[2], &Attention::full(2, 0.0), &layout(), &layout(), Some((&v[3], &v[4])))
        }),
        dropping(
            3,
            case("attention", &[&[10, 8], &[10, 8], &[10, 8]], move |t, v| {
                t.attention(&v[0], &v[1], &v[2], &Attention::full(2, 0.3), &layout(), &layout(), None)
            }),
        ),
        case("attention", &[&[10, 8], &[10, 4], &[10, 4], &[2, 4], &[2, 4]], move |t, v| {
            let past = Attention { kv_heads: 1, sees: Sees::Past { window: Some(3) }, ..Attention::full(2, 0.0) };
            t.attention(&v[0], &v[1], &v[2], &past, &layout(), &layout(), Some((&v[3], &v[4])))
        }),
        case("rms_norm", &[&[6, 16], &[16]], |t, v| t.rms_norm(&v[0], &v[1], 1e-5)),
        case("gated", &[&[5, 7], &[5, 7]], |t, v| t.gated(&v[0], &v[1], Activation::Silu)),
        case("rotary", &[&[5, 12]], |t, v| {
            let (dtype, device) = (v[0].tensor().dtype(), v[0].tensor().device());
            t.rotary(&v[0], &Angles::new(&[0, 1, 2, 0, 9], &[1.0, 0.1, 0.01], 1.0, dtype, device)?)
        }),
        case("squared_distance", &[&[5, 7], &[5, 7], &[5, 7]], |t, v| {
            t.squared_distance(&v[0], v[1].tensor(), Some(v[2].tensor()))
        }),
        case("squared_distance", &[&[5, 7], &[5, 7]], |t, v| t.squared_distance(&v[0], v[1].tensor(), None)),
        case("cross_entropy", &[&[6, 4]], |t, v| {
            let device = v[0].tensor().device();
            let targets = Tensor::new(&[0u32, 3, 1, u32::MAX, 2, 0], device)?;
            let weights = Tensor::new(&[0.5f32, 1.0, 2.0, 0.25], device)?;
            Ok(t.cross_entropy(&v[0], &targets, Some(&weights), 0.1)?.0)
        }),
        case("linear_cross_entropy", &[&[6, 3], &[4, 3], &[4]], |t, v| {
            let targets = Tensor::new(&[0u32, 3, 1, u32::MAX, 2, 0], v[0].tensor().device())?;
            Ok(t.linear_cross_entropy(&v[0], &v[1], Some(&v[2]), &targets)?.0)
        }),
        case("linear_log_likelihood", &[&[6, 3], &[4, 3], &[4]], |t, v| {
            let targets = Tensor::new(&[0u32, 3, 1, u32::MAX, 2, 0], v[0].tensor().device())?;
            Ok(t.linear_log_likelihood(&v[0], &v[1], Some(&v[2]), &targets, &[0, 2, 6])?.0)
        }),
        // It gives whole numbers and no gradient: the logits are multiplied by them.
        case("linear_argmax", &[&[6, 3], &[4, 3], &[4]], |t, v| {
            let logits = t.linear(&v[0], &v[1], Some(&v[2]))?;
            let found = t.linear_argmax(&v[0], &v[1], Some(&v[2]))?.to_dtype(v[0].dtype())?.unsqueeze(1)?;
            t.mul(&logits, &Value::constant(found.broadcast_as(logits.dims())?.contiguous()?))
        }),
        dropping(
            5,
            case("dropout", X, |t, v| {
                t.set_layout(Layout::single_rows(5));
                t.dropout(&v[0], 0.4)
            }),
        ),
    ];
    cases.extend(of_maps());
    use Activation::{Gelu, GeluTanh, HardSigmoid, HardSwish, Identity, QuickGelu, Relu, Relu6, Sigmoid, Silu, Tanh};
    for activation in [Relu, Gelu, GeluTanh, QuickGelu, Tanh, Sigmoid, Silu, Relu6, HardSigmoid, HardSwish, Identity] {
        cases.push(case("activation", X, move |t, v| t.activation(&v[0], activation)));
    }
    cases
}

/// Those of ops on feature maps.
fn of_maps() -> Vec<Case> {
    const X: &[&[usize]] = &[&[40, 6]];
    const NORM: &[&[usize]] = &[&[40, 6], &[6], &[6]];
    let map = Map::new(2, 5, 4);
    let window = Window::square(3).padding(1);
    let strided = Window { padding: [[0, 1], [1, 0]], ..Window::square(3).stride(2) };
    let fixed = |like: &Value| -> Result<[Tensor; 2]> {
        let of = |name: &str| normal(name, &[6]).to_dtype(like.dtype())?.to_device(like.tensor().device());
        Ok([of("mean")?, (of("variance")?.abs()? + 0.5)?])
    };
    let epilogue = move |t: &Tape, v: &[Value], activation: Activation, groups: usize| -> Result<Value> {
        let [shift, scale] = fixed(&v[0])?;
        let norm = ScaleShift { scale, shift };
        let epilogue = Epilogue { bias: Some(&v[2]), norm: Some(&norm), activation };
        Ok(t.conv2d_epilogue(&v[0], map, &v[1], &window, groups, epilogue)?.0)
    };
    let mut cases = vec![
        case("unfold", X, move |t, v| Ok(t.unfold(&v[0], map, &strided)?.0)),
        case("max_pool2d", X, move |t, v| Ok(t.max_pool2d(&v[0], map, &strided)?.0)),
        case("avg_pool2d", X, move |t, v| Ok(t.avg_pool2d(&v[0], map, &strided, false)?.0)),
        case("adaptive_avg_pool2d", X, move |t, v| Ok(t.adaptive_avg_pool2d(&v[0], map, [2, 3])?.0)),
        case("add_activation", &[&[5, 7], &[5, 7]], |t, v| t.add_activation(&v[0], &v[1], Activation::Relu)),
        case("add_activation", &[&[5, 7], &[5, 7]], |t, v| t.add_activation(&v[0], &v[1], Activation::Silu)),
        case("global_avg_pool2d", X, move |t, v| t.global_avg_pool2d(&v[0], map)),
        case("upsample_bilinear2d", X, move |t, v| Ok(t.upsample_bilinear2d(&v[0], map, [7, 9], false)?.0)),
        case("upsample_nearest2d", X, move |t, v| Ok(t.upsample_nearest2d(&v[0], map, [10, 3])?.0)),
        case("group_norm", NORM, move |t, v| t.group_norm(&v[0], map, 3, &v[1], &v[2], 1e-5)),
        case("batch_norm", NORM, move |t, v| {
            let [mean, variance] = fixed(&v[0])?;
            t.batch_norm(&v[0], &v[1], &v[2], &mean, &variance, 1e-3, Activation::Silu)
        }),
        case("batch_norm_training", NORM, move |t, v| {
            Ok(t.batch_norm_training(&v[0], &v[1], &v[2], 1e-3, Activation::HardSwish)?.0)
        }),
    ];
    for activation in [Activation::Identity, Activation::Relu, Activation::Silu] {
        let weights: [&[&[usize]]; 2] = [&[&[40, 6], &[6, 6, 3, 3], &[6]], &[&[40, 6], &[6, 1, 3, 3], &[6]]];
        for (inputs, groups) in weights.into_iter().zip([1, 6]) {
            cases.push(case("conv2d_epilogue", inputs, move |t, v| epilogue(t, v, activation, groups)));
        }
    }
    for (inputs, groups) in [(&[&[40usize, 6][..], &[9, 6, 3, 3], &[9]], 1), (&[&[40, 6], &[4, 3, 3, 3], &[4]], 2)] {
        for window in [window, strided] {
            cases.push(case("conv2d", inputs, move |t, v| {
                Ok(t.conv2d(&v[0], map, &v[1], Some(&v[2]), &window, groups)?.0)
            }));
        }
    }
    for (inputs, groups) in [(&[&[40usize, 6][..], &[6, 5, 3, 3], &[5]], 1), (&[&[40, 6], &[6, 1, 3, 3], &[6]], 6)] {
        cases.push(case("conv_transpose2d", inputs, move |t, v| {
            Ok(t.conv_transpose2d(&v[0], map, &v[1], Some(&v[2]), &strided, [1, 0], groups)?.0)
        }));
    }
    cases
}

/// Value and gradients of a case.
fn run(case: &Case, dtype: DType, device: &Device, precision: Precision) -> Result<Vec<Vec<f64>>> {
    let dropout = Dropout { seed: 3, step: 1, examples: (0..case.examples).collect() };
    let dropout = (case.examples > 0).then_some(dropout);
    let tape =
        Tape::new(TapeOptions { precision, dropout, recording: true, parallel_ops: true, ..TapeOptions::default() });
    let values: Vec<Value> = case
        .inputs
        .iter()
        .map(|x| Ok(tape.variable(x.to_dtype(DType::F32)?.to_dtype(dtype)?.to_device(device)?)))
        .collect::<Result<_>>()?;
    let output = (case.op)(&tape, &values)?;
    let mut all = vec![flat(output.tensor())];
    let seed = output.tensor().affine(0.5, 0.25)?;
    let gradients = tape.backward_from(vec![(output, seed)])?;
    // An op that is constant in an input gives it no gradient.
    all.extend(values.iter().map(|value| gradients.of(value).map_or_else(Vec::new, flat)));
    Ok(all)
}

/// The CUDA device, where this build and this machine have one.
fn cuda() -> Option<Device> {
    if cfg!(feature = "cuda") { Device::new_cuda(0).ok() } else { None }
}

fn devices() -> Vec<Device> {
    let cuda = cuda();
    if cuda.is_none() {
        // Past the harness's capture, so that it is seen.
        let text = b"skipped: no CUDA device, so the ops are compared on the CPU alone\n";
        std::io::Write::write_all(&mut std::io::stderr(), text).unwrap();
    }
    std::iter::once(Device::Cpu).chain(cuda).collect()
}

#[test]
fn every_op_on_every_device_and_in_every_precision() {
    let mut failures = Vec::new();
    let precisions = [(Precision::F32, 2e-5), (Precision::Bf16, 3e-2), (Precision::F16, 5e-3)];
    for device in devices() {
        for case in cases() {
            let exact = run(&case, DType::F64, &Device::Cpu, Precision::F32).unwrap();
            for (precision, tolerance) in precisions {
                let what = format!("{} in {precision:?} on {:?}", case.name, device.location());
                let found = match run(&case, DType::F32, &device, precision) {
                    Ok(found) => found,
                    Err(error) => {
                        failures.push(format!("{what}: {error}"));
                        continue;
                    }
                };
                for (i, (found, exact)) in found.iter().zip(&exact).enumerate() {
                    assert_eq!(found.len(), exact.len(), "{what}: result {i}");
                    let scale = exact.iter().fold(1.0, |max: f64, x| max.max(x.abs()));
                    let worst = found.iter().zip(exact).map(|(a, e)| (a - e).abs()).fold(0.0, f64::max);
                    if worst.is_nan() || worst > tolerance * scale {
                        failures.push(format!("{what}: result {i} is off by {worst}, largest {scale}"));
                    }
                }
            }
        }
    }
    // All of them: a GPU is rarely at hand.
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The same steps on every device.
#[test]
fn optimizers_on_every_device() {
    for method in [Method::ADAMW, Method::ADAM, Method::Sgd { nesterov: true }] {
        let trained = |device: &Device| {
            let tensor = |name: &str| normal(name, &[40, 9]).to_dtype(DType::F32).unwrap().to_device(device).unwrap();
            let parameter = Parameter::new("p", tensor("start"), true);
            let mut optimizer = Optimizer::new(method);
            for step in 0..4 {
                let gradient = tensor(&format!("gradient {step}"));
                let settings = StepSettings { lr: 0.01, momentum: 0.9, weight_decay: 0.1 };
                optimizer.step(&parameter, &gradient, &settings).unwrap();
            }
            flat(&parameter.tensor())
        };
        let expected = trained(&Device::Cpu);
        for device in devices() {
            let worst = trained(&device).iter().zip(&expected).map(|(a, e)| (a - e).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-5, "{method:?} on {:?} is off by {worst}", device.location());
        }
    }
}

/// A new op has a case here.
#[test]
fn no_op_is_left_out() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ops");
    let activations = ["relu", "gelu", "gelu_tanh", "tanh", "sigmoid", "silu", "relu6", "hard_sigmoid", "hard_swish"];
    let known: Vec<&str> = cases().iter().map(|case| case.name).chain(activations).collect();
    let mut ops = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in source.lines().filter_map(|line| line.trim().strip_prefix("pub fn ")) {
            let name = line.split(['(', '<']).next().unwrap();
            assert!(known.contains(&name), "the op {name} has no case in devices.rs");
            ops += 1;
        }
    }
    assert!(ops > 30);
}
