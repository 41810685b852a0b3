//! Heads as they are saved: by the names of Transformers' classes, and proved to compute there what they predict here.
//!
//! A class of Transformers is one or two linear layers, and what it computes is known. A head that has these layers is tried beside it on
//! random features: only where both say the same does a saved folder name that class. What a head of values does to its last layer's
//! output, a factor and a constant, is folded into the layer.

use std::collections::{BTreeMap, BTreeSet};

use fthost_autograd::random::Stream;
use fthost_autograd::{Activation, DType, Device, Dropout, Layout, Tape, TapeOptions, Tensor, Value};
use fthost_models::{Answer, Modality, ModelInfo, activation};
use fthost_plugin_api::{FeatureKind, HeadSpec, PredictionKind, TargetKind};

use super::keys::head_path;
use super::sentences;
use crate::adapted::{AdaptedModel, Owner};
use crate::plugin::HeadInstance;
use crate::run::pass::Decision;
use crate::{Error, Result};

/// A task whose head is saved.
#[derive(Clone)]
pub struct Trained<'a> {
    /// Its name.
    pub name: &'a str,
    /// Class names in index order; empty for real values.
    pub labels: &'a [String],
    /// Its head.
    pub head: &'a HeadInstance,
    /// What the head declared.
    pub spec: &'a HeadSpec,
    /// How classes follow from its probabilities.
    pub decision: Decision,
    /// Training examples of each class, and all: what it was made for.
    pub counts: (Vec<u64>, u64),
}

impl Trained<'_> {
    /// Whether an example has any number of classes.
    pub fn is_multi_label(&self) -> bool {
        self.spec.predictions == PredictionKind::MultiLabel
    }
}

/// The heads of a run as they are saved.
pub struct SavedHeads<'a> {
    /// By their full names in Hugging Face's files. Where no class of Transformers' computes them they are those of the form of fthost's own.
    pub tensors: Vec<(String, Tensor)>,
    /// What a class of Transformers answers with them.
    pub answer: Answer<'a>,
    /// The dropout before its last layer there.
    pub dropout: Option<f64>,
    /// Why there is no such class, where there is none.
    pub own: Option<String>,
    /// Whether what the one head makes of such features is no class of Transformers', but a model of sentence-transformers: its layer, where it
    /// has one, is a dense layer there.
    pub sentences: bool,
}

impl<'a> SavedHeads<'a> {
    /// Those of a run's tasks, in their order.
    pub fn of(model: &AdaptedModel, tasks: &[Trained<'a>]) -> Result<Self> {
        let mut heads = Self { tensors: Vec::new(), answer: Answer::None, dropout: None, own: None, sentences: false };
        if tasks.len() > 1 {
            heads.own =
                Some(format!("it has the heads of {} tasks, and a class of Transformers' has one", tasks.len()));
        }
        for (i, task) in tasks.iter().enumerate().filter(|_| tasks.len() == 1) {
            match plain(model, task, &own(model, i))? {
                Ok(Plain { layers, answer, sentences }) => {
                    let has_none = matches!(answer, Answer::Token | Answer::None);
                    let dropout = if has_none { None } else { Some(last_dropout(model, task)?) };
                    heads = Self { tensors: layers.into_iter().collect(), answer, dropout, own: None, sentences };
                }
                Err(mut why) => {
                    if task.decision.temperature != 1.0 {
                        why += "; its temperature is not in its layers";
                    }
                    heads.own = Some(why);
                }
            }
        }
        if heads.own.is_some() {
            heads.tensors = own_heads(model);
        }
        Ok(heads)
    }

    /// The same in fthost's own form, which takes parameters as they stand.
    pub fn into_own(self, model: &AdaptedModel, why: Option<String>) -> Self {
        let own = self.own.or(why);
        Self { tensors: own_heads(model), answer: Answer::None, dropout: None, own, sentences: false }
    }
}

/// The parameters of all heads, by their own names: what a folder in fthost's own form holds.
fn own_heads(model: &AdaptedModel) -> Vec<(String, Tensor)> {
    let heads = model.parameters.iter().filter(|p| matches!(p.owner, Owner::Head(_)));
    heads.map(|p| (p.parameter.name().to_owned(), p.parameter.tensor())).collect()
}

/// The parameters of the only task's head by their paths in Hugging Face's files.
fn own(model: &AdaptedModel, index: usize) -> BTreeMap<String, Tensor> {
    let of_task = model.parameters.iter().filter(|p| p.owner == Owner::Head(index));
    of_task.map(|p| (head_path(model.model.info(), p.parameter.name()), p.parameter.tensor())).collect()
}

/// Layers by the paths of their tensors.
type Layers = BTreeMap<String, Tensor>;

/// What computes what a head predicts.
struct Plain<'a> {
    layers: Layers,
    answer: Answer<'a>,
    /// Whether it is no class of Transformers', but a model of sentence-transformers.
    sentences: bool,
}

/// What a head of one layer calls it, by its path in the files.
fn dense_path(info: &ModelInfo) -> String {
    let name = head_path(info, "classifier.weight");
    name.strip_suffix(".weight").unwrap_or(&name).to_owned()
}

/// What computes what a head predicts; otherwise why nothing does.
fn plain<'a>(model: &AdaptedModel, task: &Trained<'a>, own: &Layers) -> Result<std::result::Result<Plain<'a>, String>> {
    let Trained { name, labels, spec, .. } = *task;
    let info = model.model.info();
    // A language model's layer is the model's own.
    let says_tokens = matches!(spec.predictions, PredictionKind::Tokens | PredictionKind::Preferences);
    if says_tokens && info.streams.len() > 1 {
        return Ok(Err(format!(
            "Transformers has no class of the two models of this {} that says tokens",
            info.model_type
        )));
    }
    if says_tokens && info.vocabulary.is_some() && own.is_empty() {
        return Ok(Ok(Plain { layers: Layers::new(), answer: Answer::Token, sentences: false }));
    }
    if spec.predictions == PredictionKind::Embeddings && spec.streams.len() > 1 {
        return of_both_streams(model, task, own);
    }
    // What has no layer and still gives values compares.
    let compares =
        spec.predictions == PredictionKind::Embeddings || spec.predictions == PredictionKind::Values && own.is_empty();
    if compares && info.streams.len() == 1 {
        return of_texts(model, task, own);
    }
    let Some(of_class) = info.classification.as_ref().filter(|_| spec.streams.len() == 1) else {
        return Ok(Err(format!("Transformers has no class of one head for a {} model", info.model_type)));
    };
    // Decoders' classes have no bias: a head that needs one is a dense layer as well.
    let biased = own.contains_key(&bias(&of_class.output));
    let dense = spec.features == FeatureKind::Pooled && (!info.pools_as_its_class() || (biased && !of_class.bias));
    if dense && !sentences::pools(info.plain()) {
        let pooling = info.plain().pooling;
        return Ok(Err(format!("features of {} pooled by {pooling} are no class's of Transformers", info.model_type)));
    }
    let text = matches!(info.plain().modality, Modality::Text { .. });
    let answer = match (spec.features, spec.targets, spec.predictions) {
        (FeatureKind::Pooled, _, PredictionKind::Classes) => Answer::Class(labels),
        (FeatureKind::Pooled, _, PredictionKind::MultiLabel) => Answer::Labels(labels),
        (FeatureKind::Pooled, _, PredictionKind::Values) => Answer::Value,
        (FeatureKind::Sequence, TargetKind::TokenClass, PredictionKind::Classes) if text && of_class.tokens => {
            Answer::TokenClass(labels)
        }
        _ => return Ok(Err(format!("the head of {name} answers as no class of Transformers does"))),
    };
    let of_dense = dense_path(info);
    let (hidden, output) = match answer {
        // One layer, whatever stands below that of the other class.
        Answer::TokenClass(_) => (None, of_class.last_layer(true)),
        _ if dense => (None, of_dense.as_str()),
        _ => (info.hidden_layer(), of_class.last_layer(false)),
    };
    let with_bias = dense || of_class.bias || matches!(answer, Answer::TokenClass(_));
    let below = hidden.into_iter().flat_map(|(path, _)| [weight(path), bias(path)]);
    let last = with_bias.then(|| bias(output)).into_iter().chain([weight(output)]);
    let wanted: BTreeSet<String> = below.chain(last).collect();
    if !own.keys().eq(&wanted) {
        let list = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>().join(", ");
        let (own, wanted) = (list(own.keys().collect()), list(wanted.iter().collect()));
        return Ok(Err(format!("the head of {name} has {own}, and Transformers' class has {wanted}")));
    }

    // A head that fails on features of no example, or on outputs that none of its own are, is another's too.
    let untried =
        |error: Error| Ok(Err(format!("the head of {name} cannot be tried beside Transformers' class: {error}")));
    let mut layers = own.clone();
    if answer == Answer::Value {
        let (factor, constant) = match after_last_layer(task, &model.device) {
            Ok(found) => found,
            Err(error) => return untried(error),
        };
        layers.insert(weight(output), own[&weight(output)].affine(factor, 0.0)?);
        if let Some(bias_of) = own.get(&bias(output)) {
            layers.insert(bias(output), bias_of.affine(factor, constant)?);
        }
    }
    let temperature = task.decision.temperature;
    if matches!(answer, Answer::Class(_) | Answer::TokenClass(_)) && temperature != 1.0 {
        for name in [weight(output), bias(output)] {
            if let Some(tensor) = own.get(&name) {
                layers.insert(name, tensor.affine(1.0 / temperature, 0.0)?);
            }
        }
    }
    let features = Value::constant(some_features(info.plain().width, &model.device)?); // [rows, width]
    let tape = Tape::evaluation();
    let layout = Layout::single_rows(ROWS);
    tape.set_layout(layout.clone());
    let ours = task.head.forward(&tape, &features, &layout).and_then(|outputs| task.head.predict(&tape, &outputs));
    let ours = match ours {
        Ok(ours) => ours,
        Err(error) => return untried(error),
    };
    let one_class = matches!(answer, Answer::Class(_) | Answer::TokenClass(_));
    let ours = if one_class { calibrated(&ours, &task.decision)? } else { ours };
    let linear = |x: &Value, path: &str| {
        let tensor = |name: String| layers.get(&name).cloned().map(Value::constant);
        let Some(weight) = tensor(weight(path)) else {
            return Err(fthost_autograd::Error::Msg(format!("no weight of {path}")));
        };
        tape.linear(x, &weight, tensor(bias(path)).as_ref())
    };
    let theirs = || -> fthost_autograd::Result<Value> {
        let below = match hidden {
            Some((path, by)) => {
                let by = activation(by).unwrap_or(Activation::Identity);
                tape.activation(&linear(&features, path)?, by)?
            }
            None => features.clone(),
        };
        let outputs = linear(&below, output)?; // [rows, outputs]
        match answer {
            Answer::Value => Ok(outputs),
            Answer::Labels(_) => tape.activation(&outputs, Activation::Sigmoid),
            _ => tape.softmax(&outputs),
        }
    };
    // Layers whose shapes do not fit together are another head's too.
    if let Ok(theirs) = theirs()
        && same(&ours, theirs.tensor())?
    {
        return Ok(Ok(Plain { layers, answer, sentences: dense }));
    }
    Ok(Err(format!("the head of {name} predicts otherwise than Transformers' class does from its layers")))
}

/// The head that compares two streams as the model's own class does: by the matrices of the model alone.
fn of_both_streams<'a>(
    model: &AdaptedModel,
    task: &Trained<'a>,
    own: &Layers,
) -> Result<std::result::Result<Plain<'a>, String>> {
    let (info, name) = (model.model.info(), task.name);
    let Some(of_class) = &info.contrastive else {
        return Ok(Err(format!("Transformers has no class that compares the streams of a {} model", info.model_type)));
    };
    if !own.is_empty() {
        let list = own.keys().cloned().collect::<Vec<_>>().join(", ");
        return Ok(Err(format!(
            "the head of {name} has {list}, and Transformers' class compares by the model's own matrices"
        )));
    }
    let tape = Tape::evaluation();
    let layout = Layout::single_rows(ROWS);
    let (mut features, mut theirs) = (Vec::new(), Vec::new());
    for read in &task.spec.streams {
        let place = info.stream(&read.stream).unwrap_or_default();
        let path = of_class.projections.get(place);
        let matrix = model.parameters.iter().find(|p| path.is_some_and(|path| p.parameter.name() == path));
        let matrix = matrix.ok_or_else(|| Error::run(format!("the model has no projection of {}", read.stream)))?;
        let of_stream = Value::constant(some_features(info.streams[place].width, &model.device)?);
        let projected = tape.linear(&of_stream, &Value::constant(matrix.parameter.tensor()), None)?;
        theirs.push(tape.normalize(&projected)?.into_tensor()); // [rows, width]
        features.push(of_stream);
    }
    tape.set_layout(layout.clone());
    let lent: Vec<_> = features.iter().map(|features| (features, &layout)).collect();
    let ours = task.head.forward_streams(&tape, &lent, None).and_then(|outputs| task.head.predict(&tape, &outputs)); // [rows, streams, width]
    let theirs = Tensor::stack(&theirs, 1)?;
    Ok(compared(task, ours, &theirs)?.map(|()| Plain { layers: Layers::new(), answer: Answer::None, sentences: false }))
}

/// The head that compares texts of one stream by the model's features, or by one layer over them: what sentence-transformers gives of each.
fn of_texts<'a>(
    model: &AdaptedModel,
    task: &Trained<'a>,
    own: &Layers,
) -> Result<std::result::Result<Plain<'a>, String>> {
    let (info, name) = (model.model.info(), task.name);
    let stream = info.plain();
    if !sentences::pools(stream) {
        let why =
            format!("features of {} pooled by {} are none of sentence-transformers'", info.model_type, stream.pooling);
        return Ok(Err(why));
    }
    let layer = |end: &str| own.iter().find(|(path, _)| path.ends_with(end)).map(|(_, tensor)| tensor.clone());
    let (weight, bias) = (layer(".weight"), layer(".bias"));
    // A number that the loss alone multiplies with is no part of what is given.
    let layers: Layers = own
        .iter()
        .filter(|(path, _)| path.ends_with(".weight") || path.ends_with(".bias"))
        .map(|(path, tensor)| (path.clone(), tensor.clone()))
        .collect();
    if layers.len() > 2 || (weight.is_none() && bias.is_some()) {
        let list = layers.into_keys().collect::<Vec<_>>().join(", ");
        return Ok(Err(format!(
            "the head of {name} has {list}, and a model of sentence-transformers has one layer at most"
        )));
    }
    let features = Value::constant(some_features(stream.width, &model.device)?); // [rows, width]
    let tape = Tape::evaluation();
    let layout = Layout::single_rows(ROWS);
    tape.set_layout(layout.clone());
    let ours = task.head.forward(&tape, &features, &layout).and_then(|outputs| task.head.predict(&tape, &outputs)); // [examples, sides, width]
    let projected = match weight {
        Some(weight) => tape.linear(&features, &Value::constant(weight), bias.map(Value::constant).as_ref()),
        None => Ok(features),
    };
    // Layers whose shapes do not fit are another head's.
    let Ok(theirs) = projected.and_then(|projected| tape.normalize(&projected)) else {
        return Ok(Err(format!("the head of {name} compares otherwise than by its layer's outputs")));
    };
    let theirs = match task.spec.predictions {
        PredictionKind::Values => {
            let texts = theirs.tensor().reshape((ROWS / 2, 2, ()))?;
            let cosines = (texts.narrow(1, 0, 1)? * texts.narrow(1, 1, 1)?)?.sum(2)?; // [examples, 1]
            // A head that does not give one value a text pair is tried with what it gives.
            let (factor, constant) = after_last_layer(task, &model.device).unwrap_or((1.0, 0.0));
            cosines.affine(factor, constant)?
        }
        _ => theirs.into_tensor(),
    };
    let plain = Plain { layers, answer: Answer::None, sentences: true };
    Ok(compared(task, ours, &theirs)?.map(|()| plain))
}

/// Whether embeddings that a head gives of random features are those of what would be saved in its place; else why not.
fn compared(task: &Trained<'_>, ours: Result<Tensor>, theirs: &Tensor) -> Result<std::result::Result<(), String>> {
    let name = task.name;
    Ok(match ours {
        Err(error) => Err(format!("the head of {name} cannot be tried beside what would compute the same: {error}")),
        Ok(ours) if same(&ours, theirs)? => Ok(()),
        Ok(_) => Err(format!("the head of {name} compares otherwise than by the directions of its layers' outputs")),
    })
}

/// Probabilities as the run gives them, `[rows, classes]`.
fn calibrated(probabilities: &Tensor, decision: &Decision) -> Result<Tensor> {
    let shape = probabilities.dims().to_vec();
    let mut values = probabilities.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let classes = shape.last().copied().unwrap_or_default().max(1);
    values.chunks_exact_mut(classes).for_each(|row| decision.calibrate(row));
    Ok(Tensor::from_vec(values, shape, probabilities.device())?)
}

fn weight(path: &str) -> String {
    format!("{path}.weight")
}

fn bias(path: &str) -> String {
    format!("{path}.bias")
}

/// The factor and the constant that a head of values puts after its last layer, if it does no more than that.
fn after_last_layer(task: &Trained<'_>, device: &Device) -> Result<(f64, f64)> {
    // A power of two, so that the factor is not lost beside a large constant.
    const FAR: f32 = 1024.0;
    let outputs = Value::constant(Tensor::new(&[0.0, FAR], device)?);
    let values =
        task.head.predict(&Tape::evaluation(), &outputs)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    Ok(match values.as_slice() {
        [at_zero, far, ..] => ((far - at_zero) / f64::from(FAR), *at_zero),
        _ => (1.0, 0.0),
    })
}

/// The dropout before a head's last layer as it trains, whatever its options call it; 0 where it has none.
fn last_dropout(model: &AdaptedModel, task: &Trained<'_>) -> Result<f64> {
    let dropout = Dropout { seed: 0, step: 0, examples: (0..ROWS as u64).collect() };
    let tape = Tape::new(TapeOptions { dropout: Some(dropout), ..TapeOptions::default() });
    let (layout, width) = (Layout::single_rows(ROWS), model.model.info().plain().width);
    tape.set_layout(layout.clone());
    task.head.forward(&tape, &Value::constant(some_features(width, &model.device)?), &layout)?;
    Ok(tape.dropouts().last().copied().unwrap_or(0.0))
}

/// Rows of features that heads are tried on: examples of one, two or three each.
const ROWS: usize = 12;

fn some_features(width: usize, device: &Device) -> Result<Tensor> {
    let mut values = vec![0f32; ROWS * width];
    Stream::new(0, "features").fill_normal(&mut values, 0.0, 1.0);
    Ok(Tensor::from_vec(values, (ROWS, width), device)?)
}

/// Whether two predictions differ by rounding alone. Numbers that are none prove nothing, and are no reason to doubt.
fn same(ours: &Tensor, theirs: &Tensor) -> Result<bool> {
    let values = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let (ours, theirs) = (values(ours)?, values(theirs)?);
    let (least, most) = ours.iter().fold((f64::MAX, f64::MIN), |(least, most), &x| (least.min(x), most.max(x)));
    let tolerance = 1e-3 * (most - least) + 1e-5 * least.abs().max(most.abs());
    let close = |(ours, theirs): (&f64, &f64)| !ours.is_finite() || (ours - theirs).abs() <= tolerance;
    Ok(ours.len() == theirs.len() && ours.iter().zip(&theirs).all(close))
}

impl SavedHeads<'_> {
    /// The dense layer that the head is, where sentence-transformers computes it.
    pub fn as_dense(&self) -> Option<sentences::Dense<'_>> {
        let tensor = |end: &str| self.tensors.iter().find(|(path, _)| path.ends_with(end)).map(|(_, tensor)| tensor);
        let (weight, bias) = (tensor(".weight")?, tensor(".bias"));
        self.sentences.then_some(sentences::Dense { weight, bias })
    }

    /// Whether what it gives is compared, and no answer.
    pub fn compares(&self) -> bool {
        self.own.is_none() && self.answer == Answer::None
    }
}
