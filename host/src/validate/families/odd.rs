//! Calls that a run may make and seldom does: none of them may panic or take the process with it.

use std::collections::BTreeMap;

use fthost_autograd::{Device, Tape, Tensor, Value};
use fthost_plugin_api::{Evaluation, Event, Group, Progress};
use serde_json::json;

use crate::Result;
use crate::plugin::{State, probe};
use crate::validate::bench::{Bench, Instance, first_examples, pass};
use crate::validate::outcome::Outcome;
use crate::validate::subject::Subject;

/// Whatever it answers, it answers.
pub(in crate::validate) fn odd_calls(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    let options = bench.options();
    let mut seen = Vec::new();
    let mut try_it = |what: &str, call: &mut dyn FnMut(Instance) -> Result<()>| -> Result<()> {
        let instance = bench.instance(&options)?;
        probe::account();
        // An error is an answer.
        let _ = call(instance);
        seen.extend(probe::account().panics.into_iter().map(|text| format!("{what}: {text}")));
        Ok(())
    };

    for (what, state) in states()? {
        try_it(&format!("a state that is {what}"), &mut |mut of| of.stateful().load(&state))?;
    }
    try_it("its state before it was attached", &mut |mut of| of.stateful().save().map(drop))?;
    try_it("calls before it was attached", &mut before_attach)?;
    try_it("freed at once", &mut |of| {
        drop(of);
        Ok(())
    })?;
    for text in ["{}", r#"{"peft_type": 7}"#, r#"{"peft_type": "LORA", "r": -1, "target_modules": {"a": null}}"#] {
        probe::account();
        let config = serde_json::from_str(text).unwrap_or_default();
        let _ = bench.plugin.options_from_peft(&bench.method.name, &config);
        seen.extend(probe::account().panics);
    }
    probe::account();
    let _ = events(&bench);
    let _ = one_row(&bench);
    seen.extend(probe::account().panics);
    Ok(Outcome::unless(&seen, "what it cannot do it says by an error status"))
}

/// States of other plugins, or damaged.
fn states() -> Result<Vec<(&'static str, State)>> {
    let tensor = Tensor::zeros((2, 3), fthost_autograd::DType::F32, &Device::Cpu)?;
    let tensors: BTreeMap<String, Tensor> = ["weight", "0", ""].map(|name| (name.to_owned(), tensor.clone())).into();
    let none = BTreeMap::new;
    Ok(vec![
        ("nothing", State { json: json!(null), tensors: none() }),
        ("an empty object", State { json: json!({}), tensors: none() }),
        ("a text", State { json: json!("state"), tensors: none() }),
        ("another's", State { json: json!({ "step": -1, "seen": [null, 1e300] }), tensors }),
    ])
}

fn before_attach(of: Instance) -> Result<()> {
    let (tape, value) =
        (Tape::evaluation(), Value::constant(Tensor::ones((2, 2), fthost_autograd::DType::F32, &Device::Cpu)?));
    match of {
        Instance::Strategy(of) => {
            let _ = of.starts_at_base();
            let _ = of.adapter_tensors();
            of.adapter_config().map(drop)
        }
        Instance::Scheduler(mut of) => {
            let far = Progress { step: u64::MAX, total_steps: 0, steps_per_epoch: 0 };
            let _ = of.rate(&far, &Group::new(0.0, 0.0));
            let _ = of.rate(&far, &Group { name: "", number: usize::MAX, stream: "none", lr: f64::MAX, momentum: 1.0 });
            let nan = Evaluation { value: f64::NAN, metric: "", higher_is_better: false, task: "" };
            of.on_evaluation(&far, &nan)
        }
        Instance::Regularizer(of) => {
            let _ = of.penalty(&tape);
            of.output_penalty(&tape, &value, &value).map(drop)
        }
        Instance::Optimizer(of) => {
            let _ = of.momentum();
            let _ = of.states("w", &[0]);
            let _ = of.states("", &[]);
            of.states("w", &[3, 1, 2]).map(drop)
        }
        Instance::TaskHead(of) => {
            let _ = of.predict(&tape, &value);
            let _ = of.loss(&tape, &value, value.tensor(), &[]);
            of.forward(&tape, &value, &fthost_autograd::Layout::single_rows(2)).map(drop)
        }
    }
}

/// Events in an order that no run has.
fn events(bench: &Bench) -> Result<()> {
    let mut setup = bench.set_up()?;
    let events = [
        Event::TaskEnd { task: "of another run".into() },
        Event::StepEnd { step: 7, total_steps: 3, loss: f64::NAN },
        Event::EpochEnd { epoch: 0, epochs: 0 },
        Event::EpochBegin { epoch: u64::MAX, epochs: 1 },
        Event::Evaluation { step: 0, task: String::new(), metrics: BTreeMap::new() },
        Event::StepBegin { step: u64::MAX, total_steps: 1 },
    ];
    for event in &events {
        for strategy in &mut setup.strategies {
            let _ = strategy.event(event, &mut setup.model, None);
        }
        for regularizer in &mut setup.regularizers {
            let _ = regularizer.event(event, &mut setup.model, None);
        }
    }
    Ok(())
}

/// A pass of one example.
fn one_row(bench: &Bench) -> Result<()> {
    let setup = bench.set_up()?;
    let shown = first_examples(&setup, 0, 1)?;
    let (pass, tape) = (pass(&setup, 0), Tape::recording());
    let outputs = pass.outputs(&tape, &shown)?;
    pass.head.predict(&tape, &outputs)?;
    pass.loss(&tape, &outputs, &shown, &[]).map(drop)
}
