//! What is checked of strategies.

use std::{collections::BTreeMap, sync::Arc, thread};

use serde_json::Value as Json;

use super::{
    core::{self, Core, Moved, outputs, readout, set_all, toy_loss, variables},
    finite::{self, equal},
    forward::{self, Features},
    ops::{linear, reshape},
    pass::Pass,
    run::{Function, Hook, Owner, Run},
    session,
    value::Value,
};
use crate::{
    Error, Event, Result,
    abi::tables::{StrategyVtable, hook_kind},
};

/// How far a merged layer may be from the hooked one, beside the greatest output. Numbers that went through `f32` differ by less.
const ROUNDING: f64 = 1e-6;

/// A strategy that is attached to the toy model.
pub struct StrategyRun(pub(super) Core<StrategyVtable>);

impl StrategyRun {
    /// All that holds for any strategy: [`starts_at_base`](Self::starts_at_base), [`check_gradients`](Self::check_gradients),
    /// [`check_merge`](Self::check_merge) where all its hooks merge, [`check_threads`](Self::check_threads), a short training,
    /// [`check_state`](Self::check_state) in the midst of it and at its end, and that nothing is left once it is freed.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(self) -> Result<()> {
        self.starts_at_base()?;
        self.check_gradients()?;
        if self.merges()? {
            self.check_merge()?;
        }
        self.check_threads()?;
        self.0.train(2, 2, &|of| toy_loss(&of.run), &|core| core.check_state(&|of| outputs(&of.run)))?;
        self.check_state()?;
        self.finish()
    }

    /// Whether it says that the model computes what it did before, and that it does, to the bit.
    ///
    /// # Errors
    /// Where it says so and the features differ.
    pub fn starts_at_base(&self) -> Result<bool> {
        let Core { now, .. } = &self.0;
        if !now.instance.starts_at_base(&now.run)? {
            return Ok(false);
        }
        let bare = Run::new(now.run.toy, now.run.pair, now.run.seed);
        let [hooked, base] = [&now.run, &bare].map(|run| Pass::evaluation().run(|| outputs(run)).0);
        let of = ["the adapted model", "the base model"];
        equal("starts_at_base is true, and the features differ", of, &hooked?, &base?, 0.0)?;
        Ok(true)
    }

    /// Compares the gradient of every parameter that trains with finite differences, through the hooks and the whole model. The
    /// parameters are moved a little first, so that none is checked at zero. What the hooks detach counts as a constant.
    ///
    /// # Errors
    /// Where they differ, or no gradient reaches a parameter that trains.
    pub fn check_gradients(&self) -> Result<()> {
        let run = self.0.run();
        let _moved = Moved::new(run);
        let all = variables(run, |_| true);
        if all.is_empty() {
            return Err(Error::new("nothing trains: the strategy froze the model and declared no parameter"));
        }
        finite::check(&all, &|data| {
            let leaves = set_all(run, data);
            Ok((readout(run)?, leaves))
        })
    }

    /// Folds the hooks into weights as `fthost merge` does, and compares each layer and the features with the hooked ones.
    ///
    /// # Errors
    /// Where they differ; where a hook is none that a weight can take in.
    pub fn check_merge(&self) -> Result<()> {
        let run = self.0.run();
        let _moved = Moved::new(run);
        let batch = run.toy.batch(core::EXAMPLES);
        let features = || Pass::evaluation().run(|| forward::features(run, &batch)).0;
        let hooked = features()?;
        for site in hooked_sites(run) {
            let (weight, bias) = folded(run, &site)?;
            for (_, x, y) in hooked.layers.iter().filter(|(path, ..)| *path == site) {
                let merged = linear(x, &weight, bias.as_ref())?;
                equal(
                    &format!("{site} is not what it was once it is merged"),
                    ["the merged layer", "the hooked one"],
                    &merged,
                    y,
                    ROUNDING,
                )?;
            }
            run.state().merged.insert(site, (weight, bias));
        }
        let merged = features()?;
        let of = ["the merged model", "the hooked one"];
        let both: [fn(&Features) -> &Value; 2] = [|features| &features.pooled, |features| &features.sequence];
        both.iter().try_for_each(|of_it| {
            equal("the features differ once all is merged", of, of_it(&merged), of_it(&hooked), ROUNDING)
        })
    }

    /// Whether there are hooks, and every one of them merges.
    fn merges(&self) -> Result<bool> {
        let run = self.0.run();
        let sites = hooked_sites(run);
        for site in &sites {
            for hook in run.hooks(site) {
                let linear = hook.kind() == hook_kind::LINEAR;
                if !linear || fold(run, &hook, Function::Merge, &matrix(run, site)?)?.is_none() {
                    return Ok(false);
                }
            }
        }
        Ok(!sites.is_empty())
    }

    /// Runs the model on several threads at once: `[any thread]` hooks give everywhere what they give here.
    ///
    /// # Errors
    /// Where they do not.
    pub fn check_threads(&self) -> Result<()> {
        const THREADS: usize = 4;
        let run = self.0.run();
        let here = outputs(run)?;
        let elsewhere: Vec<Result<Value>> = thread::scope(|scope| {
            let running: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| outputs(run))).collect();
            let panicked = || Err(Error::new("a hook panicked on another thread"));
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
        });
        let same = |other: Result<Value>| equal("threads differ", ["another thread", "this one"], &other?, &here, 0.0);
        elsewhere.into_iter().try_for_each(same)
    }

    /// That its state, saved and loaded into another instance, is saved again as it was, and that both compute the same. Train first
    /// where that makes a difference.
    ///
    /// # Errors
    /// Where they differ.
    pub fn check_state(&self) -> Result<()> {
        self.0.check_state(&|of| outputs(&of.run))
    }

    /// A run of `epochs` times `steps` steps of plain gradient descent, with all its events and an evaluation after each epoch; gives the
    /// losses. Features that are given are learned.
    ///
    /// # Errors
    /// The strategy's own; where it sets weights in an evaluation and does not put back what was there.
    pub fn train(&mut self, epochs: u64, steps: u64) -> Result<Vec<f64>> {
        self.0.train(epochs, steps, &|of| toy_loss(&of.run), &|_| Ok(()))
    }

    /// Tells it of one event.
    ///
    /// # Errors
    /// The strategy's own.
    pub fn event(&mut self, event: &Event) -> Result<()> {
        self.0.event(event)
    }

    /// The names of the parameters that train now.
    pub fn trainable(&self) -> Vec<String> {
        self.0.run().trainable().into_iter().map(|(_, name, _)| name).collect()
    }

    /// The names of the parameters that it declared.
    pub fn declared(&self) -> Vec<String> {
        let state = self.0.run().state();
        state.parameters.iter().filter(|of| of.owner == Owner::Strategy).map(|of| of.name.clone()).collect()
    }

    /// A parameter's elements, row-major.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn value(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.0.run().value(name)?.data().to_vec())
    }

    /// Gives a parameter other numbers, as a step of training does.
    ///
    /// # Errors
    /// Where there is none of that name, or it has another number of elements.
    pub fn set_value(&mut self, name: &str, elements: &[f64]) -> Result<()> {
        self.0.set_value(name, elements)
    }

    /// What it told by [`Model::log_scalar`](crate::Model::log_scalar) since the last time: the steps that were taken, the name without that of
    /// the method, and the number.
    pub fn scalars(&self) -> Vec<(u64, String, f64)> {
        self.0.scalars()
    }

    /// The model's features of its examples, pooled ones first.
    ///
    /// # Errors
    /// The hooks' own.
    pub fn outputs(&self) -> Result<Vec<f64>> {
        let (outputs, _) = Pass::evaluation().run(|| outputs(self.0.run()));
        Ok(outputs?.data().to_vec())
    }

    /// What it says for PEFT's `adapter_config.json`.
    ///
    /// # Errors
    /// The strategy's own.
    pub fn adapter_config(&self) -> Result<Option<Json>> {
        self.0.now.instance.adapter_config(self.0.run())
    }

    /// Names and shapes of what it saves in PEFT's form where that is not its parameters; empty where it is.
    ///
    /// # Errors
    /// The strategy's own.
    pub fn adapter_tensors(&self) -> Result<BTreeMap<String, Vec<usize>>> {
        let tensors = self.0.now.instance.adapter_tensors(self.0.run())?.unwrap_or_default();
        Ok(tensors.into_iter().map(|(name, value)| (name, value.shape().to_vec())).collect())
    }

    /// What it logged on this thread since the last time: messages with their fields.
    pub fn logged(&self) -> Vec<String> {
        session::logged()
    }

    /// Frees it. Nothing that it kept may be left.
    ///
    /// # Errors
    /// Where it still keeps tensors, or released one twice.
    pub fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

/// Paths of the sites that have hooks.
fn hooked_sites(run: &Run) -> Vec<String> {
    let mut sites: Vec<String> = run.state().hooks.iter().map(|(site, _)| site.clone()).collect();
    sites.sort();
    sites.dedup();
    sites
}

/// A layer's weight as a matrix.
fn matrix(run: &Run, site: &str) -> Result<Value> {
    let weight = run.value(&format!("{site}.weight"));
    let weight = weight.map_err(|_| Error::new(format!("{site} has a hook, and is no layer with a weight")))?;
    let rows = weight.shape()[0];
    reshape(&weight, [rows, weight.data().len() / rows])
}

/// What a hook makes of one tensor.
fn fold(run: &Arc<Run>, hook: &Arc<dyn Hook>, function: Function, of: &Value) -> Result<Option<Value>> {
    let answer = hook.call(run, function, &[of], &[], 1)?;
    let value = answer.and_then(|mut answer| answer.values.pop().flatten());
    if let Some(wrong) = value.as_ref().filter(|value| value.shape() != of.shape()) {
        return Err(Error::new(format!("merge made {:?} of {:?}", wrong.shape(), of.shape())));
    }
    Ok(value)
}

/// Weight and bias with the hooks of a site in them: what is made of outputs in the order of the forward pass, then what is made of
/// inputs, the last one first.
fn folded(run: &Arc<Run>, site: &str) -> Result<(Value, Option<Value>)> {
    let hooks = run.hooks(site);
    if hooks.iter().any(|hook| hook.kind() != hook_kind::LINEAR) {
        return Err(Error::new(format!("the hook at {site} is none of a linear layer, so no weight can take it in")));
    }
    let (mut weight, mut bias) = (matrix(run, site)?, run.value(&format!("{site}.bias"))?);
    let probe = Value::floats([1, weight.width()], vec![1.0; weight.width()]);
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for hook in hooks {
        if fold(run, &hook, Function::Input, &probe)?.is_some() { inputs.push(hook) } else { outputs.push(hook) }
    }
    for hook in outputs.iter().chain(inputs.iter().rev()) {
        let merged = fold(run, hook, Function::Merge, &weight)?;
        weight = merged.ok_or_else(|| Error::new(format!("the hook at {site} does not merge: give it a `merge`")))?;
        bias = fold(run, hook, Function::MergeBias, &bias)?.unwrap_or(bias);
    }
    Ok((weight, Some(bias)))
}
