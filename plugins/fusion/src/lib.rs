//! A head that fuses two streams, as a picture and a text about it, for classes or values.
//!
//! ```text
//! concat:     h = relu(W [a; b] + c)                                              a, b: pooled features of the streams
//! gated:      h = g tanh(W_a a + c_a) + (1 - g) tanh(W_b b + c_b),  g = sigmoid(W_g [a; b] + c_g)
//! attention:  h = [norm(p + A(p, y)); norm(q + A(q, x))]                          x, y: the rows of each stream, projected; p, q: their means
//!             A(p, y) = O concat over heads of softmax(Q p (K y)^T / sqrt(d)) V y, with matrices of its own in each direction
//! outputs = U drop(h) + u
//! ```
//!
//! gated: the gated multimodal unit (Arevalo et al. 2017, arXiv:1702.01992). attention: each stream asks the other's rows (tokens, patches,
//! places of a map), by multi-head attention (Vaswani et al. 2017, arXiv:1706.03762), residual and layer norm. Classes are learned by cross
//! entropy, as classification's; values by squared errors, as regression's. Layers start as torch's `nn.Linear`, U N(0, 0.02) and u at zero, so at step 0 all
//! classes are about equally likely, and values near their mean.

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{CrossEntropy, DenseLayer, HeadLayers, HeadShape, Stream, check_shares};

mod attention;

use attention::Crossed;

/// How two streams become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Fuse {
    /// Side by side, through a dense layer.
    Concat,
    /// A share of each, element by element.
    Gated,
    /// Each stream attends to the other.
    Attention,
}

/// What is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Classes,
    Values,
}

/// Options of the fusion head.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct FusionConfig {
    /// How the streams become one: "concat", "gated" (pooled features) or "attention" (all rows of both).
    #[schemars(extend("search" = ["concat", "gated", "attention"]))]
    fuse: Fuse,
    /// What is learned: "classes" or "values".
    answer: Answer,
    /// Width of the layers in between.
    #[schemars(range(min = 1))]
    width: usize,
    /// Attention: its heads, a divisor of width; 4 without it.
    #[schemars(range(min = 1))]
    heads: Option<usize>,
    /// Dropout before the last layer; without it what the model's config asks for.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    dropout: Option<f64>,
    /// Classes: their weights in the loss: "none", "balanced" (examples / (classes * examples of the class)), or a list.
    class_weights: ClassWeights,
    /// Classes: share of each target that is spread over all of them.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    label_smoothing: f64,
    /// Values: what is subtracted from each target.
    #[schemars(extend("from" = "targets.mean"))]
    center: f64,
    /// Values: what each target is divided by.
    #[schemars(extend("exclusiveMinimum" = 0, "from" = "targets.std"))]
    scale: f64,
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self {
            fuse: Fuse::Concat,
            answer: Answer::Classes,
            width: 256,
            heads: None,
            dropout: None,
            class_weights: ClassWeights::default(),
            label_smoothing: 0.0,
            center: 0.0,
            scale: 1.0,
        }
    }
}

const HEADS: usize = 4;
/// Standard deviation of the last layer's matrix at the start.
const INIT_STD: f64 = 0.02;

/// The layers of a gated unit: each stream's, and that of its shares.
struct Gated {
    streams: [DenseLayer; 2], // [width, width of the stream]
    gate: DenseLayer,         // [width, width of both]
}

/// The layers that make one row of two streams.
enum Layers {
    Concat(DenseLayer),
    Gated(Box<Gated>),
    Attention(Box<Crossed>),
}

impl Layers {
    /// `h` of the features of both streams, `[examples, ...]`.
    fn forward(&self, [first, second]: [&Features<'_>; 2]) -> Result<Tensor> {
        let (a, b) = (first.tensor, second.tensor); // [examples, width of the stream]
        match self {
            Self::Concat(dense) => dense.forward(&Tensor::concat(&[a, b], -1)?)?.relu(), // [examples, width]
            Self::Gated(gated) => {
                let Gated { streams: [of_first, of_second], gate } = gated.as_ref();
                let (a_h, b_h) = (of_first.forward(a)?.tanh()?, of_second.forward(b)?.tanh()?); // [examples, width]
                let share = gate.forward(&Tensor::concat(&[a, b], -1)?)?.sigmoid()?; // [examples, width]
                b_h.add(&share.mul(&a_h.sub(&b_h)?)?)
            }
            Self::Attention(crossed) => crossed.forward([first, second]), // [examples, 2 width]
        }
    }
}

struct Attached {
    layers: Layers,
    /// From `h` to outputs.
    last: HeadLayers,
    loss: CrossEntropy,
}

struct Fusion {
    config: FusionConfig,
    attached: Option<Attached>,
}

impl Fusion {
    fn attached(&self) -> Result<&Attached> {
        self.attached.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))
    }

    /// Which features of a stream are fused.
    fn features(&self, stream: &Stream) -> Result<FeatureKind> {
        if self.config.fuse != Fuse::Attention {
            return Ok(FeatureKind::Pooled);
        }
        let rows =
            [FeatureKind::Sequence, FeatureKind::Spatial].into_iter().find(|kind| stream.features.contains(kind));
        rows.ok_or_else(|| {
            let name = &stream.name;
            Error::new(format!(
                "the stream {name} gives one row for each example, and attention is over rows: take fuse = \"gated\" or \"concat\""
            ))
        })
    }
}

impl TaskHead for Fusion {
    type Config = FusionConfig;

    fn new(config: FusionConfig) -> Result<Self> {
        let FusionConfig { fuse, answer, width, heads, dropout, ref class_weights, label_smoothing, center, scale } =
            config;
        check_shares([("dropout", dropout.unwrap_or(0.0)), ("label_smoothing", label_smoothing)])?;
        if width == 0 || heads == Some(0) {
            return Err(Error::new("width and heads must be at least 1"));
        }
        if heads.is_some() && fuse != Fuse::Attention {
            return Err(Error::new("heads are attention's: set fuse = \"attention\", or leave heads out"));
        }
        let heads = heads.unwrap_or(HEADS);
        if fuse == Fuse::Attention && width % heads != 0 {
            return Err(Error::new(format!("width is {width}, and cannot be shared by {heads} heads alike")));
        }
        if !(center.is_finite() && scale.is_finite() && scale > 0.0) {
            return Err(Error::new(format!("center is {center} and scale {scale}: numbers, and scale above 0")));
        }
        if answer == Answer::Values && (label_smoothing != 0.0 || !matches!(class_weights.resolve(&[], 0), Ok(None))) {
            return Err(Error::new(
                "class_weights and label_smoothing are of classes: with answer = \"values\" leave them out",
            ));
        }
        Ok(Self { config, attached: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let [first, second] = task.streams.as_slice() else {
            let names: Vec<&str> = task.streams.iter().map(|stream| stream.name.as_str()).collect();
            return Err(Error::new(format!(
                "this head fuses two streams, and this model ({}) has {} ({}): take a head of one, as classification, or a model by \
                 streams = {{ text = \"...\", image = \"...\" }}",
                model.model_type()?,
                names.len(),
                names.join(", ")
            )));
        };
        let FusionConfig { fuse, width, .. } = self.config;
        let reads = [first, second].map(|stream| Ok(StreamFeatures::of(stream, self.features(stream)?)));
        let streams = reads.into_iter().collect::<Result<Vec<_>>>()?;
        let both = first.width + second.width;
        let mut dense = |name: &str, inputs| DenseLayer::declare(model, name, [width, inputs], true);
        let layers = match fuse {
            Fuse::Concat => Layers::Concat(dense("dense", both)?),
            Fuse::Gated => Layers::Gated(Box::new(Gated {
                streams: [
                    dense(&format!("{}_layer", first.name), first.width)?,
                    dense(&format!("{}_layer", second.name), second.width)?,
                ],
                gate: dense("gate", both)?,
            })),
            Fuse::Attention => {
                let heads = self.config.heads.unwrap_or(HEADS);
                Layers::Attention(Box::new(Crossed::declare(model, [first, second], width, heads)?))
            }
        };
        let (outputs, targets, predictions, weights) = match self.config.answer {
            Answer::Classes => {
                let classes = task.classes()?;
                let weights = self.config.class_weights.resolve(&task.class_counts, classes)?;
                (classes, TargetKind::Class, PredictionKind::Classes, weights)
            }
            Answer::Values => (1, TargetKind::Value, PredictionKind::Values, None),
        };
        let last = HeadShape {
            width: if fuse == Fuse::Attention { 2 * width } else { width },
            outputs,
            hidden: None,
            bias: true,
            init_std: INIT_STD,
            dropout: self.config.dropout.unwrap_or(task.dropout),
        };
        let loss = CrossEntropy { weights, label_smoothing: self.config.label_smoothing };
        self.attached = Some(Attached { layers, last: last.declare(model)?, loss });
        Ok(HeadSpec { streams, ..HeadSpec::new(FeatureKind::Pooled, targets, predictions) })
    }

    fn forward(&self, _: &Features<'_>) -> Result<Tensor> {
        Err(Error::new("this head fuses two streams, and the host passed one"))
    }

    fn forward_streams(&self, features: &[Features<'_>]) -> Result<Tensor> {
        let [first, second] = features else {
            return Err(Error::new(format!("this head fuses two streams, and the host passed {}", features.len())));
        };
        let Attached { layers, last, .. } = self.attached()?;
        let outputs = last.forward(&layers.forward([first, second])?)?; // [examples, outputs]
        match self.config.answer {
            Answer::Classes => Ok(outputs),
            Answer::Values => outputs.sum_dim(-1, false), // [examples]
        }
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let FusionConfig { answer, center, scale, .. } = self.config;
        if answer == Answer::Classes {
            return self.attached()?.loss.loss(outputs, targets);
        }
        let sum = outputs.squared_error(&targets.tensor.affine(1.0 / scale, -center / scale)?)?;
        Ok(Loss { sum, weight: outputs.shape()?.iter().product::<usize>() as f64 })
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        match self.config.answer {
            Answer::Classes => outputs.softmax(), // [examples, classes]
            Answer::Values => outputs.affine(self.config.scale, self.config.center), // [examples]
        }
    }
}

register! {
    /// Classes or values from two streams: side by side, gated, or by attention to each other.
    TaskHead "fusion" => Fusion
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = [
        "linear@1", "dropout@1", "concat@1", "relu@1", "tanh@1", "sigmoid@1", "add@1", "sub@1", "mul@1", "div@1", "matmul@1", "softmax@1",
        "layer_norm@1", "reshape@1", "transpose@1", "index_select@1", "sum_dim@1", "square@1", "sum@1", "affine@1", "cross_entropy@1"
    ],
    min_host_minor = 1
}

#[cfg(test)]
mod tests;
