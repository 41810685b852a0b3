//! A head that learns what belongs together: CLIP's loss (Radford et al. 2021, arXiv:2103.00020), of the two streams of a model, as a text and
//! its picture, or of one stream's texts, as a question and its answer.
//!
//! ```text
//! a_i, b_i = W_a f_i + c_a, W_b g_i + c_b, each divided by its length           f, g: pooled features of the sides of example i
//! z_ij     = e^s a_i b_j                                                         s: logit_scale, e^-s the temperature; e^s <= max_scale
//! loss     = mean over i of  (-log softmax_j(z_ij)[i] - log softmax_j(z_ji)[i]) / 2
//! ```
//!
//! So the other examples of the batch are what is wrong for each. Where rows have a third text, which is wrong for the first (a hard
//! negative), those of all rows stand beside the b_j in the first direction, as in sentence-transformers' MultipleNegativesRankingLoss
//! (Henderson et al. 2017, arXiv:1705.00652). Texts of one stream are compared as they are, or by one projection for all.
//!
//! CLIP's own matrices and its own number are used where the model has them. New projections start as torch's `nn.Linear`, so at step 0 what
//! belongs together is found about as often as by chance; texts that are compared as they are, as the model has them.

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{Comparison, DenseLayer, check_shares};

/// Options of the contrastive head.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ContrastiveConfig {
    /// Width of the projections; without it 256 of two streams, and of one stream no projection. Not where the model has its own.
    #[schemars(range(min = 1))]
    width: Option<usize>,
    /// Whether projections have a bias; without it they do. Not where there is none, or the model has its own.
    bias: Option<bool>,
    /// What cosines are divided by, at the start where it is learned; without it 0.07 of two streams and 0.05 of one. Not where the model
    /// has its own.
    #[schemars(extend("exclusiveMinimum" = 0))]
    temperature: Option<f64>,
    /// Whether the temperature is learned; without it of two streams.
    learn_temperature: Option<bool>,
    /// The most that cosines are multiplied with, where the temperature is learned; 100 without it.
    #[schemars(extend("exclusiveMinimum" = 0))]
    max_scale: Option<f64>,
    /// Whether the second side learns to find the first, too.
    symmetric: bool,
    /// Share of each target that is spread over all candidates.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    label_smoothing: f64,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self {
            width: None,
            bias: None,
            temperature: None,
            learn_temperature: None,
            max_scale: None,
            symmetric: true,
            label_smoothing: 0.0,
        }
    }
}

/// CLIP's.
const WIDTH: usize = 256;
const MAX_SCALE: f64 = 100.0;
/// Temperatures at the start: CLIP's, and that of sentence-transformers' losses.
const OF_STREAMS: f64 = 0.07;
const OF_TEXTS: f64 = 0.05;

/// What cosines are multiplied with.
enum Scale {
    /// A number.
    Fixed(f64),
    /// The exponential of a parameter `[1]`, at most the exponential of `most`.
    Learned { log: Param, most: f64 },
    /// The same, which does not train, and so is taken as it is.
    Frozen(Param),
}

/// What `attach` makes.
struct Attached {
    /// One for each stream; none where texts are compared as they are.
    projections: Vec<DenseLayer>,
    scale: Scale,
    /// Sides of an example.
    sides: usize,
}

/// Whether streams are compared; else a stream's texts.
fn several(task: &TaskInfo) -> bool {
    task.streams.len() > 1
}

/// How many sides an example of a task has.
fn sides(task: &TaskInfo) -> Result<usize> {
    let (name, streams, sequences) = (&task.name, task.streams.len().max(1), task.sequences as usize);
    match (streams, sequences) {
        (2, 1) => Ok(2),
        (1, 2 | 3) => Ok(sequences),
        (1, 1) => Err(Error::new(format!(
            "task `{name}` has one input a row, and this head compares what belongs together: give rows two texts, by columns = \
             {{ text = \"...\", text_pair = \"...\" }} (text_negative names a third, which is wrong for the first), or take a model of two \
             streams"
        ))),
        _ => Err(Error::new(format!(
            "this head compares two streams, or two or three texts of one; task `{name}` has {sequences} inputs a row in each of \
             {streams} streams"
        ))),
    }
}

struct Contrastive {
    config: ContrastiveConfig,
    attached: Option<Attached>,
}

impl Contrastive {
    fn attached(&self) -> Result<&Attached> {
        self.attached.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))
    }

    /// The matrices and the number of the model's own, which train whatever a strategy has frozen.
    fn own(&self, of: &Comparison, model: &mut Model) -> Result<(Vec<DenseLayer>, Scale)> {
        let ContrastiveConfig { width, bias, temperature, learn_temperature, .. } = self.config;
        let given = [("width", width.is_some()), ("bias", bias.is_some()), ("temperature", temperature.is_some())];
        if let Some((option, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(Error::new(format!(
                "{option} has no say here: this model ({}) has projections, {} wide, and a temperature of its own. Leave it out",
                model.model_type()?,
                of.width
            )));
        }
        let matrices = of.projections.iter().map(|path| model.base_param(path)).collect::<Result<Vec<_>>>()?;
        let log = model.base_param(&of.scale)?;
        model.set_trainable_of(&matrices, true)?;
        let learned = learn_temperature.unwrap_or(true);
        model.set_trainable_of(std::slice::from_ref(&log), learned)?;
        let projections = matrices.into_iter().map(|weight| DenseLayer::of(weight, None)).collect();
        let scale = if learned { Scale::Learned { log, most: self.most() } } else { Scale::Frozen(log) };
        Ok((projections, scale))
    }

    /// One for each stream; of texts one for all, or none.
    fn new_projections(&self, task: &TaskInfo, model: &mut Model) -> Result<Vec<DenseLayer>> {
        let ContrastiveConfig { width, bias, .. } = self.config;
        let Some(width) = width.or(several(task).then_some(WIDTH)) else {
            return match bias {
                None => Ok(Vec::new()),
                Some(_) => Err(Error::new(
                    "bias is that of a projection, and texts are compared without one: set width, or leave bias out",
                )),
            };
        };
        let mut new = |name: &str, features| DenseLayer::declare(model, name, [width, features], bias.unwrap_or(true));
        match several(task) {
            true => task.streams.iter().map(|of| new(&format!("{}_projection", of.name), of.width)).collect(),
            false => Ok(vec![new("projection", task.width)?]),
        }
    }

    /// The logarithm of the cap.
    fn most(&self) -> f64 {
        self.config.max_scale.unwrap_or(MAX_SCALE).ln()
    }

    /// A scale that begins at the temperature, or stays there.
    fn new_scale(&self, of_streams: bool, model: &mut Model) -> Result<Scale> {
        let temperature = self.config.temperature.unwrap_or(if of_streams { OF_STREAMS } else { OF_TEXTS });
        let (scale, most) = (1.0 / temperature, self.most());
        if !self.config.learn_temperature.unwrap_or(of_streams) {
            return Ok(Scale::Fixed(scale));
        }
        if scale.ln() > most {
            return Err(Error::new(format!(
                "a temperature of {temperature} multiplies cosines with {scale:.1}, and max_scale is {:.1}: one of them must be larger",
                most.exp()
            )));
        }
        Ok(Scale::Learned { log: model.head_param("logit_scale", [1], Init::Constant { value: scale.ln() })?, most })
    }

    /// One side after the other.
    fn embeddings(&self, features: &[Features<'_>]) -> Result<Tensor> {
        let Attached { projections, sides, .. } = self.attached()?;
        let project = |(at, features): (usize, &Features<'_>)| match projections.get(at) {
            Some(projection) => projection.forward(features.tensor)?.normalize(), // [examples, width]
            None => features.tensor.normalize(),
        };
        let of_streams = features.iter().enumerate().map(project).collect::<Result<Vec<_>>>()?;
        let sized = |side: &Tensor, sides: usize| {
            let [rows, width] = side.shape()?[..] else { return Err(Error::new("pooled features are rows")) };
            side.reshape([rows / sides, sides, width])
        };
        match of_streams.as_slice() {
            // The texts of an example stand one after the other.
            [texts] => sized(texts, *sides), // [examples, sides, width]
            streams => {
                let streams = streams.iter().map(|side| sized(side, 1)).collect::<Result<Vec<_>>>()?;
                Tensor::concat(&streams.iter().map(|side| side as &dyn Operand).collect::<Vec<_>>(), 1) // [examples, 2, width]
            }
        }
    }
}

impl TaskHead for Contrastive {
    type Config = ContrastiveConfig;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::CONTRASTIVE);

    fn new(config: ContrastiveConfig) -> Result<Self> {
        check_shares([("label_smoothing", config.label_smoothing)])?;
        if config.width == Some(0) {
            return Err(Error::new("width is 0, and must be at least 1"));
        }
        for (option, value) in [("temperature", config.temperature), ("max_scale", config.max_scale)] {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value > 0.0)) {
                return Err(Error::new(format!("{option} is {value}, and must be above 0")));
            }
        }
        Ok(Self { config, attached: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let sides = sides(task)?;
        let (projections, scale) = match &task.comparison {
            Some(own) => self.own(own, model)?,
            None => (self.new_projections(task, model)?, self.new_scale(several(task), model)?),
        };
        if self.config.max_scale.is_some() && !matches!(scale, Scale::Learned { .. }) {
            return Err(Error::new(
                "max_scale is for a temperature that is learned: set learn_temperature = true, or leave max_scale out",
            ));
        }
        self.attached = Some(Attached { projections, scale, sides });
        let streams = if several(task) { task.streams.as_slice() } else { &[] };
        Ok(HeadSpec {
            scope: LossScope::Batch,
            streams: streams.iter().map(|stream| StreamFeatures::of(stream, FeatureKind::Pooled)).collect(),
            ..HeadSpec::new(FeatureKind::Pooled, TargetKind::Match, PredictionKind::Embeddings)
        })
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        self.embeddings(&[Features { ..*features }]) // [examples, sides, width]
    }

    fn forward_streams(&self, features: &[Features<'_>]) -> Result<Tensor> {
        self.embeddings(features) // [examples, sides, width]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let ContrastiveConfig { symmetric, label_smoothing, .. } = self.config;
        let [examples, sides, width] = outputs.shape()?[..] else {
            return Err(Error::new("embeddings are [examples, sides, width]"));
        };
        if examples == 1 && sides == 2 {
            return Err(Error::new(
                "a contrastive loss tells each example from the others of its batch, and this batch has no others: raise \
                 train.batch_size, or where one example is left for the last batch of an epoch, take a size that leaves more",
            ));
        }
        let side = |at: usize| outputs.narrow(1, at, 1)?.reshape([examples, width]);
        let (first, second) = (side(0)?, side(1)?);
        let (scale, pull) = match &self.attached()?.scale {
            Scale::Fixed(scale) => (Tensor::scalar(*scale)?, None),
            Scale::Frozen(log) => (log.tensor().exp()?, None),
            Scale::Learned { log, most } => {
                let beyond = log.tensor().add_scalar(-most)?.relu()?; // [1]
                (log.tensor().sub(&beyond)?.exp()?, Some(beyond))
            }
        };
        let scaled = first.mul(&scale)?;
        let candidates = match sides {
            2 => second.reshape([examples, width])?,
            _ => Tensor::concat(&[&second, &side(2)?], 0)?,
        };
        let logits = scaled.matmul(&candidates.t()?)?; // [examples, candidates]
        let (mut sum, weight) = logits.cross_entropy(targets.tensor, None, label_smoothing)?;
        if symmetric {
            let back = second.matmul(&scaled.t()?)?; // [examples, examples]
            let (other, _) = back.cross_entropy(targets.tensor, None, label_smoothing)?;
            sum = sum.add(&other)?.mul_scalar(0.5)?;
        }
        if let Some(beyond) = pull {
            // CLIP puts the number back to its cap after each step. Here what is beyond the cap has no say in the loss and so would have no
            // gradient: it would stay there for ever. A term of value 0 draws it back, with the loss itself as its gradient, which is never
            // negative, and large where there is much to learn.
            let nothing = beyond.sub(&beyond.detach()?)?.sum()?;
            sum = sum.add(&sum.detach()?.mul(&nothing)?)?;
        }
        Ok(Loss { sum, weight: weight.to_scalar()? })
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        outputs.reshape(outputs.shape()?) // [examples, sides, width]
    }
}

register! {
    /// What belongs together, by CLIP's loss: a text and its picture, or two texts.
    TaskHead "contrastive" => Contrastive
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = [
        "linear@1", "square@1", "sum_dim@1", "clamp_min@1", "sqrt@1", "div@1", "reshape@1", "concat@1", "narrow@1", "affine@1", "relu@1",
        "add@1", "sub@1", "mul@1", "exp@1", "matmul@1", "transpose@1", "cross_entropy@1", "detach@1", "sum@1"
    ],
    min_host_minor = 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::test::{HeadRun, Host};

    fn made(host: Host, options: Value) -> HeadRun {
        host.head::<Contrastive>(options.clone()).unwrap_or_else(|error| panic!("{options}: {error}"))
    }

    #[track_caller]
    fn refused(host: Host, options: Value, expected: &str) {
        let Err(error) = host.head::<Contrastive>(options.clone()) else { panic!("{options} is taken") };
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn refuses_what_cannot_be_meant() {
        let (pair, texts) = (Host::new().of_pair(), Host::new().sequences(2));
        refused(pair, json!({ "width": 0 }), "width is 0");
        refused(pair, json!({ "temperature": 0.0 }), "temperature is 0, and must be above 0");
        refused(pair, json!({ "max_scale": -1.0 }), "max_scale is -1, and must be above 0");
        refused(pair, json!({ "label_smoothing": 1.0 }), "below 1");
        refused(pair, json!({ "temperature": 0.005 }), "multiplies cosines with 200.0, and max_scale is 100.0");
        refused(pair, json!({ "learn_temperature": false, "max_scale": 50.0 }), "leave max_scale out");
        refused(texts, json!({ "max_scale": 50.0 }), "set learn_temperature = true");
        refused(texts, json!({ "bias": false }), "set width, or leave bias out");
        for option in [json!({ "width": 8 }), json!({ "bias": true }), json!({ "temperature": 0.1 })] {
            refused(
                Host::new().of_comparing_pair(),
                option,
                "has no say here: this model (toy-pair) has projections, 3 wide",
            );
        }
    }

    #[test]
    fn rows_need_something_to_compare() {
        refused(Host::new(), json!({}), "task `toy-task` has one input a row");
        refused(Host::new().of_pictures(), json!({}), "take a model of two streams");
        refused(Host::new().sequences(4), json!({}), "has 4 inputs a row in each of 1 streams");
        let alone = made(Host::new().of_pair(), json!({ "width": 2 }));
        let error = alone.loss([1, 2, 2], &[1.0, 0.0, 0.0, 1.0], &[0.0]).unwrap_err().to_string();
        assert!(error.contains("this batch has no others: raise train.batch_size"), "{error}");
    }

    #[test]
    fn its_gradients_are_right() {
        let (pair, own, texts) = (Host::new().of_pair(), Host::new().of_comparing_pair(), Host::new().sequences(2));
        for (host, options) in [
            (pair, json!({})),
            (
                pair,
                json!({ "width": 5, "bias": false, "symmetric": false, "temperature": 0.5, "label_smoothing": 0.1 }),
            ),
            (pair, json!({ "learn_temperature": false })),
            (own, json!({})),
            (own, json!({ "learn_temperature": false, "symmetric": false })),
            (own, json!({ "max_scale": 5.0 })),
            (texts, json!({})),
            (texts, json!({ "width": 4, "temperature": 0.2, "learn_temperature": true })),
            (texts.sequences(3), json!({})),
            (texts.sequences(3), json!({ "width": 4, "bias": false, "label_smoothing": 0.2 })),
        ] {
            let run = made(host, options.clone());
            assert_eq!((run.spec().scope, run.spec().targets), (LossScope::Batch, TargetKind::Match));
            run.check().unwrap_or_else(|error| panic!("{options}: {error}"));
        }
    }

    /// The loss of embeddings, in numbers.
    fn expected(sides: &[&[[f64; 2]]], scale: f64, symmetric: bool) -> f64 {
        let dot = |a: &[f64; 2], b: &[f64; 2]| scale * (a[0] * b[0] + a[1] * b[1]);
        let lost = |of: &[f64; 2], among: &[[f64; 2]], right: usize| {
            let total: f64 = among.iter().map(|other| dot(of, other).exp()).sum();
            total.ln() - dot(of, &among[right])
        };
        let (first, second, all) = (sides[0], sides[1], sides[1..].concat());
        let there: f64 = (0..first.len()).map(|i| lost(&first[i], &all, i)).sum();
        let back: f64 = (0..first.len()).map(|i| lost(&second[i], first, i)).sum();
        if symmetric { (there + back) / 2.0 } else { there }
    }

    #[test]
    fn its_loss_is_clips() {
        const A: [[f64; 2]; 3] = [[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]];
        const B: [[f64; 2]; 3] = [[0.8, 0.6], [0.0, 1.0], [-0.6, -0.8]];
        const C: [[f64; 2]; 3] = [[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]];
        let rows = |sides: &[[[f64; 2]; 3]]| -> Vec<f64> {
            (0..3).flat_map(|i| sides.iter().flat_map(move |side| side[i]).collect::<Vec<f64>>()).collect()
        };
        let check = |host: Host, options: Value, sides: &[[[f64; 2]; 3]], scale: f64, symmetric: bool| {
            let run = made(host, options);
            let (sum, weight) = run.loss([3, sides.len(), 2], &rows(sides), &[0.0, 1.0, 2.0]).unwrap();
            let sides: Vec<&[[f64; 2]]> = sides.iter().map(|side| side.as_slice()).collect();
            let expected = expected(&sides, scale, symmetric);
            assert!(
                (sum - expected).abs() < 1e-9 * expected.abs().max(1.0) && weight == 3.0,
                "{sum} is not {expected}"
            );
        };
        check(Host::new().of_pair(), json!({}), &[A, B], 1.0 / 0.07, true);
        check(Host::new().of_pair(), json!({ "temperature": 0.5, "symmetric": false }), &[A, B], 2.0, false);
        check(Host::new().of_comparing_pair(), json!({}), &[A, B], 2f64.exp(), true);
        check(Host::new().sequences(2), json!({}), &[A, B], 20.0, true);
        check(Host::new().sequences(3), json!({ "temperature": 0.25 }), &[A, B, C], 4.0, true);
        // Of texts as they are, embeddings are features by their length.
        let run = made(Host::new().sequences(2), json!({}));
        assert_eq!(run.predict([1, 2, 2], &[1.0, 0.0, 0.6, 0.8]).unwrap(), [1.0, 0.0, 0.6, 0.8]);
    }

    #[test]
    fn its_parameters_train_whatever_is_frozen() {
        let names = ["text_projection.weight", "visual_projection.weight", "logit_scale"];
        let mut run = made(Host::new().of_comparing_pair(), json!({}));
        let before = names.map(|name| run.value(name).unwrap());
        let losses = run.train(1, 10).unwrap();
        assert!(losses[9] < losses[0], "{losses:?}");
        for (name, before) in names.iter().zip(before) {
            assert_ne!(run.value(name).unwrap(), before, "{name}");
        }
        let mut run = made(Host::new().of_comparing_pair(), json!({ "learn_temperature": false }));
        let before = run.value("logit_scale").unwrap();
        run.train(1, 2).unwrap();
        assert_eq!(run.value("logit_scale").unwrap(), before);
    }

    #[test]
    fn a_scale_beyond_its_cap_has_no_say_and_comes_back() {
        let mut run = made(Host::new().of_pair(), json!({}));
        let cap = 100f64.ln();
        let (shape, outputs, targets) = ([2, 2, 2], [1.0, 0.0, 0.8, 0.6, 0.6, 0.8, 0.0, 1.0], [0.0, 1.0]);
        run.set_value("logit_scale", &[cap]).unwrap();
        let at_cap = run.loss(shape, &outputs, &targets).unwrap();
        run.set_value("logit_scale", &[cap + 0.1]).unwrap();
        let (sum, weight) = run.loss(shape, &outputs, &targets).unwrap();
        assert!(
            (sum - at_cap.0).abs() < 1e-9 * at_cap.0.abs() && weight == at_cap.1,
            "{sum}, and at the cap {at_cap:?}"
        );
        // Whatever the loss wants, and by a gradient that is right: in finite differences what is detached stands still.
        run.set_value("logit_scale", &[cap + 1.0]).unwrap();
        run.check_loss().unwrap();
        run.set_value("logit_scale", &[cap + 0.1]).unwrap();
        run.train(1, 20).unwrap();
        assert!(run.value("logit_scale").unwrap()[0] < cap + 0.05, "{:?}", run.value("logit_scale"));
    }
}
