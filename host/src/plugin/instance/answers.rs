//! What a head's results are held against: what it declared, and the task that it answers for.

use fthost_autograd::{DType, Layout, Value};
use fthost_plugin_api::{HeadSpec, ImageInfo, PredictionKind, TargetKind, TaskInfo};

use crate::plugin::bridge::results;

/// How far rounding may take a probability out of [0, 1]: those of half floats have three digits.
const ROUNDING: f64 = 1e-2;

/// What a head that has attached answers.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    targets: TargetKind,
    predictions: PredictionKind,
    /// Classes of the task.
    classes: usize,
    /// Tokens of the model's vocabulary, where it speaks.
    vocabulary: Option<usize>,
    image: Option<ImageInfo>,
    /// Sequences of an example, where it has several that pass by themselves.
    sequences: usize,
}

impl Answers {
    pub(super) fn new(spec: &HeadSpec, task: &TaskInfo) -> Self {
        Self {
            targets: spec.targets,
            predictions: spec.predictions,
            classes: task.labels.len(),
            vocabulary: task.vocabulary.as_ref().map(|vocabulary| vocabulary.size),
            image: task.image,
            sequences: (task.sequences as usize).max(1),
        }
    }

    /// That outputs are floats, and as many as there are examples or tokens in the features that they were made of.
    pub(super) fn outputs(&self, outputs: &Value, features: &[(&Value, &Layout)]) -> Result<(), String> {
        results::floats(outputs)?;
        let Some((first, layout)) = features.first() else { return Ok(()) };
        let (rows, of) = match self.targets {
            TargetKind::Class | TargetKind::Value | TargetKind::MultiLabel | TargetKind::Match => {
                (layout.sequences() / self.sequences, "examples")
            }
            TargetKind::Preference => (layout.sequences() / 2, "pairs"),
            TargetKind::TokenClass | TargetKind::NextToken | TargetKind::MaskedToken => {
                (first.dims().first().copied().unwrap_or_default(), "tokens")
            }
            // It may have as many rows as there are places or pixels.
            TargetKind::Mask => return Ok(()),
        };
        match outputs.dims() {
            [found, ..] if *found == rows => Ok(()),
            other => Err(format!("outputs of {rows} {of} are [{rows}, ...], and it gave shape {other:?}")),
        }
    }

    /// That predictions of these outputs have the form that the head declared; `examples` are how many there are, where that is known.
    pub(super) fn predictions(&self, found: &Value, outputs: &Value, examples: Option<usize>) -> Result<(), String> {
        let rows = outputs.dims().first().copied().unwrap_or(1);
        let shape = |expected: &[usize], what: &str| match found.dims() == expected {
            true => Ok(()),
            false => Err(format!("{what} are {expected:?}, and it gave shape {:?}", found.dims())),
        };
        match self.predictions {
            PredictionKind::Classes | PredictionKind::MultiLabel => {
                shape(&[rows, self.classes], "probabilities of rows and classes")?;
                probabilities(found, outputs)
            }
            PredictionKind::Masks => {
                let [height, width] = self.image.map_or([1; 2], |image| image.size);
                match (examples, found.dims()) {
                    (Some(examples), _) => {
                        shape(&[examples * height * width, self.classes], "probabilities of pixels and classes")?;
                    }
                    (None, [pixels, classes]) if pixels % (height * width) == 0 && *classes == self.classes => {}
                    (None, other) => {
                        let classes = self.classes;
                        return Err(format!(
                            "probabilities of pixels are [examples * {height} * {width}, {classes}], and it gave shape {other:?}"
                        ));
                    }
                }
                probabilities(found, outputs)
            }
            PredictionKind::Values => {
                if *found.dims() != [rows, 1] {
                    shape(&[rows], "values of rows")?;
                }
                results::floats(found)?;
                results::stays_finite([outputs], found)
            }
            PredictionKind::Embeddings => match found.dims() {
                [found_rows, sides, _] if *found_rows == rows && *sides > 1 => {
                    results::floats(found)?;
                    results::stays_finite([outputs], found)
                }
                other => Err(format!("embeddings of rows are [{rows}, sides, width], and it gave shape {other:?}")),
            },
            PredictionKind::Preferences => {
                shape(&[rows, 2], "scores of pairs")?;
                results::floats(found)?;
                results::stays_finite([outputs], found)
            }
            PredictionKind::Tokens => {
                shape(&[rows], "tokens of rows")?;
                if found.dtype() != DType::U32 {
                    let dtype = results::name_of(found.dtype());
                    return Err(format!("it gave {dtype} elements where tokens are u32: cast them"));
                }
                let known = self.vocabulary.map_or(f64::INFINITY, |size| size as f64);
                match results::numbers(found.tensor())?.into_iter().find(|token| *token >= known) {
                    None => Ok(()),
                    Some(token) => Err(format!("it gave the token {token}, and the vocabulary has {known}")),
                }
            }
        }
    }
}

/// That they are floats in [0, 1], unless the outputs were no numbers already.
fn probabilities(found: &Value, outputs: &Value) -> Result<(), String> {
    results::floats(found)?;
    match results::find(found.tensor(), |p| !(-ROUNDING..=1.0 + ROUNDING).contains(&p))? {
        None => Ok(()),
        Some(p) if p.is_finite() => {
            Err(format!("probabilities lie in [0, 1], and it gave {p}: logits go through a softmax or a sigmoid first"))
        }
        Some(_) => results::stays_finite([outputs], found),
    }
}
