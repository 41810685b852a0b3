//! The laws of tapes and gradients.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fthost_autograd::{DType, Device, Dropout, Gradient, Parameter, Tape, TapeOptions, Tensor, Value};

use super::flat;

fn parameter(name: &str, values: &[f32], trainable: bool) -> Parameter {
    Parameter::new(name, Tensor::new(values, &Device::Cpu).unwrap(), trainable)
}

fn dense(gradient: Option<&Gradient>) -> Vec<f64> {
    match gradient.expect("a gradient") {
        Gradient::Dense(tensor) => flat(tensor),
        Gradient::Rows(_) => panic!("expected a dense gradient"),
    }
}

#[test]
fn a_frozen_subgraph_records_nothing() {
    let frozen = parameter("w", &[1.0, 2.0], false);
    let tape = Tape::recording();
    let w = tape.parameter(&frozen);
    let y = tape.exp(&tape.mul(&w, &w).unwrap()).unwrap();
    assert!(!y.requires_grad());
    assert_eq!(format!("{tape:?}"), "Tape(0 nodes)");
    assert!(tape.backward(&tape_sum(&y)).unwrap().is_empty());
}

fn tape_sum(y: &Value) -> Value {
    Tape::evaluation().sum(y).unwrap()
}

#[test]
fn a_parameter_by_another_name_is_the_same() {
    let own = parameter("w", &[1.0, 2.0], true);
    let other = own.renamed("text.w");
    assert_eq!((own.name(), other.name(), own.id()), ("w", "text.w", other.id()));
    let tape = Tape::recording();
    let w = tape.parameter(&own);
    let sum = tape.sum(&tape.mul(&w, &w).unwrap()).unwrap();
    let gradients = tape.backward(&sum).unwrap();
    assert_eq!(dense(gradients.get(&other)), [2.0, 4.0]);
    other.set(&Tensor::new(&[3f32, 4.0], &Device::Cpu).unwrap()).unwrap();
    other.set_trainable(false);
    assert_eq!((flat(&own.tensor()), own.trainable(), own.version()), (vec![3.0, 4.0], false, 1));
}

#[test]
fn an_evaluating_tape_records_nothing() {
    let tape = Tape::evaluation();
    let w = tape.parameter(&parameter("w", &[1.0], true));
    assert!(!tape.exp(&w).unwrap().requires_grad());
}

#[test]
fn a_frozen_operand_has_no_gradient() {
    let (a, b) = (parameter("a", &[2.0, 3.0], true), parameter("b", &[5.0, 7.0], false));
    let tape = Tape::recording();
    let y = tape.mul(&tape.parameter(&a), &tape.parameter(&b)).unwrap();
    let loss = tape.sum(&y).unwrap();
    let gradients = tape.backward(&loss).unwrap();
    assert_eq!(dense(gradients.get(&a)), [5.0, 7.0]);
    assert!(gradients.get(&b).is_none());
    assert_eq!(gradients.len(), 1);
}

/// Uses of a value share gradient tensors with one another (addition hands the same tensor to both sides), so sums must not
/// be written over what another slot holds.
#[test]
fn uses_of_a_value_sum_their_gradients() {
    let (a, b) = (parameter("a", &[2.0, 3.0], true), parameter("b", &[1.0, 1.0], true));
    let tape = Tape::recording();
    let (x, y) = (tape.parameter(&a), tape.parameter(&b));
    let mut sum = tape.add(&x, &y).unwrap(); // both get the same tensor
    for _ in 0..4 {
        sum = tape.add(&sum, &x).unwrap();
    }
    let squares = tape.square(&x).unwrap();
    let loss = tape.sum(&tape.add(&sum, &squares).unwrap()).unwrap();
    let gradients = tape.backward(&loss).unwrap();
    assert_eq!(dense(gradients.get(&a)), [5.0 + 4.0, 5.0 + 6.0]);
    assert_eq!(dense(gradients.get(&b)), [1.0, 1.0]);
}

#[test]
fn several_seeds_add_up() {
    let tape = Tape::recording();
    let x = tape.variable(Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap());
    let y = tape.affine(&x, 3.0, 0.0).unwrap();
    let seed = Tensor::new(&[1f32, 10.0], &Device::Cpu).unwrap();
    let seeds = vec![(y.clone(), seed.clone()), (y, seed.clone()), (x.clone(), seed)];
    assert_eq!(flat(tape.backward_from(seeds).unwrap().of(&x).unwrap()), [7.0, 70.0]);
}

#[test]
fn a_detached_value_passes_no_gradient() {
    let a = parameter("a", &[2.0], true);
    let tape = Tape::recording();
    let x = tape.parameter(&a);
    let y = tape.mul(&x, &tape.square(&x).unwrap().detach()).unwrap();
    assert_eq!(dense(tape.backward(&y).unwrap().get(&a)), [4.0]);
}

struct Witness(Arc<AtomicUsize>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a node saved is gone before the nodes below it run; without a trainable input it is never kept.
#[test]
fn backward_frees_nodes_as_it_goes() {
    let alive = Arc::new(AtomicUsize::new(0));
    let tape = Tape::recording();
    let mut x = tape.variable(Tensor::new(&[1f32], &Device::Cpu).unwrap());
    for depth in 0..5 {
        alive.fetch_add(1, Ordering::Relaxed);
        let (witness, count) = (Witness(alive.clone()), alive.clone());
        x = tape.record(x.tensor().clone(), &[&x], move |gradient, vjp| {
            let _held = &witness;
            assert_eq!(count.load(Ordering::Relaxed), depth + 1);
            vjp.give(0, gradient)
        });
    }
    assert_eq!(alive.load(Ordering::Relaxed), 5);
    tape.backward(&x).unwrap();
    assert_eq!(alive.load(Ordering::Relaxed), 0);

    alive.store(1, Ordering::Relaxed);
    let witness = Witness(alive.clone());
    let constant = Value::constant(x.tensor().clone());
    Tape::recording().record(x.into_tensor(), &[&constant], move |gradient, vjp| {
        let _held = &witness;
        vjp.give(0, gradient)
    });
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

/// What one thread records another may take back, and what it drops out is counted on from where another tape stands.
#[test]
fn a_tape_goes_from_thread_to_thread() {
    let x = || Tensor::ones((4, 8), DType::F32, &Device::Cpu).unwrap();
    let options = || {
        let dropout = Some(Dropout { seed: 7, step: 3, examples: vec![0, 1, 2, 3] });
        TapeOptions { recording: true, dropout, ..TapeOptions::default() }
    };
    let whole = Tape::new(options());
    let first = whole.dropout(&whole.variable(x()), 0.5).unwrap();
    let second = whole.dropout(&first, 0.5).unwrap();

    let (tape, from, to) = std::thread::spawn(move || {
        let tape = Tape::new(options());
        let from = tape.variable(x());
        let to = tape.dropout(&from, 0.5).unwrap();
        (tape, from, to)
    })
    .join()
    .unwrap();
    assert_eq!(flat(to.tensor()), flat(first.tensor()));
    let head = Tape::new(options());
    head.set_dropouts(tape.dropouts());
    assert_eq!(flat(head.dropout(&to.detach(), 0.5).unwrap().tensor()), flat(second.tensor()));
    let gradients = tape.backward_from(vec![(to, x())]).unwrap();
    assert_eq!(flat(gradients.of(&from).unwrap()), flat(first.tensor()));
}

#[test]
fn gradients_accumulate_and_scale_without_touching_others() {
    let a = parameter("a", &[1.0, 2.0], true);
    let pass = |factor: f64| {
        let tape = Tape::recording();
        let loss = tape.sum(&tape.affine(&tape.parameter(&a), factor, 0.0).unwrap()).unwrap();
        tape.backward(&loss).unwrap()
    };
    let (mut sum, first) = (pass(1.0), pass(2.0));
    let Some(Gradient::Dense(before)) = sum.get(&a).cloned() else { panic!("expected a dense gradient") };
    sum.accumulate(first, true).unwrap();
    sum.accumulate(pass(4.0), false).unwrap();
    sum.scale(0.5).unwrap();
    sum.add(&a, Tensor::new(&[1f32, -1.0], &Device::Cpu).unwrap()).unwrap();
    assert_eq!(dense(sum.get(&a)), [4.5, 2.5]);
    assert_eq!(flat(&before), [1.0, 1.0]);
    assert!((sum.norm().unwrap() - 26.5f64.sqrt()).abs() < 1e-12);
}

/// Row gradients of an op of our own: pieces of rows, dense parts, both orders.
#[test]
fn row_gradients_join_dense_ones() {
    let table = Parameter::new("t", Tensor::zeros((3, 2), fthost_autograd::DType::F32, &Device::Cpu).unwrap(), true);
    let rows = |tape: &Tape, x: &Value| {
        let output = x.tensor().clone();
        tape.record(output, &[x], |_, vjp| {
            let ids = Tensor::new(&[2u32, 0, 2], &Device::Cpu)?;
            let rows = Tensor::new(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu)?;
            vjp.give_rows(0, ids, rows, &[3, 2])
        })
    };
    let once = [3.0, 4.0, 0.0, 0.0, 6.0, 8.0];
    let tape = Tape::recording();
    let y = tape.sum(&rows(&tape, &tape.parameter(&table))).unwrap();
    let mut gradients = tape.backward(&y).unwrap();
    assert!(matches!(gradients.get(&table), Some(Gradient::Rows(_))));
    gradients.densify().unwrap();
    assert_eq!(dense(gradients.get(&table)), once);
    for rows_first in [false, true] {
        let tape = Tape::recording();
        let t = tape.parameter(&table);
        let (a, b) = match rows_first {
            true => (rows(&tape, &t), tape.affine(&t, 1.0, 0.0).unwrap()),
            false => {
                let dense = tape.affine(&t, 1.0, 0.0).unwrap();
                (dense, rows(&tape, &t))
            }
        };
        let loss = tape.sum(&tape.add(&a, &b).unwrap()).unwrap();
        let gradients = tape.backward(&loss).unwrap();
        assert_eq!(dense(gradients.get(&table)), once.map(|x| x + 1.0));
    }
    // A value that is no parameter gets them dense.
    let tape = Tape::recording();
    let variable = tape.variable(table.tensor().clone());
    let y = rows(&tape, &tape.affine(&variable, 2.0, 0.0).unwrap());
    let loss = tape.sum(&y).unwrap();
    assert_eq!(flat(tape.backward(&loss).unwrap().of(&variable).unwrap()), once.map(|x| 2.0 * x));
}
