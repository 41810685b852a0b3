//! A block: layers, a residual where there is one, and pooling.

use fthost_autograd::{Activation, Map, Result, Tensor, Value, Window};

use super::layer::{Conv, Held, Layer, layout};
use super::norm::BatchNorm;
use super::plan::{BlockPlan, ConvPlan, LayerPlan, Plan, Way};
use crate::builder::Builder;
use crate::hooks::{Hooks, Pass};
use crate::{LoadError, SiteKind};

#[derive(Debug)]
pub(super) struct Block {
    layers: Vec<Layer>,
    shortcut: Option<Shortcut>,
    pool: Option<Window>,
}

#[derive(Debug)]
struct Shortcut {
    way: Residual,
    site: usize,
    activation: Activation,
}

/// From a block's input to what is added.
#[derive(Debug)]
enum Residual {
    Identity,
    Projection(Box<Conv>),
    /// Channels of zeros on each side.
    Subsampled {
        stride: usize,
        zeros: [usize; 2],
    },
}

impl Block {
    pub(super) fn build(
        builder: &mut Builder<'_>,
        plan: &Plan,
        block: &BlockPlan,
    ) -> std::result::Result<Self, LoadError> {
        let mut layers = Vec::with_capacity(block.layers.len());
        for layer in &block.layers {
            layers.push(Layer::build(builder, plan, layer)?);
        }
        let shortcut = match (&block.shortcut, block.layers.last()) {
            (Some(shortcut), Some(last)) => {
                let way = match &shortcut.way {
                    Way::Identity => Residual::Identity,
                    Way::Projection(conv) => Residual::Projection(Box::new(Conv::build(builder, plan, conv)?)),
                    &Way::Subsampled { stride, channels, out } => {
                        let lacking = out - channels;
                        Residual::Subsampled { stride, zeros: [lacking / 2, lacking - lacking / 2] }
                    }
                };
                let width = width(last);
                let site = builder.site(shortcut.site.clone(), SiteKind::FeedForwardOutput, width, width);
                Some(Shortcut { way, site, activation: shortcut.activation })
            }
            _ => None,
        };
        Ok(Self { layers, shortcut, pool: block.pool })
    }

    /// Its norms.
    pub(super) fn norms(&self) -> impl Iterator<Item = &BatchNorm> {
        let projection = self.shortcut.iter().filter_map(|shortcut| match &shortcut.way {
            Residual::Projection(conv) => Some(&conv.norm),
            Residual::Identity | Residual::Subsampled { .. } => None,
        });
        self.layers.iter().filter_map(Layer::norm).chain(projection)
    }

    /// The map that it makes of one.
    pub(super) fn output(&self, map: Map) -> Result<Map> {
        let map = self.layers.iter().try_fold(map, |map, layer| layer.output(map))?;
        self.pool.as_ref().map_or(Ok(map), |window| window.output(map))
    }

    /// What it holds of a map: what is `read` is that of all its layers at once, at most.
    pub(super) fn held(&self, hooks: &Hooks, map: Map) -> Result<Held> {
        let (mut at, mut made, mut kept, mut most) = (map, 0, 0, 0);
        let mut entry = None;
        for layer in &self.layers {
            let held = layer.held(hooks, at)?;
            entry.get_or_insert(held.read);
            (at, made) = (held.map, held.made);
            kept += held.kept;
            most = most.max(held.read + held.made);
        }
        if let Some(shortcut) = &self.shortcut {
            if let Residual::Projection(conv) = &shortcut.way {
                kept += conv.held(hooks, map)?.kept;
            }
            // The residual is there until it is added; the sum is kept by what reads it.
            most += entry.unwrap_or_default();
            kept += made;
        }
        if let Some(window) = &self.pool {
            let pooled = window.output(at)?;
            made = made / at.rows().max(1) * pooled.rows();
            (at, kept) = (pooled, kept + made);
        }
        Ok(Held { read: most, made, kept, map: at })
    }

    /// `x`: `[pixels, channels]`. Gives `[places, out]`, and the places as a map.
    pub(super) fn forward(&self, pass: Pass<'_>, x: Value, map: Map) -> Result<(Value, Map)> {
        let tape = pass.tape;
        let mut y = x.clone();
        let mut at = map;
        for layer in &self.layers {
            (y, at) = layer.forward(pass, &y, at)?;
        }
        if let Some(shortcut) = &self.shortcut {
            let residual = shortcut.way.forward(pass, x, map)?;
            let hooks = pass.block_hooks(shortcut.site);
            if !hooks.is_empty() {
                tape.set_layout(layout(at));
            }
            y = hooks.iter().try_fold(y, |y, hook| hook.forward(tape, y, &residual))?;
            y = tape.add_activation(&y, &residual, shortcut.activation)?;
        }
        match &self.pool {
            Some(window) => tape.max_pool2d(&y, at, window),
            None => Ok((y, at)),
        }
    }
}

impl Residual {
    fn forward(&self, pass: Pass<'_>, x: Value, map: Map) -> Result<Value> {
        match self {
            Self::Identity => Ok(x),
            Self::Projection(conv) => Ok(conv.forward(pass, &x, map)?.0),
            Self::Subsampled { stride, zeros } => {
                let (rows, places) = Conv::subsampled(pass.tape, &x, map, *stride)?;
                let [before, after] = zeros.map(|channels| zeros_like(&rows, places, channels));
                pass.tape.concat(&[&before?, &rows, &after?], 1)
            }
        }
    }
}

fn zeros_like(rows: &Value, places: Map, channels: usize) -> Result<Value> {
    let (dtype, device) = (rows.dtype(), rows.tensor().device());
    Ok(Value::constant(Tensor::zeros((places.rows(), channels), dtype, device)?))
}

/// Channels that a layer gives.
pub(super) fn width(layer: &LayerPlan) -> usize {
    match layer {
        LayerPlan::Conv(ConvPlan { out, .. }) => *out,
        LayerPlan::Linear { outputs, .. } => *outputs,
    }
}
