//! Evaluation: predictions for a whole data set, and the loss over it.

use fthost_autograd::{DType, Precision, Tape, TapeOptions, Tensor};
use fthost_models::Read;
use fthost_plugin_api::{PredictionKind, TargetKind};

use crate::Result;
use crate::adapted::AdaptedModel;
use crate::cores;
use crate::data::{Dataset, UNCOUNTED};
use crate::report::entities::{self, Tags};
use crate::report::metrics::{self, ClassMetrics, Scores, ValueMetrics};
use crate::run::pass::{EVALUATED_AT_ONCE, Pass, scalar};

/// What a model predicts for a data set.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Mean loss over the examples, weighted as in training; `None` where none of them counts in it.
    pub loss: Option<f64>,
    /// By the kind of prediction.
    pub outcome: Outcome,
}

/// Predictions beside their targets, with their metrics.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Classes, of examples or of the tokens that count.
    Classes {
        /// True classes.
        targets: Vec<u32>,
        /// The most probable classes.
        predictions: Vec<u32>,
        /// Accuracy, F1 and their kind.
        metrics: ClassMetrics,
        /// Of the entities that the classes of tokens spell, where they do.
        entities: Option<Scores>,
        /// How many of each example's tokens count, where classes are those of tokens.
        counted: Option<Vec<usize>>,
    },
    /// Real values.
    Values {
        /// True values.
        targets: Vec<f32>,
        /// Predicted values.
        predictions: Vec<f32>,
        /// Errors and correlations.
        metrics: ValueMetrics,
    },
}

impl Evaluation {
    /// Metric names and values, the loss among them where there is one.
    pub fn metrics(&self) -> std::collections::BTreeMap<String, f64> {
        let mut all = match &self.outcome {
            Outcome::Classes { metrics, entities, .. } => {
                let mut all = metrics.to_map();
                all.extend(entities.iter().flat_map(entities::to_map));
                all
            }
            Outcome::Values { metrics, .. } => metrics.to_map(),
        };
        all.extend(self.loss.map(|loss| ("loss".to_owned(), loss)));
        all
    }
}

/// Evaluates on all examples of the pass's data. `progress` hears the number of examples done.
pub fn evaluate(pass: &Pass<'_>, progress: &(dyn Fn(usize) + Sync)) -> Result<Evaluation> {
    let rows: Vec<u32> = (0..pass.data.len() as u32).collect();
    evaluate_rows(pass, &rows, progress)
}

/// Evaluates on some examples.
pub fn evaluate_rows(pass: &Pass<'_>, rows: &[u32], progress: &(dyn Fn(usize) + Sync)) -> Result<Evaluation> {
    let parts = over_chunks(pass, rows, progress, |rows| evaluate_chunk(pass, rows))?;

    let weight = parts.iter().map(|part| part.weight).sum::<f64>();
    let loss = (weight > 0.0).then(|| parts.iter().map(|part| part.loss).sum::<f64>() / weight);
    let targets: Vec<f32> = parts.iter().flat_map(|part| part.targets.iter().copied()).collect();
    let predictions: Vec<f32> = parts.iter().flat_map(|part| part.predictions.iter().copied()).collect();
    let outcome = match pass.spec.predictions {
        PredictionKind::Classes => {
            let class = |values: Vec<f32>| values.into_iter().map(|value| value as u32).collect::<Vec<_>>();
            let (targets, predictions) = (class(targets), class(predictions));
            let metrics = metrics::classes(&targets, &predictions, pass.data.labels().len());
            let counted: Vec<usize> = parts.into_iter().flat_map(|part| part.counted).collect();
            let counted = (pass.spec.targets == TargetKind::TokenClass).then_some(counted);
            let tags = Tags::of(pass.data.labels()).zip(counted.as_deref());
            let entities = tags.map(|(tags, counted)| tags.scores(&targets, &predictions, counted));
            Outcome::Classes { targets, predictions, metrics, entities, counted }
        }
        PredictionKind::Values => {
            let metrics = metrics::values(&targets, &predictions);
            Outcome::Values { targets, predictions, metrics }
        }
    };
    Ok(Evaluation { loss, outcome })
}

/// What the head predicts for each example of the pass's data: probabilities of the classes, or one value.
pub fn predict(pass: &Pass<'_>) -> Result<Vec<Vec<f32>>> {
    let rows: Vec<u32> = (0..pass.data.len() as u32).collect();
    let parts = over_chunks(pass, &rows, &|_| {}, |rows| {
        let tape = evaluation_tape(pass);
        let outputs = pass.outputs(&tape, rows)?;
        let predicted = pass.head.predict(&tape, &outputs)?; // [rows, classes] or [rows]
        Ok(predicted.to_dtype(DType::F32)?.reshape((rows.len(), ()))?.to_vec2::<f32>()?)
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// Pooled features of each example of the data.
pub fn features(model: &AdaptedModel, data: &Dataset, precision: Precision) -> Result<Vec<Vec<f32>>> {
    let rows: Vec<u32> = (0..data.len() as u32).collect();
    let chunks: Vec<&[u32]> = rows.chunks(chunk(model)).collect();
    let parts = cores::map(&chunks, |rows| -> Result<Vec<Vec<f32>>> {
        let tape = Tape::new(TapeOptions { precision, ..TapeOptions::default() });
        let features = model.model.features(&tape, 0, &data.input(rows)?, Read::Pooled)?; // [rows, width]
        Ok(features.value.tensor().to_dtype(DType::F32)?.to_vec2::<f32>()?)
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// The class of each word of the pass's data, which were read without labels; `None` where no token begins the word.
pub fn predict_words(pass: &Pass<'_>) -> Result<Vec<Vec<Option<u32>>>> {
    let rows: Vec<u32> = (0..pass.data.len() as u32).collect();
    let parts = over_chunks(pass, &rows, &|_| {}, |rows| {
        let tape = evaluation_tape(pass);
        let outputs = pass.outputs(&tape, rows)?;
        let classes = pass.head.predict(&tape, &outputs)?.argmax(1)?.to_vec1::<u32>()?; // [tokens]
        let mut classes = classes.into_iter();
        let mut of_rows = Vec::new();
        for &row in rows {
            let (words, begins) = pass.data.words(row)?;
            let mut of_words = vec![None; words];
            for (word, class) in begins.into_iter().zip(classes.by_ref()) {
                if let Some(of_word) = of_words.get_mut(word as usize) {
                    *of_word = Some(class);
                }
            }
            of_rows.push(of_words);
        }
        Ok(of_rows)
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// The head's outputs for some examples of the pass's data, `[examples, ...]`.
pub fn outputs(pass: &Pass<'_>, rows: &[u32]) -> Result<Tensor> {
    let parts = over_chunks(pass, rows, &|_| {}, |rows| {
        let tape = evaluation_tape(pass);
        Ok(pass.outputs(&tape, rows)?.into_tensor())
    })?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// Does something for each chunk of the rows, on all cores. The answers are in order.
fn over_chunks<T: Send>(
    pass: &Pass<'_>,
    rows: &[u32],
    progress: &(dyn Fn(usize) + Sync),
    one: impl Fn(&[u32]) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let chunks: Vec<&[u32]> = rows.chunks(chunk(pass.model)).collect();
    cores::map(&chunks, |rows| {
        let part = one(rows)?;
        progress(rows.len());
        Ok(part)
    })
}

/// Examples that a tape takes at once. Batches on a GPU are bigger: parallelism is inside the op there.
fn chunk(model: &AdaptedModel) -> usize {
    if model.device.is_cpu() { EVALUATED_AT_ONCE } else { 8 * EVALUATED_AT_ONCE }
}

fn evaluation_tape(pass: &Pass<'_>) -> Tape {
    Tape::new(TapeOptions { precision: pass.precision, ..TapeOptions::default() })
}

struct Part {
    loss: f64,
    weight: f64,
    /// Classes as whole numbers.
    targets: Vec<f32>,
    predictions: Vec<f32>,
    /// Where targets are classes of tokens, how many of each example's count; only these are kept.
    counted: Vec<usize>,
}

impl Part {
    /// Keeps the tokens that count of these examples, and adds the words that are cut off: to the model they are of no kind.
    fn keep_counted(&mut self, data: &Dataset, rows: &[u32]) -> Result<()> {
        let outside = data.outside().unwrap_or_default() as f32;
        let (all_targets, all_predictions) = (std::mem::take(&mut self.targets), std::mem::take(&mut self.predictions));
        let mut pairs = all_targets.into_iter().zip(all_predictions);
        for &row in rows {
            let of_example = pairs.by_ref().take(data.tokens(row)?);
            let counted: Vec<(f32, f32)> = of_example.filter(|&(target, _)| target != UNCOUNTED as f32).collect();
            let (missed, before) = data.missed(row)?;
            let missed: Vec<(f32, f32)> = missed.into_iter().map(|class| (class as f32, outside)).collect();
            let words = if before { [missed, counted] } else { [counted, missed] }.concat();
            self.counted.push(words.len());
            for (target, prediction) in words {
                self.targets.push(target);
                self.predictions.push(prediction);
            }
        }
        Ok(())
    }
}

fn evaluate_chunk(pass: &Pass<'_>, rows: &[u32]) -> Result<Part> {
    let tape = evaluation_tape(pass);
    let outputs = pass.outputs(&tape, rows)?;
    let targets = pass.data.targets(rows, &pass.model.device)?;
    let (sum, weight) = pass.loss(&tape, &outputs, rows, &[])?;
    let predicted = pass.head.predict(&tape, &outputs)?; // [rows, classes] or [rows]
    let predicted = match pass.spec.predictions {
        PredictionKind::Classes => predicted.argmax(1)?, // [rows], or [tokens]
        PredictionKind::Values => predicted.flatten_all()?,
    };
    let mut part = Part {
        loss: scalar(&sum)?,
        weight,
        targets: targets.to_dtype(DType::F32)?.to_vec1()?,
        predictions: predicted.to_dtype(DType::F32)?.to_vec1()?,
        counted: Vec::new(),
    };
    if pass.spec.targets == TargetKind::TokenClass {
        part.keep_counted(pass.data, rows)?;
    }
    Ok(part)
}
