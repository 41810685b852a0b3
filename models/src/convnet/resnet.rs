//! ResNets (He et al. 2016, arXiv:1512.03385), under Hugging Face's names, torchvision's (which are timm's too), and those of the CIFAR form.

use fthost_autograd::{Activation, Window};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::config::{Images, Sizes};
use super::plan::{
    BlockPlan, ConvInit, ConvPlan, HeadPlan, LayerPlan, NORM, Paths, Place, Plan, ShortcutPlan, Way, places,
};
use crate::LoadError;
use crate::family::Source;
use crate::weights::Weights;

/// What the variants have in common.
struct Shape {
    /// Three convolutions of 1, 3 and 1 taps a side, the first two of a quarter of the channels; else two of 3.
    bottleneck: bool,
    /// Blocks of each stage.
    depths: Vec<usize>,
    /// Channels of each stage.
    widths: Vec<usize>,
    /// Channels of the stem.
    stem: usize,
    /// Whether the first stage halves the map too.
    first_halves: bool,
    /// Whether the first convolution of a bottleneck has the stride, rather than the second.
    early_stride: bool,
    /// A stem and shortcuts for small images: a kernel of 3, no pooling, subsampling.
    small: bool,
    activation: Activation,
}

/// Paths.
struct Names {
    stem: fn() -> Paths,
    /// The path of a block.
    block: fn(usize, usize) -> String,
    /// Of a block's convolution, counted from 0.
    layer: fn(&str, usize) -> Paths,
    shortcut: fn(&str) -> Paths,
    /// The site of a block's output.
    site: fn(&str) -> String,
}

const HUGGING_FACE: Names = Names {
    stem: || ("embedder.embedder.convolution".into(), "embedder.embedder.normalization".into()),
    block: |stage, block| format!("encoder.stages.{stage}.layers.{block}"),
    layer: |path, i| (format!("{path}.layer.{i}.convolution"), format!("{path}.layer.{i}.normalization")),
    shortcut: |path| (format!("{path}.shortcut.convolution"), format!("{path}.shortcut.normalization")),
    site: |path| format!("{path}.layer"),
};

const TORCHVISION: Names = Names {
    stem: || ("conv1".into(), "bn1".into()),
    block: |stage, block| format!("layer{}.{block}", stage + 1),
    layer: |path, i| (format!("{path}.conv{}", i + 1), format!("{path}.bn{}", i + 1)),
    shortcut: |path| (format!("{path}.downsample.0"), format!("{path}.downsample.1")),
    site: str::to_owned,
};

impl Shape {
    fn blocks(&self, images: usize, names: &Names) -> Vec<BlockPlan> {
        let stem = match self.small {
            true => ConvPlan::new((names.stem)(), [images, self.stem], 3, 1),
            false => ConvPlan::new((names.stem)(), [images, self.stem], 7, 2),
        };
        let mut blocks = vec![BlockPlan {
            place: Place::Stem,
            layers: vec![LayerPlan::Conv(stem.activated(self.activation))],
            shortcut: None,
            pool: (!self.small).then(|| Window::square(3).stride(2).padding(1)),
        }];
        let mut channels = self.stem;
        for (stage, block) in places(&self.depths) {
            let out = self.widths[stage];
            let stride = if block == 0 && (stage > 0 || self.first_halves) { 2 } else { 1 };
            blocks.push(self.block((stage, block), [channels, out], stride, names));
            channels = out;
        }
        blocks
    }

    fn block(
        &self,
        (stage, block): (usize, usize),
        [from, out]: [usize; 2],
        stride: usize,
        names: &Names,
    ) -> BlockPlan {
        let path = (names.block)(stage, block);
        let at = |i| (names.layer)(&path, i);
        let layers = if self.bottleneck {
            let inner = out / 4;
            let [early, late] = if self.early_stride { [stride, 1] } else { [1, stride] };
            vec![
                ConvPlan::new(at(0), [from, inner], 1, early).activated(self.activation),
                ConvPlan::new(at(1), [inner, inner], 3, late).activated(self.activation),
                ConvPlan::new(at(2), [inner, out], 1, 1),
            ]
        } else {
            vec![
                ConvPlan::new(at(0), [from, out], 3, stride).activated(self.activation),
                ConvPlan::new(at(1), [out, out], 3, 1),
            ]
        };
        let way = match (from == out && stride == 1, self.small) {
            (true, _) => Way::Identity,
            (false, true) => Way::Subsampled { stride, channels: from, out },
            (false, false) => Way::Projection(ConvPlan::new((names.shortcut)(&path), [from, out], 1, stride)),
        };
        BlockPlan {
            place: Place::Stage(stage, block),
            layers: layers.into_iter().map(LayerPlan::Conv).collect(),
            shortcut: Some(ShortcutPlan { way, site: (names.site)(&path), activation: self.activation }),
            pool: None,
        }
    }
}

/// Hugging Face's config.json. Where keys lack, Transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    num_channels: usize,
    embedding_size: usize,
    hidden_sizes: Vec<usize>,
    depths: Vec<usize>,
    layer_type: String,
    hidden_act: String,
    downsample_in_first_stage: bool,
    downsample_in_bottleneck: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            num_channels: 3,
            embedding_size: 64,
            hidden_sizes: vec![256, 512, 1024, 2048],
            depths: vec![3, 4, 6, 3],
            layer_type: "bottleneck".into(),
            hidden_act: "relu".into(),
            downsample_in_first_stage: false,
            downsample_in_bottleneck: false,
        }
    }
}

pub(super) fn hugging_face(source: &Source<'_>) -> Result<Plan, LoadError> {
    let config: Config = source.read()?;
    let bottleneck = match config.layer_type.as_str() {
        "bottleneck" => true,
        "basic" => false,
        other => return Err(source.setting("layer_type", other, "is not known; known are basic and bottleneck")),
    };
    let sizes = Sizes::new(source);
    sizes.check("num_channels", [config.num_channels])?;
    sizes.check("embedding_size", [config.embedding_size])?;
    sizes.check("hidden_sizes", config.hidden_sizes.iter().copied())?;
    sizes.depths("depths", &config.depths, config.hidden_sizes.len())?;
    if bottleneck && config.hidden_sizes.iter().any(|width| width % 4 != 0) {
        let why = "must be multiples of 4 where layer_type is bottleneck";
        return Err(source.setting("hidden_sizes", format!("{:?}", config.hidden_sizes), why));
    }
    let shape = Shape {
        bottleneck,
        depths: config.depths,
        widths: config.hidden_sizes,
        stem: config.embedding_size,
        first_halves: config.downsample_in_first_stage,
        early_stride: config.downsample_in_bottleneck,
        small: false,
        activation: source.activation("hidden_act", &config.hidden_act)?,
    };
    Ok(Plan {
        name: "resnet".into(),
        prefix: "resnet.",
        channels: config.num_channels,
        size: 224,
        flattens: false,
        blocks: shape.blocks(config.num_channels, &HUGGING_FACE),
        norm: NORM,
        init: ConvInit::FanOut,
        head: HeadPlan {
            classes: Some(("ResNetModel", "ResNetForImageClassification")),
            output: "classifier.1",
            dropout: 0.0,
            dropout_key: None,
        },
    })
}

/// torchvision's and timm's names for them: whether they have bottlenecks, and their depths.
const NAMED: [(&str, bool, [usize; 4]); 5] = [
    ("resnet18", false, [2, 2, 2, 2]),
    ("resnet34", false, [3, 4, 6, 3]),
    ("resnet50", true, [3, 4, 6, 3]),
    ("resnet101", true, [3, 4, 23, 3]),
    ("resnet152", true, [3, 8, 36, 3]),
];

/// Those for CIFAR, and the blocks of each of their three stages.
const SMALL: [(&str, usize); 5] =
    [("resnet20", 3), ("resnet32", 5), ("resnet44", 7), ("resnet56", 9), ("resnet110", 18)];

pub(super) fn architectures() -> impl Iterator<Item = &'static str> {
    NAMED.iter().map(|row| row.0).chain(SMALL.iter().map(|row| row.0))
}

/// The row of an `architecture`.
pub(super) fn named(source: &Source<'_>, name: &str) -> Result<Option<Plan>, LoadError> {
    let head = |output| HeadPlan { classes: None, output, dropout: 0.0, dropout_key: None };
    let (shape, names, init, size, head) = if let Some((_, bottleneck, depths)) = NAMED.iter().find(|row| row.0 == name)
    {
        let wider = if *bottleneck { 4 } else { 1 };
        let shape = Shape {
            bottleneck: *bottleneck,
            depths: depths.to_vec(),
            widths: [64, 128, 256, 512].map(|width| width * wider).to_vec(),
            stem: 64,
            first_halves: false,
            early_stride: false,
            small: false,
            activation: Activation::Relu,
        };
        (shape, TORCHVISION, ConvInit::FanOut, 224, head("fc"))
    } else if let Some((_, depth)) = SMALL.iter().find(|row| row.0 == name) {
        let shape = Shape {
            bottleneck: false,
            depths: vec![*depth; 3],
            widths: vec![16, 32, 64],
            stem: 16,
            first_halves: false,
            early_stride: false,
            small: true,
            activation: Activation::Relu,
        };
        (shape, TORCHVISION, ConvInit::FanIn, 32, head("linear"))
    } else {
        return Ok(None);
    };
    let images = Images::read(source, size)?;
    Ok(Some(Plan {
        name: name.into(),
        prefix: "",
        channels: images.channels,
        size: images.size,
        flattens: false,
        blocks: shape.blocks(images.channels, &names),
        norm: NORM,
        init,
        head,
    }))
}

/// The config of weights whose tensors have these names.
pub(super) fn recognise(weights: &Weights) -> Option<Json> {
    let [width, channels, kernel, _] = *weights.shape("conv1.weight")? else { return None };
    let depth =
        |stage: usize| (0..).take_while(|i| weights.contains(&format!("layer{stage}.{i}.conv1.weight"))).count();
    let depths = [1, 2, 3, 4].map(depth);
    let bottleneck = weights.contains("layer1.0.conv3.weight");
    let name = match (width, kernel, depths) {
        (64, 7, _) => {
            let inner = weights.shape("layer1.0.conv2.weight")?;
            let row = NAMED.iter().find(|row| (row.1, row.2) == (bottleneck, depths));
            row.filter(|_| *inner == [64, 64, 3, 3])?.0
        }
        (16, 3, [depth, ..]) if depths == [depth, depth, depth, 0] => SMALL.iter().find(|row| row.1 == depth)?.0,
        _ => return None,
    };
    Some(json!({ "architecture": name, "in_chans": channels }))
}
