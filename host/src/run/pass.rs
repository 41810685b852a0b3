//! A pass of a task's examples through model and head, in training and in evaluation.

use std::collections::BTreeMap;

use fthost_autograd::{DType, Precision, Tape, Tensor, Value};
use fthost_models::{Features, Input, ModelInfo, Read};
use fthost_plugin_api::{FeatureKind, HeadSpec, LossScope, Sampling, StreamFeatures, TargetKind};
use serde::{Deserialize, Serialize};

use crate::adapted::{AdaptedModel, StreamRead};
use crate::data::{Dataset, Shown, episodes};
use crate::plugin::HeadInstance;
use crate::report::calibration;
use crate::report::metrics::probabilities::most_probable;
use crate::{Error, Result};

/// How a class follows from what a head predicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Decision {
    /// What logits are divided by: probabilities are proportional to `p^(1 / temperature)`.
    pub temperature: f64,
    /// The probability of the second of two classes from which on it is predicted; without it the most probable class is. Where an
    /// example has any number of classes, that of each class; without it one half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Where an example has any number of classes, the same for each of them, in their order; empty where they have none of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<f64>,
}

impl Default for Decision {
    fn default() -> Self {
        Self { temperature: 1.0, threshold: None, thresholds: Vec::new() }
    }
}

impl Decision {
    /// The probability from which on a class that is independent of the others is predicted, where nothing else is said.
    pub const HALF: f64 = 0.5;

    /// Puts an example's probabilities at the temperature.
    pub fn calibrate(&self, probabilities: &mut [f32]) {
        calibration::at_temperature(probabilities, self.temperature);
    }

    /// The class that is predicted by calibrated probabilities.
    pub fn class(&self, probabilities: &[f32]) -> u32 {
        match (self.threshold, probabilities) {
            (Some(threshold), [_, positive]) => u32::from(f64::from(*positive) >= threshold),
            _ => most_probable(probabilities),
        }
    }

    /// The classes that are predicted by probabilities that are independent of each other, ascending.
    pub fn classes(&self, probabilities: &[f32]) -> Vec<u32> {
        let usual = self.threshold.unwrap_or(Self::HALF);
        let from = |class: u32| self.thresholds.get(class as usize).copied().unwrap_or(usual);
        let chosen = (0..).zip(probabilities).filter(|&(class, &p)| f64::from(p) >= from(class));
        chosen.map(|(class, _)| class).collect()
    }
}

/// What a pass over examples needs to know, in training and in evaluation.
pub struct Pass<'a> {
    /// The model with its hooks.
    pub model: &'a AdaptedModel,
    /// The task's head.
    pub head: &'a HeadInstance,
    /// What the head declared.
    pub spec: &'a HeadSpec,
    /// The examples.
    pub data: &'a Dataset,
    /// Float type of matrix products.
    pub precision: Precision,
    /// How classes follow from probabilities.
    pub decision: Decision,
}

impl Pass<'_> {
    /// The head's outputs for what is seen of examples, recorded on `tape`.
    pub fn outputs(&self, tape: &Tape, shown: &Shown) -> Result<Value> {
        let reads = self.reads();
        head_outputs(self.head, tape, &self.features(tape, shown, &reads)?, self.next(shown.rows())?.as_ref())
    }

    /// The token after each of some rows, `u32` `[tokens]`, where the head learns preferences.
    pub fn next(&self, rows: &[u32]) -> Result<Option<Tensor>> {
        let pairs = self.spec.targets == TargetKind::Preference;
        pairs.then(|| self.data.next_tokens(rows, &self.model.device)).transpose()
    }

    /// Rewards of the better and of the worse answer, `[examples, 2]`: what the head predicts by these outputs, less what it predicts by those of
    /// the model before training where it asks for them.
    pub fn rewards(&self, tape: &Tape, outputs: &Value, targets: &Tensor) -> Result<Tensor> {
        let scores = self.head.predict(tape, outputs)?;
        if !self.spec.reference {
            return Ok(scores);
        }
        Ok((scores - self.head.predict(tape, &Value::constant(targets.clone()))?)?)
    }

    /// The head's loss for the outputs of examples: the sum of its terms, each times its example's weight, and the sum of the terms'
    /// weights times that. `support` marks the support rows of an episode. Of examples that are mixed with others it is that for their
    /// own targets and that for the others', in the shares in which they are mixed.
    pub fn loss(&self, tape: &Tape, outputs: &Value, shown: &Shown, support: &[u8]) -> Result<(Value, f64)> {
        let device = &self.model.device;
        let targets = self.data.targets_of(shown, device)?;
        let (own, weight) = self.loss_of(tape, outputs, (shown.rows(), &targets), support)?;
        let Some((share, partners)) = shown.mixed() else { return Ok((own, weight)) };
        let targets = self.data.targets(partners, device)?;
        let (other, other_weight) = self.loss_of(tape, outputs, (partners, &targets), support)?;
        let sum = tape.add(&tape.affine(&own, share, 0.0)?, &tape.affine(&other, 1.0 - share, 0.0)?)?;
        Ok((sum, share * weight + (1.0 - share) * other_weight))
    }

    /// The loss of outputs for these targets of `rows`.
    fn loss_of(
        &self,
        tape: &Tape,
        outputs: &Value,
        (rows, targets): (&[u32], &Tensor),
        support: &[u8],
    ) -> Result<(Value, f64)> {
        let Some(weights) = self.data.weights(rows)? else {
            return self.head.loss(tape, outputs, targets, support);
        };
        // A head gives sums alone: examples of one weight are summed together.
        let mut by_weight: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut next = 0;
        for (&row, weight) in rows.iter().zip(weights) {
            let length = match self.spec.targets {
                TargetKind::TokenClass | TargetKind::NextToken | TargetKind::MaskedToken => {
                    self.data.text_tokens(row)? as u32
                }
                TargetKind::Class
                | TargetKind::MultiLabel
                | TargetKind::Value
                | TargetKind::Mask
                | TargetKind::Match
                | TargetKind::Preference => 1,
            };
            by_weight.entry(weight.to_bits()).or_default().extend(next..next + length);
            next += length;
        }
        let (mut total, mut total_weight): (Option<Value>, f64) = (None, 0.0);
        // In training a head may get the rows of several passes, one after the other.
        let passes = outputs.dims().first().map_or(1, |&rows| rows as u32 / next.max(1));
        for (weight, places) in by_weight {
            let weight = f64::from(f32::from_bits(weight));
            let of_passes: Vec<u32> =
                (0..passes).flat_map(|pass| places.iter().map(move |place| pass * next + place)).collect();
            let (outputs, targets) = (
                tape.index_select(outputs, &Tensor::new(of_passes, &self.model.device)?, 0)?,
                targets.index_select(&Tensor::new(places, &self.model.device)?, 0)?,
            );
            let (sum, terms) = self.head.loss(tape, &outputs, &targets, &[])?;
            let sum = tape.affine(&sum, weight, 0.0)?;
            total = Some(match total {
                Some(total) => tape.add(&total, &sum)?,
                None => sum,
            });
            total_weight += weight * terms;
        }
        let total = total.ok_or_else(|| Error::run("a loss needs an example"))?;
        Ok((total, total_weight))
    }

    /// The maps of the pictures that stand before the texts of examples, for a stream of a model that sees; none for another.
    fn before(&self, tape: &Tape, shown: &Shown, stream: usize) -> Result<Option<Value>> {
        let info = self.model.model.info();
        let Some(read) = sight_of(info, self.data).filter(|_| info.sees(stream)) else { return Ok(None) };
        Ok(Some(self.read(tape, shown, read)?.value))
    }

    /// What the head reads.
    pub fn reads(&self) -> Vec<StreamRead> {
        reads_of(self.spec, self.model.model.info())
    }

    /// The features of examples that a head reads, in its order.
    pub fn features(&self, tape: &Tape, shown: &Shown, reads: &[StreamRead]) -> Result<Vec<Features>> {
        reads.iter().map(|&of| self.read(tape, shown, of)).collect()
    }

    /// What is read of one stream. Behind a picture nothing is kept of a text, but what frozen layers make of the picture is.
    fn read(&self, tape: &Tape, shown: &Shown, of: StreamRead) -> Result<Features> {
        let modality = self.model.model.info().streams[of.stream].modality;
        let before = self.before(tape, shown, of.stream)?;
        if let Some(examples) = self.data.keys(shown, modality).filter(|_| before.is_none()) {
            let input = |places: &[usize]| self.data.input_for(&shown.select(places), modality);
            if let Some(found) = self.model.kept_features(tape, &examples, of, input)? {
                return Ok(found);
            }
        }
        let mut input: Input = self.data.input_for(shown, modality)?;
        if let Input::Text(text) = &mut input {
            text.before = before;
        }
        Ok(self.model.model.features(tape, of.stream, &input, of.read)?)
    }
}

/// How the examples of a batch pass through network and head in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// All on one tape, whose ops are shared by the cores, and why.
    OneTape(Whole),
    /// In micro-batches through both, on all cores.
    Apart,
    /// In micro-batches through the network, on all cores; the head takes the features of all.
    Gathered,
    /// The same, so many examples at most in a micro-batch, and twice through the network: for features, then for gradients.
    Twice(usize),
}

/// Why a batch is taken in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// What is made of an example depends on the others: a norm takes its statistics over them.
    Statistics,
    /// The device has parallelism of its own.
    Device,
}

/// How a batch of a head's passes through it and the model, as things are.
pub fn way(spec: &HeadSpec, model: &AdaptedModel) -> Way {
    match (spec.scope, model.micro_batch) {
        _ if model.model.batch_statistics() => Way::OneTape(Whole::Statistics),
        (LossScope::Batch, Some(most)) => Way::Twice(most),
        _ if !model.device.is_cpu() => Way::OneTape(Whole::Device),
        (LossScope::Batch, None) => Way::Gathered,
        (LossScope::Example, _) => Way::Apart,
    }
}

/// A head's outputs for the features that it reads; `next` is the token after each, where it learns preferences.
pub fn head_outputs(head: &HeadInstance, tape: &Tape, features: &[Features], next: Option<&Tensor>) -> Result<Value> {
    // A head that reads one row per example drops out by example.
    if let Some(first) = features.first() {
        tape.set_layout(first.layout.clone());
    }
    let features: Vec<_> = features.iter().map(|features| (&features.value, &features.layout)).collect();
    head.forward_streams(tape, &features, next)
}

/// What a head of a model reads: its spec names streams of the model, which [`HeadInstance::attach`] has seen to.
pub fn reads_of(spec: &HeadSpec, info: &ModelInfo) -> Vec<StreamRead> {
    let of = |stream: &StreamFeatures| StreamRead {
        stream: info.stream(&stream.stream).unwrap_or_default(),
        read: read_of(stream.features),
    };
    spec.streams.iter().map(of).collect()
}

/// What is read of the pictures that stand before the texts of some examples, of a model that sees.
pub fn sight_of(info: &ModelInfo, data: &Dataset) -> Option<StreamRead> {
    let sight = info.sight.as_ref().filter(|_| data.stands_behind_pictures())?;
    Some(StreamRead { stream: sight.pictures, read: Read::Spatial })
}

/// All that the outputs of a head for some examples depend on: what it reads, and what stands before that.
pub fn passed_by(spec: &HeadSpec, info: &ModelInfo, data: &Dataset) -> Vec<StreamRead> {
    reads_of(spec, info).into_iter().chain(sight_of(info, data)).collect()
}

/// Features in the models' words.
pub const fn read_of(features: FeatureKind) -> Read {
    match features {
        FeatureKind::Pooled => Read::Pooled,
        FeatureKind::Sequence => Read::Sequence,
        FeatureKind::Spatial => Read::Spatial,
    }
}

/// The episodes that a head asks for.
pub fn episode_shape(spec: &HeadSpec) -> Option<episodes::Shape> {
    match spec.sampling {
        Sampling::Shuffled => None,
        Sampling::Episodes { ways, shots, queries, .. } => {
            Some(episodes::Shape { ways: ways as usize, shots: shots as usize, queries: queries as usize })
        }
    }
}

/// A scalar value as a number.
pub fn scalar(value: &Value) -> Result<f64> {
    let tensor = value.tensor().to_dtype(DType::F64)?;
    Ok(tensor.flatten_all()?.to_vec1::<f64>()?.iter().sum())
}
