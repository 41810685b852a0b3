//! Networks of inverted residuals: MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), EfficientNet-Lite (Tan and Le 2019, arXiv:1905.11946,
//! without squeeze-and-excitation).

use fthost_autograd::Activation;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::config::{Images, Sizes};
use super::plan::{
    BlockPlan, ConvInit, ConvPlan, HeadPlan, LayerPlan, NORM, NormPlan, Paths, Place, Plan, ShortcutPlan, Way,
};
use crate::LoadError;
use crate::family::Source;
use crate::weights::Weights;

/// A stage: channels, blocks, stride of the first one, kernel.
type Stage = (usize, usize, usize, usize);

/// Table 2 of MobileNetV2's paper. The first stage's block does not expand.
const MOBILE: [Stage; 7] =
    [(16, 1, 1, 3), (24, 2, 2, 3), (32, 3, 2, 3), (64, 4, 2, 3), (96, 3, 1, 3), (160, 3, 2, 3), (320, 1, 1, 3)];

/// EfficientNet's.
const EFFICIENT: [Stage; 7] =
    [(16, 1, 1, 3), (24, 2, 2, 3), (40, 2, 2, 5), (80, 3, 2, 3), (112, 3, 1, 5), (192, 4, 2, 5), (320, 1, 1, 3)];

/// How much wider the inside of a block is.
const EXPANSION: usize = 6;
/// Channels of the stem and of the top, before they are scaled.
const STEM: usize = 32;
const TOP: usize = 1280;

/// A block, to be given paths.
struct Block {
    place: Place,
    channels: usize,
    hidden: usize,
    out: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    /// Whether there is a convolution before the depthwise one.
    expands: bool,
    /// Whether its input is added where that has the output's shape.
    adds: bool,
}

/// Paths of a block's convolutions: the one that expands, the depthwise one, the one that projects; and the site of its output.
struct BlockPaths {
    layers: [Paths; 3],
    site: String,
}

/// What is the same in all of a network's layers.
#[derive(Clone, Copy)]
struct Style {
    same: bool,
    activation: Activation,
}

impl Style {
    fn conv(self, paths: Paths, channels: [usize; 2], kernel: usize, stride: usize) -> ConvPlan {
        ConvPlan { same: self.same, ..ConvPlan::new(paths, channels, kernel, stride) }
    }

    /// A stem or a top.
    fn alone(self, place: Place, paths: Paths, channels: [usize; 2], kernel: usize, stride: usize) -> BlockPlan {
        let layer = self.conv(paths, channels, kernel, stride).activated(self.activation);
        BlockPlan { place, layers: vec![LayerPlan::Conv(layer)], shortcut: None, pool: None }
    }

    fn block(self, block: &Block, BlockPaths { layers: [expand, depthwise, project], site }: BlockPaths) -> BlockPlan {
        let Block { channels, hidden, out, .. } = *block;
        let expand = block.expands.then(|| self.conv(expand, [channels, hidden], 1, 1).activated(self.activation));
        let depthwise = ConvPlan {
            groups: hidden,
            dilation: block.dilation,
            ..self.conv(depthwise, [hidden; 2], block.kernel, block.stride).activated(self.activation)
        };
        let project = self.conv(project, [hidden, out], 1, 1);
        let adds = block.adds && block.stride == 1 && channels == out;
        BlockPlan {
            place: block.place,
            layers: expand.into_iter().chain([depthwise, project]).map(LayerPlan::Conv).collect(),
            shortcut: adds.then_some(ShortcutPlan { way: Way::Identity, site, activation: Activation::Identity }),
            pool: None,
        }
    }
}

/// The blocks of some stages, the first of which does not expand.
fn blocks(stages: &[Stage], stem: usize) -> Vec<Block> {
    let mut channels = stem;
    let mut blocks = Vec::new();
    for (stage, &(out, depth, first, kernel)) in stages.iter().enumerate() {
        for block in 0..depth {
            let expands = stage > 0;
            blocks.push(Block {
                place: Place::Stage(stage, block),
                channels,
                hidden: if expands { channels * EXPANSION } else { channels },
                out,
                kernel,
                stride: if block == 0 { first } else { 1 },
                dilation: 1,
                expands,
                adds: true,
            });
            channels = out;
        }
    }
    blocks
}

/// The nearest multiple of `divisor`, and not less than nine tenths of `value`.
fn divisible(value: f64, divisor: usize, least: usize) -> usize {
    let nearest = (value + divisor as f64 / 2.0) as usize / divisor * divisor;
    let rounded = nearest.max(least);
    if (rounded as f64) < 0.9 * value { rounded + divisor } else { rounded }
}

/// Hugging Face's config.json. Where keys lack, Transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    num_channels: usize,
    image_size: Json,
    depth_multiplier: f64,
    depth_divisible_by: usize,
    min_depth: usize,
    expand_ratio: f64,
    output_stride: usize,
    first_layer_is_expansion: bool,
    finegrained_output: bool,
    hidden_act: String,
    tf_padding: bool,
    classifier_dropout_prob: f64,
    initializer_range: f64,
    layer_norm_eps: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            num_channels: 3,
            image_size: 224.into(),
            depth_multiplier: 1.0,
            depth_divisible_by: 8,
            min_depth: 8,
            expand_ratio: 6.0,
            output_stride: 32,
            first_layer_is_expansion: true,
            finegrained_output: true,
            hidden_act: "relu6".into(),
            tf_padding: true,
            classifier_dropout_prob: 0.8,
            initializer_range: 0.02,
            layer_norm_eps: 1e-3,
        }
    }
}

/// Hugging Face's MobileNetV2.
pub(super) fn hugging_face(source: &Source<'_>) -> Result<Plan, LoadError> {
    let config: Config = source.read()?;
    let sizes = Sizes::new(source);
    sizes.check("num_channels", [config.num_channels])?;
    sizes.check("depth_divisible_by", [config.depth_divisible_by])?;
    sizes.check("min_depth", [config.min_depth])?;
    sizes.factor("depth_multiplier", config.depth_multiplier)?;
    sizes.factor("expand_ratio", config.expand_ratio)?;
    if ![8, 16, 32].contains(&config.output_stride) {
        return Err(source.setting("output_stride", config.output_stride, "is none of 8, 16 and 32"));
    }
    let round = |value: f64| divisible(value, config.depth_divisible_by, config.min_depth);
    let scaled = |channels: usize| round((channels as f64 * config.depth_multiplier).round_ties_even());
    let style = Style { same: config.tf_padding, activation: source.activation("hidden_act", &config.hidden_act)? };
    let at = |path: &str| (format!("{path}.convolution"), format!("{path}.normalization"));

    let stem = scaled(STEM);
    let stages = MOBILE.map(|(out, depth, stride, kernel)| (scaled(out), depth, stride, kernel));
    let mut plans = vec![style.alone(Place::Stem, at("conv_stem.first_conv"), [config.num_channels, stem], 3, 2)];
    let (mut reached, mut dilation) = (2, 1);
    for (i, mut block) in blocks(&stages, stem).into_iter().enumerate() {
        let path = match i.checked_sub(1) {
            None => "conv_stem".to_owned(),
            Some(layer) => {
                block.hidden = round((block.channels as f64 * config.expand_ratio).round_ties_even());
                // Once the map is small enough, kernels grow instead.
                if reached == config.output_stride {
                    (block.dilation, dilation) = (dilation, dilation * block.stride);
                    block.stride = 1;
                } else {
                    reached *= block.stride;
                }
                format!("layer.{layer}")
            }
        };
        block.expands = i > 0 || !config.first_layer_is_expansion;
        block.adds = i > 0;
        let layers = ["expand_1x1", "conv_3x3", "reduce_1x1"].map(|name| at(&format!("{path}.{name}")));
        plans.push(style.block(&block, BlockPaths { layers, site: path }));
    }
    let top = if config.finegrained_output && config.depth_multiplier < 1.0 { TOP } else { scaled(TOP) };
    plans.push(style.alone(Place::Top, at("conv_1x1"), [stages[6].0, top], 1, 1));
    Ok(Plan {
        name: "mobilenet_v2".into(),
        prefix: "mobilenet_v2.",
        channels: config.num_channels,
        size: side(&config.image_size).unwrap_or(224),
        flattens: false,
        blocks: plans,
        norm: NormPlan { eps: config.layer_norm_eps, momentum: 0.997, ..NORM },
        init: ConvInit::Normal(config.initializer_range),
        head: HeadPlan {
            classes: Some(("MobileNetV2Model", "MobileNetV2ForImageClassification")),
            output: "classifier",
            dropout: config.classifier_dropout_prob,
            dropout_key: Some("classifier_dropout_prob"),
        },
    })
}

/// The greater side of `image_size`: a number or two.
fn side(size: &Json) -> Option<usize> {
    match size {
        Json::Array(sides) => sides.iter().filter_map(Json::as_u64).max().map(|side| side as usize),
        one => one.as_u64().map(|side| side as usize),
    }
}

/// torchvision's MobileNetV2 (whose convolutions before the last are pairs), and the older form, in which a block is one list of layers.
const MOBILE_NAMES: [(&str, bool); 2] = [("mobilenet_v2", true), ("mobilenet_v2_flat", false)];

/// EfficientNet-Lite: its number, how much deeper and wider it is, and its image size. Source: timm's `tf_efficientnet_lite0` to 4.
const LITE: [(f64, f64, usize); 5] =
    [(1.0, 1.0, 224), (1.1, 1.0, 240), (1.2, 1.1, 260), (1.4, 1.2, 300), (1.8, 1.4, 380)];

/// timm's names for EfficientNet-Lite.
const TIMM: [&str; 5] = [
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "tf_efficientnet_lite3",
    "tf_efficientnet_lite4",
];
/// The name of those under the names of the weights that were published for PyTorch first.
const PUBLISHED: [&str; 5] =
    ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "efficientnet-lite3", "efficientnet-lite4"];

pub(super) fn architectures() -> impl Iterator<Item = &'static str> {
    MOBILE_NAMES.iter().map(|row| row.0).chain(TIMM).chain(PUBLISHED)
}

/// The row of an `architecture`.
pub(super) fn named(source: &Source<'_>, name: &str) -> Result<Option<Plan>, LoadError> {
    if let Some((_, pairs)) = MOBILE_NAMES.iter().find(|row| row.0 == name) {
        return mobile(source, name, *pairs).map(Some);
    }
    let at = |names: [&str; 5]| names.iter().position(|known| *known == name);
    match (at(TIMM), at(PUBLISHED)) {
        (Some(lite), _) => efficient(source, name, lite, true).map(Some),
        (None, Some(lite)) => efficient(source, name, lite, false).map(Some),
        (None, None) => Ok(None),
    }
}

fn mobile(source: &Source<'_>, name: &str, pairs: bool) -> Result<Plan, LoadError> {
    let images = Images::read(source, 224)?;
    let style = Style { same: false, activation: Activation::Relu6 };
    let pair = |path: &str, conv: &str, norm: &str| (format!("{path}.{conv}"), format!("{path}.{norm}"));
    let mut plans = vec![style.alone(Place::Stem, pair("features.0", "0", "1"), [images.channels, STEM], 3, 2)];
    let all = blocks(&MOBILE, STEM);
    let top = all.len() + 1;
    for (i, block) in all.iter().enumerate() {
        let path = format!("features.{}.conv", i + 1);
        // The place of a convolution among those of its block, and of its norm: activations have places too.
        let layer = |i: usize, last: bool| match (pairs, last) {
            (true, false) => pair(&format!("{path}.{i}"), "0", "1"),
            (true, true) => pair(&path, &i.to_string(), &(i + 1).to_string()),
            (false, _) => pair(&path, &(3 * i).to_string(), &(3 * i + 1).to_string()),
        };
        let first = usize::from(block.expands);
        let layers = [layer(0, false), layer(first, false), layer(first + 1, true)];
        plans.push(style.block(block, BlockPaths { layers, site: path }));
    }
    plans.push(style.alone(Place::Top, pair(&format!("features.{top}"), "0", "1"), [MOBILE[6].0, TOP], 1, 1));
    Ok(Plan {
        name: name.into(),
        prefix: "",
        channels: images.channels,
        size: images.size,
        flattens: false,
        blocks: plans,
        norm: NORM,
        init: ConvInit::FanOut,
        head: HeadPlan { classes: None, output: "classifier.1", dropout: 0.2, dropout_key: None },
    })
}

fn efficient(source: &Source<'_>, name: &str, lite: usize, timm: bool) -> Result<Plan, LoadError> {
    let (deeper, wider, size) = LITE[lite];
    let images = Images::read(source, size)?;
    let style = Style { same: true, activation: Activation::Relu6 };
    let mut stages = EFFICIENT;
    let last = stages.len() - 1;
    for (i, (out, depth, ..)) in stages.iter_mut().enumerate() {
        *out = divisible(*out as f64 * wider, 8, 8);
        // The first and the last stage stay as they are.
        if i > 0 && i < last {
            *depth = (*depth as f64 * deeper).ceil() as usize;
        }
    }
    let [stem, top, output] = match timm {
        true => [("conv_stem", "bn1"), ("conv_head", "bn2"), ("classifier", "")],
        false => [("_conv_stem", "_bn0"), ("_conv_head", "_bn1"), ("_fc", "")],
    };
    let at = |(conv, norm): (&str, &str)| (conv.to_owned(), norm.to_owned());
    let mut plans = vec![style.alone(Place::Stem, at(stem), [images.channels, STEM], 3, 2)];
    for (i, block) in blocks(&stages, STEM).iter().enumerate() {
        let (path, names) = match (timm, block.place) {
            (true, Place::Stage(stage, i)) => {
                let names = match block.expands {
                    true => [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")],
                    false => [("", ""), ("conv_dw", "bn1"), ("conv_pw", "bn2")],
                };
                (format!("blocks.{stage}.{i}"), names)
            }
            _ => {
                let names = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")];
                (format!("_blocks.{i}"), names)
            }
        };
        let layers = names.map(|(conv, norm)| (format!("{path}.{conv}"), format!("{path}.{norm}")));
        plans.push(style.block(block, BlockPaths { layers, site: path }));
    }
    plans.push(style.alone(Place::Top, at(top), [stages[last].0, TOP], 1, 1));
    Ok(Plan {
        name: name.into(),
        prefix: "",
        channels: images.channels,
        size: images.size,
        flattens: false,
        blocks: plans,
        norm: NormPlan { eps: 1e-3, ..NORM },
        init: ConvInit::FanOutOfGroup,
        head: HeadPlan { classes: None, output: output.0, dropout: 0.0, dropout_key: None },
    })
}

/// The config of weights whose tensors have these names.
pub(super) fn recognise(weights: &Weights) -> Option<Json> {
    let with = |name: &str, stem: &str| {
        let channels = weights.shape(stem)?.get(1)?;
        Some(json!({ "architecture": name, "in_chans": channels }))
    };
    if weights.contains("features.18.0.weight") && weights.shape("features.0.0.weight")?.first() == Some(&STEM) {
        let pairs = weights.contains("features.1.conv.0.0.weight");
        return with(MOBILE_NAMES.iter().find(|row| row.1 == pairs)?.0, "features.0.0.weight");
    }
    let (stem, top, block, names) = match weights.contains("_conv_stem.weight") {
        true => ("_conv_stem.weight", "_conv_head.weight", "_depthwise_conv.weight", PUBLISHED),
        false => ("conv_stem.weight", "conv_head.weight", "conv_dw.weight", TIMM),
    };
    // Those with squeeze-and-excitation, and other numbers of blocks or channels, are other networks.
    if weights.names().any(|name| name.contains(".se.") || name.contains("._se_")) {
        return None;
    }
    let depth = weights.names().filter(|name| name.ends_with(block)).count();
    let lite = match (depth, *weights.shape(top)?.get(1)?) {
        (16, 320) => 0,
        (21, 320) => 1,
        (21, 352) => 2,
        (24, 384) => 3,
        (30, 448) => 4,
        _ => return None,
    };
    with(names[lite], stem)
}
