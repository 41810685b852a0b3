//! What is checked of regularizers.

use super::{
    core::{Attached, Core, Moved, set_all, toy_loss, variables},
    finite::{self, Variable, equal},
    ops::{add, narrow},
    pass::Pass,
    random::Stream,
    value::Value,
};
use crate::{Error, Event, Result, abi::tables::RegularizerVtable};

/// A regularizer that is attached to the toy model, all of which trains.
pub struct RegularizerRun(pub(super) Core<RegularizerVtable>);

impl RegularizerRun {
    /// The penalty on the parameters as they are; `None` where there is none yet.
    ///
    /// # Errors
    /// The regularizer's own.
    pub fn penalty(&self) -> Result<Option<f64>> {
        let penalty = self.0.now.instance.penalty(self.0.run())?;
        Ok(penalty.map(|penalty| penalty.data()[0]))
    }

    /// Compares the penalty's gradient by every parameter that trains with finite differences, once the parameters have moved a little.
    ///
    /// # Errors
    /// Where they differ; where there is no penalty yet, or none that depends on the parameters.
    pub fn check_gradients(&self) -> Result<()> {
        let run = self.0.run();
        let _moved = Moved::new(run);
        let penalty = || self.0.now.instance.penalty(run);
        let Some(now) = penalty()? else {
            return Err(Error::new(
                "there is no penalty on parameters now: call train first, where it begins after a task",
            ));
        };
        let gradients = now.gradients(vec![1.0]);
        if run.trainable().iter().all(|(_, _, value)| gradients.by(value).is_none()) {
            return Err(Error::new("the penalty reaches no parameter that trains: it is a constant"));
        }
        let absent = || Error::new("the penalty was there, and is absent once a parameter has moved");
        finite::check(&variables(run, |_| false), &|data| {
            let leaves = set_all(run, data);
            Ok((penalty()?.ok_or_else(absent)?, leaves))
        })
    }

    /// Of the penalty on outputs: its gradient, and that it is a sum over the rows. `classes`: numbers of each row.
    ///
    /// # Errors
    /// Where the gradient is wrong, or the penalties of single rows do not add up to that of all.
    pub fn check_output_penalty(&self, classes: usize) -> Result<()> {
        const ROWS: usize = 4;
        let (instance, run) = (&self.0.now.instance, self.0.run());
        let numbers = |name| Stream::new(7, name).normals(ROWS * classes, 0.0, 1.0);
        let reference = Value::floats([ROWS, classes], numbers("reference"));
        let of = |outputs: &Value, reference: &Value| {
            let penalty = instance.output_penalty(run, outputs, reference)?;
            penalty.ok_or_else(|| Error::new("there is no penalty on outputs"))
        };
        let (name, shape) = ("the outputs".to_owned(), vec![ROWS, classes]);
        let outputs = Variable { name, shape, data: numbers("outputs"), must_matter: true };
        let whole = Value::floats([ROWS, classes], outputs.data.clone());
        finite::check(&[outputs], &|data| {
            let outputs = Value::variable([ROWS, classes], data[0].clone());
            Ok((of(&outputs, &reference)?, vec![outputs]))
        })?;
        let mut sum = Value::floats([], vec![0.0]);
        for row in 0..ROWS {
            sum = add(&sum, &of(&narrow(&whole, 0, row, 1)?, &narrow(&reference, 0, row, 1)?)?)?;
        }
        let of_all = of(&whole, &reference)?;
        equal("the penalty on outputs is no sum over rows", ["all rows at once", "row by row"], &of_all, &sum, 1e-6)
    }

    /// Whether it holds what heads of earlier tasks say.
    ///
    /// # Errors
    /// The regularizer's own.
    pub fn needs_reference(&self) -> Result<bool> {
        self.0.now.instance.needs_reference(self.0.run())
    }

    /// That its state, saved and loaded into another instance, is saved again as it was, and that both penalise the same.
    ///
    /// # Errors
    /// Where they differ.
    pub fn check_state(&self) -> Result<()> {
        same_penalty(&self.0)
    }

    /// A run of `epochs` times `steps` steps, with all its events; gives the losses, penalties included. At the end of the task it may
    /// ask for gradients of single examples.
    ///
    /// # Errors
    /// The regularizer's own.
    pub fn train(&mut self, epochs: u64, steps: u64) -> Result<Vec<f64>> {
        self.0.train(epochs, steps, &penalised, &|_| Ok(()))
    }

    /// What it told by [`Model::log_scalar`](crate::Model::log_scalar) since the last time: the steps that were taken, the name without that of
    /// the method, and the number.
    pub fn scalars(&self) -> Vec<(u64, String, f64)> {
        self.0.scalars()
    }

    /// Tells it of one event.
    ///
    /// # Errors
    /// The regularizer's own.
    pub fn event(&mut self, event: &Event) -> Result<()> {
        self.0.event(event)
    }

    /// All that holds for any regularizer: a short training with [`check_state`](Self::check_state) in its midst, [`check_gradients`](Self::check_gradients) where it penalises parameters,
    /// [`check_output_penalty`](Self::check_output_penalty) where it penalises outputs, [`check_state`](Self::check_state), and that nothing
    /// is left once it is freed.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(self) -> Result<()> {
        self.0.train(2, 2, &penalised, &same_penalty)?;
        let outputs = self.needs_reference()?;
        if outputs {
            self.check_output_penalty(3)?;
        }
        if !outputs || self.penalty()?.is_some() {
            self.check_gradients()?;
        }
        let (state, _) = Pass::evaluation().run(|| self.check_state());
        state?;
        self.finish()
    }

    /// Frees it. Nothing that it kept may be left.
    ///
    /// # Errors
    /// Where it still keeps tensors, or released one twice.
    pub fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

/// The toy's loss and the penalty on its parameters.
fn penalised(of: &Attached<RegularizerVtable>) -> Result<Value> {
    let loss = toy_loss(&of.run)?;
    of.instance.penalty(&of.run)?.map_or_else(|| Ok(loss.clone()), |penalty| add(&loss, &penalty))
}

/// That its state comes back, and penalises parameters that have moved as before.
fn same_penalty(core: &Core<RegularizerVtable>) -> Result<()> {
    let _moved = Moved::new(core.run());
    core.check_state(&|of| {
        let penalty = of.instance.penalty(&of.run)?;
        Ok(penalty.unwrap_or_else(|| Value::floats([], vec![0.0])))
    })
}
