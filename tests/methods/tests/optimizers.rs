//! Update rules of plugins in a host of the test's own, against the numbers that `tests/reference/make_optimizers.py` got from torch.

use std::collections::BTreeMap;

use fthost::plugin::OptimizerInstance;
use fthost_autograd::optim::StepSettings;
use fthost_autograd::{Device, Parameter, Tensor};
use serde_json::{Value, json};

use crate::host::plugin;
use crate::reference::{self, close};

/// A case of the numbers: a rule and a parameter that it updates.
struct Case {
    numbers: Value,
    shape: Vec<usize>,
    rule: OptimizerInstance,
    parameter: Parameter,
}

impl Case {
    fn all() -> Vec<Self> {
        let numbers = reference::read("optimizers.json");
        let cases = numbers["cases"].as_array().unwrap().iter();
        cases
            .map(|numbers| {
                let shape: Vec<usize> = serde_json::from_value(numbers["shape"].clone()).unwrap();
                let start = reference::tensor(&numbers["start"], &shape);
                let parameter = Parameter::new(numbers["name"].as_str().unwrap(), start, true);
                let name = numbers["plugin"].as_str().unwrap();
                let rule = OptimizerInstance::create(&plugin(name), name, &numbers["options"]).unwrap();
                Self { numbers: numbers.clone(), shape, rule, parameter }
            })
            .collect()
    }

    fn steps(&self) -> Vec<Value> {
        self.numbers["steps"].as_array().unwrap().clone()
    }

    fn step(&mut self, step: &Value) {
        let number = |key: &str| step[key].as_f64().unwrap();
        let settings =
            StepSettings { lr: number("lr"), momentum: number("momentum"), weight_decay: number("weight_decay") };
        let gradient = reference::tensor(&step["gradient"], &self.shape);
        self.rule.step(&self.parameter, &gradient, &settings).unwrap();
    }

    fn value(&self) -> Vec<f32> {
        self.parameter.tensor().flatten_all().unwrap().to_vec1().unwrap()
    }
}

#[test]
fn parameters_are_updated_as_published() {
    let mut cases = Case::all();
    assert_eq!(cases.len(), 8);
    for case in &mut cases {
        for step in case.steps() {
            case.step(&step);
            close(&case.value(), &step["value"]);
        }
    }
}

/// What a checkpoint holds gives the same bits from there on; another rule's is refused.
#[test]
fn states_are_saved_and_taken_back() {
    for mut case in Case::all() {
        let steps = case.steps();
        steps[..2].iter().for_each(|step| case.step(step));
        let (state, value) = (case.rule.state().unwrap(), case.parameter.tensor().copy().unwrap());
        let name = case.parameter.name().to_owned();
        assert!(state.contains_key(&format!("{name}.step")) && state.len() > 1, "{:?}", state.keys());
        steps[2..].iter().for_each(|step| case.step(step));
        let through = case.value();

        case.parameter.set(&value).unwrap();
        case.rule = case.rule.fresh();
        let shape = case.shape.clone();
        let of = |asked: &str| (asked == name).then(|| shape.clone());
        case.rule.load(&state, &of, &Device::Cpu).unwrap();
        steps[2..].iter().for_each(|step| case.step(step));
        assert_eq!(case.value(), through);

        let mut other: BTreeMap<String, Tensor> = state.clone();
        other.retain(|key, _| key.ends_with(".step"));
        let error = case.rule.load(&other, &of, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(&format!("the optimizer's state of {name} is another rule's")), "{error}");
        let error = case.rule.load(&state, &|_| None, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("is of a parameter that this run has not"), "{error}");
    }
}

#[test]
fn a_schedule_may_change_what_is_their_momentum() {
    for (name, options, momentum) in
        [("lion", json!({ "beta1": 0.8 }), 0.8), ("lion", json!({}), 0.9), ("muon", json!({}), 0.95)]
    {
        let rule = OptimizerInstance::create(&plugin(name), name, &options).unwrap();
        assert_eq!(rule.momentum().unwrap(), momentum);
    }
}
