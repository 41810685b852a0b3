//! Evaluation: predictions for a whole data set, and the loss over it.

use std::collections::BTreeMap;

use fthost_autograd::{DType, Precision, Tape, TapeOptions, Tensor, Value};
use fthost_images::Mask;
use fthost_models::Read;
use fthost_plugin_api::{PredictionKind, TargetKind};

use super::labels::Labels;
use super::masks::{Counted, Gathered, Masks};
use crate::adapted::AdaptedModel;
use crate::cores;
use crate::data::{Dataset, UNCOUNTED};
use crate::report::entities::{Entities, Tags};
use crate::report::metrics::matches::{self, Matches};
use crate::report::metrics::probabilities::{Bin, most_probable};
use crate::report::metrics::{self, Metrics, Probabilities, preferences, tokens};
use crate::run::chunks::chunks;
use crate::run::pass::{Pass, scalar};
use crate::{Error, Result};

/// Probabilities that are kept for the metrics of a whole data set: 256 MB of them.
const MOST_KEPT: usize = 1 << 26;

/// What a model predicts for a data set.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// By the kind of prediction.
    pub outcome: Outcome,
    metrics: Metrics,
    /// Those of them that are the head's own.
    own: Metrics,
}

/// Predictions beside their targets.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Classes, of examples or of the tokens that count.
    Classes(Classes),
    /// Any number of classes for each example.
    Labels(Labels),
    /// A class for each pixel.
    Masks(Masks),
    /// A token for each place, by the examples: how many count, how many are right, and what they lose.
    Tokens(Vec<tokens::Counted>),
    /// Which of two answers is better, by the examples: the rewards of both.
    Preferences(Vec<preferences::Pair>),
    /// Where among all examples' other sides an example's own one is.
    Matches(Matches),
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
    /// The probabilities of the predicted ones; none of a word that is cut off.
    pub confidences: Vec<Option<f32>>,
    /// Those of all classes, of what has any; none where they are too many to be kept.
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

    /// The places of what has probabilities: of all but words that are cut off.
    pub fn with_probabilities(&self) -> impl Iterator<Item = usize> {
        (0..self.targets.len()).filter(|&place| self.confidences.get(place) != Some(&None))
    }

    /// The true and the predicted classes of what has probabilities.
    pub fn probable(&self) -> (Vec<u32>, Vec<u32>) {
        self.with_probabilities().map(|place| (self.targets[place], self.predictions[place])).unzip()
    }

    /// The natural logarithm of each true class's probability, negated: what an example loses. With its place.
    pub fn losses(&self) -> impl Iterator<Item = (usize, f64)> {
        let rows = self.probabilities.iter().flat_map(Probabilities::rows);
        let loss =
            |row: &[f32], place: usize| -f64::from(row[self.targets[place] as usize]).max(f64::MIN_POSITIVE).ln();
        rows.zip(self.with_probabilities()).map(move |(row, place)| (place, loss(row, place)))
    }

    /// The reliability curve; none without probabilities.
    pub fn reliability(&self) -> Vec<Bin> {
        let bins = self.probabilities.as_ref().filter(|all| all.are_finite());
        let (targets, predictions) = self.probable();
        bins.map_or_else(Vec::new, |all| all.reliability(&targets, &predictions))
    }
}

impl Evaluation {
    /// With the mean loss over the examples, weighted as in training, where any of them counts in it; of so many classes.
    pub fn new(loss: Option<f64>, outcome: Outcome, classes: usize) -> Self {
        let mut metrics = match &outcome {
            Outcome::Classes(found) => {
                let mut all = metrics::classes(&found.targets, &found.predictions, classes).to_map();
                let (targets, predictions) = found.probable();
                all.extend(match &found.probabilities {
                    Some(probable) => probable.metrics(&targets, &predictions),
                    None => metrics::probabilities::names(classes).map(|name| (name, f64::NAN)).collect(),
                });
                all.extend(found.entities.iter().flat_map(Entities::to_map));
                all
            }
            Outcome::Labels(Labels { targets, predictions, probabilities }) => {
                metrics::multi_label::of(targets, predictions, probabilities.as_ref(), classes)
            }
            Outcome::Masks(found) => metrics::masks::of(&found.classes()),
            Outcome::Tokens(rows) => tokens::of(rows),
            Outcome::Preferences(rows) => {
                preferences::of(&rows.iter().map(|pair| [pair.chosen, pair.rejected]).collect::<Vec<_>>())
            }
            Outcome::Matches(found) => matches::of(&found.ranks),
            Outcome::Values { targets, predictions } => metrics::values::of(targets, predictions),
        };
        metrics.extend(loss.map(|loss| ("loss".to_owned(), loss)));
        Self { outcome, metrics, own: Metrics::new() }
    }

    /// Metric names and values, the loss among them where there is one. What is undefined is not a number.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Those of them that are the head's own.
    pub fn own(&self) -> &Metrics {
        &self.own
    }

    /// Why those that are undefined are so.
    pub fn undefined(&self) -> BTreeMap<String, String> {
        let of = |probabilities: Option<&Probabilities>| {
            (probabilities.is_none_or(Probabilities::are_finite), probabilities.is_some())
        };
        let (finite, kept) = match &self.outcome {
            Outcome::Classes(found) => of(found.probabilities.as_ref()),
            Outcome::Labels(found) => of(found.probabilities.as_ref()),
            Outcome::Masks(_) => (true, true),
            Outcome::Tokens(rows) => (rows.iter().all(|row| row.loss.is_finite()), true),
            Outcome::Preferences(rows) => {
                (rows.iter().all(|pair| pair.chosen.is_finite() && pair.rejected.is_finite()), true)
            }
            Outcome::Matches(found) => (found.ranks.iter().all(|ranks| ranks.are_finite()), true),
            Outcome::Values { predictions, .. } => (predictions.iter().all(|value| value.is_finite()), true),
        };
        let of_probabilities = |name: &String| {
            metrics::multi_label::OF_PROBABILITIES.contains(&name.as_str())
                || metrics::probabilities::names(usize::MAX).any(|known| known == *name)
        };
        let why = |name: &String| match kept || !of_probabilities(name) {
            true if self.own.contains_key(name) => "the head's plugin gives no number",
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
    let labels = pass.data.labels();
    let size = pass.data.transform().map_or((0, 0), |transform| transform.preprocess().size());
    let gathered = Gathered::new(labels.len(), size);
    let parts = over_chunks(pass, rows, progress, |first, rows| evaluate_chunk(pass, &gathered, first, rows))?;

    let weight = parts.iter().map(|part| part.weight).sum::<f64>();
    let loss = (weight > 0.0).then(|| parts.iter().map(|part| part.loss).sum::<f64>() / weight);
    let flat = |parts: &[Part], of: fn(&Part) -> &Vec<f32>| -> Vec<f32> {
        parts.iter().flat_map(|part| of(part).iter().copied()).collect()
    };
    let outcome = match pass.spec.predictions {
        PredictionKind::Classes => {
            let class = |of| flat(&parts, of).into_iter().map(|value| value as u32).collect::<Vec<_>>();
            let (targets, predictions) = (class(|part| &part.targets), class(|part| &part.predictions));
            let kept = pass.keeps_probabilities();
            let (mut counted, mut confidences, mut probabilities) = (Vec::new(), Vec::new(), Vec::new());
            for part in parts {
                counted.extend(part.counted);
                confidences.extend(part.confidences);
                probabilities.extend(part.probabilities);
            }
            let counted = (pass.spec.targets == TargetKind::TokenClass).then_some(counted);
            let probabilities = kept.then(|| Probabilities::new(labels.len(), probabilities));
            let classes = Classes::new(labels, targets, predictions, counted);
            Outcome::Classes(Classes { confidences, probabilities, ..classes })
        }
        PredictionKind::MultiLabel => {
            let mut found = Labels::default();
            let kept = pass.keeps_probabilities();
            let mut probabilities = Vec::new();
            for part in parts {
                found.extend(&part.targets, &part.predictions, labels.len(), &pass.decision);
                probabilities.extend(if kept { part.predictions } else { Vec::new() });
            }
            found.probabilities = kept.then(|| Probabilities::new(labels.len(), probabilities));
            Outcome::Labels(found)
        }
        PredictionKind::Masks => Outcome::Masks(gathered.finish(parts.into_iter().map(|part| part.masks))),
        PredictionKind::Tokens => Outcome::Tokens(parts.into_iter().flat_map(|part| part.tokens).collect()),
        PredictionKind::Preferences => {
            Outcome::Preferences(parts.into_iter().flat_map(|part| part.preferences).collect())
        }
        PredictionKind::Embeddings => return evaluate_matches(pass, parts),
        PredictionKind::Values => Outcome::Values {
            targets: flat(&parts, |part| &part.targets),
            predictions: flat(&parts, |part| &part.predictions),
        },
    };
    let mut evaluation = Evaluation::new(loss, outcome, labels.len());
    evaluation.own = own_metrics(pass, &evaluation.outcome)?;
    evaluation.metrics.extend(evaluation.own.clone());
    Ok(evaluation)
}

/// Examples whose loss is one of a whole batch are taken together, so many at most: of more or fewer it is another.
const TOGETHER: usize = 256;

/// The ranks of what belongs together among all examples, and the loss, which needs several at once.
fn evaluate_matches(pass: &Pass<'_>, parts: Vec<Part>) -> Result<Evaluation> {
    let tape = evaluation_tape(pass);
    let outputs: Vec<Tensor> = parts.into_iter().filter_map(|part| part.outputs).collect();
    let outputs = Value::constant(Tensor::cat(&outputs, 0)?);
    let embeddings = pass.head.predict(&tape, &outputs)?.to_dtype(DType::F32)?; // [examples, sides, width]
    let found = Matches { sides: sides(pass), ..matches::find(&embeddings)? };
    let (mut loss, mut weight) = (0.0, 0.0);
    let examples = found.ranks.len();
    let blocks = examples.div_ceil(TOGETHER);
    for block in 0..blocks {
        let (first, end) = (block * examples / blocks, (block + 1) * examples / blocks);
        if end - first > 1 {
            let some = Value::constant(outputs.tensor().narrow(0, first, end - first)?.contiguous()?);
            let targets = Tensor::arange(0, (end - first) as u32, outputs.tensor().device())?;
            let (sum, terms) = pass.head.loss(&tape, &some, &targets, &[])?;
            (loss, weight) = (loss + scalar(&sum)?, weight + terms);
        }
    }
    Ok(Evaluation::new((weight > 0.0).then(|| loss / weight), Outcome::Matches(found), 0))
}

/// What the first two sides of examples are: the streams that the head reads, or the columns of one stream's texts.
fn sides(pass: &Pass<'_>) -> Vec<String> {
    let streams: Vec<String> = pass.spec.streams.iter().map(|of| of.stream.clone()).collect();
    if streams.len() > 1 { streams } else { ["text", "text_pair"].map(str::to_owned).into() }
}

/// The metrics of the head's own.
fn own_metrics(pass: &Pass<'_>, outcome: &Outcome) -> Result<Metrics> {
    if pass.spec.metrics.is_empty() {
        return Ok(Metrics::new());
    }
    let device = &pass.model.device;
    let table = |probabilities: &Option<Probabilities>| {
        let kept = probabilities.as_ref().ok_or_else(|| {
            Error::run(
                "the probabilities of so many examples and classes are not kept, of which the head's own metrics are",
            )
            .with_help("evaluate on fewer examples")
        })?;
        let rows: Vec<f32> = kept.rows().flatten().copied().collect();
        Ok::<_, Error>(Tensor::from_vec(rows, (kept.rows().count(), pass.data.labels().len()), device)?) // [rows, classes]
    };
    let (predictions, targets) = match outcome {
        Outcome::Classes(found) => {
            let (targets, _) = found.probable();
            (table(&found.probabilities)?, Tensor::new(targets, device)?)
        }
        Outcome::Labels(found) => {
            let probabilities = table(&found.probabilities)?;
            let (rows, classes) = probabilities.dims2()?;
            let mut targets = vec![0f32; rows * classes];
            for (row, of) in found.targets.iter().enumerate() {
                of.iter().for_each(|&class| targets[row * classes + class as usize] = 1.0);
            }
            (probabilities, Tensor::from_vec(targets, (rows, classes), device)?)
        }
        Outcome::Values { targets, predictions } => {
            (Tensor::new(predictions.as_slice(), device)?, Tensor::new(targets.as_slice(), device)?)
        }
        Outcome::Masks(_) | Outcome::Tokens(_) | Outcome::Preferences(_) | Outcome::Matches(_) => {
            return Ok(Metrics::new());
        }
    };
    pass.head.metrics(pass.spec, &predictions, &targets)
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
    let parts = over_chunks(pass, &rows, &|_| {}, |_, rows| {
        let tape = evaluation_tape(pass);
        let outputs = pass.outputs(&tape, &pass.data.show(rows)?)?;
        let predicted = pass.head.predict(&tape, &outputs)?; // [rows, classes] or [rows]
        let mut predicted = predicted.to_dtype(DType::F32)?.reshape((rows.len(), ()))?.to_vec2::<f32>()?;
        if pass.spec.predictions == PredictionKind::Classes {
            predicted.iter_mut().for_each(|row| pass.decision.calibrate(row));
        }
        Ok(predicted)
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// The classes that the head predicts for the pixels of some examples, in the size in which the model takes pictures.
pub fn predict_masks(pass: &Pass<'_>, rows: &[u32]) -> Result<Vec<Mask>> {
    let Some(transform) = pass.data.transform() else { return Err(Error::run("masks are of pictures in files")) };
    let (height, width) = transform.preprocess().size();
    let parts = over_chunks(pass, rows, &|_| {}, |_, rows| {
        let tape = evaluation_tape(pass);
        let outputs = pass.outputs(&tape, &pass.data.show(rows)?)?;
        let predicted = pass.head.predict_of(&tape, &outputs, rows.len())?.to_dtype(DType::F32)?; // [pixels, classes]
        let (classes, values) = (predicted.dim(1)?.max(1), predicted.flatten_all()?.to_vec1::<f32>()?);
        let masks = values.chunks_exact(height * width * classes).map(|of| {
            let pixels = of.chunks_exact(classes).map(|p| [most_probable(p) as u8]).collect();
            Mask::new(height, width, pixels).ok_or_else(|| Error::run("a mask has no pixel"))
        });
        masks.collect::<Result<Vec<_>>>()
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// What a stream's pooled features are of each example of the data. `progress` hears the number of examples done.
pub fn features(
    model: &AdaptedModel,
    stream: usize,
    data: &Dataset,
    precision: Precision,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Vec<f32>>> {
    let rows: Vec<u32> = (0..data.len() as u32).collect();
    let parts = cores::map(&chunks(model, data, false, &rows)?, |chunk| -> Result<Vec<Vec<f32>>> {
        let tape = Tape::new(TapeOptions { precision, ..TapeOptions::default() });
        let input = data.input_for(&data.show(chunk.rows)?, model.model.info().streams[stream].modality)?;
        let features = model.model.features(&tape, stream, &input, Read::Pooled)?; // [rows, width]
        progress(chunk.rows.len());
        Ok(features.value.tensor().to_dtype(DType::F32)?.to_vec2::<f32>()?)
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// What the head predicts for each word of the pass's data, which were read without labels: probabilities of the classes; `None` where
/// no token begins the word.
pub fn predict_words(pass: &Pass<'_>) -> Result<Vec<Vec<Option<Vec<f32>>>>> {
    let rows: Vec<u32> = (0..pass.data.len() as u32).collect();
    let parts = over_chunks(pass, &rows, &|_| {}, |_, rows| {
        let tape = evaluation_tape(pass);
        let outputs = pass.outputs(&tape, &pass.data.show(rows)?)?;
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
    outputs_with(pass, rows, &|_| {})
}

/// As [`outputs`]; `progress` hears the number of examples done.
pub fn outputs_with(pass: &Pass<'_>, rows: &[u32], progress: &(dyn Fn(usize) + Sync)) -> Result<Tensor> {
    let parts = over_chunks(pass, rows, progress, |_, rows| {
        let tape = evaluation_tape(pass);
        Ok(pass.outputs(&tape, &pass.data.show(rows)?)?.into_tensor())
    })?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// Does something for each chunk of the rows, on all cores, with the place of its first among them. The answers are in order.
fn over_chunks<T: Send>(
    pass: &Pass<'_>,
    rows: &[u32],
    progress: &(dyn Fn(usize) + Sync),
    one: impl Fn(usize, &[u32]) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let masks = pass.spec.predictions == PredictionKind::Masks;
    cores::map(&chunks(pass.model, pass.data, masks, rows)?, |chunk| {
        let part = one(chunk.first, chunk.rows)?;
        progress(chunk.rows.len());
        Ok(part)
    })
}

fn evaluation_tape(pass: &Pass<'_>) -> Tape {
    Tape::new(TapeOptions { precision: pass.precision, ..TapeOptions::default() })
}

#[derive(Default)]
struct Part {
    loss: f64,
    weight: f64,
    /// Classes as whole numbers; of any number of them indicators, and the probabilities of all.
    targets: Vec<f32>,
    predictions: Vec<f32>,
    /// Of classes the predicted ones' probabilities, and where they are kept those of all.
    confidences: Vec<Option<f32>>,
    probabilities: Vec<f32>,
    /// Where targets are classes of tokens, how many of each example's count; only these are kept.
    counted: Vec<usize>,
    /// Of masks all that is kept.
    masks: Counted,
    /// Of a language model all that is kept.
    tokens: Vec<tokens::Counted>,
    /// Of pairs of answers their rewards.
    preferences: Vec<preferences::Pair>,
    /// The head's outputs, where examples are looked at all together.
    outputs: Option<Tensor>,
}

impl Part {
    /// Keeps the tokens that count of these examples, and adds the words that are cut off: to the model they are of no kind, and it
    /// says nothing of how probable that is.
    fn keep_counted(&mut self, data: &Dataset, rows: &[u32]) -> Result<()> {
        let outside = data.outside().unwrap_or_default() as f32;
        let take = |values: &mut Vec<f32>| std::mem::take(values);
        let (targets, predictions) = (take(&mut self.targets), take(&mut self.predictions));
        let (confidences, probabilities) = (std::mem::take(&mut self.confidences), take(&mut self.probabilities));
        let classes = probabilities.len() / targets.len().max(1); // none where they are not kept
        let mut next = 0;
        for &row in rows {
            let tokens = next..next + data.text_tokens(row)?;
            next = tokens.end;
            let (missed, before) = data.missed(row)?;
            let first = self.targets.len();
            let miss = |part: &mut Self| {
                part.targets.extend(missed.iter().map(|&class| class as f32));
                part.predictions.extend(missed.iter().map(|_| outside));
                part.confidences.extend(missed.iter().map(|_| None));
            };
            if before {
                miss(self);
            }
            for token in tokens.filter(|&token| targets[token] != UNCOUNTED as f32) {
                self.targets.push(targets[token]);
                self.predictions.push(predictions[token]);
                self.confidences.push(confidences[token]);
                self.probabilities.extend_from_slice(&probabilities[token * classes..(token + 1) * classes]);
            }
            if !before {
                miss(self);
            }
            self.counted.push(self.targets.len() - first);
        }
        Ok(())
    }
}

/// The loss of each row of a language model, and how many of its tokens are the most probable ones.
fn evaluate_tokens(pass: &Pass<'_>, tape: &Tape, outputs: &Value, targets: &Tensor, rows: &[u32]) -> Result<Part> {
    let (mut part, mut first) = (Part::default(), 0);
    for &row in rows {
        let len = pass.data.text_tokens(row)?;
        let (outputs, targets) =
            (outputs.tensor().narrow(0, first, len)?, targets.narrow(0, first, len)?.contiguous()?);
        first += len;
        let all = targets.to_vec1::<u32>()?;
        let places: Vec<u32> = (0..len as u32).filter(|&place| all[place as usize] != UNCOUNTED).collect();
        let mut counted = tokens::Counted { tokens: places.len(), ..tokens::Counted::default() };
        if !places.is_empty() {
            let places = Tensor::new(places.as_slice(), outputs.device())?;
            let (outputs, targets) =
                (Value::constant(outputs.index_select(&places, 0)?), targets.index_select(&places, 0)?);
            let (sum, weight) = pass.head.loss(tape, &outputs, &targets, &[])?;
            let predicted = pass.head.predict(tape, &outputs)?.to_dtype(DType::U32)?.to_vec1::<u32>()?; // [tokens]
            let right = predicted.iter().zip(targets.to_vec1::<u32>()?).filter(|(found, target)| *found == target);
            (counted.right, counted.loss) = (right.count(), scalar(&sum)?);
            part.loss += counted.loss;
            part.weight += weight;
        }
        part.tokens.push(counted);
    }
    Ok(part)
}

fn evaluate_chunk(pass: &Pass<'_>, gathered: &Gathered, first: usize, rows: &[u32]) -> Result<Part> {
    let (tape, shown) = (evaluation_tape(pass), pass.data.show(rows)?);
    let outputs = pass.outputs(&tape, &shown)?;
    if pass.spec.predictions == PredictionKind::Embeddings {
        return Ok(Part { outputs: Some(outputs.into_tensor()), ..Part::default() });
    }
    let targets = pass.data.targets_of(&shown, &pass.model.device)?;
    if pass.spec.predictions == PredictionKind::Tokens {
        return evaluate_tokens(pass, &tape, &outputs, &targets, rows);
    }
    let (sum, weight) = pass.loss(&tape, &outputs, &shown, &[])?;
    if pass.spec.predictions == PredictionKind::Preferences {
        let rewards = pass.rewards(&tape, &outputs, &targets)?.to_dtype(DType::F64)?.to_vec2::<f64>()?; // [rows, 2]
        let pair = |(&row, rewards): (&u32, &Vec<f64>)| {
            let tokens = pass.data.answer_tokens(row)?;
            Ok(preferences::Pair { tokens, chosen: rewards[0], rejected: rewards[1] })
        };
        let preferences = rows.iter().zip(&rewards).map(pair).collect::<Result<_>>()?;
        return Ok(Part { loss: scalar(&sum)?, weight, preferences, ..Part::default() });
    }
    // [rows, tokens or pixels, classes] or [rows]
    let predicted = pass.head.predict_of(&tape, &outputs, rows.len())?.to_dtype(DType::F32)?;
    let mut part = Part { loss: scalar(&sum)?, weight, ..Part::default() };
    if pass.spec.predictions == PredictionKind::Masks {
        let targets = targets.flatten_all()?.to_vec1::<u32>()?;
        part.masks = gathered.add(first, &targets, &predicted.flatten_all()?.to_vec1()?);
        return Ok(part);
    }
    part = Part {
        targets: targets.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?,
        predictions: predicted.flatten_all()?.to_vec1()?,
        ..part
    };
    if pass.spec.predictions == PredictionKind::Classes {
        let mut probabilities = std::mem::take(&mut part.predictions);
        for row in probabilities.chunks_exact_mut(predicted.dim(1)?) {
            pass.decision.calibrate(row);
            let class = pass.decision.class(row);
            part.predictions.push(class as f32);
            part.confidences.push(Some(row[class as usize]));
        }
        part.probabilities = if pass.keeps_probabilities() { probabilities } else { Vec::new() };
    }
    if pass.spec.targets == TargetKind::TokenClass {
        part.keep_counted(pass.data, rows)?;
    }
    Ok(part)
}
