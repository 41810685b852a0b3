//! What a head reads of a model.

use fthost_models::Read;

/// Which features of which stream are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRead {
    /// The stream's place in [`ModelInfo::streams`](fthost_models::ModelInfo::streams).
    pub stream: usize,
    /// The features.
    pub read: Read,
}
