//! Optimizers against torch's trajectories; their state; clipping.

use std::collections::BTreeMap;

use fthost_autograd::optim::{Method, Optimizer, StepSettings, clip_norm, clip_value, copy_in_place};
use fthost_autograd::{DType, Device, Gradient, Gradients, Parameter, Tape, Tensor};

use super::{assert_close, flat, normal};

const SGD: Method = Method::Sgd { nesterov: false };
const METHODS: [Method; 4] = [Method::ADAMW, Method::ADAM, SGD, Method::Sgd { nesterov: true }];

/// `tests/reference/make_adamw.py`'s.
fn reference() -> serde_json::Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/reference/adamw.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn trajectories_are_torchs() {
    let reference = reference();
    let cases = [
        ("adamw", Method::ADAMW, 0.1),
        ("adam", Method::ADAM, 0.0),
        ("sgd_momentum", SGD, 0.05),
        ("sgd_nesterov", Method::Sgd { nesterov: true }, 0.0),
    ];
    for (name, method, weight_decay) in cases {
        for dtype in [DType::F32, DType::F64] {
            let tensor = |values: Vec<f64>| Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let parameters =
                [0, 1].map(|i| Parameter::new(["a", "b"][i], tensor(numbers(&reference["start"][i])), true));
            let mut optimizer = Optimizer::new(method);
            let settings = StepSettings { lr: 0.01, momentum: 0.9, weight_decay };
            for t in 0..20u32 {
                let a = tensor((0..5).map(|i| f64::from(i + t).sin()).collect());
                optimizer.step(&parameters[0], &a, &settings).unwrap();
                if t >= 10 {
                    let b = tensor((0..3).map(|i| f64::from(i * t).cos()).collect());
                    optimizer.step(&parameters[1], &b, &settings).unwrap();
                }
                for (i, parameter) in parameters.iter().enumerate() {
                    let expected = numbers(&reference["after_step"][name][t as usize][i]);
                    assert_close(&flat(&parameter.tensor()), &expected, 2e-6);
                }
            }
            assert_eq!((optimizer.steps("a"), optimizer.steps("b"), optimizer.steps("c")), (20, 10, 0));
            assert_eq!((parameters[0].version(), parameters[1].version()), (20, 10));
        }
    }
}

/// Large enough to be split over threads, with an odd tail.
#[test]
fn slices_and_tensors_agree() {
    for method in METHODS {
        let (start, gradient) = (normal("p", &[150_001]), normal("g", &[150_001]));
        let [fast, slow] = [DType::F32, DType::F64].map(|dtype| {
            let parameter = Parameter::new("p", start.to_dtype(dtype).unwrap(), true);
            let gradient = gradient.to_dtype(dtype).unwrap();
            let mut optimizer = Optimizer::new(method);
            for step in 0..3 {
                let settings = StepSettings { lr: 0.01, momentum: 0.8 + 0.05 * f64::from(step), weight_decay: 0.1 };
                optimizer.step(&parameter, &gradient, &settings).unwrap();
            }
            flat(&parameter.tensor())
        });
        // Where the penalty cancels the gradient, Adam blows its rounding up: a few elements may be far, the mean may not.
        let errors: Vec<f64> = fast.iter().zip(&slow).map(|(f, s)| (f - s).abs()).collect();
        assert_close(&fast, &slow, 1e-3);
        assert!(errors.iter().sum::<f64>() / (errors.len() as f64) < 1e-7);
    }
}

#[test]
fn a_resumed_optimizer_goes_on_to_the_bit() {
    let settings = StepSettings { lr: 0.05, momentum: 0.9, weight_decay: 0.01 };
    let gradient = |t: usize| normal(&format!("g{t}"), &[3, 4]).to_dtype(DType::F32).unwrap();
    for method in METHODS {
        let parameter = || Parameter::new("layer.weight", normal("p", &[3, 4]).to_dtype(DType::F32).unwrap(), true);
        let (whole, interrupted) = (parameter(), parameter());
        let mut optimizer = Optimizer::new(method);
        (0..6).for_each(|t| optimizer.step(&whole, &gradient(t), &settings).unwrap());

        let mut first = Optimizer::new(method);
        (0..3).for_each(|t| first.step(&interrupted, &gradient(t), &settings).unwrap());
        let state = first.state().unwrap();
        let resumed = parameter();
        resumed.set(&interrupted.tensor()).unwrap();
        let mut second = Optimizer::new(method);
        second.load(&state).unwrap();
        (3..6).for_each(|t| second.step(&resumed, &gradient(t), &settings).unwrap());
        assert_eq!(flat(&whole.tensor()), flat(&resumed.tensor()));
        assert_eq!(second.steps("layer.weight"), 6);
    }
}

#[test]
fn state_has_torchs_names() {
    let parameter = Parameter::new("w", Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap(), true);
    let settings = StepSettings { lr: 0.1, momentum: 0.5, weight_decay: 0.0 };
    let gradient = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
    let keys = |method| {
        let mut optimizer = Optimizer::new(method);
        optimizer.step(&parameter, &gradient, &settings).unwrap();
        (optimizer.state().unwrap().into_keys().collect::<Vec<_>>(), optimizer)
    };
    let (adamw, optimizer) = keys(Method::ADAMW);
    assert_eq!(adamw, ["w.exp_avg", "w.exp_avg_sq", "w.step"]);
    assert_eq!(flat(&optimizer.state().unwrap()["w.exp_avg"]), [0.5, 1.0]);
    let (sgd, mut other) = keys(SGD);
    assert_eq!(sgd, ["w.momentum_buffer", "w.step"]);

    let error = other.load(&optimizer.state().unwrap()).unwrap_err().to_string();
    assert!(error.contains("w.exp_avg"), "{error}");
    let mut broken: BTreeMap<_, _> = optimizer.state().unwrap();
    broken.remove("w.exp_avg_sq");
    assert!(Optimizer::new(Method::ADAMW).load(&broken).unwrap_err().to_string().contains("w.exp_avg_sq is missing"));
}

#[test]
fn mistakes_are_named() {
    let make = || Parameter::new("w", Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap(), true);
    let settings = StepSettings { lr: 0.1, momentum: 0.0, weight_decay: 0.0 };
    let mut optimizer = Optimizer::new(SGD);
    let gradient = Tensor::ones(2, DType::F32, &Device::Cpu).unwrap();
    let kept = make();
    optimizer.step(&kept, &gradient, &settings).unwrap();
    assert!(optimizer.step(&make(), &gradient, &settings).unwrap_err().to_string().contains("two parameters"));
    let wrong = Tensor::ones(3, DType::F32, &Device::Cpu).unwrap();
    assert!(optimizer.step(&kept, &wrong, &settings).unwrap_err().to_string().contains("parameter w has shape"));
}

fn gradients_of(parameters: &[Parameter], values: &[&[f32]]) -> Gradients {
    let mut gradients = Gradients::default();
    for (parameter, values) in parameters.iter().zip(values) {
        gradients.add(parameter, Tensor::new(*values, &Device::Cpu).unwrap()).unwrap();
    }
    gradients
}

fn parameters(lengths: &[usize]) -> Vec<Parameter> {
    let zeros = |n| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
    lengths.iter().map(|n| Parameter::new("p", zeros(*n), true)).collect()
}

fn all(gradients: &Gradients) -> Vec<f64> {
    gradients.iter().flat_map(|(p, g)| flat(&g.to_dense(p.dims()).unwrap())).collect()
}

#[test]
fn clipping_is_torchs() {
    let parameters = parameters(&[2, 1]);
    let mut gradients = gradients_of(&parameters, &[&[3.0, 0.0], &[-4.0]]);
    assert_eq!(clip_norm(&mut gradients, 10.0).unwrap(), 5.0);
    assert_eq!(all(&gradients), [3.0, 0.0, -4.0]);
    assert_eq!(clip_norm(&mut gradients, 1.0).unwrap(), 5.0);
    assert_close(&all(&gradients), &[0.6, 0.0, -0.8], 1e-6);
    let mut gradients = gradients_of(&parameters, &[&[3.0, -0.5], &[-4.0]]);
    clip_value(&mut gradients, 1.0).unwrap();
    assert_eq!(all(&gradients), [1.0, -0.5, -1.0]);
}

#[test]
fn norms_of_many_elements_are_accurate() {
    let parameter = Parameter::new("p", Tensor::zeros(300_007, DType::F32, &Device::Cpu).unwrap(), true);
    let values = normal("g", &[300_007]).to_dtype(DType::F32).unwrap();
    let exact = flat(&values).iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut gradients = Gradients::default();
    gradients.add(&parameter, values).unwrap();
    assert!((gradients.norm().unwrap() / exact - 1.0).abs() < 1e-6);
}

#[test]
fn copies_in_place() {
    for dims in [&[2usize, 3][..], &[4], &[]] {
        let dst = Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
        let src = normal("x", dims);
        copy_in_place(&dst, &src).unwrap();
        assert_close(&flat(&dst), &flat(&src), 1e-6);
        assert!(copy_in_place(&dst, &normal("y", &[5])).is_err());
    }
}

/// A model of one weight, trained end to end.
#[test]
fn training_converges() {
    let w = Parameter::new("w", Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap(), true);
    let mut optimizer = Optimizer::new(Method::ADAMW);
    for _ in 0..300 {
        let tape = Tape::recording();
        let error = tape.affine(&tape.parameter(&w), 1.0, -3.0).unwrap();
        let loss = tape.sum(&tape.square(&error).unwrap()).unwrap();
        let gradients = tape.backward(&loss).unwrap();
        let Some(Gradient::Dense(gradient)) = gradients.get(&w) else { panic!("expected a dense gradient") };
        let settings = StepSettings { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
        optimizer.step(&w, gradient, &settings).unwrap();
    }
    assert_close(&flat(&w.tensor()), &[3.0], 1e-2);
}
