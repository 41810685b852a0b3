//! Evaluation: predictions for a whole data set, and the loss over it.

use std::collections::BTreeMap;
use std::iter::repeat_n;

use fthost_autograd::{DType, Tape, TapeOptions, Tensor};
use fthost_plugin_api::{PredictionKind, TargetKind};

use crate::Result;
use crate::cores;
use crate::data::UNCOUNTED;
use crate::report::entities::{Entities, Tags};
use crate::report::metrics::probabilities::Bin;
use crate::report::metrics::{self, Metrics, Probabilities};
use crate::run::pass::{Pass, scalar};

/// Examples that one tape takes in evaluation. Fixed, so that the bits do not depend on the number of threads.
const ROWS: usize = 32;

/// Probabilities that are kept for the metrics of a whole data set: 256 MB of them.
const MOST_KEPT: usize = 1 << 26;

/// What a model predicts for a data set.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// By the kind of prediction.
    pub outcome: Outcome,
    metrics: Metrics,
}

/// Predictions beside their targets.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Classes, of examples or of the tokens that count.
    Classes(Classes),
    /// Real values.
    Values {
        /// True values.
        targets: Vec<f32>,
        /// Predicted values.
        predictions: Vec<f32>,
    },
}

/// Predicted classes.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    /// True classes.
    pub targets: Vec<u32>,
    /// The predicted ones.
    pub predictions: Vec<u32>,
    /// The probabilities of the predicted ones.
    pub confidences: Vec<f32>,
    /// Those of all classes; none where they are too many to be kept.
    pub probabilities: Option<Probabilities>,
    /// The entities that the classes of tokens spell, where they do.
    pub entities: Option<Entities>,
    /// How many of each example's tokens count, where classes are those of tokens.
    pub counted: Option<Vec<usize>>,
}

impl Classes {
    /// Of classes with these names. Without `counted` they are classes of examples.
    pub fn new(labels: &[String], targets: Vec<u32>, predictions: Vec<u32>, counted: Option<Vec<usize>>) -> Self {
        let tags = Tags::of(labels).zip(counted.as_deref());
        let entities = tags.map(|(tags, counted)| tags.scores(&targets, &predictions, counted));
        Self { targets, predictions, entities, counted, ..Self::default() }
    }

    /// The natural logarithm of each true class's probability, negated: what an example loses.
    pub fn losses(&self) -> Option<Vec<f64>> {
        let rows = self.probabilities.as_ref()?.rows().zip(&self.targets);
        Some(rows.map(|(row, &target)| -f64::from(row[target as usize]).max(f64::MIN_POSITIVE).ln()).collect())
    }

    /// The reliability curve; none without probabilities.
    pub fn reliability(&self) -> Vec<Bin> {
        let bins = self.probabilities.as_ref().filter(|all| all.are_finite());
        bins.map_or_else(Vec::new, |all| all.reliability(&self.targets, &self.predictions))
    }
}

impl Evaluation {
    /// With the mean loss over the examples, weighted as in training, where any of them counts in it; of so many classes.
    pub fn new(loss: Option<f64>, outcome: Outcome, classes: usize) -> Self {
        let mut metrics = match &outcome {
            Outcome::Classes(found) => {
                let mut all = metrics::classes(&found.targets, &found.predictions, classes).to_map();
                all.extend(match &found.probabilities {
                    Some(probable) => probable.metrics(&found.targets, &found.predictions),
                    None => metrics::probabilities::names(classes).map(|name| (name, f64::NAN)).collect(),
                });
                all.extend(found.entities.iter().flat_map(Entities::to_map));
                all
            }
            Outcome::Values { targets, predictions } => metrics::values::of(targets, predictions),
        };
        metrics.extend(loss.map(|loss| ("loss".to_owned(), loss)));
        Self { outcome, metrics }
    }

    /// Metric names and values, the loss among them where there is one. What is undefined is not a number.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Why those that are undefined are so.
    pub fn undefined(&self) -> BTreeMap<String, String> {
        let (finite, kept) = match &self.outcome {
            Outcome::Classes(found) => {
                let probabilities = found.probabilities.as_ref();
                (probabilities.is_none_or(Probabilities::are_finite), probabilities.is_some())
            }
            Outcome::Values { predictions, .. } => (predictions.iter().all(|value| value.is_finite()), true),
        };
        let why = |name: &String| match kept || !metrics::probabilities::names(usize::MAX).any(|known| known == *name) {
            true => metrics::why_undefined(name, finite),
            false => "the probabilities of so many examples and classes are not kept",
        };
        let undefined = self.metrics.keys().filter(|name| self.metrics[*name].is_nan());
        undefined.map(|name| (name.clone(), why(name).to_owned())).collect()
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
    let labels = pass.data.labels();
    let outcome = match pass.spec.predictions {
        PredictionKind::Classes => {
            let class = |values: Vec<f32>| values.into_iter().map(|value| value as u32).collect::<Vec<_>>();
            let kept = pass.keeps_probabilities();
            let (mut counted, mut confidences, mut probabilities) = (Vec::new(), Vec::new(), Vec::new());
            for part in parts {
                counted.extend(part.counted);
                confidences.extend(part.confidences);
                probabilities.extend(part.probabilities);
            }
            let counted = (pass.spec.targets == TargetKind::TokenClass).then_some(counted);
            let probabilities = kept.then(|| Probabilities::new(labels.len(), probabilities));
            let classes = Classes::new(labels, class(targets), class(predictions), counted);
            Outcome::Classes(Classes { confidences, probabilities, ..classes })
        }
        PredictionKind::Values => Outcome::Values { targets, predictions },
    };
    Ok(Evaluation::new(loss, outcome, labels.len()))
}

impl Pass<'_> {
    /// Whether the probabilities of all classes are few enough to be kept.
    fn keeps_probabilities(&self) -> bool {
        let rows = match self.spec.targets {
            TargetKind::TokenClass => self.data.total_tokens(),
            _ => self.data.len(),
        };
        rows.saturating_mul(self.data.labels().len()) <= MOST_KEPT
    }
}

/// What the head predicts for each example of the pass's data: probabilities of the classes, or one value.
pub fn predict(pass: &Pass<'_>) -> Result<Vec<Vec<f32>>> {
    let rows: Vec<u32> = (0..pass.data.len() as u32).collect();
    let parts = over_chunks(pass, &rows, &|_| {}, |rows| {
        let tape = evaluation_tape(pass);
        let outputs = pass.outputs(&tape, rows)?;
        let predicted = pass.head.predict(&tape, &outputs)?; // [rows, classes] or [rows]
        let mut predicted = predicted.to_dtype(DType::F32)?.reshape((rows.len(), ()))?.to_vec2::<f32>()?;
        if pass.spec.predictions == PredictionKind::Classes {
            predicted.iter_mut().for_each(|row| pass.decision.calibrate(row));
        }
        Ok(predicted)
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// What the head predicts for each word of the pass's data, which were read without labels: probabilities of the classes; `None` where
/// no token begins the word.
pub fn predict_words(pass: &Pass<'_>) -> Result<Vec<Vec<Option<Vec<f32>>>>> {
    let rows: Vec<u32> = (0..pass.data.len() as u32).collect();
    let parts = over_chunks(pass, &rows, &|_| {}, |rows| {
        let tape = evaluation_tape(pass);
        let outputs = pass.outputs(&tape, rows)?;
        let tokens = pass.head.predict(&tape, &outputs)?.to_dtype(DType::F32)?.to_vec2::<f32>()?; // [tokens, classes]
        let mut tokens = tokens.into_iter();
        let mut of_rows = Vec::new();
        for &row in rows {
            let (words, begins) = pass.data.words(row)?;
            let mut of_words = vec![None; words];
            for (word, mut probabilities) in begins.into_iter().zip(tokens.by_ref()) {
                pass.decision.calibrate(&mut probabilities);
                if let Some(of_word) = of_words.get_mut(word as usize) {
                    *of_word = Some(probabilities);
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
    // Batches on a GPU are bigger: parallelism is inside the op there.
    let chunk = if pass.model.device.is_cpu() { ROWS } else { 8 * ROWS };
    let chunks: Vec<&[u32]> = rows.chunks(chunk).collect();
    cores::map(&chunks, |rows| {
        let part = one(rows)?;
        progress(rows.len());
        Ok(part)
    })
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
    /// Of classes the predicted ones' probabilities, and where they are kept those of all.
    confidences: Vec<f32>,
    probabilities: Vec<f32>,
    /// Where targets are classes of tokens, how many of each example's count; only these are kept.
    counted: Vec<usize>,
}

impl Part {
    /// Keeps the tokens that count of examples with these numbers of tokens.
    fn keep_counted(&mut self, lengths: &[usize]) {
        let counts: Vec<bool> = self.targets.iter().map(|&target| target != UNCOUNTED as f32).collect();
        let mut rest = counts.as_slice();
        for &length in lengths {
            let (example, others) = rest.split_at(length);
            self.counted.push(example.iter().filter(|&&counts| counts).count());
            rest = others;
        }
        for values in [&mut self.targets, &mut self.predictions, &mut self.confidences, &mut self.probabilities] {
            // One for each token, or one for each of its classes.
            let each = values.len() / counts.len().max(1);
            let mut counts = counts.iter().flat_map(|&counts| repeat_n(counts, each));
            values.retain(|_| counts.next() == Some(true));
        }
    }
}

fn evaluate_chunk(pass: &Pass<'_>, rows: &[u32]) -> Result<Part> {
    let tape = evaluation_tape(pass);
    let outputs = pass.outputs(&tape, rows)?;
    let targets = pass.data.targets(rows, &pass.model.device)?;
    let (sum, weight) = pass.head.loss(&tape, &outputs, &targets, &[])?;
    let predicted = pass.head.predict(&tape, &outputs)?.to_dtype(DType::F32)?; // [rows or tokens, classes] or [rows]
    let mut part = Part {
        loss: scalar(&sum)?,
        weight,
        targets: targets.to_dtype(DType::F32)?.to_vec1()?,
        predictions: predicted.flatten_all()?.to_vec1()?,
        confidences: Vec::new(),
        probabilities: Vec::new(),
        counted: Vec::new(),
    };
    if pass.spec.predictions == PredictionKind::Classes {
        let mut probabilities = std::mem::take(&mut part.predictions);
        for row in probabilities.chunks_exact_mut(predicted.dim(1)?) {
            pass.decision.calibrate(row);
            let class = pass.decision.class(row);
            part.predictions.push(class as f32);
            part.confidences.push(row[class as usize]);
        }
        part.probabilities = if pass.keeps_probabilities() { probabilities } else { Vec::new() };
    }
    if pass.spec.targets == TargetKind::TokenClass {
        part.keep_counted(&rows.iter().map(|&row| pass.data.tokens(row)).collect::<Result<Vec<_>>>()?);
    }
    Ok(part)
}
