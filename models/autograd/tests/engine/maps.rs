//! Laws of the ops on feature maps: their fast forms on the CPU against the composites, at sizes where products are blocked; the same
//! bits at any number of threads; weights at rest; what is not asked for is not computed.

use std::sync::Arc;

use fthost_autograd::random::Stream;
use fthost_autograd::{
    Activation, DType, Device, Epilogue, Gradient, Map, Parameter, Precision, Reading, Result, ScaleShift, Source,
    Tape, TapeOptions, Tensor, Value, Window,
};
use proptest::prelude::*;

use super::{flat, normal};

type Op<'a> = dyn Fn(&Tape, &[Value]) -> Result<Value> + Sync + 'a;

/// Value and gradients.
fn run(options: TapeOptions, inputs: &[Tensor], op: &Op<'_>) -> Vec<Vec<f64>> {
    let tape = Tape::new(TapeOptions { recording: true, ..options });
    let values: Vec<Value> = inputs.iter().map(|x| tape.variable(x.clone())).collect();
    let y = op(&tape, &values).unwrap();
    let seed = normal("seed", y.dims()).to_dtype(y.dtype()).unwrap();
    let mut all = vec![flat(y.tensor())];
    let gradients = tape.backward_from(vec![(y, seed)]).unwrap();
    all.extend(values.iter().map(|x| flat(gradients.of(x).unwrap())));
    all
}

/// How far the `f32` form is from the `f64` composite, of the largest element.
fn error(options: TapeOptions, inputs: &[Tensor], op: &Op<'_>) -> f64 {
    let floats: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F32).unwrap()).collect();
    let wide: Vec<Tensor> = floats.iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();
    let exact = run(TapeOptions::default(), &wide, op);
    let of = |(found, exact): (&Vec<f64>, &Vec<f64>)| {
        assert_eq!(found.len(), exact.len());
        let scale = exact.iter().fold(1.0, |max: f64, x| max.max(x.abs()));
        found.iter().zip(exact).map(|(a, e)| (a - e).abs()).fold(0.0, f64::max) / scale
    };
    run(options, &floats, op).iter().zip(&exact).map(of).fold(0.0, f64::max)
}

fn windows() -> impl Strategy<Value = Window> {
    let pair = |range: std::ops::Range<usize>| (range.clone(), range).prop_map(|(a, b)| [a, b]);
    (pair(1..5), pair(1..4), pair(0..3), pair(0..3), pair(1..3)).prop_map(|(kernel, stride, above, below, dilation)| {
        Window { stride, padding: [[above[0], below[0]], [above[1], below[1]]], dilation, ..Window::new(kernel) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn convolutions_agree_with_the_composite(
        window in windows(), images in 1usize..3, height in 1usize..14, width in 1usize..14,
        channels in 1usize..70, out in 1usize..70, depthwise: bool, parallel_ops: bool, low: bool, activation in 0usize..3,
    ) {
        let map = Map::new(images, height, width);
        prop_assume!(window.output(map).is_ok());
        let (out, groups) = if depthwise { (channels, channels) } else { (out, 1) };
        let [kh, kw] = window.kernel;
        let inputs = [
            normal("x", &[map.rows(), channels]), normal("w", &[out, channels / groups, kh, kw]), normal("b", &[out]),
        ];
        let activation = [Activation::Identity, Activation::Relu6, Activation::Silu][activation];
        let scale_shift = |like: &Value| ScaleShift {
            scale: normal("scale", &[out]).to_dtype(like.dtype()).unwrap(),
            shift: normal("shift", &[out]).to_dtype(like.dtype()).unwrap(),
        };
        let precision = if low { Precision::Bf16 } else { Precision::F32 };
        let tolerance = if low && !depthwise { 2e-2 } else { 1e-5 };
        let options = TapeOptions { precision, parallel_ops, ..TapeOptions::default() };
        // In low precision a rectifier's corner may lie on the other side.
        let activation = if low { Activation::Identity } else { activation };
        let off = error(options.clone(), &inputs, &|tape, v| {
            let norm = scale_shift(&v[0]);
            let epilogue = Epilogue { bias: Some(&v[2]), norm: Some(&norm), activation };
            Ok(tape.conv2d_epilogue(&v[0], map, &v[1], &window, groups, epilogue)?.0)
        });
        prop_assert!(off < tolerance, "off by {}", off);
        if groups == 1 || depthwise {
            let weight = normal("w", &[channels, out / groups, kh, kw]);
            let [x, _, bias] = inputs;
            let off = error(options, &[x, weight, bias], &|tape, v| {
                match tape.conv_transpose2d(&v[0], map, &v[1], Some(&v[2]), &window, [0, 0], groups) {
                    Ok((y, _)) => Ok(y),
                    // All of it was padding.
                    Err(_) => tape.mul(&tape.mul(&tape.sum(&v[0])?, &tape.sum(&v[1])?)?, &tape.sum(&v[2])?),
                }
            });
            prop_assert!(off < 10.0 * tolerance, "transposed: off by {}", off);
        }
    }

    #[test]
    fn poolings_and_norms_agree_with_the_composite(
        window in windows(), ceil_mode: bool, images in 1usize..4, height in 2usize..30, width in 2usize..30,
        channels in 1usize..40, parallel_ops: bool, training: bool, activation in 0usize..3,
    ) {
        let map = Map::new(images, height, width);
        let window = Window { ceil_mode, ..window };
        let options = TapeOptions { parallel_ops, ..TapeOptions::default() };
        let x = normal("x", &[map.rows(), channels]);
        let pools = Tape::evaluation().max_pool2d(&Value::constant(x.clone()), map, &window).is_ok();
        if pools {
            let off = error(options.clone(), std::slice::from_ref(&x), &|t, v| Ok(t.max_pool2d(&v[0], map, &window)?.0));
            prop_assert!(off < 1e-5, "max_pool2d: off by {}", off);
            let off = error(options.clone(), std::slice::from_ref(&x), &|t, v| Ok(t.avg_pool2d(&v[0], map, &window, training)?.0));
            prop_assert!(off < 1e-5, "avg_pool2d: off by {}", off);
        }
        if window.output(map).is_ok() {
            let off = error(options.clone(), std::slice::from_ref(&x), &|t, v| Ok(t.unfold(&v[0], map, &window)?.0));
            prop_assert!(off < 1e-5, "unfold: off by {}", off);
        }
        let off = error(options.clone(), std::slice::from_ref(&x), &|t, v| {
            Ok(t.upsample_bilinear2d(&v[0], map, [width, height + 3], training)?.0)
        });
        prop_assert!(off < 1e-5, "upsample_bilinear2d: off by {}", off);
        let activation = [Activation::Identity, Activation::Relu, Activation::HardSwish][activation];
        // Far from zero, where sums of squares would cancel.
        let inputs = [x.affine(1.0, 30.0).unwrap(), normal("w", &[channels]), normal("b", &[channels])];
        let off = error(options, &inputs, &|t, v| {
            if training {
                return Ok(t.batch_norm_training(&v[0], &v[1], &v[2], 1e-3, activation)?.0);
            }
            let of = |x: Tensor| x.to_dtype(v[0].dtype());
            let mean = of(normal("mean", &[channels]).affine(1.0, 30.0)?)?;
            let variance = of(normal("variance", &[channels]).sqr()?.affine(1.0, 0.1)?)?;
            t.batch_norm(&v[0], &v[1], &v[2], &mean, &variance, 1e-3, activation)
        });
        prop_assert!(off < 1e-4, "batch norm: off by {}", off);
    }
}

fn floats(seed: u64, dims: &[usize]) -> Tensor {
    let mut values = vec![0f32; dims.iter().product()];
    Stream::keyed(seed, &[5]).fill_uniform(&mut values, -1.0, 1.0);
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// Large enough to be split, and with several blocks along k.
#[test]
fn the_bits_are_the_same_at_any_number_of_threads() {
    let map = Map::new(3, 23, 19);
    let ops: [(&[&[usize]], &Op<'_>); 5] = [
        (&[&[map.rows(), 48], &[40, 48, 3, 3]], &|t, v| {
            Ok(t.conv2d(&v[0], map, &v[1], None, &Window::square(3).padding(1), 1)?.0)
        }),
        (&[&[map.rows(), 48], &[40, 48, 3, 3]], &|t, v| {
            Ok(t.conv2d(&v[0], map, &v[1], None, &Window::square(3).stride(2), 1)?.0)
        }),
        (&[&[map.rows(), 40], &[40, 1, 3, 3]], &|t, v| {
            Ok(t.conv2d(&v[0], map, &v[1], None, &Window::square(3).padding(1), 40)?.0)
        }),
        (&[&[map.rows(), 40], &[40], &[40]], &|t, v| {
            Ok(t.batch_norm_training(&v[0], &v[1], &v[2], 1e-5, Activation::Relu)?.0)
        }),
        (&[&[map.rows(), 40]], &|t, v| {
            let (y, map) = t.max_pool2d(&v[0], map, &Window::square(3).stride(2))?;
            t.global_avg_pool2d(&y, map)
        }),
    ];
    for (shapes, op) in ops {
        let inputs: Vec<Tensor> = shapes.iter().zip(1..).map(|(dims, seed)| floats(seed, dims)).collect();
        for precision in [Precision::F32, Precision::Bf16] {
            let of = |parallel_ops, threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| run(TapeOptions { precision, parallel_ops, ..TapeOptions::default() }, &inputs, op))
            };
            let alone = of(false, 1);
            for threads in [1, 2, 3, 7] {
                assert!(alone == of(true, threads), "{precision:?} at {threads} threads");
            }
        }
    }
}

#[derive(Debug)]
struct Elements(Vec<f32>);

impl Source for Elements {
    fn read(&self, start: usize, into: &mut [f32]) {
        into.copy_from_slice(&self.0[start..][..into.len()]);
    }
}

/// The same weight at rest, held, and as no parameter at all: one result, one gradient of the input.
#[test]
fn a_convolution_at_rest_computes_what_a_held_one_does() {
    let window = Window::square(3).padding(1);
    let map = Map::new(2, 9, 7);
    for (channels, out, groups) in [(16, 24, 1), (3, 10, 1), (13, 7, 1), (64, 64, 1), (24, 24, 24)] {
        for (precision, window) in
            [(Precision::F32, window), (Precision::Bf16, window), (Precision::Bf16, window.stride(2))]
        {
            let dims = [out, channels / groups, 3, 3];
            let values = floats(1, &dims);
            let source = Arc::new(Elements(values.flatten_all().unwrap().to_vec1().unwrap()));
            let rest = Parameter::at_rest("weight", &dims, source, Reading::Products, false);
            let mut seen = Vec::new();
            rest.prepare(precision, |values| seen.extend_from_slice(values)).unwrap();
            assert_eq!(seen, values.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            let held = Parameter::new("weight", values.clone(), false);
            let of = |weight: &(dyn Fn(&Tape) -> Value + Sync)| {
                let x = floats(2, &[map.rows(), channels]);
                run(TapeOptions { precision, ..TapeOptions::default() }, &[x], &|tape, v| {
                    Ok(tape.conv2d(&v[0], map, &weight(tape), None, &window, groups)?.0)
                })
            };
            let plain = of(&|_| Value::constant(values.clone()));
            assert!(plain == of(&|tape| tape.parameter(&rest)), "{dims:?} at rest in {precision:?}");
            assert!(plain == of(&|tape| tape.parameter(&held)), "{dims:?} held in {precision:?}");
            assert!(rest.verify(|_| {}).unwrap());
        }
    }
}

#[test]
fn only_what_trains_gets_a_gradient() {
    let map = Map::new(1, 5, 5);
    let window = Window::square(3);
    let (frozen, trained) = (floats(1, &[4, 3, 3, 3]), floats(2, &[4]));
    let (frozen, trained) = (Parameter::new("w", frozen, false), Parameter::new("b", trained, true));
    let tape = Tape::recording();
    let x = Value::constant(floats(3, &[25, 3]));
    let (y, _) = tape.conv2d(&x, map, &tape.parameter(&frozen), Some(&tape.parameter(&trained)), &window, 1).unwrap();
    let gradients = tape.backward_from(vec![(y.clone(), y.tensor().ones_like().unwrap())]).unwrap();
    assert!(gradients.get(&frozen).is_none());
    let Some(Gradient::Dense(bias)) = gradients.get(&trained) else { panic!("a dense gradient") };
    assert_eq!(flat(bias), [9.0; 4]);

    let tape = Tape::recording();
    let (y, map) = tape.conv2d(&x, map, &tape.parameter(&frozen), None, &window, 1).unwrap();
    let y = tape.max_pool2d(&y, map, &Window::square(2)).unwrap().0;
    assert!(!y.requires_grad());
    assert_eq!(format!("{tape:?}"), "Tape(0 nodes)");
}

/// PEFT's LoRA on a convolution: A `[rank, in, k, k]` moves as the layer does, B `[out, rank, 1, 1]` is pointwise. Merged into the weight
/// it computes the same, and so do products with patches made real.
#[test]
fn low_rank_updates_of_convolutions_merge() {
    let map = Map::new(2, 8, 6);
    let window = Window::square(3).stride(2).padding(1);
    let [x, w, a, b] =
        [&[96, 5][..], &[7, 5, 3, 3], &[2, 5, 3, 3], &[7, 2, 1, 1]].map(|dims| normal(&format!("{dims:?}"), dims));
    let merged = (b.reshape((7, 2)).unwrap().matmul(&a.reshape((2, 45)).unwrap()).unwrap() * 0.5).unwrap();
    let merged = (&w + merged.reshape((7, 5, 3, 3)).unwrap()).unwrap();
    let tape = Tape::evaluation();
    let [x, w, a, b, merged] = [x, w, a, b, merged].map(Value::constant);
    let (expected, _) = tape.conv2d(&x, map, &merged, None, &window, 1).unwrap();
    let (y, output) = tape.conv2d(&x, map, &w, None, &window, 1).unwrap();
    let (h, _) = tape.conv2d(&x, map, &a, None, &window, 1).unwrap();
    let (update, _) = tape.conv2d(&h, output, &b, None, &Window::square(1), 1).unwrap();
    let by_convolutions = tape.add(&y, &tape.affine(&update, 0.5, 0.0).unwrap()).unwrap();
    let (patches, _) = tape.unfold(&x, map, &window).unwrap();
    let (a, b) = (tape.reshape(&a, &[2, 45]).unwrap(), tape.reshape(&b, &[7, 2]).unwrap());
    let by_patches = tape.low_rank(y, &patches, &a, &b, 0.5).unwrap();
    super::assert_close(&flat(by_convolutions.tensor()), &flat(expected.tensor()), 1e-12);
    super::assert_close(&flat(by_patches.tensor()), &flat(expected.tensor()), 1e-12);
}

#[test]
fn mistakes_are_named() {
    let tape = Tape::evaluation();
    let map = Map::new(2, 5, 4);
    let value = |dims: &[usize]| Value::constant(floats(1, dims));
    let (x, window) = (value(&[40, 6]), Window::square(3));
    let says = |result: Result<(Value, Map)>, what: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    says(tape.conv2d(&value(&[39, 6]), map, &value(&[4, 6, 3, 3]), None, &window, 1), "[40, channels], got [39, 6]");
    says(tape.conv2d(&x, map, &value(&[4, 5, 3, 3]), None, &window, 1), "[out, 6 / 1, 3, 3], got [4, 5, 3, 3]");
    says(tape.conv2d(&x, map, &value(&[4, 3, 3, 3]), None, &window, 4), "in 4 groups");
    says(tape.conv2d(&x, map, &value(&[4, 6, 3, 3]), Some(&value(&[3])), &window, 1), "[3]");
    says(tape.conv2d(&x, map, &value(&[4, 6, 5, 5]), None, &Window::square(5), 1), "does not fit a map of 5 x 4");
    says(tape.conv_transpose2d(&x, map, &value(&[5, 4, 3, 3]), None, &window, [0, 0], 1), "[6, out / groups, kh, kw]");
    says(tape.conv_transpose2d(&x, map, &value(&[6, 4, 3, 3]), None, &window, [1, 0], 1), "output padding of 1");
    says(tape.max_pool2d(&x, map, &Window::square(1).padding(1)), "outside its map");
    says(tape.upsample_nearest2d(&x, map, [0, 3]), "cannot become");
    let (one, three) = (value(&[1, 6]), value(&[6]));
    let error = tape.batch_norm_training(&one, &three, &three, 1e-5, Activation::Identity).unwrap_err().to_string();
    assert!(error.contains("more than one value"), "{error}");
    assert!(tape.group_norm(&x, map, 4, &three, &three, 1e-5).is_err());
}
