//! Average pooling and upsampling: linear maps along the height and the width of a feature map. The gradient is the same op with
//! both transposed.

use candle_core::{DType, Result, Tensor, bail};

use crate::kernels::resample as fast;
use crate::sampling::Sampling;
use crate::{Map, Tape, Value, Window};

impl Tape {
    /// The mean under each place of `window`: `x` `[pixels, channels]`, gives `[places, channels]` and the places as a map. With
    /// `count_include_pad` the padding's zeros count, as torch has it by default; TensorFlow's `"SAME"` pooling leaves them out.
    pub fn avg_pool2d(&self, x: &Value, map: Map, window: &Window, count_include_pad: bool) -> Result<(Value, Map)> {
        let placed = window.place(map)?;
        placed.check_covers()?;
        let along = [0, 1].map(|i| {
            let axis = placed.axis(i);
            let padded = axis.input + window.padding[i].iter().sum::<usize>();
            Sampling::average(&axis, padded, count_include_pad)
        });
        self.resample(x, map, along)
    }

    /// Means over `height` by `width` parts of the map, as torch's `adaptive_avg_pool2d`.
    pub fn adaptive_avg_pool2d(&self, x: &Value, map: Map, size: [usize; 2]) -> Result<(Value, Map)> {
        check_sizes(map, size)?;
        self.resample(x, map, [0, 1].map(|i| Sampling::adaptive(map.size()[i], size[i])))
    }

    /// The mean of each image: `x` `[pixels, channels]`, gives `[images, channels]`.
    pub fn global_avg_pool2d(&self, x: &Value, map: Map) -> Result<Value> {
        Ok(self.adaptive_avg_pool2d(x, map, [1, 1])?.0)
    }

    /// The map at another size by bilinear interpolation, as torch's `interpolate`.
    pub fn upsample_bilinear2d(
        &self,
        x: &Value,
        map: Map,
        size: [usize; 2],
        align_corners: bool,
    ) -> Result<(Value, Map)> {
        check_sizes(map, size)?;
        self.resample(x, map, [0, 1].map(|i| Sampling::linear(map.size()[i], size[i], align_corners)))
    }

    /// The map at another size by the nearest pixel, as torch's `interpolate` with `"nearest"`.
    pub fn upsample_nearest2d(&self, x: &Value, map: Map, size: [usize; 2]) -> Result<(Value, Map)> {
        check_sizes(map, size)?;
        self.resample(x, map, [0, 1].map(|i| Sampling::nearest(map.size()[i], size[i])))
    }

    fn resample(&self, x: &Value, map: Map, along: [Sampling; 2]) -> Result<(Value, Map)> {
        map.channels(x.dims())?;
        let parallel = self.options().parallel_ops;
        let (y, output) = apply(x.tensor(), map, &along, parallel)?;
        let value = self.record(y, &[x], move |g, vjp| {
            let back = along.each_ref().map(Sampling::transposed);
            vjp.give(0, apply(&g, output, &back, parallel)?.0)
        });
        Ok((value, output))
    }
}

fn check_sizes(map: Map, size: [usize; 2]) -> Result<()> {
    if map.size().contains(&0) || size.contains(&0) {
        bail!("a map of {} x {} pixels cannot become one of {size:?}", map.height, map.width);
    }
    Ok(())
}

fn apply(x: &Tensor, map: Map, along: &[Sampling; 2], parallel: bool) -> Result<(Tensor, Map)> {
    let output = map.resized([along[0].output(), along[1].output()]);
    let y = match fast::resample(x, map, along, parallel)? {
        Some(y) => y,
        None => composite(x, map, along)?,
    };
    Ok((y, output))
}

/// By products with the two matrices. Half floats are computed in `f32`.
fn composite(x: &Tensor, map: Map, [vertical, horizontal]: &[Sampling; 2]) -> Result<Tensor> {
    let (channels, dtype) = (x.dims2()?.1, x.dtype());
    let float = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let matrix =
        |along: &Sampling| Tensor::from_vec(along.matrix(), (along.output(), along.input), x.device())?.to_dtype(float);
    let x = x.contiguous()?.to_dtype(float)?.reshape((map.images, map.height, map.width * channels))?;
    let y = matrix(vertical)?.broadcast_matmul(&x)?; // [images, output height, width * channels]
    let y = y.reshape((map.images * vertical.output(), map.width, channels))?;
    let y = matrix(horizontal)?.broadcast_matmul(&y)?; // [images * output height, output width, channels]
    y.reshape((map.images * vertical.output() * horizontal.output(), channels))?.to_dtype(dtype)
}
