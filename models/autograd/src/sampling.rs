//! Linear maps along one direction of a feature map: what average pooling and upsampling are made of.

use crate::map::Axis;

/// For each pixel of the result the pixels that it is a sum of, with their weights.
#[derive(Clone, Debug)]
pub(crate) struct Sampling {
    /// Pixels that are read.
    pub(crate) input: usize,
    pub(crate) terms: Vec<Vec<(usize, f64)>>,
}

impl Sampling {
    /// Number of pixels of the result.
    pub(crate) fn output(&self) -> usize {
        self.terms.len()
    }

    /// The mean of what a window sees at each place, of the map alone or with the padding's zeros.
    pub(crate) fn average(axis: &Axis, padded: usize, count_include_pad: bool) -> Self {
        let terms = axis.by_place().into_iter().enumerate().map(|(o, taps)| {
            let inside = (0..axis.kernel).filter(|tap| o * axis.stride + tap * axis.dilation < padded).count();
            let count = if count_include_pad { inside } else { taps.len() };
            taps.into_iter().map(|(_, pixel)| (pixel, 1.0 / count as f64)).collect()
        });
        Self { input: axis.input, terms: terms.collect() }
    }

    /// Means over `output` ranges that cover the input, as torch's `adaptive_avg_pool2d`.
    pub(crate) fn adaptive(input: usize, output: usize) -> Self {
        let terms = (0..output).map(|o| {
            let range = o * input / output..((o + 1) * input).div_ceil(output);
            let weight = 1.0 / range.len() as f64;
            range.map(|pixel| (pixel, weight)).collect()
        });
        Self { input, terms: terms.collect() }
    }

    /// Linear interpolation, as torch's `interpolate`: with `align_corners` the outermost pixels' centres stay where they are, without
    /// it the outermost edges.
    pub(crate) fn linear(input: usize, output: usize, align_corners: bool) -> Self {
        let place = |o: usize| match align_corners {
            true if output > 1 => o as f64 * (input - 1) as f64 / (output - 1) as f64,
            true => 0.0,
            false => ((o as f64 + 0.5) * input as f64 / output as f64 - 0.5).max(0.0),
        };
        let terms = (0..output).map(|o| {
            let at = place(o).min((input - 1) as f64);
            let (low, part) = (at.floor() as usize, at.fract());
            if part == 0.0 { vec![(low, 1.0)] } else { vec![(low, 1.0 - part), (low + 1, part)] }
        });
        Self { input, terms: terms.collect() }
    }

    /// The pixel whose part of the side the result's pixel begins in, as torch's `nearest`, which reckons in `f32`.
    pub(crate) fn nearest(input: usize, output: usize) -> Self {
        let scale = input as f32 / output as f32;
        let terms = (0..output).map(|o| vec![(((o as f32 * scale) as usize).min(input - 1), 1.0)]);
        Self { input, terms: terms.collect() }
    }

    /// The transpose: what a backward pass applies.
    pub(crate) fn transposed(&self) -> Self {
        let mut terms = vec![Vec::new(); self.input];
        for (o, from) in self.terms.iter().enumerate() {
            from.iter().for_each(|&(pixel, weight)| terms[pixel].push((o, weight)));
        }
        Self { input: self.output(), terms }
    }

    /// As a matrix `[output, input]`.
    pub(crate) fn matrix(&self) -> Vec<f64> {
        let mut matrix = vec![0.0; self.output() * self.input];
        for (row, from) in matrix.chunks_mut(self.input.max(1)).zip(&self.terms) {
            from.iter().for_each(|&(pixel, weight)| row[pixel] += weight);
        }
        matrix
    }
}
