//! Dropout's masks: their rate, and that they depend on the example alone.

use fthost_autograd::{DType, Device, Dropout, Layout, Tape, TapeOptions, Tensor, Value, check};

use super::flat;

const WIDTH: usize = 13;

fn tape(seed: u64, step: u64, examples: &[u64]) -> Tape {
    let dropout = Some(Dropout { seed, step, examples: examples.to_vec() });
    Tape::new(TapeOptions { dropout, recording: true, ..TapeOptions::default() })
}

fn ones(dims: &[usize]) -> Value {
    Value::constant(Tensor::ones(dims, DType::F32, &Device::Cpu).unwrap())
}

/// Two masks of packed sequences of these lengths, of one row per sequence, and by the flat index.
fn masks(examples: &[u64], lengths: &[usize], dtype: DType) -> [Vec<f64>; 4] {
    let tape = tape(3, 5, examples);
    let layout = Layout::from_lengths(lengths.iter().copied());
    tape.set_layout(layout.clone());
    let drop = |dims: &[usize]| {
        let x = Value::constant(ones(dims).tensor().to_dtype(dtype).unwrap());
        flat(tape.dropout(&x, 0.5).unwrap().tensor())
    };
    let tokens = layout.tokens();
    [drop(&[tokens, WIDTH]), drop(&[tokens, WIDTH]), drop(&[lengths.len(), WIDTH]), drop(&[31, 2])]
}

#[test]
fn halves_give_the_masks_of_the_whole() {
    let whole = masks(&[0, 1, 2, 3], &[3, 1, 4, 2], DType::F32);
    let first = masks(&[0, 1], &[3, 1], DType::F32);
    let second = masks(&[2, 3], &[4, 2], DType::F32);
    for i in 0..3 {
        assert_eq!(whole[i], [first[i].as_slice(), &second[i]].concat());
    }
    assert_eq!(whole[3], first[3]);
    assert_eq!(whole[3], second[3]);
    assert_ne!(whole[0], whole[1], "each op has a mask of its own");
    assert_eq!(whole, masks(&[0, 1, 2, 3], &[3, 1, 4, 2], DType::F64), "the composite draws the same");
}

#[test]
fn without_a_layout_rows_are_examples() {
    let run = |examples: &[u64]| {
        flat(tape(0, 0, examples).dropout(&ones(&[examples.len(), 2, WIDTH]), 0.3).unwrap().tensor())
    };
    assert_eq!(run(&[7, 8, 9]), [run(&[7]), run(&[8, 9])].concat());
}

#[test]
fn seeds_and_steps_change_the_mask() {
    let run = |seed, step| flat(tape(seed, step, &[0]).dropout(&ones(&[1, 64]), 0.5).unwrap().tensor());
    assert_eq!(run(1, 1), run(1, 1));
    assert_ne!(run(1, 1), run(1, 2));
    assert_ne!(run(1, 1), run(2, 1));
}

#[test]
fn the_rate_and_the_scale_are_right() {
    let y = flat(tape(0, 0, &[0]).dropout(&ones(&[1, 100_000]), 0.1).unwrap().tensor());
    let dropped = y.iter().filter(|y| **y == 0.0).count();
    assert!((9_600..10_400).contains(&dropped), "{dropped}");
    assert!(y.iter().all(|y| *y == 0.0 || (*y - 1.0 / 0.9).abs() < 1e-6));
    let run = |p| flat(tape(0, 0, &[0]).dropout(&ones(&[1, 100]), p).unwrap().tensor());
    assert_eq!(run(0.0), [1.0; 100]);
    assert_eq!(run(1.0), [0.0; 100]);
    assert_eq!(flat(Tape::recording().dropout(&ones(&[1, 9]), 0.9).unwrap().tensor()), [1.0; 9]);
}

#[test]
fn the_gradient_passes_the_same_mask() {
    let x = super::normal("x", &[2, 7]);
    for dtype in [DType::F32, DType::F64] {
        let tape = tape(0, 0, &[0, 1]);
        let variable = tape.variable(Tensor::ones(&[2, 7], dtype, &Device::Cpu).unwrap());
        let y = tape.dropout(&variable, 0.4).unwrap();
        let mask = flat(y.tensor());
        let loss = tape.sum(&y).unwrap();
        assert_eq!(flat(tape.backward(&loss).unwrap().of(&variable).unwrap()), mask);
    }
    // Identity without options, so finite differences see it too.
    check::gradients(&[x], |tape, v| tape.dropout(&v[0], 0.5)).unwrap();
}

#[test]
fn mistakes_are_named() {
    let tape = tape(0, 0, &[0, 1]);
    tape.set_layout(Layout::single_rows(3));
    assert!(tape.dropout(&ones(&[3, 2]), 0.5).unwrap_err().to_string().contains("3 sequences"));
    assert!(tape.dropout(&ones(&[3, 2]), 1.5).unwrap_err().to_string().contains("probability"));
}
