//! A pass of a task's examples through model and head, in training and in evaluation.

use fthost_autograd::{DType, Precision, Tape, Value};
use fthost_models::{Features, Input, ModelInfo, Read};
use fthost_plugin_api::{FeatureKind, HeadSpec, LossScope, Sampling, StreamFeatures};

use crate::Result;
use crate::adapted::{AdaptedModel, StreamRead};
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
        let reads = self.reads();
        head_outputs(self.head, tape, &self.features(tape, rows, &reads)?)
    }

    /// What the head reads.
    pub fn reads(&self) -> Vec<StreamRead> {
        reads_of(self.spec, self.model.model.info())
    }

    /// The features of `rows` that a head reads, in its order.
    pub fn features(&self, tape: &Tape, rows: &[u32], reads: &[StreamRead]) -> Result<Vec<Features>> {
        let input: Input = self.data.input(rows)?;
        let one = |of: &StreamRead| Ok(self.model.model.features(tape, of.stream, &input, of.read)?);
        reads.iter().map(one).collect()
    }
}

/// Examples that one tape takes in evaluation on the CPU. Fixed, so that the bits do not depend on the number of threads.
pub const EVALUATED_AT_ONCE: usize = 32;

/// Whether a batch is split into micro-batches. A loss over the whole batch, norms over the whole batch, and a device with parallelism of
/// its own take it in one piece.
pub fn splits(spec: &HeadSpec, model: &AdaptedModel) -> bool {
    let over_batch = spec.scope == LossScope::Batch || model.model.info().batch_statistics;
    model.device.is_cpu() && !over_batch
}

/// A head's outputs for the features that it reads.
pub fn head_outputs(head: &HeadInstance, tape: &Tape, features: &[Features]) -> Result<Value> {
    // A head that reads one row per example drops out by example.
    if let Some(first) = features.first() {
        tape.set_layout(first.layout.clone());
    }
    let features: Vec<_> = features.iter().map(|features| (&features.value, &features.layout)).collect();
    head.forward_streams(tape, &features)
}

/// What a head of a model reads: its spec names streams of the model, which [`HeadInstance::attach`] has seen to.
pub fn reads_of(spec: &HeadSpec, info: &ModelInfo) -> Vec<StreamRead> {
    let of = |stream: &StreamFeatures| StreamRead {
        stream: info.stream(&stream.stream).unwrap_or_default(),
        read: read_of(stream.features),
    };
    spec.streams.iter().map(of).collect()
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
