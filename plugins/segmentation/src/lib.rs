//! A segmentation head: a class for each pixel of a picture, from the map of features that a network makes of it, by cross entropy.
//!
//! ```text
//! h      = relu(C x + a)                    a 3 x 3 convolution over the map's features x
//! h      = relu(U h + b)                    `stages` times: a transposed convolution 4 x 4 of stride 2, which doubles the map
//! logits = resize(W drop(h) + c)            a class for each place, brought to the picture's size bilinearly
//! loss   = sum over pixels that count of w[t] (1 - s) (-log p[t]) + s / C sum_c w[c] (-log p[c]), over the sum of w[t]
//! ```
//!
//! Without stages that is the head of a fully convolutional network (Long et al. 2015, arXiv:1411.4038) as torchvision's `FCNHead` has
//! it, but for its batch norm; with them its learned upsampling, and each stage has half the channels of the one before. Matrices of h
//! start as Kaiming's (He et al. 2015) for what follows a relu, those of the classes N(0, 0.02), biases at zero: at step 0 all classes are
//! about equally likely everywhere. Pixels without a class count in nothing.

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{CrossEntropy, check_shares};

/// Options of the segmentation head.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct SegmentationConfig {
    /// Channels of the first convolution.
    #[schemars(range(min = 1))]
    channels: usize,
    /// Transposed convolutions, each of which doubles the map and halves the channels, before it is brought to the picture's size.
    #[schemars(range(max = 5), extend("search" = [0, 1, 2]))]
    stages: usize,
    /// Dropout before the last layer.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    dropout: f64,
    /// Weights of the classes in the loss: "none", "balanced" (pixels / (classes * pixels of the class)), or a list.
    class_weights: ClassWeights,
    /// Share of each target that is spread over all classes.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    label_smoothing: f64,
}

impl Default for SegmentationConfig {
    fn default() -> Self {
        Self { channels: 256, stages: 0, dropout: 0.1, class_weights: ClassWeights::default(), label_smoothing: 0.0 }
    }
}

/// A convolution, or a transposed one.
struct Layer {
    weight: Param,
    bias: Param,
}

struct Attached {
    first: Layer,       // [channels, width, 3, 3]
    stages: Vec<Layer>, // each [channels, channels / 2, 4, 4]
    last: Layer,        // [classes, channels]
    loss: CrossEntropy,
    image: ImageInfo,
}

struct Segmentation {
    config: SegmentationConfig,
    attached: Option<Attached>,
}

/// Keeps the map's size.
const SAME: Window = Window { stride: [1; 2], padding: [1; 2], dilation: [1; 2], groups: 1 };
/// Doubles it.
const DOUBLE: Window = Window { stride: [2; 2], padding: [1; 2], dilation: [1; 2], groups: 1 };
/// Sides of the kernels.
const FIRST: usize = 3;
const STAGE: usize = 4;
/// Deviation of the last layer, as in Transformers' heads.
const LAST_STD: f64 = 0.02;

/// Deviation that keeps the variance through a relu, where so many inputs meet in an output.
fn kaiming(inputs: usize) -> Init {
    Init::Normal { mean: 0.0, std: (2.0 / inputs.max(1) as f64).sqrt() }
}

impl Segmentation {
    fn attached(&self) -> Result<&Attached> {
        self.attached.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))
    }
}

impl TaskHead for Segmentation {
    type Config = SegmentationConfig;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::MASKS);

    fn new(config: SegmentationConfig) -> Result<Self> {
        check_shares([("dropout", config.dropout), ("label_smoothing", config.label_smoothing)])?;
        if config.channels >> config.stages == 0 {
            return Err(Error::new(format!(
                "{} channels cannot be halved {} times: give the head more channels, or fewer stages",
                config.channels, config.stages
            )));
        }
        Ok(Self { config, attached: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let classes = task.classes()?;
        let Some(image) = task.image else {
            return Err(Error::new(format!(
                "task `{}` has no maps of pictures, and this head gives each pixel of one a class: take a model of pictures that has blocks",
                task.name
            )));
        };
        let mut layer = |name: &str, shape: &[usize], outputs: usize, init: Init| {
            let weight = model.head_param(&format!("{name}.weight"), shape, init)?;
            Ok::<_, Error>(Layer { weight, bias: model.head_param(&format!("{name}.bias"), [outputs], Init::Zeros)? })
        };
        let (width, mut channels) = (task.width, self.config.channels);
        let shape = [channels, width, FIRST, FIRST];
        let first = layer("convolution", &shape, channels, kaiming(width * FIRST * FIRST))?;
        let mut stages = Vec::new();
        for stage in 0..self.config.stages {
            let (from, to) = (channels, channels / 2);
            // With stride 2 a quarter of the taps meets each pixel.
            let init = kaiming(from * STAGE * STAGE / 4);
            stages.push(layer(&format!("upsampling.{stage}"), &[from, to, STAGE, STAGE], to, init)?);
            channels = to;
        }
        let last = layer("classifier", &[classes, channels], classes, Init::Normal { mean: 0.0, std: LAST_STD })?;
        let weights = self.config.class_weights.resolve(&task.class_counts, classes)?;
        let loss = CrossEntropy { weights, label_smoothing: self.config.label_smoothing };
        self.attached = Some(Attached { first, stages, last, loss, image });
        Ok(HeadSpec::new(FeatureKind::Spatial, TargetKind::Mask, PredictionKind::Masks))
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        let Attached { first, stages, last, image, .. } = self.attached()?;
        let mut map = image.map;
        let mut x = features.tensor.conv2d(map, &first.weight, Some(&first.bias), &SAME)?.relu()?; // [places, channels]
        for stage in stages {
            x = x.conv_transpose2d(map, &stage.weight, Some(&stage.bias), &DOUBLE)?.relu()?; // [4 places, channels / 2]
            map = DOUBLE.transposed_output(map, [STAGE; 2]);
        }
        let logits = x.dropout(self.config.dropout)?.linear(&last.weight, Some(&last.bias))?; // [places, classes]
        logits.upsample_bilinear2d(map, image.size, false) // [pixels, classes]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let pixels = outputs.shape()?.first().copied().unwrap_or_default();
        let targets = TaskTargets { tensor: &targets.tensor.reshape([pixels])?, ..*targets };
        self.attached()?.loss.loss(outputs, &targets)
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        outputs.softmax() // [pixels, classes]
    }
}

register! {
    /// A class for each pixel of a picture, by cross entropy.
    TaskHead "segmentation" => Segmentation
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = [
        "conv2d@1", "conv_transpose2d@1", "upsample_bilinear2d@1", "relu@1", "dropout@1", "linear@1", "reshape@1", "cross_entropy@1",
        "softmax@1"
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;

    #[test]
    fn refuses_what_makes_no_head() {
        for options in [json!({ "dropout": 1.0 }), json!({ "channels": 4, "stages": 3 })] {
            assert!(Segmentation::new(from_value(options.clone()).unwrap()).is_err(), "{options}");
        }
    }
}
