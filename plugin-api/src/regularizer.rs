//! Regularizers: penalties added to the loss, and what they learn between tasks.

use serde::de::DeserializeOwned;

use crate::{Event, Model, Result, SavedState, Tensor};

/// A penalty on the parameters or on the outputs, added to the task's loss. All calls come on the run's thread but
/// [`output_penalty`](Self::output_penalty), which takes `&self` and runs on several threads at once.
pub trait Regularizer: Sized + Send + Sync + 'static {
    /// The options of the `[[regularizer]]` table.
    type Config: DeserializeOwned + schemars::JsonSchema;

    /// Makes an instance from checked options.
    fn new(config: Self::Config) -> Result<Self>;

    /// Sees the model once all strategies have attached; keep the [`Param`](crate::Param)s to penalise.
    fn attach(&mut self, model: &mut Model) -> Result<()> {
        let _ = model;
        Ok(())
    }

    /// The penalty on parameters, a differentiable scalar, or `None` where there is none yet (EWC before its first task).
    /// Once per optimizer step.
    fn penalty(&self) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Whether [`output_penalty`](Self::output_penalty) is to be called. It wants several tasks in sequence.
    fn needs_reference(&self) -> bool {
        false
    }

    /// The penalty on what the head of an earlier task says of the present task's examples, a differentiable scalar: the *sum* over
    /// the rows of the micro-batch. `outputs` and `reference`: `[rows, classes]`, or as the head's outputs are; `reference` as they
    /// were before the present task began, without dropout and without gradient. `[any thread]`
    fn output_penalty(&self, outputs: &Tensor, reference: &Tensor) -> Result<Option<Tensor>> {
        let _ = (outputs, reference);
        Ok(None)
    }

    /// Hears the run's events. After [`Event::TaskEnd`] a consolidating method asks
    /// [`Model::example_gradients`] for what it needs.
    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        let _ = (event, model);
        Ok(())
    }

    /// State that a resumed run, or a later run on the next task, needs.
    fn save(&self) -> Result<SavedState> {
        Ok(SavedState::default())
    }

    /// Takes back what [`save`](Self::save) gave.
    fn load(&mut self, state: SavedState) -> Result<()> {
        let _ = state;
        Ok(())
    }
}
