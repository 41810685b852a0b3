//! The ops: each a method of [`Tape`](crate::Tape), a forward and its vector-Jacobian product.
//!
//! One file owns one family. Transformer ops have fast `f32` CPU forms in [`kernels`](crate::kernels).

mod activation;
mod attention;
mod distance;
mod dropout;
mod elementwise;
mod embedding;
mod linear;
mod loss;
mod norm;
mod reduce;
mod row_norm;
mod segment;
mod shape;
