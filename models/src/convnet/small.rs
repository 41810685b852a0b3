//! Small networks that are made here: Conv-4 (Snell et al. 2017, arXiv:1703.05175) for few-shot learning, and an MLP.

use fthost_autograd::{Activation, Window};
use serde::Deserialize;

use super::config::Sizes;
use super::plan::{BlockPlan, ConvInit, ConvPlan, HeadPlan, LayerPlan, NORM, Place, Plan};
use crate::LoadError;
use crate::family::Source;

const HEAD: HeadPlan = HeadPlan { classes: None, output: "classifier", dropout: 0.0, dropout_key: None };

/// config.json of a Conv-4.
#[derive(Deserialize)]
#[serde(default)]
struct Conv4 {
    num_channels: usize,
    image_size: usize,
    hidden_size: usize,
    num_blocks: usize,
}

impl Default for Conv4 {
    fn default() -> Self {
        Self { num_channels: 1, image_size: 28, hidden_size: 64, num_blocks: 4 }
    }
}

/// Four blocks of a convolution of 3 by 3, batch norm, ReLU and max pooling of 2 by 2.
pub(super) fn conv4(source: &Source<'_>) -> Result<Plan, LoadError> {
    let Conv4 { num_channels, image_size, hidden_size, num_blocks } = source.read()?;
    let sizes = Sizes::new(source);
    sizes.check("num_channels", [num_channels])?;
    sizes.check("image_size", [image_size])?;
    sizes.check("hidden_size", [hidden_size])?;
    sizes.depths("num_blocks", &[num_blocks], 1)?;
    let block = |i: usize| {
        let channels = if i == 0 { num_channels } else { hidden_size };
        let paths = (format!("blocks.{i}.conv"), format!("blocks.{i}.norm"));
        let conv = ConvPlan { bias: true, ..ConvPlan::new(paths, [channels, hidden_size], 3, 1) };
        BlockPlan {
            place: Place::Stage(i, 0),
            layers: vec![LayerPlan::Conv(conv.activated(Activation::Relu))],
            shortcut: None,
            pool: Some(Window::square(2).stride(2)),
        }
    };
    Ok(Plan {
        name: "conv4".into(),
        prefix: "",
        channels: num_channels,
        size: image_size,
        flattens: false,
        blocks: (0..num_blocks).map(block).collect(),
        norm: NORM,
        init: ConvInit::Torch,
        head: HEAD,
    })
}

/// config.json of an MLP.
#[derive(Deserialize)]
#[serde(default)]
struct Mlp {
    num_channels: usize,
    image_size: usize,
    hidden_sizes: Vec<usize>,
    hidden_act: String,
}

impl Default for Mlp {
    fn default() -> Self {
        Self { num_channels: 1, image_size: 28, hidden_sizes: vec![256, 256], hidden_act: "relu".into() }
    }
}

/// Linear layers over an image's pixels, each with an activation.
pub(super) fn mlp(source: &Source<'_>) -> Result<Plan, LoadError> {
    let Mlp { num_channels, image_size, hidden_sizes, hidden_act } = source.read()?;
    let sizes = Sizes::new(source);
    sizes.check("num_channels", [num_channels])?;
    sizes.check("image_size", [image_size])?;
    sizes.check("hidden_sizes", hidden_sizes.iter().copied())?;
    let activation = source.activation("hidden_act", &hidden_act)?;
    let mut inputs = num_channels * image_size * image_size;
    let mut blocks = Vec::with_capacity(hidden_sizes.len());
    for (i, &outputs) in hidden_sizes.iter().enumerate() {
        let layer = LayerPlan::Linear { path: format!("layers.{i}"), inputs, outputs, activation };
        blocks.push(BlockPlan { place: Place::Stage(i, 0), layers: vec![layer], shortcut: None, pool: None });
        inputs = outputs;
    }
    Ok(Plan {
        name: "mlp".into(),
        prefix: "",
        channels: num_channels,
        size: image_size,
        flattens: true,
        blocks,
        norm: NORM,
        init: ConvInit::Torch,
        head: HEAD,
    })
}
