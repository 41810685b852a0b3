//! What is checked of update rules.

use std::sync::Arc;

use super::{
    core::{Core, toy_loss},
    finite::equal,
    pass::Pass,
    random::Stream,
    run::Run,
    value::Value,
    wire::{Instance, UpdateInputs},
};
use crate::{DType, Elements, Error, Result, StateSpec, abi::draft::optimizer::OptimizerVtable};

/// How far an update may be from its formula, beside the greatest element. Numbers that went through `f32` differ by less.
const ROUNDING: f64 = 1e-6;
/// Elements of a state for each of its parameter's, at most.
const MOST: usize = 16;
/// Under which a checkpoint has the number of updates.
const STEP: &str = "step";
/// Updates of a check.
const UPDATES: u64 = 5;

/// An update rule.
pub struct OptimizerRun(pub(super) Core<OptimizerVtable>);

/// The numbers of one update, row-major: an author's formula writes the new value and the new states into them.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    /// The parameter's.
    pub value: Vec<f64>,
    /// Of as many elements.
    pub gradient: Vec<f64>,
    /// In the order of [`Optimizer::states`](crate::Optimizer::states).
    pub states: Vec<Vec<f64>>,
    /// Counted from 1.
    pub step: u64,
    /// Learning rate.
    pub lr: f64,
    /// Momentum or beta1, by the schedule.
    pub momentum: f64,
    /// 0 where the parameter gets none.
    pub weight_decay: f64,
}

/// A parameter that a rule updates, and what the host keeps of it.
#[derive(Clone)]
struct Updated {
    name: String,
    value: Value,
    specs: Vec<StateSpec>,
    states: Vec<Value>,
    step: u64,
}

/// How a step goes.
#[derive(Clone, Copy)]
struct Settings {
    lr: f64,
    momentum: f64,
    weight_decay: f64,
}

impl OptimizerRun {
    /// The momentum or beta1 that a schedule may change.
    ///
    /// # Errors
    /// The rule's own; where it is none.
    pub fn momentum(&self) -> Result<f64> {
        let momentum = self.0.now.instance.momentum(self.0.run())?;
        if (0.0..1.0).contains(&momentum) {
            return Ok(momentum);
        }
        Err(Error::new(format!("a momentum is at least 0 and below 1, and it gave {momentum}")))
    }

    /// What it keeps of a parameter of this name and shape.
    ///
    /// # Errors
    /// The rule's own; names that are no names of states, or shapes of more elements than a host keeps.
    pub fn states(&self, name: &str, shape: impl AsRef<[usize]>) -> Result<Vec<StateSpec>> {
        states(&self.0.now.instance, self.0.run(), name, shape.as_ref())
    }

    /// One update: the same numbers with the new value and the new states.
    ///
    /// # Errors
    /// The rule's own; where it gives other shapes than it was given.
    pub fn update(&self, name: &str, shape: impl AsRef<[usize]>, numbers: &Numbers) -> Result<Numbers> {
        let (shape, Numbers { value, gradient, states, step, .. }) = (shape.as_ref(), numbers);
        let specs = self.states(name, shape)?;
        let (given, kept) = (states.len(), specs.len());
        if given != kept {
            return Err(Error::new(format!("it keeps {kept} states of {name}, and {given} came")));
        }
        let tensor = |what: &str, dtype: DType, shape: &[usize], data: &Vec<f64>| {
            let fits = shape.iter().product::<usize>() == data.len();
            let wrong = || Error::new(format!("{} elements of {what} are none of shape {shape:?}", data.len()));
            fits.then(|| Value::constant(dtype, shape, data.clone())).ok_or_else(wrong)
        };
        let of_state = |(spec, data): (&StateSpec, &Vec<f64>)| tensor(&spec.name, dtype(spec), &spec.shape, data);
        let mut of = Updated {
            name: name.to_owned(),
            value: tensor("the value", DType::F32, shape, value)?,
            states: specs.iter().zip(states).map(of_state).collect::<Result<_>>()?,
            specs,
            step: step.saturating_sub(1),
        };
        let gradient = tensor("the gradient", DType::F32, shape, gradient)?;
        let Numbers { lr, momentum, weight_decay, .. } = *numbers;
        of.update(&self.0.now.instance, self.0.run(), &gradient, Settings { lr, momentum, weight_decay })?;
        let states = of.states.iter().map(|state| state.data().to_vec()).collect();
        Ok(Numbers { value: of.value.data().to_vec(), states, ..numbers.clone() })
    }

    /// That five updates of a parameter, one after the other, give the value and the states that a formula gives. Rate and momentum change
    /// from one to the next, as a schedule changes them, and weights decay in every second one.
    ///
    /// # Errors
    /// Where they differ: after which update, at which element, and both numbers.
    pub fn check_formula(&self, name: &str, shape: impl AsRef<[usize]>, formula: impl Fn(&mut Numbers)) -> Result<()> {
        let shape = shape.as_ref();
        let (specs, start) = (self.states(name, shape)?, Stream::new(0, name).normals(elements(shape), 0.0, 1.0));
        let states = specs.iter().map(|spec| vec![0.0; elements(&spec.shape)]).collect();
        let mut numbers =
            Numbers { value: start, gradient: Vec::new(), states, step: 0, lr: 0.0, momentum: 0.0, weight_decay: 0.0 };
        for step in 1..=UPDATES {
            let Settings { lr, momentum, weight_decay } = self.settings(step)?;
            numbers = Numbers { gradient: gradient(name, shape, step), step, lr, momentum, weight_decay, ..numbers };
            let found = self.update(name, shape, &numbers)?;
            formula(&mut numbers);
            let same = |what: &str, shape: &[usize], found: &[f64], expected: &[f64]| {
                let [found, expected] = [found, expected].map(|data| Value::floats(shape, data.to_vec()));
                let what = format!("after update {step} of {name} {what} is not that of the formula");
                equal(&what, ["the rule", "the formula"], &found, &expected, ROUNDING)
            };
            same("the value", shape, &found.value, &numbers.value)?;
            for (spec, (found, expected)) in specs.iter().zip(found.states.iter().zip(&numbers.states)) {
                same(&format!("the state {}", spec.name), &spec.shape, found, expected)?;
            }
        }
        Ok(())
    }

    /// That all it knows of a parameter is in the parameter's states, which are what a checkpoint holds: a rule made anew goes on with them
    /// as the one that made them, to the bit, also where that one has updated other parameters in between. That a rate of 0 without decay
    /// leaves a value as it is, as `fthost plan` takes it; and that a gradient of zeros gives numbers.
    ///
    /// # Errors
    /// Where that is not so.
    pub fn check_state(&self, name: &str, shape: impl AsRef<[usize]>) -> Result<()> {
        let (now, shape) = (&self.0.now, shape.as_ref());
        let mut goes_on = Updated::new(&now.instance, &now.run, name, shape)?;
        let mut other = Updated::new(&now.instance, &now.run, "another.weight", &[3, 2])?;
        for step in 1..=UPDATES {
            self.update_once(&mut goes_on, step)?;
            self.update_once(&mut other, step)?;
        }
        let mut restored = goes_on.clone();
        let again = self.0.again()?;
        if states(&again.instance, &again.run, name, shape)? != goes_on.specs {
            return Err(Error::new(format!("made anew with the same options it keeps other states of {name}")));
        }
        for step in UPDATES + 1..=2 * UPDATES {
            self.update_once(&mut goes_on, step)?;
            self.update_once(&mut other, step)?;
            let gradient = Value::constant(DType::F32, shape, gradient(name, shape, step));
            restored.update(&again.instance, &again.run, &gradient, self.settings(step)?)?;
            let of = ["the rule that went on", "one made anew with the same states"];
            let what = |what: &str| format!("{name} has {what} that follows from more than is saved");
            equal(&what("a value"), of, &goes_on.value, &restored.value, 0.0)?;
            for (spec, (one, other)) in goes_on.specs.iter().zip(goes_on.states.iter().zip(&restored.states)) {
                equal(&what(&format!("a state {}", spec.name)), of, one, other, 0.0)?;
            }
        }
        again.end()?;

        let mut still = goes_on.clone();
        let at_rest = Settings { lr: 0.0, momentum: self.momentum()?, weight_decay: 0.0 };
        let some = Value::constant(DType::F32, shape, gradient(name, shape, 0));
        still.update(&now.instance, &now.run, &some, at_rest)?;
        let of = ["after it", "before"];
        equal(&format!("a rate of 0 changes {name}"), of, &still.value, &goes_on.value, 0.0)?;
        let zeros = Value::constant(DType::F32, shape, vec![0.0; elements(shape)]);
        let mut fresh = Updated::new(&now.instance, &now.run, name, shape)?;
        fresh.update(&now.instance, &now.run, &zeros, self.settings(1)?)
    }

    /// So many steps of the toy model with this rule at this rate, gives the losses. Features that are given are learned.
    ///
    /// # Errors
    /// The rule's own; a loss that is no number.
    pub fn train(&self, steps: u64, lr: f64) -> Result<Vec<f64>> {
        let (now, momentum) = (&self.0.now, self.momentum()?);
        let (mut kept, mut losses) = (Vec::new(), Vec::new());
        for (_, name, value) in now.run.trainable() {
            kept.push(Updated::new(&now.instance, &now.run, &name, value.shape())?);
        }
        for step in 0..steps {
            let (loss, _) = Pass::training(step).run(|| toy_loss(&now.run));
            let loss = loss?;
            losses.push(loss.data()[0]);
            if !loss.data()[0].is_finite() {
                return Err(Error::new(format!("the loss of step {step} is {}", loss.data()[0])));
            }
            let gradients = loss.gradients(vec![1.0]);
            for ((index, _, value), of) in now.run.trainable().into_iter().zip(&mut kept) {
                let Some(gradient) = gradients.by(&value) else { continue };
                let gradient = Value::constant(DType::F32, value.shape(), gradient.to_vec());
                of.value = Value::constant(DType::F32, value.shape(), value.data().to_vec());
                of.update(&now.instance, &now.run, &gradient, Settings { lr, momentum, weight_decay: 0.0 })?;
                now.run.set(index, of.value.data().to_vec());
            }
        }
        Ok(losses)
    }

    /// All that holds for any rule: [`check_state`](Self::check_state) of a vector, a matrix and a kernel, a short training of the toy model,
    /// and that nothing is left once it is freed.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(self) -> Result<()> {
        self.check_state("encoder.layer.0.output.dense.bias", [6])?;
        self.check_state("encoder.layer.0.output.dense.weight", [6, 8])?;
        self.check_state("embeddings.convolution.weight", [6, 6, 1, 3])?;
        self.train(3, 1e-3)?;
        self.finish()
    }

    /// Frees it. Nothing that it kept may be left.
    ///
    /// # Errors
    /// Where it still keeps tensors, or released one twice.
    pub fn finish(self) -> Result<()> {
        self.0.finish()
    }

    /// The settings of an update, which change from one to the next.
    fn settings(&self, step: u64) -> Result<Settings> {
        let momentum = self.momentum()? * (1.0 - 0.01 * step as f64);
        Ok(Settings { lr: 0.1 / step as f64, momentum, weight_decay: if step % 2 == 0 { 0.1 } else { 0.0 } })
    }

    fn update_once(&self, of: &mut Updated, step: u64) -> Result<()> {
        let gradient = Value::constant(DType::F32, of.value.shape(), gradient(&of.name, of.value.shape(), step));
        of.update(&self.0.now.instance, self.0.run(), &gradient, self.settings(step)?)
    }
}

impl Updated {
    /// One that has had no update.
    fn new(rule: &Instance<OptimizerVtable>, run: &Arc<Run>, name: &str, shape: &[usize]) -> Result<Self> {
        let specs = states(rule, run, name, shape)?;
        let zeros = |spec: &StateSpec| Value::constant(dtype(spec), &*spec.shape, vec![0.0; elements(&spec.shape)]);
        let start = Stream::new(0, name).normals(elements(shape), 0.0, 1.0);
        Ok(Self {
            name: name.to_owned(),
            value: Value::constant(DType::F32, shape, start),
            states: specs.iter().map(zeros).collect(),
            specs,
            step: 0,
        })
    }

    fn update(
        &mut self,
        rule: &Instance<OptimizerVtable>,
        run: &Arc<Run>,
        gradient: &Value,
        settings: Settings,
    ) -> Result<()> {
        self.step += 1;
        let Settings { lr, momentum, weight_decay } = settings;
        let (name, value, states) = (&*self.name, &self.value, &*self.states);
        let inputs = UpdateInputs { name, value, gradient, states, step: self.step, lr, momentum, weight_decay };
        let mut given = rule.update(run, &inputs)?.into_iter();
        let kept = |what: &str, old: &Value, new: Option<Value>| {
            let Some(new) = new else { return Ok(old.clone()) };
            if new.shape() != old.shape() || new.dtype() != old.dtype() {
                let of = |value: &Value| format!("{:?} of {:?}", value.shape(), value.dtype());
                let (new, old) = (of(&new), of(old));
                return Err(Error::new(format!("the new {what} of {name} is {new}, and that is {old}")));
            }
            match new.data().iter().position(|x| !x.is_finite()) {
                Some(at) => Err(Error::new(format!("the new {what} of {name} has {} at {at}", new.data()[at]))),
                None => Ok(new.detached()),
            }
        };
        let new = kept("value", value, given.next().flatten())?;
        let named = self.specs.iter().zip(states);
        let states = named.map(|(spec, old)| kept(&spec.name, old, given.next().flatten())).collect::<Result<_>>()?;
        (self.value, self.states) = (new, states);
        Ok(())
    }
}

/// What a rule keeps of a parameter, held against what a host takes.
fn states(rule: &Instance<OptimizerVtable>, run: &Arc<Run>, name: &str, shape: &[usize]) -> Result<Vec<StateSpec>> {
    let specs = rule.states(run, name, shape)?;
    for (i, spec) in specs.iter().enumerate() {
        let most = elements(shape).saturating_mul(MOST).max(MOST);
        let elements = spec.shape.iter().try_fold(1usize, |elements, &dim| elements.checked_mul(dim));
        if elements.is_none_or(|elements| elements > most) {
            let (state, of) = (&spec.name, &spec.shape);
            return Err(Error::new(format!(
                "its state {state:?} of {name} {shape:?} would have shape {of:?}: more than {MOST} times its elements"
            )));
        }
        let twice = specs[..i].iter().any(|other| other.name == spec.name);
        if twice || spec.name.is_empty() || spec.name == STEP {
            return Err(Error::new(format!("a state cannot be named {:?}", spec.name)));
        }
    }
    Ok(specs)
}

fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

fn dtype(spec: &StateSpec) -> DType {
    match spec.elements {
        Elements::F32 => DType::F32,
        Elements::U8 => DType::U8,
    }
}

/// The gradient of an update.
fn gradient(name: &str, shape: &[usize], step: u64) -> Vec<f64> {
    Stream::new(step + 1, name).normals(elements(shape), 0.0, 1.0)
}
