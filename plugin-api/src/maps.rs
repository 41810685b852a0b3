//! Ops on feature maps: rows of pixels, `[images * height * width, channels]`, whose size stands beside them.

use crate::{Operand, Result, Tensor, ops, tensor::call};

/// How a kernel moves over a map. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Pixels from one place to the next.
    pub stride: [usize; 2],
    /// Pixels of zeros around the map, on each side.
    pub padding: [usize; 2],
    /// Pixels from one tap to the next.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for Window {
    /// Pixel by pixel, without padding, in one group.
    fn default() -> Self {
        Self { stride: [1; 2], padding: [0; 2], dilation: [1; 2], groups: 1 }
    }
}

impl Window {
    /// The integers of an op on a map of this size: the groups stand last, behind what the op has besides.
    fn ints(&self, map: [usize; 2], besides: &[usize]) -> Vec<i64> {
        let pairs = [map, self.stride, self.padding, self.dilation].concat();
        pairs.iter().chain(besides).chain([&self.groups]).map(|&n| n as i64).collect()
    }

    /// The map that a convolution with this kernel makes of one; as torch's `conv2d`, at least one pixel.
    pub fn output(&self, map: [usize; 2], kernel: [usize; 2]) -> [usize; 2] {
        std::array::from_fn(|i| {
            let room = (map[i] + 2 * self.padding[i]).saturating_sub(self.dilation[i] * (kernel[i].max(1) - 1) + 1);
            room / self.stride[i].max(1) + 1
        })
    }

    /// The map that a transposed convolution with this kernel makes of one; as torch's `conv_transpose2d`.
    pub fn transposed_output(&self, map: [usize; 2], kernel: [usize; 2]) -> [usize; 2] {
        std::array::from_fn(|i| {
            let side = map[i].saturating_sub(1) * self.stride[i] + self.dilation[i] * (kernel[i].max(1) - 1) + 1;
            side.saturating_sub(2 * self.padding[i])
        })
    }
}

/// Feature maps: `self` is `[images * height * width, channels]`, pixel (image, y, x) in row `(image * height + y) * width + x`, and
/// `map` is `[height, width]`.
impl Tensor {
    /// Cross-correlation: `weight` `[out, channels / groups, kh, kw]`, `bias` `[out]`; returns `[places, out]`, the places of
    /// [`Window::output`] in the same order.
    pub fn conv2d(
        &self,
        map: [usize; 2],
        weight: &impl Operand,
        bias: Option<&dyn Operand>,
        window: &Window,
    ) -> Result<Self> {
        self.convolved(const { ops::index("conv2d@1") }, &window.ints(map, &[]), weight, bias)
    }

    /// The transpose of a convolution: `weight` `[channels, out / groups, kh, kw]`, `bias` `[out]`; returns `[pixels, out]`, the pixels
    /// of [`Window::transposed_output`].
    pub fn conv_transpose2d(
        &self,
        map: [usize; 2],
        weight: &impl Operand,
        bias: Option<&dyn Operand>,
        window: &Window,
    ) -> Result<Self> {
        // Without output_padding.
        self.convolved(const { ops::index("conv_transpose2d@1") }, &window.ints(map, &[0, 0]), weight, bias)
    }

    fn convolved(&self, op: usize, ints: &[i64], weight: &impl Operand, bias: Option<&dyn Operand>) -> Result<Self> {
        call(op, &[self.handle(), weight.handle(), bias.map_or(0, Operand::handle)], ints, &[])
    }

    /// The maps at another size, bilinear: `[images * size[0] * size[1], channels]`. With `align_corners` corners stay corners.
    pub fn upsample_bilinear2d(&self, map: [usize; 2], size: [usize; 2], align_corners: bool) -> Result<Self> {
        let ints = [map, size].concat().into_iter().map(|n| n as i64).chain([i64::from(align_corners)]);
        call(const { ops::index("upsample_bilinear2d@1") }, &[self.handle()], &ints.collect::<Vec<_>>(), &[])
    }

    /// The maps at another size, each pixel the nearest one's: `[images * size[0] * size[1], channels]`.
    pub fn upsample_nearest2d(&self, map: [usize; 2], size: [usize; 2]) -> Result<Self> {
        let ints: Vec<i64> = [map, size].concat().into_iter().map(|n| n as i64).collect();
        call(const { ops::index("upsample_nearest2d@1") }, &[self.handle()], &ints, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_torchs() {
        let window = Window { stride: [2, 2], padding: [1, 1], ..Window::default() };
        assert_eq!(window.output([7, 8], [3, 3]), [4, 4]);
        assert_eq!(window.transposed_output([6, 8], [4, 4]), [12, 16]);
        assert_eq!(Window::default().transposed_output([6, 8], [1, 1]), [6, 8]);
    }
}
