//! Optimizers, clipping, loss scaling, and the in-place updates that they and gradients are made of.

mod clip;
mod in_place;
mod optimizer;
mod scaler;

pub use clip::{clip_norm, clip_value};
pub use in_place::{add_reusing, add_rows_in_place, copy_in_place, sum};
pub use optimizer::{Method, Optimizer, StepSettings};
pub use scaler::LossScaler;
