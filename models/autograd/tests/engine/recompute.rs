//! Parts of a pass that are made once more in the backward pass: the values, gradients and masks of those that are kept.

use fthost_autograd::{Device, Dropout, Layout, Parameter, Tape, TapeOptions, Tensor, Value};

fn tensor(seed: u64, dims: &[usize]) -> Tensor {
    let mut elements = vec![0f32; dims.iter().product()];
    fthost_autograd::random::Stream::keyed(seed, &[5]).fill_uniform(&mut elements, -1.0, 1.0);
    Tensor::from_vec(elements, dims, &Device::Cpu).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

const WIDTH: usize = 24;

struct Net {
    frozen: Parameter,
    blocks: Vec<Parameter>,
    /// Used twice in every block, and after them.
    shared: Parameter,
}

impl Net {
    fn new() -> Self {
        let weight = |seed: u64, trains| Parameter::new(format!("w{seed}"), tensor(seed, &[WIDTH, WIDTH]), trains);
        Self { frozen: weight(1, false), blocks: vec![weight(2, true), weight(3, true)], shared: weight(4, true) }
    }

    fn block(tape: &Tape, x: Value, own: &Parameter, shared: &Parameter) -> Value {
        let y = tape.linear(&x, &tape.parameter(own), None).unwrap();
        let y = tape.dropout(&y, 0.3).unwrap();
        let y = tape.linear(&y, &tape.parameter(shared), None).unwrap();
        let y = tape.linear(&y, &tape.parameter(shared), None).unwrap();
        tape.add(&y, &x).unwrap()
    }

    /// The value, and the gradients of `x` and of what trains.
    fn pass(&self, recompute: bool, x_varies: bool) -> (Vec<Vec<u32>>, Vec<f64>) {
        let dropout = Dropout { seed: 7, step: 3, examples: vec![0, 1] };
        let tape = Tape::new(TapeOptions { recording: true, dropout: Some(dropout), ..TapeOptions::default() });
        tape.set_layout(Layout::from_lengths([3, 2]));
        let input = tensor(9, &[5, WIDTH]);
        let start = if x_varies { tape.variable(input) } else { Value::constant(input) };
        let mut x = tape.linear(&start, &tape.parameter(&self.frozen), None).unwrap();
        for own in [&self.frozen, &self.blocks[0], &self.blocks[1]] {
            let (own, shared) = (own.clone(), self.shared.clone());
            x = match recompute {
                true => tape.recomputed(&x, move |tape, x| Ok(Self::block(tape, x, &own, &shared))).unwrap(),
                false => Self::block(&tape, x, &own, &shared),
            };
        }
        let y = tape.linear(&x, &tape.parameter(&self.shared), None).unwrap();
        let dropouts = tape.dropouts();
        let mut all = vec![bits(y.tensor())];
        let gradients = tape.backward_from(vec![(y, tensor(11, &[5, WIDTH]))]).unwrap();
        all.extend(gradients.of(&start).map(bits));
        let of = |parameter: &Parameter| bits(&gradients.get(parameter).unwrap().to_dense(parameter.dims()).unwrap());
        all.extend(self.blocks.iter().chain([&self.shared]).map(of));
        assert!(gradients.get(&self.frozen).is_none());
        (all, dropouts)
    }
}

#[test]
fn values_gradients_and_masks_are_those_of_a_pass_that_is_kept() {
    let net = Net::new();
    for x_varies in [false, true] {
        let (kept, again) = (net.pass(false, x_varies), net.pass(true, x_varies));
        assert_eq!(kept.0.len(), if x_varies { 5 } else { 4 });
        assert_eq!(kept, again);
    }
}

#[test]
fn where_nothing_trains_nothing_is_recorded() {
    let frozen = Parameter::new("w", tensor(1, &[WIDTH, WIDTH]), false);
    let tape = Tape::recording();
    let x = Value::constant(tensor(2, &[3, WIDTH]));
    let y = tape.recomputed(&x, move |tape, x| tape.linear(&x, &tape.parameter(&frozen), None)).unwrap();
    assert!(!y.requires_grad());
}
