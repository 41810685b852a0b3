//! What a run tells: progress while it goes, metrics, and text for people.

pub mod classification;
pub mod metrics;
pub mod progress;
pub mod table;
