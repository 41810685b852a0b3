//! Synaptic intelligence in a host of the test's own, against the numbers that `tests/reference/make_si.py` got from torch.

use fthost::adapted::AdaptedModel;
use fthost::plugin::{RegularizerInstance, State, Stateful};
use fthost_autograd::{Device, Tape, Tensor};
use fthost_plugin_api::Event;
use serde_json::{Value, json};

use crate::host::{gradient, parameter, plugin, tiny_bert};
use crate::reference::{self, close};

const NAME: &str = "encoder.layer.0.attention.self.query.bias";

/// A model of which one vector trains, along the steps of the numbers.
struct Run {
    model: AdaptedModel,
    si: RegularizerInstance,
    numbers: Value,
}

impl Run {
    fn new() -> Self {
        let numbers = reference::read("si.json");
        let mut model = tiny_bert();
        model.parameters.iter().for_each(|p| p.parameter.set_trainable(p.parameter.name() == NAME));
        let options = json!({ "c": numbers["c"], "damping": numbers["damping"] });
        let mut si = RegularizerInstance::create(&plugin("si"), "si", &options).unwrap();
        si.attach(&mut model).unwrap();
        let run = Self { model, si, numbers };
        run.set(&run.numbers["start"]);
        run
    }

    fn set(&self, values: &Value) {
        parameter(&self.model, NAME).set(&reference::tensor(values, &[16])).unwrap();
    }

    fn tell(&mut self, event: &Event) {
        self.si.event(event, &mut self.model, None).unwrap();
    }

    /// A step: the penalty before it, the gradient, and where the parameter has gone.
    fn step(&mut self, of: &Value) {
        self.tell(&Event::StepBegin { step: 0, total_steps: 6 });
        let tape = Tape::recording();
        match self.si.penalty(&tape).unwrap() {
            None => assert_eq!(of["penalty"], 0.0, "the first task is free"),
            Some(penalty) => {
                close(&[penalty.tensor().to_scalar::<f32>().unwrap()], &json!([of["penalty"]]));
                let gradients = tape.backward(&penalty).unwrap();
                assert_eq!(gradients.len(), 1);
                close(&gradient(&gradients, parameter(&self.model, NAME)), &of["penalty_gradient"]);
            }
        }
        // The gradient of a sum of products with constants is these.
        let tape = Tape::recording();
        let constants = fthost_autograd::Value::constant(reference::tensor(&of["gradient"], &[16]));
        let loss = tape.sum(&tape.mul(&tape.parameter(parameter(&self.model, NAME)), &constants).unwrap()).unwrap();
        self.model.stepped = Some(tape.backward(&loss).unwrap());
        self.set(&of["value"]);
        self.tell(&Event::StepEnd { step: 0, total_steps: 6, loss: 1.0 });
        self.model.stepped = None;
    }

    fn end(&mut self) {
        self.tell(&Event::TaskEnd { task: "t".into() });
    }

    fn task(&self, task: usize) -> (Value, Vec<Value>) {
        let task = self.numbers["tasks"][task].clone();
        let steps = task["steps"].as_array().unwrap().clone();
        (task, steps)
    }
}

fn tensor(state: &State, kind: &str) -> Vec<f32> {
    state.tensors[&format!("{kind}.{NAME}")].to_vec1().unwrap()
}

#[test]
fn paths_importances_and_penalties_are_the_references() {
    let mut run = Run::new();
    for number in 0..2 {
        let (task, steps) = run.task(number);
        steps.iter().for_each(|step| run.step(step));
        close(&tensor(&run.si.save().unwrap(), "path"), &task["path"]);
        run.end();
        let state = run.si.save().unwrap();
        close(&tensor(&state, "omega"), &task["omega"]);
        close(&tensor(&state, "anchor"), &steps[2]["value"]);
        assert_eq!(state.tensors.len(), 2, "a path ends with its task");
    }
    assert_eq!(run.si.save().unwrap().json["tasks"], json!(["t", "t"]));
}

/// A run that goes on in the midst of the second task comes to the same.
#[test]
fn states_are_saved_and_taken_back() {
    let mut run = Run::new();
    let (_, first) = run.task(0);
    first.iter().for_each(|step| run.step(step));
    run.end();
    let (task, second) = run.task(1);
    run.step(&second[0]);
    let state = run.si.save().unwrap();

    let mut resumed = Run::new();
    resumed.set(&second[0]["value"]);
    resumed.si.load(&state).unwrap();
    for run in [&mut run, &mut resumed] {
        second[1..].iter().for_each(|step| run.step(step));
        run.end();
    }
    assert_eq!(tensor(&resumed.si.save().unwrap(), "omega"), tensor(&run.si.save().unwrap(), "omega"));
    close(&tensor(&resumed.si.save().unwrap(), "omega"), &task["omega"]);

    let mut other = state.clone();
    other.tensors.insert(format!("omega.{NAME}"), Tensor::from_slice(&[1f32], &[1], &Device::Cpu).unwrap());
    let error = resumed.si.load(&other).unwrap_err().to_string();
    assert!(error.contains("in another shape: it is of another model"), "{error}");
}

/// A step without update, as one that overflowed, adds nothing.
#[test]
fn steps_that_were_left_out_are_no_part_of_the_path() {
    let mut run = Run::new();
    run.tell(&Event::StepBegin { step: 0, total_steps: 1 });
    run.model.stepped = Some(fthost_autograd::Gradients::default());
    run.tell(&Event::StepEnd { step: 0, total_steps: 1, loss: 1.0 });
    run.end();
    assert!(run.si.penalty(&Tape::recording()).unwrap().is_none());
}
