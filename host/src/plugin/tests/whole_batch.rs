//! Losses of a whole batch: whatever way the batch takes, its gradient is that of one tape.

use fthost_autograd::{Dropout, Gradients, Precision, TapeOptions};
use fthost_plugin_api::HeadSpec;
use rayon::ThreadPoolBuilder;
use serde_json::Value as Json;

use super::*;
use crate::data::{self, Dataset, Files, Form, Part, Source};
use crate::run::pass::{Decision, Pass, head_outputs, reads_of, scalar};
use crate::run::setup::demo;
use crate::run::train::gradients::{BatchGradients, DropoutKey};
use crate::run::train::reference::{Earlier, Holding};

/// The demo's pictures: 17 patches each, for a model that takes 8 x 8 pixels.
pub(super) fn digits() -> Dataset {
    let (files, form, device) = (Files::from(Path::new("demo")), Form::default(), Device::Cpu);
    let source = Source {
        files: &files,
        part: Part::Test,
        form: &form,
        only: None,
        texts: false,
        labels: None,
        modalities: &[Modality::Images { channels: 1, size: 8, any_size: false, tokens: 17 }],
        language: None,
        transform: None,
        device: &device,
    };
    let mut digits = data::load(&source, None).unwrap();
    digits.set_targets(TargetKind::Class).unwrap();
    digits
}

/// A head that has attached for these examples, and what it declared.
pub(super) fn attached(
    name: &str,
    options: &Json,
    data: &Dataset,
    model: &mut AdaptedModel,
) -> (HeadInstance, HeadSpec) {
    let (labels, width) = (data.labels().to_vec(), model.model.info().streams[0].width);
    let task = TaskInfo { labels, class_counts: data.class_counts(), width, ..tables::task(&[]) };
    let mut head = HeadInstance::create(&plugin(), name, options).unwrap();
    let spec = head.attach(&task, model, 0).unwrap();
    (head, spec)
}

/// The demo's vision transformer, which drops out.
fn vit(trains: bool) -> AdaptedModel {
    let base = fthost_models::from_parts(demo::CONFIG, demo::WEIGHTS, &Device::Cpu).unwrap();
    let model = AdaptedModel::new(base, Device::Cpu, 7);
    model.parameters.iter().filter(|p| !p.buffer).for_each(|p| p.parameter.set_trainable(trains));
    model
}

const KEY: DropoutKey = DropoutKey { seed: 3, step: 5, first: 40 };
const SCALE: f64 = 8.0;
/// Of what regularizers hold, beside the loss.
const FACTOR: f64 = 0.5;

/// A batch of the demo's pictures, a head of whole batches, and one that came before.
struct Batch {
    model: AdaptedModel,
    data: Dataset,
    head: HeadInstance,
    spec: HeadSpec,
    rows: Vec<u32>,
    dropout: bool,
    held: Option<Held>,
}

struct Held {
    head: HeadInstance,
    spec: HeadSpec,
    regularizer: RegularizerInstance,
    outputs: Tensor,
}

impl Batch {
    fn new(options: &Json, examples: u32) -> Self {
        Self::of(vit(true), options, examples)
    }

    fn of(mut model: AdaptedModel, options: &Json, examples: u32) -> Self {
        let data = digits();
        let (head, spec) = attached("test-contrast", options, &data, &mut model);
        // Of any order, and of any classes.
        let rows = (0..examples).map(|i| (7 * i + 3) % data.len() as u32).collect();
        Self { model, data, head, spec, rows, dropout: true, held: None }
    }

    /// With what a head for classes said, which stands beside.
    fn holding(mut self) -> Self {
        let labels = self.data.labels().to_vec();
        let task = TaskInfo { labels, width: 64, ..tables::task(&[]) };
        let mut head = HeadInstance::create(&plugin(), "test-classes", &json!({})).unwrap();
        let spec = head.attach(&task, &mut self.model, 1).unwrap();
        let regularizer = RegularizerInstance::create(&plugin(), "test-hold", &json!({})).unwrap();
        let outputs: Vec<f32> = (0..10 * self.data.len()).map(|i| (0.7 * i as f32).sin()).collect();
        let outputs = tensor(&outputs, &[self.data.len(), 10]);
        self.held = Some(Held { head, spec, regularizer, outputs });
        self
    }

    fn pass(&self) -> Pass<'_> {
        let decision = Decision::default();
        let Self { model, head, spec, data, .. } = self;
        Pass { model, head, spec, data, precision: Precision::F32, decision }
    }

    fn hold(&self) -> Option<Holding<'_>> {
        let Held { head, spec, regularizer, outputs } = self.held.as_ref()?;
        let (regularizers, earlier) = (vec![regularizer], vec![Earlier { head, spec, outputs }]);
        Some(Holding { regularizers, earlier, factor: FACTOR })
    }

    /// As a step takes them.
    fn found(&mut self, micro_batch: Option<usize>, threads: usize) -> BatchGradients {
        self.model.micro_batch = micro_batch;
        let (shown, hold) = (self.data.show(&self.rows).unwrap(), self.hold());
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let dropout = self.dropout.then_some(KEY);
        pool.install(|| self.pass().gradients(&shown, dropout, SCALE, hold.as_ref())).unwrap()
    }

    /// All on one tape.
    fn expected(&self) -> BatchGradients {
        let (passes, examples) = (self.spec.forwards as u64, self.rows.len() as u64);
        let numbers = (0..passes).flat_map(|pass| (0..examples).map(move |i| KEY.first + (pass << 32) + i)).collect();
        let dropout = self.dropout.then_some(Dropout { seed: KEY.seed, step: KEY.step, examples: numbers });
        let tape = Tape::new(TapeOptions { recording: true, dropout, ..TapeOptions::default() });
        let seen = self.data.show(&self.rows.repeat(passes as usize)).unwrap();
        let (pass, reads) = (self.pass(), reads_of(&self.spec, self.model.model.info()));
        let features = pass.features(&tape, &seen, &reads).unwrap();
        let outputs = head_outputs(&self.head, &tape, &features, None).unwrap();
        let (sum, weight) = pass.loss(&tape, &outputs, &self.data.show(&self.rows).unwrap(), &[]).unwrap();
        let loss = scalar(&sum).unwrap();
        let seed = |value: &Value, factor: f64| value.tensor().ones_like().unwrap().affine(factor, 0.0).unwrap();
        let mut seeds = vec![(sum.clone(), seed(&sum, SCALE))];
        let mut penalty = 0.0;
        if let Some(hold) = self.hold() {
            let again = |other: &[_]| pass.features(&tape, &seen, other);
            let held = hold.penalty(&tape, &self.model, seen.rows(), (&reads, &features), again).unwrap().unwrap();
            let held = tape.affine(&held, 1.0 / passes as f64, 0.0).unwrap();
            penalty = scalar(&held).unwrap();
            seeds.push((held.clone(), seed(&held, SCALE * FACTOR)));
        }
        BatchGradients { gradients: tape.backward_from(seeds).unwrap(), loss, penalty, weight }
    }
}

fn values(gradients: &Gradients) -> Vec<(String, Vec<f32>)> {
    let of = |(parameter, gradient): (&Parameter, &fthost_autograd::Gradient)| {
        let dense = gradient.to_dense(parameter.dims()).unwrap();
        (parameter.name().to_owned(), dense.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    gradients.iter().map(of).collect()
}

/// How far gradients are from others, as a part of their norm; the loss and the penalty of theirs.
#[track_caller]
fn distance(found: &BatchGradients, expected: &BatchGradients) -> f64 {
    let (own, theirs) = (values(&found.gradients), values(&expected.gradients));
    assert_eq!(
        own.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        theirs.iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
    assert_eq!(found.weight, expected.weight);
    let all = || theirs.iter().flat_map(|(_, values)| values).zip(own.iter().flat_map(|(_, values)| values));
    let norm = |of: &dyn Fn(f64, f64) -> f64| {
        all().map(|(theirs, own)| of(f64::from(*theirs), f64::from(*own)).powi(2)).sum::<f64>().sqrt()
    };
    let size = norm(&|theirs, _| theirs);
    assert!(size > 1e-3, "a gradient of {size} shows nothing");
    let relative = |own: f64, theirs: f64| (own - theirs).abs() / theirs.abs().max(1.0);
    let of_sums = relative(found.loss, expected.loss).max(relative(found.penalty, expected.penalty));
    of_sums.max(norm(&|theirs, own| theirs - own) / size)
}

fn options(features: &str, twice: bool) -> Json {
    json!({ "features": features, "twice": twice, "dropout": 0.3 })
}

#[test]
fn the_gradient_is_that_of_one_tape() {
    for (features, twice, holds) in [
        ("pooled", false, false),
        ("sequence", false, false),
        ("spatial", false, false),
        ("pooled", true, false),
        ("pooled", false, true),
        ("sequence", true, true),
    ] {
        let mut batch = Batch::new(&options(features, twice), 50);
        if holds {
            batch = batch.holding();
        }
        let expected = batch.expected();
        for micro_batch in [None, Some(8)] {
            let far = distance(&batch.found(micro_batch, 2), &expected);
            assert!(far < 1e-6, "{far} from one tape, {features}, twice {twice}, holds {holds}, {micro_batch:?}");
        }
    }
}

#[test]
fn each_stream_gets_its_own_gradient() {
    let options = json!({ "streams": ["image", "text"], "dropout": 0.3 });
    let mut batch = Batch::of(streams::independent_pair(), &options, 200);
    let expected = batch.expected();
    assert_eq!(expected.gradients.len(), 3, "both streams and the head");
    for micro_batch in [None, Some(8)] {
        let far = distance(&batch.found(micro_batch, 2), &expected);
        assert!(far < 1e-6, "{far}, {micro_batch:?}");
    }
    // One that is frozen.
    batch.model.parameters[0].parameter.set_trainable(false);
    let expected = batch.expected();
    assert_eq!(expected.gradients.len(), 2);
    for micro_batch in [None, Some(8)] {
        assert!(distance(&batch.found(micro_batch, 2), &expected) < 1e-6, "{micro_batch:?}");
    }
}

/// Gao et al. 2021.
#[test]
fn a_batch_of_256_passes_16_at_once() {
    let mut batch = Batch::new(&options("pooled", false), 256);
    let whole = batch.found(None, 2);
    let tape = batch.expected();
    for most in [16, 3] {
        let found = batch.found(Some(most), 2);
        let far = [&whole, &tape].map(|expected| distance(&found, expected));
        assert!(far.iter().all(|far| *far < 1e-6), "{far:?}");
    }
    let bits = values(&whole.gradients);
    assert!(values(&batch.found(Some(100), 2).gradients) == bits, "pieces that are smaller anyway are the same pieces");
}

#[test]
fn the_bits_are_the_same_at_any_number_of_threads() {
    for micro_batch in [None, Some(5)] {
        let mut batch = Batch::new(&options("sequence", true), 60).holding();
        let [one, two, eight] = [1, 2, 8].map(|threads| batch.found(micro_batch, threads));
        for other in [two, eight] {
            assert_eq!((one.loss, one.penalty, one.weight), (other.loss, other.penalty, other.weight));
            assert!(values(&one.gradients) == values(&other.gradients), "{micro_batch:?}");
        }
    }
}

#[test]
fn blocks_are_made_once_more_with_the_same_bits() {
    for micro_batch in [None, Some(5)] {
        let mut batch = Batch::new(&options("sequence", false), 60);
        let kept = values(&batch.found(micro_batch, 2).gradients);
        batch.model.recompute = true;
        assert!(values(&batch.found(micro_batch, 2).gradients) == kept, "{micro_batch:?}");
    }
}

/// Nothing below the head learns: it alone has a gradient.
#[test]
fn a_frozen_network_passes_once() {
    for dropout in [true, false] {
        let mut batch = Batch::new(&options("pooled", false), 50);
        batch.dropout = dropout;
        batch.model.parameters.iter().filter(|p| p.owner == Owner::Base).for_each(|p| p.parameter.set_trainable(false));
        let expected = batch.expected();
        assert_eq!(expected.gradients.len(), 1);
        for micro_batch in [None, Some(8)] {
            assert!(distance(&batch.found(micro_batch, 2), &expected) < 1e-6, "{dropout}, {micro_batch:?}");
        }
    }
}
