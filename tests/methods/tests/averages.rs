//! EMA and SWA in a host of the test's own, against the numbers that `tests/reference/make_averages.py` got from torch.

use fthost::adapted::AdaptedModel;
use fthost::plugin::{State, Stateful, StrategyInstance};
use fthost_autograd::Tensor;
use fthost_plugin_api::Event;
use serde_json::{Value, json};

use crate::host::{parameter, plugin, tiny_bert};
use crate::reference::{self, close};

const NAME: &str = "encoder.layer.0.attention.self.query.bias";
/// Thawed in the midst of it.
const LATER: &str = "encoder.layer.0.attention.self.key.bias";
const STEPS: u64 = 8;

/// A model of which one vector trains, along the values of the numbers.
struct Run {
    model: AdaptedModel,
    strategy: StrategyInstance,
    numbers: Value,
}

impl Run {
    fn new(name: &str, options: Value) -> Self {
        let numbers = reference::read("averages.json");
        let mut model = tiny_bert();
        model.parameters.iter().for_each(|p| p.parameter.set_trainable(p.parameter.name() == NAME));
        let mut strategy = StrategyInstance::create(&plugin(name), name, &options).unwrap();
        strategy.attach(&mut model, 0).unwrap();
        let run = Self { model, strategy, numbers };
        run.set(NAME, &run.numbers["start"]);
        run
    }

    fn set(&self, name: &str, values: &Value) {
        parameter(&self.model, name).set(&reference::tensor(values, &[16])).unwrap();
    }

    fn value(&self, name: &str) -> Vec<f32> {
        parameter(&self.model, name).tensor().to_vec1().unwrap()
    }

    fn tell(&mut self, event: &Event) {
        self.strategy.event(event, &mut self.model, None).unwrap();
    }

    fn step(&mut self, step: u64) {
        self.tell(&Event::StepBegin { step, total_steps: STEPS });
        let value = self.numbers["values"][step as usize].clone();
        self.set(NAME, &value);
        self.tell(&Event::StepEnd { step, total_steps: STEPS, loss: 1.0 });
    }

    fn begin_evaluation(&mut self, step: u64) {
        self.tell(&Event::EvaluationBegin { step });
    }

    /// What is evaluated after so many steps; training goes on as if nothing had been.
    fn evaluated(&mut self, step: u64) -> Vec<f32> {
        let before = self.value(NAME);
        self.begin_evaluation(step);
        let evaluated = self.value(NAME);
        self.tell(&Event::EvaluationEnd { step });
        assert_eq!(self.value(NAME), before);
        evaluated
    }

    fn end(&mut self) -> Vec<f32> {
        self.tell(&Event::TaskEnd { task: "t".into() });
        self.value(NAME)
    }
}

#[test]
fn moving_averages_are_torchs() {
    for (options, key) in [(json!({ "decay": 0.9, "warmup": false }), "ema"), (json!({ "decay": 0.3 }), "warmed")] {
        let mut run = Run::new("ema", options);
        for step in 0..STEPS {
            run.step(step);
            let expected = run.numbers[key][step as usize].clone();
            close(&run.evaluated(step + 1), &expected);
        }
        let expected = run.numbers[key][7].clone();
        close(&run.end(), &expected);
    }
}

#[test]
fn equal_averages_are_torchs() {
    let mut run = Run::new("swa", json!({ "start": 0.5, "steps": 2 }));
    for step in 0..STEPS {
        run.step(step);
        let expected = match step {
            3 | 4 => run.numbers["swa"][0].clone(),
            5 | 6 => run.numbers["swa"][1].clone(),
            7 => run.numbers["swa"][2].clone(),
            _ => run.numbers["values"][step as usize].clone(), // nothing is averaged yet
        };
        close(&run.evaluated(step + 1), &expected);
    }
    let expected = run.numbers["swa"][2].clone();
    close(&run.end(), &expected);

    // Once an epoch, of one step each here.
    let mut run = Run::new("swa", json!({ "start": 0.5 }));
    for epoch in 0..STEPS {
        run.step(epoch);
        run.tell(&Event::EpochEnd { epoch, epochs: STEPS });
    }
    let expected = run.numbers["swa_every"][4].clone();
    close(&run.end(), &expected);
}

#[test]
fn what_thaws_later_was_until_then_what_it_is() {
    let mut run = Run::new("ema", json!({ "decay": 0.5, "warmup": false }));
    let frozen = run.value(LATER);
    (0..3).for_each(|step| run.step(step));
    parameter(&run.model, LATER).set_trainable(true);
    run.tell(&Event::StepBegin { step: 3, total_steps: STEPS });
    let moved: Vec<f32> = frozen.iter().map(|x| x + 1.0).collect();
    run.set(LATER, &json!(moved));
    run.tell(&Event::StepEnd { step: 3, total_steps: STEPS, loss: 1.0 });
    run.end();
    close(&run.value(LATER), &json!(frozen.iter().map(|x| x + 0.5).collect::<Vec<_>>()));
}

/// Where a checkpoint is taken up, all goes on to the same bits.
#[test]
fn states_are_saved_and_taken_back() {
    for (name, options) in [("ema", json!({ "decay": 0.9 })), ("swa", json!({ "start": 0.0, "steps": 1 }))] {
        let mut through = Run::new(name, options.clone());
        (0..4).for_each(|step| through.step(step));
        let state = through.strategy.save().unwrap();
        let mut resumed = Run::new(name, options);
        let value = resumed.numbers["values"][3].clone();
        resumed.set(NAME, &value);
        resumed.strategy.load(&state).unwrap();
        assert_eq!(resumed.evaluated(4), through.evaluated(4), "{name}");
        for run in [&mut through, &mut resumed] {
            (4..STEPS).for_each(|step| run.step(step));
        }
        assert_eq!(resumed.end(), through.end(), "{name}");
    }
}

/// The best model is kept with the averages in it: put back, they are not averaged with what trained after it.
#[test]
fn the_best_models_averages_stay_as_they_were_evaluated() {
    let mut run = Run::new("ema", json!({ "decay": 0.9 }));
    (0..4).for_each(|step| run.step(step));
    run.begin_evaluation(4);
    let (best, value): (State, Tensor) =
        (run.strategy.save().unwrap(), parameter(&run.model, NAME).tensor().copy().unwrap());
    run.tell(&Event::EvaluationEnd { step: 4 });
    (4..STEPS).for_each(|step| run.step(step));
    parameter(&run.model, NAME).set(&value).unwrap();
    run.strategy.load(&best).unwrap();
    assert_eq!(run.end(), value.to_vec1::<f32>().unwrap());

    // The next task begins anew: its first step is its first average.
    run.step(0);
    let first = run.numbers["values"][0].clone();
    close(&run.evaluated(1), &first);
    assert_ne!(run.strategy.save().unwrap().tensors.len(), 0);
}
