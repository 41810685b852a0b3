//! How many logits over a vocabulary are there at one time.

/// Bytes of logits that are there at one time.
const LOGITS: usize = 64 << 20;
/// Rows that are taken at one time whatever they take: with fewer, a product is as slow as reading its weight.
const LEAST: usize = 16;

/// How many rows a [linear map of so many classes](crate::Tape::linear_cross_entropy) takes at one time.
pub fn rows_of_logits(classes: usize) -> usize {
    (LOGITS / (4 * classes.max(1))).max(LEAST)
}
