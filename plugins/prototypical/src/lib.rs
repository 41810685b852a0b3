//! Prototypical networks (Snell et al. 2017, arXiv:1703.05175): a class is the mean of its examples.
//!
//! ```text
//! c_k    = mean of the embeddings z of class k's support examples
//! logits = -|z - c_k|^2             ("squared_euclidean", the paper's)  or  -|z - c_k|  ("euclidean")
//! loss   = sum over queries of -log softmax(logits)[class] / queries
//! ```
//!
//! Training is by episodes: each draws `ways` classes with `shots` support examples and `queries` to tell apart. An embedding is the
//! pooled features, or where the architecture's own head has one more dense layer (RoBERTa, DistilBERT) act(V h + c) of them. Nothing
//! else trains here: for evaluation and use the prototypes are those of `support` training examples of each class, by the trained
//! encoder. With squared distances they are a linear layer, W = 2 c and b = -|c|^2 (section 2.4), and are kept as one: what a run
//! saves is an ordinary classifier of Transformers' or PEFT's. As jakesnell's prototypical-networks.

use fthost_plugin_api::prelude::*;

/// Options of the prototypical head.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PrototypicalConfig {
    /// Classes of an episode.
    #[schemars(range(min = 2))]
    ways: u32,
    /// Support examples of each class in an episode.
    #[schemars(range(min = 1))]
    shots: u32,
    /// Query examples of each class in an episode.
    #[schemars(range(min = 1))]
    queries: u32,
    /// Training examples of each class, at most, that its prototype is made of in evaluation and use.
    #[schemars(range(min = 1))]
    support: u32,
    /// How far an example is from a prototype.
    #[schemars(extend("search" = ["squared_euclidean", "euclidean"]))]
    distance: Distance,
}

impl Default for PrototypicalConfig {
    fn default() -> Self {
        Self { ways: 5, shots: 5, queries: 5, support: 100, distance: Distance::SquaredEuclidean }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Distance {
    SquaredEuclidean,
    Euclidean,
}

/// Where the prototype of a class without examples lies: so far away that nothing is of that class, and its square is a number.
const NOWHERE: f32 = 1e10;
/// Under a root, because that of 0 has no slope.
const LEAST_SQUARE: f64 = 1e-12;

struct Prototypical {
    config: PrototypicalConfig,
    layers: Option<Layers>,
}

/// What `attach` makes.
struct Layers {
    /// The architecture's extra layer: `[width, width]`, `[width]` and its activation.
    hidden: Option<(Param, Param, String)>,
    prototypes: Prototypes,
}

/// The prototypes that predictions go by.
enum Prototypes {
    /// As a linear layer: 2 c `[classes, width]` and -|c|^2 `[classes]`.
    Linear { weight: Param, bias: Param },
    /// As they are, `[classes, width]`.
    Plain(Param),
}

impl Prototypes {
    fn classes(&self) -> usize {
        let (Self::Linear { weight: rows, .. } | Self::Plain(rows)) = self;
        rows.shape()[0]
    }

    /// `[classes, width]`
    fn values(&self) -> Result<Tensor> {
        match self {
            Self::Linear { weight, .. } => weight.tensor().mul_scalar(0.5),
            Self::Plain(prototypes) => Ok(prototypes.tensor()),
        }
    }

    fn params(&self) -> Vec<Param> {
        match self {
            Self::Linear { weight, bias } => vec![weight.clone(), bias.clone()],
            Self::Plain(prototypes) => vec![prototypes.clone()],
        }
    }
}

impl Prototypical {
    fn layers(&self) -> Result<&Layers> {
        self.layers.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))
    }

    /// Logits of embeddings `[rows, width]` from prototypes `[classes, width]`: `[rows, classes]`. Differences are squared, not
    /// multiplied out: distances are small beside the lengths of what they lie between.
    fn logits(&self, embeddings: &Tensor, prototypes: &Tensor) -> Result<Tensor> {
        let (rows, classes, width) = (embeddings.shape()?[0], prototypes.shape()?[0], prototypes.shape()?[1]);
        let differences = embeddings.reshape([rows, 1, width])?.sub(&prototypes.reshape([1, classes, width])?)?;
        let squares = differences.square()?.sum_dim(-1, false)?; // [rows, classes]
        match self.config.distance {
            Distance::SquaredEuclidean => squares.neg(),
            Distance::Euclidean => squares.maximum_scalar(LEAST_SQUARE)?.sqrt()?.neg(),
        }
    }

    /// The loss of an episode's queries. `classes`: of each row; `support`: 1 where it is a support row.
    fn episode_loss(&self, embeddings: &Tensor, classes: &[u32], support: &[u8]) -> Result<Loss> {
        let mut ways: Vec<u32> = Vec::new();
        let (mut supports, mut queries, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (&class, &support)) in (0..).zip(classes.iter().zip(support)) {
            let way = ways.iter().position(|&known| known == class).unwrap_or_else(|| {
                ways.push(class);
                supports.push(Vec::new());
                ways.len() - 1
            });
            if support != 0 {
                supports[way].push(row);
            } else {
                queries.push(row);
                targets.push(way as u32);
            }
        }
        let logits = self.logits(&embeddings.rows(&queries)?, &means(embeddings, &supports)?)?; // [queries, ways]
        let (sum, weight) = logits.cross_entropy(&Tensor::from_slice(&targets, [targets.len()])?, None, 0.0)?;
        Ok(Loss { sum, weight: weight.to_scalar()? })
    }
}

/// The means of some rows each of `[rows, width]`, `[sets, width]`; [`NOWHERE`] for a set without rows.
fn means(of: &Tensor, sets: &[Vec<u32>]) -> Result<Tensor> {
    let width = of.shape()?[1];
    let mean = |rows: &Vec<u32>| match rows.as_slice() {
        [] => Tensor::from_slice(&vec![NOWHERE; width], [1, width]),
        rows => of.rows(rows)?.mean_dim(0, true),
    };
    let means = sets.iter().map(mean).collect::<Result<Vec<_>>>()?;
    Tensor::concat(&means.iter().map(|mean| mean as &dyn Operand).collect::<Vec<_>>(), 0)
}

impl TaskHead for Prototypical {
    type Config = PrototypicalConfig;

    fn new(config: PrototypicalConfig) -> Result<Self> {
        for (option, value, least) in [
            ("ways", config.ways, 2),
            ("shots", config.shots, 1),
            ("queries", config.queries, 1),
            ("support", config.support, 1),
        ] {
            if value < least {
                return Err(Error::new(format!("{option} is {value}, and must be at least {least}")));
            }
        }
        Ok(Self { config, layers: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let (width, classes) = (task.width, task.labels.len());
        let hidden = match &task.hidden_activation {
            Some(activation) => Some((
                model.head_param("dense.weight", [width, width], Init::Normal { mean: 0.0, std: 0.02 })?,
                model.head_param("dense.bias", [width], Init::Zeros)?,
                activation.clone(),
            )),
            None => None,
        };
        let prototypes = match self.config.distance {
            Distance::SquaredEuclidean => {
                let layer = if hidden.is_some() { "out_proj" } else { "classifier" };
                Prototypes::Linear {
                    weight: model.head_param(&format!("{layer}.weight"), [classes, width], Init::Zeros)?,
                    bias: model.head_param(&format!("{layer}.bias"), [classes], Init::Zeros)?,
                }
            }
            Distance::Euclidean => Prototypes::Plain(model.head_param("prototypes", [classes, width], Init::Zeros)?),
        };
        // They follow from examples, not from gradients.
        model.set_trainable_of(&prototypes.params(), false)?;
        self.layers = Some(Layers { hidden, prototypes });
        let PrototypicalConfig { ways, shots, queries, support, .. } = self.config;
        Ok(HeadSpec {
            scope: LossScope::Batch,
            sampling: Sampling::Episodes { ways, shots, queries, support },
            ..HeadSpec::new(FeatureKind::Pooled, TargetKind::Class, PredictionKind::Classes)
        })
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        match &self.layers()?.hidden {
            None => features.tensor.reshape(features.tensor.shape()?), // [examples, width]
            Some((dense, bias, activation)) => features.tensor.linear(dense, Some(bias))?.activation(activation),
        }
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        if !targets.support.is_empty() {
            return self.episode_loss(outputs, &targets.tensor.to_vec_u32()?, targets.support);
        }
        let logits = self.logits(outputs, &self.layers()?.prototypes.values()?)?; // [examples, classes]
        let (sum, weight) = logits.cross_entropy(targets.tensor, None, 0.0)?;
        Ok(Loss { sum, weight: weight.to_scalar()? })
    }

    fn fit(&mut self, outputs: &Tensor, targets: &Tensor, model: &mut Model) -> Result<()> {
        let prototypes = &self.layers()?.prototypes;
        let classes = prototypes.classes();
        let mut rows = vec![Vec::new(); classes];
        for (row, class) in (0..).zip(targets.to_vec_u32()?) {
            let of_class = rows.get_mut(class as usize);
            of_class.ok_or_else(|| Error::new(format!("class {class} is none of the head's {classes}")))?.push(row);
        }
        let means = means(outputs, &rows)?; // [classes, width]
        match prototypes {
            Prototypes::Plain(values) => model.set_value(values, &means),
            Prototypes::Linear { weight, bias } => {
                model.set_value(weight, &means.mul_scalar(2.0)?)?;
                model.set_value(bias, &means.square()?.sum_dim(-1, false)?.neg()?)
            }
        }
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        self.logits(outputs, &self.layers()?.prototypes.values()?)?.softmax() // [examples, classes]
    }
}

register! {
    /// Few-shot classes: the nearest mean of a class's examples.
    TaskHead "prototypical" => Prototypical
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = [
        "linear@1", "tanh@1", "relu@1", "gelu@1", "affine@1", "reshape@1", "sub@1", "square@1", "sum_dim@1", "mean_dim@1", "neg@1",
        "sqrt@1", "clamp_min@1", "index_select@1", "concat@1", "cross_entropy@1", "softmax@1"
    ]
}
