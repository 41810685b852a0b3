//! What is checked of task heads.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{
    core::{Attached, Core, Moved, TASK, set_all, variables, weighed},
    examples::{Examples, Read, reads_of},
    finite::{self, Variable, equal, place},
    ops::{add, affine, sum},
    run::{Owner, Run},
    toy::{MAP, PICTURE, Pair, Toy, VOCABULARY, WIDTH},
    value::Value,
    wire::{HeadFunction, HeadInputs},
};
use crate::{
    DType, Error, HeadSpec, ImageInfo, LossScope, PredictionKind, Result, Sampling, TargetKind, TaskInfo, Vocabulary,
    abi::tables::TaskHeadVtable, problem_type,
};

/// What the toy's host knows of a head's task, as it crosses.
pub(super) fn task(run: &Run, classes: usize, sequences: u32, problem: Option<&str>) -> Result<Json> {
    let &Run { toy, pair, .. } = run;
    let causal = matches!(problem, Some(problem_type::CAUSAL_LM | problem_type::PREFERENCE));
    let over_vocabulary = toy == Toy::Text && pair.is_none() && (causal || problem == Some(problem_type::MASKED_LM));
    let vocabulary = over_vocabulary.then(|| Vocabulary {
        size: VOCABULARY,
        weight: "embeddings.word_embeddings.weight".into(),
        bias: None,
        causal,
        transform: None,
    });
    let compares = problem == Some(problem_type::CONTRASTIVE);
    let pictures = run.towers().iter().any(|(toy, _)| *toy == Toy::Pictures);
    let counts: Vec<u64> = (0..classes as u64).map(|class| 4 + class).collect();
    let info = TaskInfo {
        name: TASK.into(),
        labels: (0..classes).map(|class| format!("class-{class}")).collect(),
        examples: counts.iter().sum(),
        class_counts: counts,
        width: WIDTH,
        streams: run.streams(),
        hidden_activation: None,
        bias: true,
        dropout: 0.0,
        image: pictures.then_some(ImageInfo { size: PICTURE, map: MAP }),
        vocabulary,
        comparison: pair.filter(|_| compares).and_then(Pair::comparison),
        sequences,
    };
    Ok(serde_json::to_value(info)?)
}

/// A task head that is attached to the toy model.
pub struct HeadRun {
    core: Core<TaskHeadVtable>,
    spec: HeadSpec,
    classes: usize,
    sequences: usize,
}

/// Passes of a row at most.
const MOST_FORWARDS: u32 = 64;

fn check_forwards(spec: &HeadSpec) -> Result<()> {
    let forwards = spec.forwards;
    if !(1..=MOST_FORWARDS).contains(&forwards) {
        return Err(Error::new(format!(
            "each row is to pass through the model {forwards} times; 1 to {MOST_FORWARDS} are possible"
        )));
    }
    if forwards > 1 && spec.sampling != Sampling::Shuffled {
        return Err(Error::new("rows of episodes pass through the model once"));
    }
    Ok(())
}

/// Of its own metrics. A real host has names of its own besides.
fn check_names(spec: &HeadSpec) -> Result<()> {
    let whole = [PredictionKind::Classes, PredictionKind::MultiLabel, PredictionKind::Values];
    if !spec.metrics.is_empty() && !whole.contains(&spec.predictions) {
        let kind = spec.predictions;
        return Err(Error::new(format!("it has metrics of its own, and predictions of {kind:?} are not all kept")));
    }
    for (i, own) in spec.metrics.iter().enumerate() {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let name = &own.name;
        if name.is_empty() || !name.chars().all(plain) {
            return Err(Error::new(format!("a metric's name is of lower case, digits and _, and this is {name:?}")));
        }
        if spec.metrics[..i].iter().any(|other| other.name == *name) {
            return Err(Error::new(format!("it names the metric {name:?} twice")));
        }
    }
    Ok(())
}

/// An author's numbers as a tensor.
fn numbers(what: &str, dtype: DType, shape: Vec<usize>, data: &[f64]) -> Result<Value> {
    if shape.iter().product::<usize>() != data.len() {
        let given = data.len();
        return Err(Error::new(format!("{given} {what} are none of shape {shape:?}")));
    }
    Ok(Value::constant(dtype, shape, data.to_vec()))
}

/// What a loss gave.
struct Loss {
    sum: Value,
    weight: f64,
}

impl Attached<TaskHeadVtable> {
    fn forward(&self, examples: &Examples) -> Result<Value> {
        let tensors: Vec<&Value> = examples.reads.iter().map(|read| &read.features).collect();
        let offsets: Vec<&[u32]> = examples.reads.iter().map(|read| read.offsets.as_slice()).collect();
        let targets = examples.next.as_ref();
        let inputs = HeadInputs { tensors: &tensors, offsets: &offsets, targets, support: &[] };
        let (outputs, _) = self.instance.head_call(&self.run, HeadFunction::Forward, &inputs)?;
        outputs.ok_or_else(|| Error::new("forward gave no tensor"))
    }

    fn loss(&self, outputs: &Value, examples: &Examples) -> Result<Loss> {
        let (tensors, support) = ([outputs], examples.support.as_slice());
        let inputs = HeadInputs { tensors: &tensors, targets: Some(&examples.targets), support, offsets: &[] };
        let (sum, weight) = self.instance.head_call(&self.run, HeadFunction::Loss, &inputs)?;
        let sum = sum.ok_or_else(|| Error::new("loss gave no tensor"))?;
        if sum.data().len() != 1 {
            return Err(Error::new(format!("a loss must be a scalar, and this has shape {:?}", sum.shape())));
        }
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Error::new(format!("the weight of the loss must be a number from 0 up, not {weight}")));
        }
        Ok(Loss { sum, weight })
    }

    fn predict(&self, outputs: &Value) -> Result<Value> {
        let inputs = HeadInputs { tensors: &[outputs], ..HeadInputs::default() };
        let (prediction, _) = self.instance.head_call(&self.run, HeadFunction::Predict, &inputs)?;
        prediction.ok_or_else(|| Error::new("predict gave no tensor"))
    }

    fn fit(&self, outputs: &Value, examples: &Examples) -> Result<()> {
        let inputs = HeadInputs { tensors: &[outputs], targets: Some(&examples.targets), ..HeadInputs::default() };
        self.instance.head_call(&self.run, HeadFunction::Fit, &inputs).map(drop)
    }
}

impl HeadRun {
    pub(super) fn new(core: Core<TaskHeadVtable>, classes: usize, sequences: usize) -> Result<Self> {
        let said = core.now.said.clone();
        let spec: HeadSpec = serde_json::from_value(said).map_err(|error| Error::new(error).context("its HeadSpec"))?;
        for (toy, _, kind) in reads_of(core.run(), &spec)? {
            if !toy.features().contains(&kind) {
                let name = kind.name();
                return Err(Error::new(format!(
                    "it reads {name} features, which the toy model of texts does not give: test it with of_pictures"
                )));
            }
        }
        check_forwards(&spec)?;
        check_names(&spec)?;
        Ok(Self { core, spec, classes, sequences })
    }

    /// As an evaluation has them.
    fn examples(&self) -> Result<Examples> {
        let mut examples = Examples::new(self.core.run(), &self.spec, self.classes, self.sequences)?;
        if self.spec.reference {
            // What it gives before training is what it is held against.
            examples.targets = self.core.now.forward(&examples)?.detached();
        }
        Ok(examples)
    }

    /// As training has them.
    fn training_examples(&self) -> Result<Examples> {
        self.examples()?.in_training(self.spec.forwards as usize)
    }

    /// What it declared when it attached.
    pub fn spec(&self) -> &HeadSpec {
        &self.spec
    }

    /// That the loss is a sum and a weight: those of single examples add up to those of the batch, so that the host may split it;
    /// that its gradients, by the features and by the head's parameters, are those of finite differences; and that the weight counts.
    /// Where examples pass [several times](HeadSpec::forwards), both of the passes of training, whose rows differ, and of the one of an
    /// evaluation.
    ///
    /// # Errors
    /// Where they differ; where a parameter of the head's gets no gradient.
    pub fn check_loss(&self) -> Result<()> {
        self.check_loss_of(&self.training_examples()?)?;
        match self.spec.forwards {
            1 => Ok(()),
            _ => self.check_loss_of(&self.examples()?).map_err(|error| error.context("of one pass, as in evaluations")),
        }
    }

    fn check_loss_of(&self, examples: &Examples) -> Result<()> {
        let (head, run) = (&self.core.now, self.core.run());
        let _moved = Moved::new(run);
        let whole = head.loss(&head.forward(examples)?, examples)?;
        if whole.weight == 0.0 {
            return Err(Error::new("the weight of a batch is 0, so nothing would be learned"));
        }
        if self.spec.scope == LossScope::Example {
            let (mut total, mut weight) = (Value::floats([], vec![0.0]), 0.0);
            for example in 0..examples.len() {
                let one = examples.one(example)?;
                let loss = head.loss(&head.forward(&one)?, &one)?;
                total = add(&total, &sum(&loss.sum))?;
                weight += loss.weight;
            }
            let of = ["the batch", "its examples, one by one"];
            let scalar = sum(&whole.sum);
            equal("the loss is no sum over examples (scope = Batch says so)", of, &scalar, &total, 1e-6)?;
            let weights = [whole.weight, weight].map(|weight| Value::floats([], vec![weight]));
            equal("the weight is no sum over examples", of, &weights[0], &weights[1], 1e-6)?;
        }
        let streams = self.spec.streams.iter().map(|read| format!("the features of {}", read.stream));
        let names = if examples.reads.len() > 1 { streams.collect() } else { vec!["the features".to_owned()] };
        let features = |(name, read): (String, &Read)| Variable {
            name,
            shape: read.features.shape().to_vec(),
            data: read.features.data().to_vec(),
            must_matter: true,
        };
        let mut all: Vec<Variable> = names.into_iter().zip(&examples.reads).map(features).collect();
        all.extend(variables(run, |owner| owner == Owner::Head));
        finite::check(&all, &|data| {
            let (features, parameters) = data.split_at(examples.reads.len());
            let of_read = |(read, data): (&Read, &Vec<f64>)| Value::variable(read.features.shape(), data.clone());
            let mut leaves: Vec<Value> = examples.reads.iter().zip(features).map(of_read).collect();
            let examples = examples.with_features(&leaves);
            leaves.extend(set_all(run, parameters));
            Ok((head.loss(&head.forward(&examples)?, &examples)?.sum, leaves))
        })
    }

    /// That predictions are of the kind that it declared: shape, type and range; of episodes once it was fitted.
    ///
    /// # Errors
    /// Where they are not.
    pub fn check_predictions(&self) -> Result<()> {
        let head = &self.core.now;
        let examples = self.examples()?;
        let _moved = Moved::new(self.core.run());
        let outputs = head.forward(&examples)?.detached();
        if matches!(self.spec.sampling, Sampling::Episodes { .. }) {
            head.fit(&outputs, &examples)?;
        }
        self.check_kind(&head.predict(&outputs)?, &examples)
    }

    /// That its own metrics of an evaluation are those that it [declared](HeadSpec::metrics); nothing where it declared none.
    ///
    /// # Errors
    /// Where it gives others.
    pub fn check_metrics(&self) -> Result<()> {
        if self.spec.metrics.is_empty() {
            return Ok(());
        }
        let head = &self.core.now;
        let examples = self.examples()?;
        let predictions = head.predict(&head.forward(&examples)?.detached())?;
        self.own_metrics(&predictions.detached(), &examples.targets).map(drop)
    }

    fn own_metrics(&self, predictions: &Value, targets: &Value) -> Result<BTreeMap<String, f64>> {
        let found = self.core.now.instance.metrics(self.core.run(), predictions, targets)?;
        let named: Vec<&String> = self.spec.metrics.iter().map(|own| &own.name).collect();
        if found.len() != named.len() || !named.iter().all(|name| found.contains_key(*name)) {
            let given: Vec<&String> = found.keys().collect();
            return Err(Error::new(format!("it has named the metrics {named:?} and gave {given:?}")));
        }
        Ok(found.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
    }

    /// Its own metrics of these predictions, row-major, in the form of its [kind](HeadSpec::predictions), and as many targets. Classes are
    /// given as numbers: `2.0`. One that is undefined is no number.
    ///
    /// # Errors
    /// The head's own; where it gives others than it declared; where predictions are no rows of the classes.
    pub fn metrics(&self, predictions: &[f64], targets: &[f64]) -> Result<BTreeMap<String, f64>> {
        let rows = match self.spec.predictions {
            PredictionKind::Values => vec![predictions.len()],
            _ => vec![predictions.len() / self.classes.max(1), self.classes],
        };
        let predictions = numbers("predictions", DType::F32, rows, predictions)?;
        self.own_metrics(&predictions, &self.targets(targets)?)
    }

    /// A parameter's elements, row-major.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn value(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.core.run().value(name)?.data().to_vec())
    }

    /// Gives a parameter other numbers, as a step of training does.
    ///
    /// # Errors
    /// Where there is none of that name, or it has another number of elements.
    pub fn set_value(&mut self, name: &str, elements: &[f64]) -> Result<()> {
        self.core.set_value(name, elements)
    }

    /// The outputs, row-major, for these features: of each stream that it reads where the sequences start and the end of the last
    /// ([`Features::offsets`](crate::Features::offsets)), and the rows.
    ///
    /// # Errors
    /// The head's own; where rows are not as many as the offsets say.
    pub fn forward(&self, features: &[(&[u32], &[f64])]) -> Result<Vec<f64>> {
        let read = |&(offsets, rows): &(&[u32], &[f64])| {
            let number = offsets.last().map_or(0, |&end| end as usize);
            let shape = vec![number, rows.len() / number.max(1)];
            Ok(Read { features: numbers("features", DType::F32, shape, rows)?, offsets: offsets.to_vec() })
        };
        let reads = features.iter().map(read).collect::<Result<_>>()?;
        let examples = Examples { reads, ..self.examples()? };
        Ok(self.core.now.forward(&examples)?.data().to_vec())
    }

    /// The loss of these outputs, row-major, and of these targets: its sum and its weight. Of a head whose rows [pass several
    /// times](HeadSpec::forwards) `shape` has all rows of the first pass, then all of the second.
    ///
    /// # Errors
    /// The head's own.
    pub fn loss(&self, shape: impl AsRef<[usize]>, outputs: &[f64], targets: &[f64]) -> Result<(f64, f64)> {
        let outputs = numbers("outputs", DType::F32, shape.as_ref().to_vec(), outputs)?;
        let examples = Examples { targets: self.targets(targets)?, ..self.examples()? };
        let loss = self.core.now.loss(&outputs, &examples)?;
        Ok((loss.sum.data()[0], loss.weight))
    }

    /// What it predicts by these outputs, row-major both.
    ///
    /// # Errors
    /// The head's own.
    pub fn predict(&self, shape: impl AsRef<[usize]>, outputs: &[f64]) -> Result<Vec<f64>> {
        let outputs = numbers("outputs", DType::F32, shape.as_ref().to_vec(), outputs)?;
        Ok(self.core.now.predict(&outputs)?.data().to_vec())
    }

    /// Targets of the kind that it learns from.
    fn targets(&self, targets: &[f64]) -> Result<Value> {
        let n = targets.len();
        let (dtype, shape) = match self.spec.targets {
            TargetKind::Class
            | TargetKind::TokenClass
            | TargetKind::NextToken
            | TargetKind::MaskedToken
            | TargetKind::Match => (DType::U32, vec![n]),
            TargetKind::Mask => (DType::U32, vec![n / (PICTURE[0] * PICTURE[1]), PICTURE[0], PICTURE[1]]),
            TargetKind::Value => (DType::F32, vec![n]),
            TargetKind::MultiLabel => (DType::F32, vec![n / self.classes.max(1), self.classes]),
            TargetKind::Preference => (DType::F32, vec![n / 2, 2]),
        };
        numbers("targets", dtype, shape, targets)
    }

    fn check_kind(&self, prediction: &Value, examples: &Examples) -> Result<()> {
        let (kind, classes, n) = (self.spec.predictions, self.classes, examples.len());
        let expected = match kind {
            PredictionKind::Classes | PredictionKind::MultiLabel if self.spec.targets == TargetKind::TokenClass => {
                vec![examples.reads[0].features.shape()[0], classes]
            }
            PredictionKind::Classes | PredictionKind::MultiLabel => vec![n, classes],
            PredictionKind::Values => vec![n],
            PredictionKind::Masks => vec![n * PICTURE[0] * PICTURE[1], classes],
            PredictionKind::Tokens => vec![examples.reads[0].features.shape()[0]],
            PredictionKind::Preferences => vec![n, 2],
            // As wide as the head wants them.
            PredictionKind::Embeddings => vec![n, examples.sides(), prediction.width()],
        };
        let wrong = |why: String| Err(Error::new(format!("predictions are of kind {kind:?}, and {why}")));
        if prediction.shape() != expected {
            return wrong(format!("predict gave {:?} where {expected:?} is needed", prediction.shape()));
        }
        let integers = prediction.dtype() == DType::U32;
        if integers != (kind == PredictionKind::Tokens) {
            return wrong(format!("predict gave {:?}", prediction.dtype()));
        }
        let at = |element: usize| place(prediction.shape(), element);
        if let Some(element) = prediction.data().iter().position(|x| !x.is_finite()) {
            return wrong(format!("at {:?} predict gave {}", at(element), prediction.data()[element]));
        }
        if kind == PredictionKind::Embeddings {
            let length = |side: &[f64]| side.iter().map(|x| x * x).sum::<f64>().sqrt();
            let lengths = prediction.data().chunks(prediction.width().max(1)).map(length);
            if let Some((side, length)) = lengths.enumerate().find(|(_, length)| (length - 1.0).abs() > 1e-6) {
                let (example, side) = (side / examples.sides(), side % examples.sides());
                return wrong(format!("the embedding of side {side} of example {example} has length {length}, not 1"));
            }
            return Ok(());
        }
        let shares = matches!(kind, PredictionKind::Classes | PredictionKind::Masks);
        if shares || kind == PredictionKind::MultiLabel {
            if let Some(element) = prediction.data().iter().position(|x| !(-1e-9..=1.0 + 1e-9).contains(x)) {
                return wrong(format!(
                    "at {:?} predict gave {}, no probability",
                    at(element),
                    prediction.data()[element]
                ));
            }
        }
        let sums = prediction.data().chunks(classes.max(1)).map(|row| row.iter().sum::<f64>());
        match sums.enumerate().find(|(_, sum)| shares && (sum - 1.0).abs() > 1e-6) {
            Some((row, sum)) => wrong(format!("the probabilities of row {row} add up to {sum}")),
            None => Ok(()),
        }
    }

    /// That its state, saved and loaded into another instance, is saved again as it was, and that both give the same outputs.
    ///
    /// # Errors
    /// Where they differ.
    pub fn check_state(&self) -> Result<()> {
        let examples = self.examples()?;
        self.core.check_state(&|of| weighed(&of.forward(&examples)?))
    }

    /// [`check_loss`](Self::check_loss), [`check_predictions`](Self::check_predictions), [`check_metrics`](Self::check_metrics),
    /// [`check_state`](Self::check_state), and that nothing is left once it is freed.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(self) -> Result<()> {
        self.check_loss()?;
        self.check_predictions()?;
        self.check_metrics()?;
        self.check_state()?;
        self.core.finish()
    }

    /// A run of so many steps with all its events, of the head on the toy model's features; gives the mean losses.
    ///
    /// # Errors
    /// The head's own.
    pub fn train(&mut self, epochs: u64, steps: u64) -> Result<Vec<f64>> {
        let examples = self.training_examples()?;
        let loss = |of: &Attached<TaskHeadVtable>| {
            let loss = of.loss(&of.forward(&examples)?, &examples)?;
            Ok(affine(&sum(&loss.sum), 1.0 / loss.weight, 0.0))
        };
        self.core.train(epochs, steps, &loss, &|_| Ok(()))
    }
}
