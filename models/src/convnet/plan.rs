//! What a network is made of, as data: what the rows of the table say, and the one implementation builds.

use fthost_autograd::{Activation, Window};

use crate::builder::Init;

/// A whole network below its head.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What files call it: Hugging Face's `model_type`, timm's or torchvision's name.
    pub(crate) name: String,
    /// What may stand before its paths.
    pub(crate) prefix: &'static str,
    /// Channels of an image.
    pub(crate) channels: usize,
    /// Height and width of an image that it was made for.
    pub(crate) size: usize,
    /// Whether each image becomes one row, by channel, then down, then right, as torch flattens it.
    pub(crate) flattens: bool,
    /// From the bottom up.
    pub(crate) blocks: Vec<BlockPlan>,
    pub(crate) norm: NormPlan,
    pub(crate) init: ConvInit,
    pub(crate) head: HeadPlan,
}

/// What batch norms have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormPlan {
    pub(crate) eps: f64,
    /// The share of a batch's statistics, as torch counts it.
    pub(crate) momentum: f64,
    /// Whether a norm that trains goes by its running statistics, and leaves them as they are.
    pub(crate) keeps_statistics: bool,
}

/// torch's.
pub(crate) const NORM: NormPlan = NormPlan { eps: 1e-5, momentum: 0.1, keeps_statistics: false };

/// The architecture's own head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadPlan {
    /// Transformers' class without a head, and with one for images.
    pub(crate) classes: Option<(&'static str, &'static str)>,
    /// Path of the linear layer.
    pub(crate) output: &'static str,
    /// Dropout before it, and the key of config.json that says so.
    pub(crate) dropout: f64,
    pub(crate) dropout_key: Option<&'static str>,
}

/// What new convolutions start from. In all cases biases are zero.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ConvInit {
    /// He et al. 2015, of what a layer gives: `kaiming_normal_(mode="fan_out")` of torch.
    FanOut,
    /// The same, of the outputs of one group: TensorFlow's, and timm's for EfficientNet.
    FanOutOfGroup,
    /// He et al. 2015, of what a layer takes.
    FanIn,
    /// torch's own for layers, uniform up to `1 / sqrt(fan in)`.
    Torch,
    /// Normal of one standard deviation.
    Normal(f64),
}

impl ConvInit {
    /// What a weight `[out, inputs of a group, taps]` and its bias start from.
    pub(crate) fn of(self, out: usize, inputs: usize, taps: usize, groups: usize) -> [Init; 2] {
        let he = |fan: usize| Init::Normal((2.0 / fan.max(1) as f64).sqrt());
        let fan_in = inputs * taps;
        match self {
            Self::FanOut => [he(out * taps), Init::Zeros],
            Self::FanOutOfGroup => [he(out * taps / groups.max(1)), Init::Zeros],
            Self::FanIn => [he(fan_in), Init::Zeros],
            Self::Normal(std) => [Init::Normal(std), Init::Zeros],
            Self::Torch => [Init::Uniform(1.0 / (fan_in.max(1) as f64).sqrt()); 2],
        }
    }
}

/// Layers, then a residual where there is one, then an activation, then pooling.
#[derive(Debug)]
pub(crate) struct BlockPlan {
    pub(crate) place: Place,
    pub(crate) layers: Vec<LayerPlan>,
    pub(crate) shortcut: Option<ShortcutPlan>,
    pub(crate) pool: Option<Window>,
}

/// Where a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Stem,
    /// A block of a stage, both counted from 0.
    Stage(usize, usize),
    /// Above the stages, below the head.
    Top,
}

impl Place {
    /// The name of its block group.
    pub(crate) fn group(self) -> String {
        match self {
            Self::Stem => "stem".into(),
            Self::Stage(stage, block) => format!("stage.{stage}.block.{block}"),
            Self::Top => "top".into(),
        }
    }
}

/// What is added to the output of a block's layers.
#[derive(Debug)]
pub(crate) struct ShortcutPlan {
    pub(crate) way: Way,
    /// Path of the site where the output of the layers is seen.
    pub(crate) site: String,
    /// What follows the sum.
    pub(crate) activation: Activation,
}

/// From a block's input to what is added.
#[derive(Debug)]
pub(crate) enum Way {
    Identity,
    Projection(ConvPlan),
    /// Every so manieth pixel, with as many channels of zeros on both sides as are lacking: option A of He et al. 2016.
    Subsampled {
        stride: usize,
        channels: usize,
        out: usize,
    },
}

#[derive(Debug)]
pub(crate) enum LayerPlan {
    Conv(ConvPlan),
    Linear { path: String, inputs: usize, outputs: usize, activation: Activation },
}

/// A convolution, its norm and its activation.
#[derive(Debug)]
pub(crate) struct ConvPlan {
    pub(crate) path: String,
    pub(crate) norm: String,
    pub(crate) channels: usize,
    pub(crate) out: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    pub(crate) groups: usize,
    /// Whether zeros are added as TensorFlow's `"SAME"` says, rather than half a kernel on each side.
    pub(crate) same: bool,
    pub(crate) bias: bool,
    pub(crate) activation: Activation,
}

/// Paths of a convolution and of its norm.
pub(crate) type Paths = (String, String);

impl ConvPlan {
    /// Without activation.
    pub(crate) fn new((path, norm): Paths, [channels, out]: [usize; 2], kernel: usize, stride: usize) -> Self {
        let (dilation, groups, same, bias, activation) = (1, 1, false, false, Activation::Identity);
        Self { path, norm, channels, out, kernel, stride, dilation, groups, same, bias, activation }
    }

    pub(crate) fn activated(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }
}

/// Stages are counted with their blocks: `(stage, block)` of each of these depths.
pub(crate) fn places(depths: &[usize]) -> impl Iterator<Item = (usize, usize)> + '_ {
    depths.iter().enumerate().flat_map(|(stage, &depth)| (0..depth).map(move |block| (stage, block)))
}
