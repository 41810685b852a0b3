//! What one convolution is: ops and kernels each say how it is computed.

use crate::Precision;
use crate::map::Placed;

/// A convolution of a map of `channels` to one of `out`, by a weight `[out, channels / groups, kh, kw]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Convolution {
    pub(crate) placed: Placed,
    pub(crate) channels: usize,
    pub(crate) out: usize,
    pub(crate) groups: usize,
    pub(crate) precision: Precision,
    pub(crate) parallel: bool,
}

impl Convolution {
    /// Whether each channel is a group of its own.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups == self.channels && self.out == self.channels
    }
}
