//! Parts of a pass that keep nothing but what they began with: the backward pass makes them once more (Chen et al. 2016,
//! arXiv:1604.06174).

use std::collections::HashMap;

use candle_core::Result;

use crate::{Parameter, Tape, TapeOptions, Value};

impl Tape {
    /// What `part` makes of `x`. Of all that it makes on the way nothing is kept; where gradients are due it is called once more, on a tape
    /// of its own, with the same masks of dropout. Values and gradients are those of a call on this tape, to the bit.
    ///
    /// # Errors
    /// Those of `part`.
    pub fn recomputed(
        &self,
        x: &Value,
        part: impl Fn(&Tape, Value) -> Result<Value> + Send + 'static,
    ) -> Result<Value> {
        if !self.options().recording {
            return part(self, x.clone());
        }
        let (layout, before) = (self.layout(), self.dropouts());
        let options = |recording| TapeOptions { recording, ..self.options().clone() };
        let first = Tape::going_on(options(false), layout.clone(), before.clone());
        let made = part(&first, x.detach())?;
        self.go_on_after(&first);
        // What trains in there gets its gradients as if it had been used here.
        let parameters: Vec<Parameter> = first.met();
        let leaves: Vec<Value> = parameters.iter().map(|parameter| self.parameter(parameter)).collect();
        let mut inputs = vec![x];
        inputs.extend(&leaves);
        let (kept, options) = (x.kept()?, options(true));
        Ok(self.record(made.into_tensor(), &inputs, move |gradient, vjp| {
            let again = Tape::going_on(options, layout, before);
            let x = kept.tensor()?;
            let x = if vjp.wants(0) { again.variable(x) } else { Value::constant(x) };
            let made = part(&again, x.clone())?;
            // Sums go on where other uses have left them, so that their order is the same.
            let sums =
                parameters.iter().enumerate().filter_map(|(i, parameter)| Some((parameter.id(), vjp.take(1 + i)?)));
            let sums: HashMap<_, _> = sums.collect();
            let mut gradients = again.backward_onto(vec![(made, gradient)], sums)?;
            if let Some(gradient) = gradients.take_variable(&x) {
                vjp.give(0, gradient)?;
            }
            for (i, parameter) in parameters.iter().enumerate() {
                if let Some(sum) = gradients.take(parameter) {
                    vjp.put(1 + i, sum)?;
                }
            }
            Ok(())
        }))
    }
}
