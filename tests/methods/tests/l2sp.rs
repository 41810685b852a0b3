//! The penalty in a host of the test's own, on a tiny BERT.

use fthost::adapted::{AdaptedModel, ModelParameter, Owner};
use fthost::plugin::{RegularizerInstance, Stateful};
use fthost_autograd::{Device, Gradients, Parameter, Tape, Tensor};
use fthost_plugin_api::Event;
use serde_json::json;

use crate::host::{gradient, parameter, plugin, shift, tiny_bert};

const QUERY: &str = "encoder.layer.0.attention.self.query.weight";
const KEY: &str = "encoder.layer.0.attention.self.key.weight";
const HEAD: &str = "classifier.weight";

/// The tiny BERT with one trainable matrix, one frozen one, and one of a head.
fn model() -> AdaptedModel {
    let mut model = tiny_bert();
    model.parameters.iter().for_each(|p| p.parameter.set_trainable(p.parameter.name() == QUERY));
    let weight = Tensor::from_slice(&[3f32, -4.0], &[1, 2], &Device::Cpu).unwrap();
    let mut head = ModelParameter { parameter: Parameter::new(HEAD, weight, true), ..model.parameters[0].clone() };
    head.owner = Owner::Head(0);
    model.parameters.push(head);
    model
}

fn l2sp(alpha: f64, beta: f64, model: &mut AdaptedModel) -> RegularizerInstance {
    let options = json!({ "alpha": alpha, "beta": beta });
    let mut l2sp = RegularizerInstance::create(&plugin("l2sp"), "l2sp", &options).unwrap();
    l2sp.attach(model).unwrap();
    l2sp
}

fn step(l2sp: &mut RegularizerInstance, model: &mut AdaptedModel) {
    l2sp.event(&Event::StepBegin { step: 0, total_steps: 1 }, model, None).unwrap();
}

fn penalty(l2sp: &RegularizerInstance) -> (f64, Gradients) {
    let tape = Tape::recording();
    let penalty = l2sp.penalty(&tape).unwrap().unwrap();
    (f64::from(penalty.tensor().to_scalar::<f32>().unwrap()), tape.backward(&penalty).unwrap())
}

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{found} is not {expected}");
}

#[test]
fn pulls_old_weights_to_their_start_and_new_ones_to_zero() {
    let mut model = model();
    let l2sp = l2sp(0.5, 0.2, &mut model);
    let (start, _) = penalty(&l2sp);
    close(start, 0.1 * 25.0); // beta / 2 ||v||^2 alone

    shift(&model, QUERY, 0.1);
    let (moved, gradients) = penalty(&l2sp);
    close(moved, 0.25 * 256.0 * 0.01 + 0.1 * 25.0); // 16 x 16 weights, each 0.1 away
    assert_eq!(gradients.len(), 2, "frozen weights get no gradient");
    // alpha (w - w0), beta v
    gradient(&gradients, parameter(&model, QUERY)).iter().for_each(|g| close(f64::from(*g), 0.05));
    let head = gradient(&gradients, parameter(&model, HEAD));
    close(f64::from(head[0]), 0.6);
    close(f64::from(head[1]), -0.8);
}

#[test]
fn a_weight_that_is_thawed_later_is_pulled_to_where_it_was_then() {
    let mut model = model();
    let mut l2sp = l2sp(1.0, 0.0, &mut model);
    step(&mut l2sp, &mut model);
    close(penalty(&l2sp).0, 0.0);
    parameter(&model, KEY).set_trainable(true);
    step(&mut l2sp, &mut model);
    shift(&model, KEY, 0.5);
    step(&mut l2sp, &mut model);
    close(penalty(&l2sp).0, 0.5 * 256.0 * 0.25);
    parameter(&model, KEY).set_trainable(false);
    step(&mut l2sp, &mut model);
    close(penalty(&l2sp).0, 0.0);
}

#[test]
fn a_resumed_run_has_the_start_of_the_first() {
    let mut first = model();
    let kept = l2sp(1.0, 0.0, &mut first);
    shift(&first, QUERY, 0.5);
    let state = kept.save().unwrap();
    assert_eq!(state.tensors.keys().collect::<Vec<_>>(), [QUERY]);

    let mut second = model();
    shift(&second, QUERY, 0.5);
    let mut resumed = l2sp(1.0, 0.0, &mut second);
    close(penalty(&resumed).0, 0.0);
    resumed.load(&state).unwrap();
    assert_eq!(penalty(&resumed).0, penalty(&kept).0);
    step(&mut resumed, &mut second);
    assert_eq!(penalty(&resumed).0, penalty(&kept).0);

    let mut other = state.clone();
    other.tensors.insert(QUERY.into(), Tensor::from_slice(&[1f32], &[1], &Device::Cpu).unwrap());
    let text = resumed.load(&other).unwrap_err().to_string();
    assert!(
        text.contains("has encoder.layer.0.attention.self.query.weight as [1], and the model as [16, 16]"),
        "{text}"
    );
}

#[test]
fn without_anything_to_pull_there_is_no_penalty() {
    let mut model = model();
    model.parameters.iter().for_each(|p| p.parameter.set_trainable(p.owner != Owner::Base));
    let l2sp = l2sp(1.0, 0.0, &mut model);
    assert!(l2sp.penalty(&Tape::recording()).unwrap().is_none());
}
