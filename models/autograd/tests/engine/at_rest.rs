//! Parameters at rest: what products, gathers and gradients make of them, and when they come to memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fthost_autograd::optim::{Method, Optimizer, StepSettings};
use fthost_autograd::random::Stream;
use fthost_autograd::{Activation, Device, Parameter, Precision, Reading, Source, Tape, TapeOptions, Tensor, Value};

/// Elements in memory, with a count of those that were read.
#[derive(Debug)]
struct Counted {
    elements: Vec<f32>,
    read: AtomicUsize,
}

impl Source for Counted {
    fn read(&self, start: usize, into: &mut [f32]) {
        into.copy_from_slice(&self.elements[start..][..into.len()]);
        self.read.fetch_add(into.len(), Ordering::Relaxed);
    }
}

impl Counted {
    fn new(seed: u64, dims: [usize; 2]) -> Arc<Self> {
        Arc::new(Self { elements: random(seed, &dims), read: AtomicUsize::new(0) })
    }

    fn since(&self, then: usize) -> usize {
        self.read.load(Ordering::Relaxed) - then
    }
}

fn random(seed: u64, dims: &[usize]) -> Vec<f32> {
    let mut elements = vec![0f32; dims.iter().product()];
    Stream::keyed(seed, &[3]).fill_uniform(&mut elements, -1.0, 1.0);
    elements
}

fn tensor(seed: u64, dims: &[usize]) -> Tensor {
    Tensor::from_vec(random(seed, dims), dims, &Device::Cpu).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

const DIMS: [usize; 2] = [77, 150];

/// The same weight at rest and held.
fn both(trainable: bool) -> (Arc<Counted>, [Parameter; 2]) {
    let source = Counted::new(1, DIMS);
    let rest = Parameter::at_rest("weight", &DIMS, source.clone(), Reading::Products, trainable);
    (source, [rest, Parameter::new("weight", tensor(1, &DIMS), trainable)])
}

/// Result and gradients of a layer with this weight.
fn layer(weight: &Parameter, precision: Precision) -> Vec<Vec<f32>> {
    let tape = Tape::new(TapeOptions { precision, recording: true, ..TapeOptions::default() });
    let x = tape.variable(tensor(2, &[31, DIMS[1]]));
    let w = tape.parameter(weight);
    let y = tape.linear_activation(&x, &w, None, Activation::Gelu).unwrap();
    let mut all = vec![floats(y.tensor())];
    let gradients = tape.backward_from(vec![(y.clone(), tensor(3, y.dims()))]).unwrap();
    all.push(floats(gradients.of(&x).unwrap()));
    all.extend(gradients.get(weight).map(|gradient| floats(&gradient.to_dense(&DIMS).unwrap())));
    all
}

#[test]
fn a_layer_at_rest_computes_what_a_held_one_does() {
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        for trainable in [false, true] {
            let (_, [rest, held]) = both(trainable);
            assert_eq!(layer(&rest, precision), layer(&held, precision), "{precision:?}");
        }
    }
}

#[test]
fn products_read_the_source_once() {
    let (source, [rest, _]) = both(false);
    let mut seen = Vec::new();
    rest.prepare(Precision::Bf16, |values| seen.extend_from_slice(values)).unwrap();
    assert_eq!(seen, source.elements);
    let then = source.since(0);
    assert_eq!(then, source.elements.len());
    for _ in 0..3 {
        layer(&rest, Precision::Bf16);
    }
    assert_eq!(source.since(then), 0);
    // Whoever asks for the values gets them all, and they do not stay.
    assert_eq!(floats(&rest.tensor()), source.elements);
    assert_eq!(floats(&rest.tensor()), source.elements);
    assert_eq!(source.since(then), 2 * source.elements.len());
}

#[test]
fn of_a_table_at_rest_single_rows_are_read() {
    let source = Counted::new(1, DIMS);
    let table = Parameter::at_rest("table", &DIMS, source.clone(), Reading::Rows, false);
    let of = |ids: &[u32]| {
        let tape = Tape::evaluation();
        tape.embedding(&tape.parameter(&table), ids).map(|rows| floats(rows.tensor()))
    };
    let expected: Vec<f32> =
        [5, 0, 5].iter().flat_map(|row| source.elements[row * DIMS[1]..][..DIMS[1]].to_vec()).collect();
    assert_eq!(of(&[5, 0, 5]).unwrap(), expected);
    assert_eq!(source.since(0), 3 * DIMS[1]);
    assert!(of(&[77]).unwrap_err().to_string().contains("row 77"));
    // A table is not packed.
    table.prepare(Precision::F32, |_| {}).unwrap();
    assert!(table.verify(|_| {}).unwrap());
}

#[test]
fn what_thaws_trains_from_its_values_on() {
    let (source, parameters) = both(false);
    let [rest, held] = &parameters;
    rest.prepare(Precision::F32, |_| {}).unwrap();
    let settings = StepSettings { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
    for parameter in &parameters {
        layer(parameter, Precision::F32);
        parameter.set_trainable(true);
        let mut optimizer = Optimizer::new(Method::ADAMW);
        for _ in 0..2 {
            let tape = Tape::recording();
            let x = Value::constant(tensor(2, &[31, DIMS[1]]));
            let y = tape.linear(&x, &tape.parameter(parameter), None).unwrap();
            let gradients = tape.backward_from(vec![(y.clone(), tensor(3, y.dims()))]).unwrap();
            let gradient = gradients.get(parameter).unwrap().to_dense(&DIMS).unwrap();
            optimizer.step(parameter, &gradient, &settings).unwrap();
        }
        parameter.set_trainable(false);
    }
    assert_eq!(floats(&rest.tensor()), floats(&held.tensor()));
    assert_ne!(floats(&rest.tensor()), source.elements);
    assert_eq!(layer(rest, Precision::F32), layer(held, Precision::F32));
    assert_eq!(Arc::strong_count(&source), 1, "what trains needs its source no more");
}

#[test]
fn a_packed_form_that_is_not_its_values_is_seen() {
    /// A file that somebody changes.
    #[derive(Debug, Default)]
    struct Changing(AtomicUsize);
    impl Source for Changing {
        fn read(&self, _: usize, into: &mut [f32]) {
            into.fill(self.0.load(Ordering::Relaxed) as f32);
        }
    }
    let source = Arc::new(Changing::default());
    let weight = Parameter::at_rest("weight", &DIMS, source.clone(), Reading::Products, false);
    for precision in [Precision::F32, Precision::Bf16] {
        source.0.store(0, Ordering::Relaxed);
        weight.prepare(precision, |_| {}).unwrap();
        assert!(weight.verify(|_| {}).unwrap());
        source.0.store(1, Ordering::Relaxed);
        assert!(!weight.verify(|_| {}).unwrap());
    }
}
