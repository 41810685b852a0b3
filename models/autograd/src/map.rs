//! Feature maps, and windows that move over them.
//!
//! A feature map is rows of channels, `[images * height * width, channels]`: pixel (image, y, x) is row
//! `(image * height + y) * width + x`. So every op on rows works on it, and a [`Map`] beside it says where the pixels lie.

use candle_core::{Result, bail};

/// How the rows of a feature map are pixels of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Map {
    /// Number of images.
    pub images: usize,
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
}

impl Map {
    /// `images` of `height` by `width` pixels.
    pub fn new(images: usize, height: usize, width: usize) -> Self {
        Self { images, height, width }
    }

    /// Number of rows of a tensor that holds it.
    pub fn rows(&self) -> usize {
        self.images * self.pixels()
    }

    /// Pixels of one image.
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// As many images of another size.
    #[must_use]
    pub fn resized(&self, [height, width]: [usize; 2]) -> Self {
        Self { height, width, ..*self }
    }

    /// The channels of a tensor of these rows; an error where it has others.
    pub(crate) fn channels(&self, dims: &[usize]) -> Result<usize> {
        match *dims {
            [rows, channels] if rows == self.rows() => Ok(channels),
            ref other => bail!(
                "a map of {} images of {} x {} pixels is a tensor [{}, channels], got {other:?}",
                self.images,
                self.height,
                self.width,
                self.rows()
            ),
        }
    }
}

/// A kernel's size, and how it moves over a map. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Taps of the kernel.
    pub kernel: [usize; 2],
    /// Pixels from one place to the next.
    pub stride: [usize; 2],
    /// Pixels around the map: above and below, left and right. Products see zeros there, max pooling nothing.
    pub padding: [[usize; 2]; 2],
    /// Pixels from one tap to the next.
    pub dilation: [usize; 2],
    /// Whether the last place may reach beyond the padding, as `ceil_mode` of torch's pooling.
    pub ceil_mode: bool,
}

impl Window {
    /// A kernel that moves pixel by pixel, without padding.
    pub fn new(kernel: [usize; 2]) -> Self {
        Self { kernel, stride: [1; 2], padding: [[0; 2]; 2], dilation: [1; 2], ceil_mode: false }
    }

    /// [`new`](Self::new) for a kernel of equal sides.
    pub fn square(kernel: usize) -> Self {
        Self::new([kernel; 2])
    }

    /// With this stride both ways.
    #[must_use]
    pub fn stride(self, stride: usize) -> Self {
        Self { stride: [stride; 2], ..self }
    }

    /// With as many pixels of padding on all four sides.
    #[must_use]
    pub fn padding(self, padding: usize) -> Self {
        Self { padding: [[padding; 2]; 2], ..self }
    }

    /// With this dilation both ways.
    #[must_use]
    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilation: [dilation; 2], ..self }
    }

    /// With [`ceil_mode`](Self::ceil_mode).
    #[must_use]
    pub fn ceil_mode(self) -> Self {
        Self { ceil_mode: true, ..self }
    }

    /// With TensorFlow's `"SAME"` padding for this map: the output has `ceil(size / stride)` pixels, and of an odd padding the larger
    /// half lies below and to the right. Source: `tf.nn.convolution`'s notes on padding; timm's `pad_same`.
    #[must_use]
    pub fn same(self, map: Map) -> Self {
        let pad = |axis: usize| {
            let (size, stride) = (map.size()[axis], self.stride[axis].max(1));
            let needed = size.div_ceil(stride).saturating_sub(1) * stride + self.span(axis);
            let total = needed.saturating_sub(size);
            [total / 2, total - total / 2]
        };
        Self { padding: [pad(0), pad(1)], ..self }
    }

    /// Pixels from the first tap to the last, both counted.
    fn span(&self, axis: usize) -> usize {
        self.dilation[axis] * self.kernel[axis].saturating_sub(1) + 1
    }

    /// Number of taps.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Whether each place is its own pixel alone.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1; 2] && self.stride == [1; 2] && self.padding == [[0; 2]; 2]
    }

    /// The map that one result for each place makes. Errors where the window does not fit the padded map.
    pub fn output(&self, map: Map) -> Result<Map> {
        let mut size = [0; 2];
        for (axis, out) in size.iter_mut().enumerate() {
            let (input, stride) = (map.size()[axis], self.stride[axis]);
            if self.kernel[axis] == 0 || stride == 0 || self.dilation[axis] == 0 {
                bail!("kernel, stride and dilation of a window are at least 1, got {self:?}");
            }
            let [before, after] = self.padding[axis];
            let Some(room) = (input + before + after).checked_sub(self.span(axis)) else {
                bail!(
                    "a window of {} x {} with padding {:?} and dilation {:?} does not fit a map of {} x {} pixels",
                    self.kernel[0],
                    self.kernel[1],
                    self.padding,
                    self.dilation,
                    map.height,
                    map.width
                );
            };
            *out = room / stride + 1;
            // The last place begins on the map or in the padding before it.
            if self.ceil_mode && room % stride != 0 && *out * stride < input + before {
                *out += 1;
            }
        }
        Ok(map.resized(size))
    }

    pub(crate) fn place(self, input: Map) -> Result<Placed> {
        Ok(Placed { window: self, input, output: self.output(input)? })
    }
}

/// A window on a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) window: Window,
    pub(crate) input: Map,
    pub(crate) output: Map,
}

impl Placed {
    /// Vertical (0) or horizontal (1).
    pub(crate) fn axis(&self, axis: usize) -> Axis {
        Axis {
            input: self.input.size()[axis],
            output: self.output.size()[axis],
            kernel: self.window.kernel[axis],
            stride: self.window.stride[axis],
            before: self.window.padding[axis][0],
            dilation: self.window.dilation[axis],
        }
    }

    /// The row under each tap of each place, `[places, taps]`; the number of rows where a tap falls outside.
    pub(crate) fn rows(&self) -> Vec<u32> {
        let outside = self.input.rows() as u32;
        let [vertical, horizontal] = [0, 1].map(|axis| self.axis(axis));
        let mut rows = Vec::with_capacity(self.output.rows() * self.window.taps());
        for image in 0..self.output.images {
            for oy in 0..self.output.height {
                for ox in 0..self.output.width {
                    for ty in 0..vertical.kernel {
                        for tx in 0..horizontal.kernel {
                            rows.push(match (vertical.pixel(oy, ty), horizontal.pixel(ox, tx)) {
                                (Some(y), Some(x)) => ((image * self.input.height + y) * self.input.width + x) as u32,
                                _ => outside,
                            });
                        }
                    }
                }
            }
        }
        rows
    }

    /// An error where some place covers no pixel of the map: it has no maximum and no mean.
    pub(crate) fn check_covers(&self) -> Result<()> {
        for axis in [self.axis(0), self.axis(1)] {
            if (0..axis.output).any(|o| (0..axis.kernel).all(|tap| axis.pixel(o, tap).is_none())) {
                bail!(
                    "with padding {:?} a window of {} x {} comes to lie outside its map of {} x {} pixels",
                    self.window.padding,
                    self.window.kernel[0],
                    self.window.kernel[1],
                    self.input.height,
                    self.input.width
                );
            }
        }
        Ok(())
    }
}

/// One direction of a window on a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) before: usize,
    pub(crate) dilation: usize,
}

impl Axis {
    /// The pixel under a tap of place `o`, if it is one of the map's.
    pub(crate) fn pixel(&self, o: usize, tap: usize) -> Option<usize> {
        (o * self.stride + tap * self.dilation).checked_sub(self.before).filter(|&pixel| pixel < self.input)
    }

    /// For each place the taps that fall on the map, and their pixels: `(tap, pixel)`.
    pub(crate) fn by_place(&self) -> Vec<Vec<(usize, usize)>> {
        let taps = |o| (0..self.kernel).filter_map(|tap| Some((tap, self.pixel(o, tap)?))).collect();
        (0..self.output).map(taps).collect()
    }

    /// For each pixel the taps that fall on it, and at which places: `(tap, place)`.
    pub(crate) fn by_pixel(&self) -> Vec<Vec<(usize, usize)>> {
        let mut pixels = vec![Vec::new(); self.input];
        for (o, taps) in self.by_place().into_iter().enumerate() {
            taps.into_iter().for_each(|(tap, pixel)| pixels[pixel].push((tap, o)));
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn sizes_are_those_of_torch_and_tensorflow() {
        let size = |window: Window, size: usize| window.output(Map::new(1, size, size)).map(|map| map.height);
        assert_eq!(size(Window::square(7).stride(2).padding(3), 224).unwrap(), 112);
        assert_eq!(size(Window::square(3).stride(2).padding(1), 112).unwrap(), 56);
        assert_eq!(size(Window::square(3).dilation(2), 5).unwrap(), 1);
        assert_eq!(size(Window::square(2).stride(2), 5).unwrap(), 2);
        assert_eq!(size(Window::square(2).stride(2).ceil_mode(), 5).unwrap(), 3);
        // Nothing begins in the padding at the end.
        assert_eq!(size(Window::square(2).stride(3).padding(1).ceil_mode(), 5).unwrap(), 2);
        for (side, stride, out, padding) in [(224, 2, 112, [0, 1]), (7, 2, 4, [1, 1]), (5, 1, 5, [1, 1])] {
            let window = Window::square(3).stride(stride).same(Map::new(1, side, side));
            assert_eq!((size(window, side).unwrap(), window.padding[1]), (out, padding));
        }
        let error = size(Window::square(4), 3).unwrap_err().to_string();
        assert!(error.contains("does not fit a map of 3 x 3"), "{error}");
    }
}
