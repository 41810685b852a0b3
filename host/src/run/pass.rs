//! A pass of a task's examples through model and head, in training and in evaluation.

use fthost_autograd::{DType, Precision, Tape, Value};
use fthost_models::{Features, Input, Read};
use fthost_plugin_api::{FeatureKind, HeadSpec, Sampling};

use crate::Result;
use crate::adapted::AdaptedModel;
use crate::data::{Dataset, episodes};
use crate::plugin::HeadInstance;

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
}

impl Pass<'_> {
    /// The head's outputs for `rows`, recorded on `tape`.
    pub fn outputs(&self, tape: &Tape, rows: &[u32]) -> Result<Value> {
        self.head_outputs(tape, &self.features(tape, rows, read_of(self.spec.features))?)
    }

    /// The features of `rows` that a head reads.
    pub fn features(&self, tape: &Tape, rows: &[u32], read: Read) -> Result<Features> {
        let input: Input = self.data.input(rows)?;
        Ok(self.model.model.forward(tape, &input, read)?)
    }

    /// The head's outputs for features that are there.
    pub fn head_outputs(&self, tape: &Tape, features: &Features) -> Result<Value> {
        // A head that reads one row per example drops out by example.
        tape.set_layout(features.layout.clone());
        self.head.forward(tape, &features.value, &features.layout)
    }
}

/// Which features a head reads, in the models' words.
pub fn read_of(features: FeatureKind) -> Read {
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
