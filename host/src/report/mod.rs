//! What a run tells: progress while it goes, metrics, and text for people.

pub mod calibration;
pub mod chart;
pub mod classification;
pub mod entities;
pub mod masks;
pub mod metrics;
pub mod multi_label;
pub mod numbers;
pub mod output;
pub mod page;
pub mod progress;
pub(crate) mod retrieval;
pub mod table;
pub mod tensorboard;
pub mod text;
