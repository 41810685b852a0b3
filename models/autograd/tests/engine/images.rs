//! Ops on feature maps against torch's numbers (tests/reference/make_convolution.py), and against finite differences.

use fthost_autograd::{Activation, DType, Device, Map, Result, Tape, TapeOptions, Tensor, Value, Window, check};
use serde_json::Value as Json;

use super::{assert_close, flat};

/// One of torch's.
struct Case(Json);

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/reference/convolution.json");
    let all: Vec<Json> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(all.len() > 70);
    all.into_iter().map(Case).collect()
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn sizes<const N: usize>(json: &Json) -> [usize; N] {
    let all: Vec<usize> = json.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect();
    all.try_into().unwrap()
}

impl Case {
    fn op(&self) -> &str {
        self.0["op"].as_str().unwrap()
    }

    fn name(&self) -> String {
        let mut options = self.0.as_object().unwrap().clone();
        ["output", "gradients", "running"].iter().for_each(|key| drop(options.remove(*key)));
        Json::Object(options).to_string()
    }

    fn map(&self) -> Map {
        let [images, height, width] = sizes(&self.0["map"]);
        Map::new(images, height, width)
    }

    /// What the script's `wave` gives, and of a norm's weight 1 + half of it.
    fn inputs(&self) -> Vec<Tensor> {
        let tensor = |(k, dims): (usize, &Json)| {
            let dims: Vec<usize> = dims.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect();
            let wave = wave(k, dims.iter().product());
            let values = match self.op() {
                op if k == 1 && op.contains("norm") => wave.iter().map(|x| 1.0 + x / 2.0).collect(),
                "relu" | "relu6" | "hard_swish" | "hard_sigmoid" | "silu" | "identity" => {
                    wave.iter().map(|x| 4.0 * x).collect()
                }
                _ => wave,
            };
            Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
        };
        self.0["dims"].as_array().unwrap().iter().enumerate().map(tensor).collect()
    }

    fn window(&self) -> Window {
        let window = &self.0["window"];
        Window {
            kernel: sizes(&window["kernel"]),
            stride: sizes(&window["stride"]),
            padding: [sizes(&window["padding"][0]), sizes(&window["padding"][1])],
            dilation: sizes(&window["dilation"]),
            ceil_mode: window["ceil"].as_bool().unwrap(),
        }
    }

    fn groups(&self) -> usize {
        self.0["groups"].as_u64().unwrap() as usize
    }

    fn size(&self) -> [usize; 2] {
        sizes(&self.0["size"])
    }

    fn activation(&self) -> Activation {
        match self.0["activation"].as_str().unwrap_or(self.op()) {
            "identity" => Activation::Identity,
            "relu" => Activation::Relu,
            "relu6" => Activation::Relu6,
            "hard_swish" => Activation::HardSwish,
            "hard_sigmoid" => Activation::HardSigmoid,
            "silu" => Activation::Silu,
            other => panic!("{other}"),
        }
    }

    /// The running statistics that the script begins with.
    fn running(&self, like: &Value) -> [Tensor; 2] {
        let channels = like.dims()[0];
        let mean = wave(3, channels).iter().map(|x| x / 4.0).collect();
        let variance = wave(4, channels).iter().map(|x| 1.0 + x / 2.0).collect();
        [mean, variance]
            .map(|x: Vec<f64>| Tensor::from_vec(x, channels, &Device::Cpu).unwrap().to_dtype(like.dtype()).unwrap())
    }

    fn run(&self, tape: &Tape, v: &[Value]) -> Result<Value> {
        let map = self.map();
        let (y, output) = match self.op() {
            "conv2d" => tape.conv2d(&v[0], map, &v[1], v.get(2), &self.window(), self.groups())?,
            "conv_transpose2d" => {
                let extra = sizes(&self.0["output_padding"]);
                tape.conv_transpose2d(&v[0], map, &v[1], v.get(2), &self.window(), extra, self.groups())?
            }
            "max_pool2d" => tape.max_pool2d(&v[0], map, &self.window())?,
            "avg_pool2d" => {
                let include = self.0["count_include_pad"].as_bool().unwrap();
                tape.avg_pool2d(&v[0], map, &self.window(), include)?
            }
            "adaptive_avg_pool2d" => tape.adaptive_avg_pool2d(&v[0], map, self.size())?,
            "upsample_nearest2d" => tape.upsample_nearest2d(&v[0], map, self.size())?,
            "upsample_bilinear2d" => {
                tape.upsample_bilinear2d(&v[0], map, self.size(), self.0["align_corners"].as_bool().unwrap())?
            }
            "unfold" => tape.unfold(&v[0], map, &self.window())?,
            "batch_norm" => {
                let [mean, variance] = self.running(&v[1]);
                let y = tape.batch_norm(&v[0], &v[1], &v[2], &mean, &variance, 1e-3, self.activation())?;
                (y, map)
            }
            "batch_norm_training" => {
                let (y, batch) = tape.batch_norm_training(&v[0], &v[1], &v[2], 1e-3, self.activation())?;
                let [mean, variance] = self.running(&v[1]);
                let (mean, variance) = batch.update(&mean, &variance, 0.1)?;
                let expected = &self.0["running"];
                assert_close(&flat(&mean), &numbers(&expected[0]), 1e-6);
                assert_close(&flat(&variance), &numbers(&expected[1]), 1e-6);
                (y, map)
            }
            "group_norm" => (tape.group_norm(&v[0], map, self.groups(), &v[1], &v[2], 1e-5)?, map),
            _ => (tape.activation(&v[0], self.activation())?, map),
        };
        assert_eq!(output.size(), self.size(), "{}", self.name());
        Ok(y)
    }
}

fn wave(k: usize, count: usize) -> Vec<f64> {
    (0..count).map(|i| (12.9898 * (i as f64 + 1.0) + 78.233 * k as f64).sin()).collect()
}

#[test]
fn every_result_and_gradient_is_torchs() {
    for case in cases() {
        // Torch's sixth of the hard sigmoid's derivative is that of a float.
        let exact = if case.name().contains("hard_sigmoid") { 1e-8 } else { 1e-9 };
        for (dtype, tolerance) in [(DType::F64, exact), (DType::F32, 1e-5)] {
            for parallel_ops in [false, true] {
                let tape = Tape::new(TapeOptions { recording: true, parallel_ops, ..TapeOptions::default() });
                let values: Vec<Value> =
                    case.inputs().iter().map(|x| tape.variable(x.to_dtype(dtype).unwrap())).collect();
                let y = case.run(&tape, &values).unwrap_or_else(|error| panic!("{}: {error}", case.name()));
                let seed = (0..y.tensor().elem_count()).map(|i| (i as f64).cos()).collect();
                let seed = Tensor::from_vec(seed, y.dims(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
                let gradients = tape.backward_from(vec![(y.clone(), seed)]).unwrap();
                let check = |what: &str, found: &Tensor, expected: &Json| {
                    let (found, expected) = (flat(found), numbers(expected));
                    assert_eq!(found.len(), expected.len(), "{what} of {}", case.name());
                    let scale = expected.iter().fold(1.0, |max: f64, x| max.max(x.abs()));
                    let worst = found.iter().zip(&expected).map(|(a, e)| (a - e).abs()).fold(0.0, f64::max);
                    assert!(worst <= tolerance * scale, "{what} in {dtype:?} of {} is off by {worst}", case.name());
                };
                check("the output", y.tensor(), &case.0["output"]);
                for (i, value) in values.iter().enumerate() {
                    check(&format!("gradient {i}"), gradients.of(value).unwrap(), &case.0["gradients"][i]);
                }
            }
        }
    }
}

#[test]
fn every_gradient_agrees_with_finite_differences() {
    for case in cases() {
        check::gradients(&case.inputs(), |tape, v| case.run(tape, v))
            .unwrap_or_else(|error| panic!("{}: {error}", case.name()));
    }
}
