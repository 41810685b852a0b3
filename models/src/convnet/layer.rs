//! A convolution with its norm and its activation.

use fthost_autograd::{Activation, Epilogue, Layout, Map, Parameter, Result, Tape, Value, Window};

use super::norm::BatchNorm;
use super::plan::{ConvPlan, LayerPlan, Plan};
use crate::builder::Builder;
use crate::fold::matrix;
use crate::hooks::{Hooks, Pass};
use crate::layers::Linear;
use crate::{Convolution, LoadError};

#[derive(Debug)]
pub(super) enum Layer {
    Conv(Box<Conv>),
    Linear(Linear, Activation),
}

impl Layer {
    pub(super) fn build(
        builder: &mut Builder<'_>,
        plan: &Plan,
        layer: &LayerPlan,
    ) -> std::result::Result<Self, LoadError> {
        Ok(match layer {
            LayerPlan::Conv(conv) => Self::Conv(Box::new(Conv::build(builder, plan, conv)?)),
            LayerPlan::Linear { path, inputs, outputs, activation } => {
                let init = plan.init.of(*outputs, *inputs, 1, 1);
                Self::Linear(builder.linear_from(path, [*inputs, *outputs], true, init)?, *activation)
            }
        })
    }

    /// The map that it makes of one.
    pub(super) fn output(&self, map: Map) -> Result<Map> {
        match self {
            Self::Conv(conv) => conv.placed(map).output(map),
            Self::Linear(..) => Ok(map),
        }
    }

    /// What it holds of a map.
    pub(super) fn held(&self, hooks: &Hooks, map: Map) -> Result<Held> {
        match self {
            Self::Conv(conv) => conv.held(hooks, map),
            Self::Linear(linear, _) => {
                let [read, made] = linear.widths().map(|width| map.rows() * width);
                Ok(Held { read, made, kept: made, map })
            }
        }
    }

    /// `x`: `[pixels, channels]`. Gives `[places, out]`, and the places as a map.
    pub(super) fn forward(&self, pass: Pass<'_>, x: &Value, map: Map) -> Result<(Value, Map)> {
        match self {
            Self::Conv(conv) => conv.forward(pass, x, map),
            Self::Linear(linear, activation) => {
                pass.tape.set_layout(layout(map));
                Ok((linear.forward(pass, x, *activation)?, map))
            }
        }
    }

    /// Its norm.
    pub(super) fn norm(&self) -> Option<&BatchNorm> {
        match self {
            Self::Conv(conv) => Some(&conv.norm),
            Self::Linear(..) => None,
        }
    }
}

/// The numbers that a layer reads, makes, and keeps for the backward pass, and the map that it makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) read: usize,
    pub(super) made: usize,
    pub(super) kept: usize,
    pub(super) map: Map,
}

/// The pixels of each image as the rows of one example.
pub(super) fn layout(map: Map) -> Layout {
    Layout::from_lengths(std::iter::repeat_n(map.pixels(), map.images))
}

#[derive(Debug)]
pub(super) struct Conv {
    site: usize,
    /// `[out, channels / groups, kernel, kernel]`
    weight: Parameter,
    /// `[out]`
    bias: Option<Parameter>,
    /// With padding, unless it is TensorFlow's.
    window: Window,
    same: bool,
    groups: usize,
    pub(super) norm: BatchNorm,
    activation: Activation,
}

impl Conv {
    pub(super) fn build(
        builder: &mut Builder<'_>,
        plan: &Plan,
        conv: &ConvPlan,
    ) -> std::result::Result<Self, LoadError> {
        let ConvPlan { channels, out, kernel, stride, dilation, groups, same, .. } = *conv;
        let padding = dilation * (kernel - 1) / 2;
        let convolution = Convolution {
            channels,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: (!same).then_some([padding; 2]),
            dilation: [dilation; 2],
            groups,
        };
        let init = plan.init.of(out, channels / groups, kernel * kernel, groups);
        let (site, weight, bias) = builder.convolution(&conv.path, convolution, out, conv.bias, init)?;
        let window = Window::square(kernel).stride(stride).dilation(dilation).padding(padding);
        let norm = BatchNorm::build(builder, &conv.norm, out, plan.norm)?;
        Ok(Self { site, weight, bias, window, same, groups, norm, activation: conv.activation })
    }

    /// Its window on a map.
    fn placed(&self, map: Map) -> Window {
        if self.same { self.window.same(map) } else { self.window }
    }

    /// What it holds of a map. What goes into its norm is kept, and not what comes out; with hooks its patches are.
    pub(super) fn held(&self, hooks: &Hooks, map: Map) -> Result<Held> {
        let &[out, channels, height, width] = self.weight.dims() else {
            candle_core::bail!("a kernel has four dimensions")
        };
        let channels = channels * self.groups;
        let places = self.placed(map).output(map)?;
        let made = places.rows() * out;
        let unfolds = hooks.any(self.site) && height * width > 1;
        let patches = if unfolds { places.rows() * channels * height * width } else { 0 };
        Ok(Held { read: map.rows() * channels, made, kept: made + patches, map: places })
    }

    /// `x`: `[pixels, channels]`. Gives `[places, out]`, and the places as a map.
    pub(super) fn forward(&self, pass: Pass<'_>, x: &Value, map: Map) -> Result<(Value, Map)> {
        let tape = pass.tape;
        let window = self.placed(map);
        let weight = tape.parameter(&self.weight);
        let bias = self.bias.as_ref().map(|bias| tape.parameter(bias));
        let hooked = !pass.linear_hooks(self.site).is_empty();
        if !hooked && let Some(norm) = self.norm.fixed(tape)? {
            let epilogue = Epilogue { bias: bias.as_ref(), norm: Some(&norm), activation: self.activation };
            return tape.conv2d_epilogue(x, map, &weight, &window, self.groups, epilogue);
        }
        let (y, map) = match hooked {
            true => self.hooked(pass, x, map, &window, weight, bias.as_ref())?,
            false => tape.conv2d(x, map, &weight, bias.as_ref(), &window, self.groups)?,
        };
        Ok((self.norm.forward(tape, &y, self.activation)?, map))
    }

    /// The convolution by its hooks, which see patches. Only hooks that change these have the product made of them.
    fn hooked(
        &self,
        pass: Pass<'_>,
        x: &Value,
        map: Map,
        window: &Window,
        weight: Value,
        bias: Option<&Value>,
    ) -> Result<(Value, Map)> {
        let tape = pass.tape;
        let pointwise = *window == Window::square(1);
        let (patches, places) = if pointwise { (x.clone(), map) } else { tape.unfold(x, map, window)? };
        tape.set_layout(layout(places));
        let mut changed = None;
        for hook in pass.linear_hooks(self.site) {
            if let Some(patches) = hook.input(tape, changed.as_ref().unwrap_or(&patches))? {
                changed = Some(patches);
            }
        }
        let kernel = matrix(tape, weight.clone())?;
        let mut y = match &changed {
            Some(patches) => tape.linear(patches, &kernel, bias)?,
            None => tape.conv2d(x, map, &weight, bias, window, self.groups)?.0,
        };
        let seen = changed.as_ref().unwrap_or(&patches);
        for hook in pass.linear_hooks(self.site) {
            y = hook.forward(tape, seen, y, &kernel)?;
        }
        if let Some(folded) = pass.folded(self.site) {
            folded.check(tape, &patches, &y)?;
        }
        Ok((y, places))
    }

    /// Rows of every so manieth pixel, and their map.
    pub(super) fn subsampled(tape: &Tape, x: &Value, map: Map, stride: usize) -> Result<(Value, Map)> {
        let places = map.resized(map.size().map(|side| side.div_ceil(stride)));
        let row = |image: usize, y: usize, x: usize| ((image * map.height + y) * map.width + x) as u32;
        let rows: Vec<u32> = (0..places.images)
            .flat_map(|image| (0..places.height).map(move |y| (image, y)))
            .flat_map(|(image, y)| (0..places.width).map(move |x| row(image, y * stride, x * stride)))
            .collect();
        Ok((tape.select_rows(x, &rows)?, places))
    }
}
