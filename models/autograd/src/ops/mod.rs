//! The ops: each a method of [`Tape`](crate::Tape), a forward and its vector-Jacobian product.
//!
//! One file owns one family. Transformer ops have fast `f32` CPU forms in [`kernels`](crate::kernels).

mod activation;
mod attention;
mod batch_norm;
mod conv2d;
mod convolution;
mod distance;
mod dropout;
mod elementwise;
mod embedding;
mod gated;
mod group_norm;
mod linear;
mod linear_cross_entropy;
mod linear_log_likelihood;
mod loss;
mod max_pool;
mod norm;
mod patches;
mod reduce;
mod resample;
mod residual;
mod rotary;
mod row_norm;
mod segment;
mod shape;
