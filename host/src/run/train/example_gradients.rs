//! Gradients of single examples, for plugins that measure how much each parameter matters.

use fthost_autograd::random::Stream;
use fthost_autograd::{Parameter, Precision, Tape, Tensor, Value};
use fthost_plugin_api::{FisherLabels, HeadSpec, PredictionKind, TargetKind};

use crate::adapted::AdaptedModel;
use crate::data::Dataset;
use crate::plugin::{ExampleGradients, Examples, HeadInstance};
use crate::run::pass::{Decision, Pass};
use crate::{Error, Result};

/// The least probability that has a logarithm to go on with.
const LEAST: f64 = f32::MIN_POSITIVE as f64;

fn equal(a: &Tensor, b: &Tensor) -> Result<bool> {
    Ok(a.flatten_all()?.to_vec1::<f32>()? == b.flatten_all()?.to_vec1::<f32>()?)
}

/// Walks a task's training examples, one at a time, without dropout.
pub struct TaskExamples<'a> {
    /// The task's head.
    pub head: &'a HeadInstance,
    /// What the head declared.
    pub spec: &'a HeadSpec,
    /// The training examples.
    pub data: &'a Dataset,
    /// The run's seed, for the order of examples and the labels that are drawn.
    pub seed: u64,
}

impl ExampleGradients for TaskExamples<'_> {
    fn visit(
        &mut self,
        model: &AdaptedModel,
        Examples { labels, limit, seed }: Examples,
        visit: &mut dyn FnMut(&Parameter, &Tensor, f64) -> Result<()>,
    ) -> Result<()> {
        let any_targets = [FisherLabels::Empirical, FisherLabels::SquaredOutputNorm].contains(&labels);
        if !any_targets && self.spec.targets != TargetKind::Class {
            return Err(Error::run(format!(
                "{labels:?} labels need a task of classes, and this one learns {:?}: use empirical labels",
                self.spec.targets
            )));
        }
        let decision = Decision::default();
        let pass =
            Pass { model, head: self.head, spec: self.spec, data: self.data, precision: Precision::F32, decision };
        let of_seed = seed.map(|seed| format!(" {seed}")).unwrap_or_default();
        let order = Stream::new(self.seed, &format!("fisher examples{of_seed}")).permutation(self.data.len());
        let draws = Stream::new(self.seed, &format!("fisher labels{of_seed}"));
        let limit = limit.map_or(order.len(), |limit| order.len().min(limit as usize));
        for &row in &order[..limit] {
            for (target, weight) in self.targets(&pass, row, labels, &draws)? {
                let tape = Tape::recording();
                let outputs = pass.outputs(&tape, &self.data.show(&[row])?)?;
                let (loss, terms) = match labels {
                    FisherLabels::SquaredOutputNorm => (tape.sum(&tape.square(&outputs)?)?, 1.0),
                    _ => self.negative_log_likelihood(&tape, &outputs, &target)?,
                };
                if terms == 0.0 {
                    continue; // none of its tokens has a label
                }
                let mut gradients = tape.backward(&loss)?;
                gradients.scale(1.0 / terms)?;
                gradients.densify()?;
                for (parameter, gradient) in gradients.iter() {
                    visit(parameter, &gradient.to_dense(parameter.dims())?, weight)?;
                }
            }
        }
        Ok(())
    }
}

impl TaskExamples<'_> {
    /// -log p(label) by what the head predicts, without the class weights and the smoothing that its loss may have, summed over the
    /// labels that count, and their number. A head of values gives no probabilities, and one of any number of classes none that are one
    /// distribution: its loss stands for it.
    fn negative_log_likelihood(&self, tape: &Tape, outputs: &Value, target: &Tensor) -> Result<(Value, f64)> {
        if self.spec.predictions != PredictionKind::Classes {
            return self.head.loss(tape, outputs, target, &[]);
        }
        let predicted = self.head.predictions(tape, outputs)?; // [rows, classes]
        let softmax = tape.softmax(&Value::constant(outputs.tensor().clone()))?;
        let same = softmax.dims() == predicted.dims() && equal(softmax.tensor(), predicted.tensor())?;
        // Outputs that are logits say also how improbable a class is that the softmax gives 0.
        let logits = if same { outputs.clone() } else { tape.log(&tape.clamp_min(&predicted, LEAST)?)? };
        Ok(tape.cross_entropy(&logits, target, None, 0.0)?)
    }

    /// The targets that one example's gradients are taken with, and their weights.
    fn targets(&self, pass: &Pass<'_>, row: u32, labels: FisherLabels, draws: &Stream) -> Result<Vec<(Tensor, f64)>> {
        let device = &pass.model.device;
        if [FisherLabels::Empirical, FisherLabels::SquaredOutputNorm].contains(&labels) {
            return Ok(vec![(self.data.targets(&[row], device)?, 1.0)]);
        }
        let tape = Tape::evaluation();
        let outputs = pass.outputs(&tape, &self.data.show(&[row])?)?;
        let probabilities = self.head.predict(&tape, &outputs)?.flatten_all()?.to_vec1::<f32>()?; // [classes]
        let target = |class: usize| Tensor::new(&[class as u32], device);
        if labels == FisherLabels::Exact {
            let weighted = probabilities.iter().enumerate().map(|(class, p)| Ok((target(class)?, f64::from(*p))));
            return weighted.collect();
        }
        let mut left = draws.uniform(u64::from(row));
        let mut drawn = probabilities.len() - 1; // where rounding leaves a rest
        for (class, p) in probabilities.iter().enumerate() {
            left -= f64::from(*p);
            if left < 0.0 {
                drawn = class;
                break;
            }
        }
        Ok(vec![(target(drawn)?, 1.0)])
    }
}
