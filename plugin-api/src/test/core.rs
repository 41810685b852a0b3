//! What tests of all kinds of methods share: an instance in a run, a fake training, and a state that goes out and in.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value as Json;

use super::{
    finite::{self, Variable},
    forward,
    ops::{add, affine, mul, square, sub, sum},
    pass::Pass,
    random::Stream,
    run::{Owner, Parameter, Run},
    session,
    value::Value,
    wire::{Instance, Kind, State},
};
use crate::{Error, Event, Result};

/// Examples of a batch.
pub(super) const EXAMPLES: usize = 5;
/// The task's name.
pub(super) const TASK: &str = "toy-task";

/// An instance, and the run it was attached to.
pub(super) struct Attached<V: Kind> {
    pub(super) instance: Instance<V>,
    pub(super) run: Arc<Run>,
    /// What it said when it attached.
    pub(super) said: Json,
}

/// One that is tested, and the way to make another.
pub(super) struct Core<V: Kind> {
    pub(super) now: Attached<V>,
    make: Box<dyn Fn() -> Result<Attached<V>>>,
}

impl<V: Kind> Core<V> {
    pub(super) fn new(make: impl Fn() -> Result<Attached<V>> + 'static) -> Result<Self> {
        Ok(Self { now: make()?, make: Box::new(make) })
    }

    pub(super) fn run(&self) -> &Arc<Run> {
        &self.now.run
    }

    /// Another one of the same options, attached to a model of its own.
    pub(super) fn again(&self) -> Result<Attached<V>> {
        (self.make)()
    }

    /// Gives a parameter other numbers, of its shape.
    pub(super) fn set_value(&self, name: &str, elements: &[f64]) -> Result<()> {
        let run = self.run();
        let before = run.value(name)?;
        if before.data().len() != elements.len() {
            let (shape, given) = (before.shape(), elements.len());
            return Err(Error::new(format!("{name} has shape {shape:?}, and {given} elements came")));
        }
        let index = run.state().parameters.iter().position(|of| of.name == name);
        index.into_iter().for_each(|index| run.set(index, elements.to_vec()));
        Ok(())
    }

    /// That the instance, freed, leaves nothing behind.
    pub(super) fn finish(self) -> Result<()> {
        self.now.end()
    }

    /// Tells it of an event of the run.
    pub(super) fn event(&self, event: &Event) -> Result<()> {
        match event {
            Event::StepBegin { step, .. } => self.run().state().step = *step,
            Event::StepEnd { step, .. } => self.run().state().taken = step + 1,
            _ => {}
        }
        self.now.instance.event(&self.now.run, &serde_json::to_value(event)?)
    }

    /// What it told by `log_scalar` since the last time.
    pub(super) fn scalars(&self) -> Vec<(u64, String, f64)> {
        std::mem::take(&mut self.run().state().scalars)
    }

    /// A run of one task, as a plugin hears it: with plain gradient descent on `loss`. `checkpoint` is called where one would be written.
    /// Gives the losses of its steps.
    pub(super) fn train(
        &self,
        epochs: u64,
        steps: u64,
        loss: &dyn Fn(&Attached<V>) -> Result<Value>,
        checkpoint: &dyn Fn(&Self) -> Result<()>,
    ) -> Result<Vec<f64>> {
        let task = || TASK.to_owned();
        let mut losses = Vec::new();
        self.event(&Event::TaskBegin { task: task() })?;
        for epoch in 0..epochs {
            self.event(&Event::EpochBegin { epoch, epochs })?;
            for place in 0..steps {
                losses.push(self.step(epoch * steps + place, epochs * steps, loss)?);
            }
            self.event(&Event::EpochEnd { epoch, epochs })?;
            self.evaluate(loss)?;
            checkpoint(self)?;
        }
        self.event(&Event::TaskEnd { task: task() })?;
        Ok(losses)
    }

    /// An evaluation on validation examples. Whatever weights it is of, training goes on with those that it had.
    fn evaluate(&self, loss: &dyn Fn(&Attached<V>) -> Result<Value>) -> Result<()> {
        let run = self.run();
        let step = run.state().taken;
        let trained = run.trainable();
        self.event(&Event::EvaluationBegin { step })?;
        let (value, _) = Pass::evaluation().run(|| loss(&self.now));
        let metrics = BTreeMap::from([("loss".to_owned(), value?.data()[0])]);
        self.event(&Event::Evaluation { step, task: TASK.to_owned(), metrics })?;
        self.event(&Event::EvaluationEnd { step })?;
        for (_, name, before) in trained {
            let what = format!("{name} was set in an evaluation, and not put back at its end");
            let of = ["after EvaluationEnd it", "before EvaluationBegin"];
            finite::equal(&what, of, &run.value(&name)?, &before, 0.0)?;
        }
        Ok(())
    }

    fn step(&self, step: u64, total_steps: u64, loss: &dyn Fn(&Attached<V>) -> Result<Value>) -> Result<f64> {
        const RATE: f64 = 0.02;
        let run = self.run();
        self.event(&Event::StepBegin { step, total_steps })?;
        let (value, _) = Pass::training(run.seed ^ step).run(|| loss(&self.now));
        let value = value?;
        let (gradients, number) = (value.gradients(vec![1.0]), value.data()[0]);
        if !number.is_finite() {
            return Err(Error::new(format!("the loss of step {step} is {number}")));
        }
        let mut taken = BTreeMap::new();
        for (index, _, of) in run.trainable() {
            if let Some(gradient) = gradients.by(&of) {
                let rate = RATE * run.state().parameters[index].lr_factor;
                run.set(index, of.data().iter().zip(gradient).map(|(x, gradient)| x - rate * gradient).collect());
                taken.insert(index, gradient.to_vec());
            }
        }
        run.state().gradients = Some(taken);
        self.event(&Event::StepEnd { step, total_steps, loss: number })?;
        run.state().gradients = None;
        Ok(number)
    }

    /// That what it saves, given to another instance, is saved again as it was, and that this one gives the same `outputs`.
    pub(super) fn check_state(&self, outputs: &dyn Fn(&Attached<V>) -> Result<Value>) -> Result<()> {
        let saved = self.now.instance.save(&self.now.run)?;
        let other = self.again()?;
        give_parameters(&self.now.run, &other.run)?;
        other.instance.load(&other.run, &saved)?;
        let again = other.instance.save(&other.run)?;
        same_state(&saved, &again)?;
        let [before, after] = [&self.now, &other].map(|of| Pass::evaluation().run(|| outputs(of)).0);
        let of = ["the instance that saved", "the one that loaded"];
        finite::equal("what is computed differs once the state is loaded", of, &before?, &after?, 0.0)?;
        other.end()
    }
}

impl<V: Kind> Attached<V> {
    /// Frees the instance and its hooks; nothing may be left.
    pub(super) fn end(self) -> Result<()> {
        let Self { instance, run, .. } = self;
        drop(instance);
        let hooks = std::mem::take(&mut run.state().hooks);
        drop(hooks);
        let mut faults = session::faults_outside();
        let kept = session::kept_of(run.number);
        if !kept.is_empty() {
            let what = kept.iter().map(|shape| format!("{shape:?}")).collect::<Vec<_>>().join(", ");
            faults.push(format!("it was freed and keeps tensors {what}: a Kept is released when it is dropped"));
        }
        if faults.is_empty() { Ok(()) } else { Err(Error::new(faults.join("; ")).context(V::WHAT)) }
    }
}

/// Values, flags and factors of all parameters, as a checkpoint gives them back.
fn give_parameters(from: &Run, to: &Run) -> Result<()> {
    let given: Vec<Parameter> = from.state().parameters.clone();
    let mut state = to.state();
    let names = |of: &[Parameter]| of.iter().map(|parameter| parameter.name.clone()).collect::<Vec<_>>();
    let (first, second) = (names(&given), names(&state.parameters));
    if first != second {
        let odd = first.iter().chain(&second).find(|name| !(first.contains(name) && second.contains(name)));
        let odd = odd.map_or("their order", String::as_str);
        return Err(Error::new(format!("attached again with the same options, it declares other parameters: {odd}")));
    }
    state.parameters = given;
    Ok(())
}

fn same_state(saved: &State, again: &State) -> Result<()> {
    if !same_json(&saved.json, &again.json) {
        let (saved, again) = (&saved.json, &again.json);
        return Err(Error::new(format!("loaded and saved again, its state is other JSON: {saved} became {again}")));
    }
    let names = |state: &State| state.tensors.keys().cloned().collect::<Vec<_>>();
    let (first, second) = (names(saved), names(again));
    if first != second {
        return Err(Error::new(format!("loaded and saved again, its state has tensors {second:?}, and had {first:?}")));
    }
    for (name, value) in &saved.tensors {
        let what = format!("loaded and saved again, its state's tensor {name} is another");
        finite::equal(&what, ["before", "after"], value, &again.tensors[name], 0.0)?;
    }
    Ok(())
}

/// Equal but for the last bits of floats, which serde_json reads to the nearest only where it is told to.
fn same_json(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_json(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same_json(a, b)))
        }
        (Json::Number(x), Json::Number(y)) if x.is_f64() && y.is_f64() => {
            let (x, y) = (x.as_f64().unwrap_or(0.0), y.as_f64().unwrap_or(0.0));
            (x - y).abs() <= 4.0 * f64::EPSILON * x.abs()
        }
        _ => a == b,
    }
}

/// Moves each trainable parameter a little, so that nothing is zero that trains; puts all back when dropped.
pub(super) struct Moved<'a> {
    run: &'a Run,
    before: Vec<Parameter>,
}

impl<'a> Moved<'a> {
    pub(super) fn new(run: &'a Run) -> Self {
        const BY: f64 = 0.1;
        let before = run.state().parameters.clone();
        for (index, name, value) in run.trainable() {
            let noise = Stream::new(3, &name).normals(value.data().len(), 0.0, BY);
            run.set(index, value.data().iter().zip(noise).map(|(x, noise)| x + noise).collect());
        }
        Self { run, before }
    }
}

impl Drop for Moved<'_> {
    fn drop(&mut self) {
        let mut state = self.run.state();
        state.parameters = std::mem::take(&mut self.before);
        state.merged.clear();
    }
}

/// The parameters that train, as finite differences take them. Those `wanted` must matter.
pub(super) fn variables(run: &Run, wanted: impl Fn(Owner) -> bool) -> Vec<Variable> {
    let owners: Vec<Owner> = run.state().parameters.iter().map(|parameter| parameter.owner).collect();
    let variable = |(index, name, value): (usize, String, Value)| Variable {
        name,
        shape: value.shape().to_vec(),
        data: value.data().to_vec(),
        must_matter: wanted(owners[index]),
    };
    run.trainable().into_iter().map(variable).collect()
}

/// Gives the parameters that train these numbers; gives their values.
pub(super) fn set_all(run: &Run, data: &[Vec<f64>]) -> Vec<Value> {
    for ((index, ..), data) in run.trainable().into_iter().zip(data) {
        run.set(index, data.clone());
    }
    run.trainable().into_iter().map(|(_, _, value)| value).collect()
}

/// The elements of a value, weighed by numbers that are all different, and added up.
pub(super) fn weighed(value: &Value) -> Result<Value> {
    let weights = Stream::new(5, "readout").normals(value.data().len(), 0.0, 1.0);
    Ok(sum(&mul(value, &Value::constant(value.dtype(), value.shape(), weights))?))
}

/// A scalar that every element of the model's features has a part in.
pub(super) fn readout(run: &Arc<Run>) -> Result<Value> {
    let features = forward::features(run, &run.toy.batch(EXAMPLES))?;
    add(&weighed(&features.pooled)?, &weighed(&features.sequence)?)
}

/// What a model without a head learns: features that are given, by their mean squared distance.
pub(super) fn toy_loss(run: &Arc<Run>) -> Result<Value> {
    let features = forward::features(run, &run.toy.batch(EXAMPLES))?;
    let distance = |x: &Value| {
        let goal = Stream::new(9, "goal").normals(x.data().len(), 0.0, 1.0);
        let squares = square(&sub(x, &Value::floats(x.shape(), goal))?);
        Ok::<_, Error>(affine(&sum(&squares), 1.0 / squares.data().len() as f64, 0.0))
    };
    add(&distance(&features.pooled)?, &distance(&features.sequence)?)
}

/// Pooled and other features of a batch, side by side.
pub(super) fn outputs(run: &Arc<Run>) -> Result<Value> {
    let features = forward::features(run, &run.toy.batch(EXAMPLES))?;
    let all: Vec<f64> = features.pooled.data().iter().chain(features.sequence.data()).copied().collect();
    Ok(Value::floats([all.len()], all))
}
