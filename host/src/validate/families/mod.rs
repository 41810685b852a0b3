//! The tests, by family.

pub(super) mod faults;
pub(super) mod file;
pub(super) mod numbers;
pub(super) mod odd;
pub(super) mod options;
pub(super) mod results;
pub(super) mod runs;
pub(super) mod same;
