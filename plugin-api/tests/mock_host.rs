//! The mock host finds what is wrong with a method, says where and by how much, and finds nothing wrong with one that is right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use fthost_plugin_api::{
    Elements, MetricSpec, Optimizer, StateSpec, Update as UpdateOf, Updated as NewValues,
    abi::tables::model_call,
    prelude::*,
    test::{HeadRun, Host, Numbers, OptimizerRun, StrategyRun},
};

/// What a method does, and does wrong.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Deed {
    fault: String,
    site: String,
}

/// y + (B A x), or what is left of it.
struct Update {
    deed: Deed,
    steps: u64,
    kept: Vec<Kept>,
}

impl Update {
    fn is(&self, fault: &str) -> bool {
        self.deed.fault == fault
    }
}

impl Strategy for Update {
    type Config = Deed;

    fn new(deed: Deed) -> Result<Self> {
        if deed.fault == "options" {
            Err(Error::new("no such deed"))
        } else {
            Ok(Self { deed, steps: 0, kept: Vec::new() })
        }
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.freeze_all()?;
        let targets = if self.deed.site.is_empty() { "query" } else { &self.deed.site };
        for site in model.products(&[targets].into(), None)? {
            let b = if self.is("start") { Init::Ones } else { Init::Zeros };
            let a = model.param(&site, "a", [2, site.in_features], Init::kaiming_uniform(site.in_features))?;
            let b = model.param(&site, "b", [site.out_features, 2], b)?;
            let fault = self.deed.fault.clone();
            model.hook_linear(&site, Updated { a, b, fault })?;
        }
        if self.deed.fault.starts_with("swaps") {
            model.thaw(&["pooler.dense"].into())?;
        }
        match self.deed.fault.as_str() {
            "kept" => std::mem::forget(Tensor::scalar(1.0)?.keep()?),
            "keeps" => self.kept.push(Tensor::scalar(1.0)?.keep()?),
            "idle" => drop(model.shared_param("idle", [3], Init::Zeros)?),
            "leak in attach" => std::mem::forget(Tensor::scalar(1.0)?),
            "panic" => panic!("out of cheese"),
            _ => {}
        }
        Ok(())
    }

    fn starts_at_base(&self) -> bool {
        true
    }

    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        if let Event::StepEnd { .. } = event {
            self.steps += 1;
        }
        match (&*self.deed.fault, event) {
            ("event", _) => model.thaw(&["nowhere"].into()).map(drop),
            ("swaps" | "swaps back", Event::EvaluationBegin { .. }) => {
                let live = model.base_param("pooler.dense.bias")?;
                self.kept = vec![live.tensor().keep()?];
                model.set_value(&live, &live.tensor().add_scalar(1.0)?)?;
                model.log_scalar("set", 1.0)
            }
            ("swaps back", Event::EvaluationEnd { .. }) => {
                let live = model.base_param("pooler.dense.bias")?;
                std::mem::take(&mut self.kept).iter().try_for_each(|kept| model.set_value(&live, &kept.tensor()))
            }
            ("steps", Event::StepEnd { loss, .. }) => {
                let gradient = model.gradient(&model.trainable_params()?[0])?;
                assert!(gradient.is_some());
                model.log_scalar("loss", *loss)
            }
            ("late", Event::EpochEnd { .. }) => model.gradient(&model.trainable_params()?[0]).map(drop),
            ("no number", Event::EpochEnd { .. }) => model.log_scalar("distance", f64::NAN),
            _ => Ok(()),
        }
    }

    fn save(&self) -> Result<SavedState> {
        let tensors = BTreeMap::from([("steps".to_owned(), Tensor::from_slice(&[self.steps as f64], [1])?)]);
        Ok(SavedState { json: json!(self.steps), tensors })
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        let steps = state.tensors["steps"].to_scalar()? as u64;
        self.steps = if self.is("state") { steps + 1 } else { steps };
        Ok(())
    }
}

struct Updated {
    a: Param,
    b: Param,
    fault: String,
}

impl LinearHook for Updated {
    fn forward(&self, x: &Tensor, y: Tensor, _: &Tensor) -> Result<Tensor> {
        match self.fault.as_str() {
            // The numbers are right, and the gradient by A is lost.
            "read out" => {
                let a = Tensor::from_slice(&self.a.tensor().to_vec_f64()?, self.a.shape())?;
                y.add_low_rank(x, &a, &self.b, 1.0)
            }
            "half" => {
                let read = Tensor::from_slice(&self.b.tensor().to_vec_f64()?, self.b.shape())?;
                let b = read.add(&self.b)?.mul_scalar(0.5)?;
                y.add_low_rank(x, &self.a, &b, 1.0)
            }
            "shape" => x.sum_dim(0, true),
            "leak" => {
                std::mem::forget(y.mul_scalar(2.0)?);
                y.add_low_rank(x, &self.a, &self.b, 1.0)
            }
            // The gradient through the norm is left out on purpose, as DoRA does.
            "detach" => {
                let norm = self.b.tensor().square()?.sum()?.add_scalar(1.0)?.detach()?;
                y.add_low_rank(x, &self.a, &self.b, 1.0)?.div(&norm)
            }
            "hook panic" => panic!("no more cheese"),
            _ => y.add_low_rank(x, &self.a, &self.b, 1.0),
        }
    }

    fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        if self.fault == "no merge" {
            return Ok(None);
        }
        let scale = if self.fault == "merge" { 1.01 } else { 1.0 };
        weight.add(&self.b.tensor().matmul(&self.a)?.mul_scalar(scale)?).map(Some)
    }
}

register! {
    /// An update, right or wrong.
    Strategy "update" => Update
}

fn update(fault: &str) -> StrategyRun {
    Host::new().strategy::<Update>(json!({ "fault": fault })).unwrap_or_else(|error| panic!("{fault}: {error}"))
}

#[track_caller]
fn says<T>(result: Result<T>, parts: &[&str]) {
    let Err(error) = result else { panic!("nothing is wrong") };
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} is not in {error}");
    }
}

#[test]
fn nothing_is_wrong_with_what_is_right() {
    for site in ["query", "embeddings.convolution", "output.dense"] {
        Host::new()
            .strategy::<Update>(json!({ "site": site }))
            .unwrap()
            .check()
            .unwrap_or_else(|error| panic!("{site}: {error}"));
    }
    let host = Host::new().of_pictures().seed(3);
    for site in ["projection", "pooler.dense"] {
        host.strategy::<Update>(json!({ "site": site }))
            .unwrap()
            .check()
            .unwrap_or_else(|error| panic!("{site}: {error}"));
    }
    update("keeps").check().unwrap();
}

#[test]
fn a_start_that_is_not_the_base_model() {
    says(
        update("start").starts_at_base(),
        &["starts_at_base is true, and the features differ: at [", "the base model"],
    );
}

#[test]
fn gradients_that_are_lost_or_wrong() {
    says(update("read out").check_gradients(), &["no gradient reaches encoder.layer.0.attention.self.query.a"]);
    says(
        update("half").check_gradients(),
        &["the gradient by encoder.layer.0.attention.self.query.b is wrong: at [", "finite differences give"],
    );
    says(update("idle").check_gradients(), &["no gradient reaches idle"]);
    update("detach").check_gradients().unwrap();
}

#[test]
fn a_merge_that_is_another_layer() {
    let place = "encoder.layer.0.attention.self.query is not what it was once it is merged: at [";
    says(update("merge").check_merge(), &[place, "the merged layer has", "and the hooked one"]);
    says(update("no merge").check_merge(), &["the hook at encoder.layer.0.attention.self.query does not merge"]);
    update("").check_merge().unwrap();
}

#[test]
fn a_state_that_does_not_come_back() {
    let mut run = update("state");
    run.train(1, 2).unwrap();
    says(run.check_state(), &["its state is other JSON: 2 became 3"]);
    let mut run = update("");
    run.train(1, 2).unwrap();
    run.check_state().unwrap();
}

#[test]
fn tensors_that_are_held_or_kept() {
    let place =
        "the hook's forward at encoder.layer.0.attention.self.query: the plugin still holds what affine@1 gave, [";
    says(update("leak").outputs(), &[place]);
    says(
        Host::new().strategy::<Update>(json!({ "fault": "leak in attach" })).map(drop),
        &["still holds what tensor_new gave, []"],
    );
    says(update("kept").finish(), &["the strategy: it was freed and keeps tensors []"]);
    update("keeps").finish().unwrap();
}

#[test]
fn errors_and_panics_name_the_call() {
    let made = |fault: &str| Host::new().strategy::<Update>(json!({ "fault": fault })).map(drop);
    says(made("options"), &["the strategy: failed in its options: no such deed"]);
    says(made("panic"), &["the strategy: failed in attach: panicked at ", "out of cheese"]);
    says(
        update("hook panic").outputs(),
        &["failed in the hook's forward at encoder.layer.0.attention.self.query: panicked at"],
    );
    says(update("shape").outputs(), &["at encoder.layer.0.attention.self.query the hook gave shape [1, 6] where ["]);
    says(update("event").train(1, 1), &["failed in the event", "target \"nowhere\" matches no parameter"]);
    says(
        Host::new().strategy::<Update>(json!({ "site": "qery" })).map(drop),
        &["matches no linear layer or convolution; there are"],
    );
    says(Host::new().strategy::<Update>(json!({ "fault": 1 })).map(drop), &["options: "]);
}

#[test]
fn handles_are_used_within_their_call() {
    let stale = Host::new().call(|_| {
        let x = Tensor::scalar(1.0)?;
        let kept = x.keep()?;
        assert_eq!(kept.tensor().to_scalar()?, 1.0);
        Ok(kept)
    });
    // A kept tensor stays; a parameter of another run is none of this one's.
    let kept = stale.unwrap();
    Host::new().call(|_| kept.tensor().to_scalar()).unwrap();
    let param = Host::new().call(|model| model.base_param("pooler.dense.bias")).unwrap();
    says(Host::new().call(|_| param.tensor().shape()), &["belongs to no parameter of this run"]);
    says(Tensor::scalar(1.0), &["there is no call into a plugin on this thread"]);
}

#[test]
fn the_model_is_described() {
    Host::new()
        .call(|model| {
            assert_eq!((model.width()?, model.layers()?, model.heads()?, model.vocabulary()?), (6, 2, 2, 13));
            assert_eq!(model.groups()?, 4);
            let kinds = [
                model.linears(&Targets::Pattern("all-linear".into()))?.len(),
                model.convs(&["convolution"].into())?.len(),
            ];
            assert_eq!(kinds, [13, 1]);
            let blocks = [model.attention_outputs()?.len(), model.feed_forward_outputs()?.len()];
            assert_eq!((blocks, model.embeddings()?.len(), model.attentions()?.len()), ([2, 2], 1, 2));
            let rows = model.shared_param("rows", [3, 6], Init::VocabularyRows)?;
            let text = model.shared_param("text", [3, 6], Init::TextRows { text: "good or".into() })?;
            let text = text.tensor().to_vec_f64()?;
            assert_eq!(text[..6], text[12..]);
            assert_eq!(rows.tensor().shape()?, [3, 6]);
            model.set_lr_factor_of(std::slice::from_ref(&rows), 2.0)?;
            let found = model.parameters_of(&["rows"].into())?;
            assert_eq!((found[0].lr_factor, found[0].base, found[0].trainable), (2.0, false, true));
            assert!(model.shared_param("rows", [1], Init::Zeros).is_err());
            model.set_value(&rows, &rows.tensor().mul_scalar(0.0)?)?;
            assert_eq!(rows.tensor().to_vec_f64()?, [0.0; 18]);
            Ok(())
        })
        .unwrap();
    assert_eq!(model_call::TRAINABLE, "trainable@1");
}

/// What a head does wrong.
struct Head {
    fault: String,
    weight: Option<Param>,
}

impl TaskHead for Head {
    type Config = Deed;

    fn new(deed: Deed) -> Result<Self> {
        Ok(Self { fault: deed.fault, weight: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        self.weight = Some(model.head_param("w", [task.labels.len(), task.width], Init::Zeros)?);
        let name = |name: &str| MetricSpec { name: name.into(), higher_is_better: true };
        Ok(HeadSpec {
            forwards: match &*self.fault {
                "twice in training" | "twice everywhere" => 2,
                "never" => 0,
                _ => 1,
            },
            metrics: match &*self.fault {
                "measures" | "measures another" => vec![name("sureness"), name("unsaid")],
                "metric twice" => vec![name("sureness"), name("sureness")],
                "metric's name" => vec![name("Sureness")],
                _ => Vec::new(),
            },
            ..HeadSpec::new(FeatureKind::Pooled, TargetKind::Class, PredictionKind::Classes)
        })
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        features.tensor.linear(self.weight.as_ref().unwrap(), None)
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let (rows, passed) = (targets.tensor.shape()?[0], outputs.shape()?[0]);
        if self.fault == "twice everywhere" || passed > rows {
            // How far both passes are apart, beside the first one's loss.
            let [first, second] = [outputs.narrow(0, 0, rows)?, outputs.narrow(0, rows, rows)?];
            let (sum, weight) = first.cross_entropy(targets.tensor, None, 0.0)?;
            let apart = first.sub(&second)?.square()?.sum()?;
            return Ok(Loss { sum: sum.add(&apart)?, weight: weight.to_scalar()? });
        }
        let (sum, weight) = outputs.cross_entropy(targets.tensor, None, 0.0)?;
        let weight = weight.to_scalar()?;
        match self.fault.as_str() {
            "mean" => Ok(Loss { sum: sum.mul_scalar(1.0 / weight)?, weight }),
            "weight" => Ok(Loss { sum, weight: 1.0 }),
            "constant" => Ok(Loss { sum: sum.detach()?, weight }),
            _ => Ok(Loss { sum, weight }),
        }
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        match self.fault.as_str() {
            "logits" => outputs.add_scalar(0.0),
            "twice" => Tensor::concat(&[&outputs.softmax()?, &outputs.softmax()?], 0),
            "nan" => outputs.affine(0.0, -1.0)?.sqrt(),
            _ => outputs.softmax(),
        }
    }

    fn metrics(&self, predictions: &Tensor, targets: &Tensor) -> Result<BTreeMap<String, f64>> {
        let rows = predictions.to_vec_f64()?;
        let classes = predictions.shape()?[1];
        let targets = targets.to_vec_u32()?;
        let sure = rows.chunks(classes).zip(&targets).map(|(row, &target)| row[target as usize]).sum::<f64>();
        let other = if self.fault == "measures another" { "sure" } else { "sureness" };
        Ok([(other.to_owned(), sure / targets.len() as f64), ("unsaid".to_owned(), f64::NAN)].into())
    }
}

fn head(fault: &str) -> HeadRun {
    Host::new().head::<Head>(json!({ "fault": fault })).unwrap()
}

#[test]
fn losses_that_are_no_sums_and_predictions_of_another_kind() {
    head("").check().unwrap();
    says(head("mean").check_loss(), &["the loss is no sum over examples", "the batch has", "its examples, one by one"]);
    says(head("weight").check_loss(), &["the weight is no sum over examples", "has 1.0", "5.0"]);
    says(head("constant").check_loss(), &["no gradient reaches the features"]);
    says(head("logits").check_predictions(), &["no probability"]);
    says(head("twice").check_predictions(), &["predict gave [10, 3] where [5, 3] is needed"]);
    says(head("nan").check_predictions(), &["predict gave NaN"]);
    let mut run = head("");
    let losses = run.train(2, 5).unwrap();
    assert!(losses[9] < losses[0], "{losses:?}");
}

#[test]
fn examples_that_pass_twice() {
    let run = head("twice in training");
    let weight = (1.0f64 + 2.0 * (-1.0f64).exp()).ln();
    // One example, two passes; the loss of the first, and how far the second is from it.
    let (sum, count) = run.loss([2, 3], &[1.0, 0.0, 0.0, 1.0, 2.0, 0.0], &[0.0]).unwrap();
    assert!((sum - (weight + 4.0)).abs() < 1e-9 && count == 1.0, "{sum} over {count}");
    let (sum, _) = run.loss([1, 3], &[1.0, 0.0, 0.0], &[0.0]).unwrap();
    assert!((sum - weight).abs() < 1e-9, "{sum}");
    run.check().unwrap();
    let mut run = head("twice in training");
    assert!(run.train(1, 3).is_ok());
    says(
        head("twice everywhere").check_loss(),
        &["of one pass, as in evaluations", "are outside a dimension of size 5"],
    );
    says(Host::new().head::<Head>(json!({ "fault": "never" })).map(drop), &["pass through the model 0 times"]);
}

#[test]
fn metrics_of_a_heads_own() {
    let run = head("measures");
    let found = run.metrics(&[0.5, 0.25, 0.25, 0.0, 0.0, 1.0], &[0.0, 2.0]).unwrap();
    assert_eq!(found["sureness"], 0.75);
    assert!(found["unsaid"].is_nan() && found.len() == 2);
    assert_eq!(run.predict([1, 3], &[0.0; 3]).unwrap(), [1.0 / 3.0; 3]);
    run.check().unwrap();
    says(head("measures another").check_metrics(), &["it has named the metrics", "\"sureness\"", "\"sure\""]);
    says(run_of("metric twice"), &["it names the metric \"sureness\" twice"]);
    says(run_of("metric's name"), &["a metric's name is of lower case, digits and _, and this is \"Sureness\""]);
    says(head("measures").metrics(&[0.5; 4], &[0.0]), &["4 predictions are none of shape [1, 3]"]);
}

/// Vectors of each side of an example, by no layer: of two streams the first two features, of texts all.
struct Sides {
    fault: String,
    streams: usize,
    sequences: usize,
}

impl Sides {
    fn side(&self, features: &Features<'_>, width: usize) -> Result<Tensor> {
        let rows = features.tensor.narrow(1, 0, width)?.normalize()?;
        let rows = if self.fault == "lengths" { rows.mul_scalar(2.0)? } else { rows };
        rows.reshape([rows.shape()?[0] / self.sequences, self.sequences, width])
    }
}

impl TaskHead for Sides {
    type Config = Deed;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::CONTRASTIVE);

    fn new(deed: Deed) -> Result<Self> {
        Ok(Self { fault: deed.fault, streams: 0, sequences: 0 })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        (self.streams, self.sequences) = (task.streams.len(), task.sequences as usize);
        let widths: Vec<usize> = task.streams.iter().map(|stream| stream.width).collect();
        assert_eq!(model.streams()?, task.streams);
        assert!(widths == [6, 4] && model.width().is_err() || widths == [6] && model.width()? == 6);
        if let Some(own) = &task.comparison {
            assert_eq!(model.base_param(&own.projections[1])?.shape(), [own.width, widths[1]]);
            assert!(!model.trainable_params()?.contains(&model.base_param(&own.scale)?));
        }
        // Pictures first, to see that features come in the order that is asked for.
        let all = task.streams.iter().rev().map(|stream| StreamFeatures::of(stream, FeatureKind::Pooled));
        let mut streams: Vec<StreamFeatures> = all.collect();
        match self.fault.as_str() {
            "no stream" => streams.clear(),
            "another stream" => streams[0].stream = "sound".into(),
            _ => {}
        }
        let spec = HeadSpec::new(FeatureKind::Pooled, TargetKind::Match, PredictionKind::Embeddings);
        Ok(HeadSpec { scope: LossScope::Batch, streams, ..spec })
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        self.side(features, 6)
    }

    fn forward_streams(&self, features: &[Features<'_>]) -> Result<Tensor> {
        let [images, texts] = features else { return self.forward(&features[0]) };
        assert_eq!((images.tensor.shape()?[1], texts.tensor.shape()?[1]), (4, 6));
        let texts = if self.fault == "read out" { &texts.tensor.detach()? } else { texts.tensor };
        let [images, texts] = [self.side(images, 2)?, self.side(&Features { tensor: texts, ..features[1] }, 2)?];
        Tensor::concat(&[&images, &texts], 1)
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let [n, _, width] = outputs.shape()?[..] else { panic!("[examples, sides, width]") };
        let side = |at| outputs.narrow(1, at, 1)?.reshape([n, width]);
        let (sum, weight) = side(0)?.matmul(&side(1)?.t()?)?.cross_entropy(targets.tensor, None, 0.0)?;
        Ok(Loss { sum, weight: weight.to_scalar()? })
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        match self.fault.as_str() {
            "one side" => outputs.narrow(1, 0, 1),
            _ => outputs.reshape(outputs.shape()?),
        }
    }
}

#[test]
fn heads_that_compare() {
    let made = |host: Host, fault: &str| host.head::<Sides>(json!({ "fault": fault }));
    let pair = Host::new().of_pair();
    for host in [pair, Host::new().of_comparing_pair(), Host::new().sequences(2), Host::new().sequences(3)] {
        made(host, "").unwrap().check().unwrap();
    }
    says(made(pair, "no stream").map(drop), &["it names no stream", "the toy model has \"text\" and \"image\""]);
    says(made(pair, "another stream").map(drop), &["it reads the stream \"sound\"", "\"text\" and \"image\" alone"]);
    says(made(pair, "read out").unwrap().check_loss(), &["no gradient reaches the features of text"]);
    says(made(pair, "lengths").unwrap().check_predictions(), &["the embedding of side 0 of example 0 has length 2"]);
    says(made(pair, "one side").unwrap().check_predictions(), &["predict gave [5, 1, 2] where [5, 2, 2] is needed"]);
    // Features that a test writes.
    let found = made(pair, "")
        .unwrap()
        .forward(&[(&[0, 1], &[3.0, 4.0, 0.0, 0.0]), (&[0, 1], &[0.0, 2.0, 1.0, 0.0, 0.0, 0.0])]);
    assert_eq!(found.unwrap(), [0.6, 0.8, 0.0, 1.0]);
}

fn run_of(fault: &str) -> Result<()> {
    Host::new().head::<Head>(json!({ "fault": fault })).map(drop)
}

#[test]
fn weights_that_are_set_for_an_evaluation_are_put_back() {
    let mut run = update("swaps back");
    run.train(2, 2).unwrap();
    assert_eq!(run.scalars(), [(2, "set".to_owned(), 1.0), (4, "set".to_owned(), 1.0)]);
    assert_eq!(run.scalars(), []);
    run.event(&Event::EvaluationBegin { step: 4 }).unwrap();
    let before = run.value("pooler.dense.bias").unwrap();
    run.event(&Event::EvaluationEnd { step: 4 }).unwrap();
    assert_eq!(run.value("pooler.dense.bias").unwrap()[0] + 1.0, before[0]);
    says(update("swaps").train(1, 1), &["pooler.dense.bias was set in an evaluation, and not put back at its end"]);
}

#[test]
fn what_a_step_gives_is_at_hand_within_its_end() {
    let mut run = update("steps");
    let losses = run.train(1, 2).unwrap();
    assert_eq!(run.scalars(), [(1, "loss".to_owned(), losses[0]), (2, "loss".to_owned(), losses[1])]);
    says(update("late").train(1, 1), &["gradients of a step are at hand in its `StepEnd` only"]);
    says(update("no number").train(1, 1), &["a scalar has a name and a finite value"]);
    let mut run = update("");
    run.set_value("pooler.dense.bias", &[0.5; 6]).unwrap();
    assert_eq!(run.value("pooler.dense.bias").unwrap(), [0.5; 6]);
    says(run.set_value("pooler.dense.bias", &[0.5]), &["pooler.dense.bias has shape [6], and 1 elements came"]);
}

/// Momentum, and how often there was a gradient in a byte for each element; right or wrong.
struct Rule {
    fault: String,
    updates: AtomicU64,
}

impl Optimizer for Rule {
    type Config = Deed;

    fn new(deed: Deed) -> Result<Self> {
        Ok(Self { fault: deed.fault, updates: AtomicU64::new(0) })
    }

    fn momentum(&self) -> f64 {
        if self.fault == "momentum" { 1.0 } else { 0.5 }
    }

    fn states(&self, _: &str, shape: &[usize]) -> Result<Vec<StateSpec>> {
        let name = if self.fault == "name" { "step" } else { "momentum" };
        let large = [17 * shape.iter().product::<usize>()];
        let shape = if self.fault == "large" { &large[..] } else { shape };
        let seen = StateSpec { elements: Elements::U8, ..StateSpec::new("seen", shape) };
        Ok(vec![StateSpec::new(name, shape), seen])
    }

    fn step(&self, update: &UpdateOf<'_>) -> Result<NewValues> {
        let [momentum, seen] = update.states.as_slice() else { return Err(Error::new("two states")) };
        let updates = self.updates.fetch_add(1, Ordering::Relaxed);
        let momentum = momentum.mul_scalar(update.momentum)?.add(&update.gradient)?;
        let seen = seen.cast(DType::F32)?.add_scalar(1.0)?.cast(DType::U8)?;
        let rate = match self.fault.as_str() {
            "hidden" => update.lr * updates as f64,
            _ => update.lr,
        };
        let step = match self.fault.as_str() {
            "drift" => momentum.affine(rate, 1e-3)?,
            "zeros" => momentum.div(&update.gradient.square()?.sum()?)?.mul_scalar(rate)?,
            "keeps" => {
                std::mem::forget(momentum.keep()?);
                momentum.mul_scalar(rate)?
            }
            _ => momentum.mul_scalar(rate)?,
        };
        let value = update.value.mul_scalar(1.0 - update.lr * update.weight_decay)?.sub(&step)?;
        let value = if self.fault == "shape" { value.sum()? } else { value };
        let states = if self.fault == "count" { vec![momentum] } else { vec![momentum, seen] };
        Ok(NewValues { value, states })
    }
}

fn rule(fault: &str) -> OptimizerRun {
    Host::new().optimizer::<Rule>(json!({ "fault": fault })).unwrap()
}

fn formula(of: &mut Numbers) {
    for i in 0..of.value.len() {
        of.states[0][i] = of.momentum * of.states[0][i] + of.gradient[i];
        of.states[1][i] += 1.0;
        of.value[i] -= of.lr * (of.weight_decay * of.value[i] + of.states[0][i]);
    }
}

#[test]
fn updates_are_those_of_a_formula() {
    assert_eq!(rule("").momentum().unwrap(), 0.5);
    assert_eq!(rule("").states("w", [3]).unwrap()[0], StateSpec::new("momentum", [3]));
    rule("").check_formula("w", [3, 2], formula).unwrap();
    let sign = |of: &mut Numbers| {
        formula(of);
        of.states[0][0] *= -1.0;
    };
    let place = "after update 1 of w the state momentum is not that of the formula: at [0, 0] the rule has ";
    says(rule("").check_formula("w", [3, 2], sign), &[place]);
    says(rule("drift").check_formula("w", [3], formula), &["after update 1 of w the value is not that of the formula"]);
    rule("").check().unwrap();
    let losses = rule("").train(5, 0.01).unwrap();
    assert!(losses[4] < losses[0], "{losses:?}");
    let numbers = Numbers {
        value: vec![1.0],
        gradient: vec![2.0],
        states: vec![vec![4.0], vec![7.0]],
        step: 8,
        lr: 0.5,
        momentum: 0.5,
        weight_decay: 0.0,
    };
    let after = Numbers { value: vec![-1.0], states: vec![vec![4.0], vec![8.0]], ..numbers.clone() };
    assert_eq!(rule("").update("w", [1], &numbers).unwrap(), after);
}

#[test]
fn what_a_rule_does_wrong() {
    let check = |fault: &str| rule(fault).check();
    says(check("hidden"), &["has a value that follows from more than is saved: at [", "one made anew with the same"]);
    says(check("drift"), &["a rate of 0 changes encoder.layer.0.output.dense.bias: at ["]);
    says(check("zeros"), &["the new value of encoder.layer.0.output.dense.bias has NaN at 0"]);
    says(check("keeps"), &["the optimizer: it was freed and keeps tensors"]);
    says(check("shape"), &["the new value of encoder.layer.0.output.dense.bias is [] of F32, and that is [6] of F32"]);
    says(
        check("count"),
        &["failed in the update of encoder", "an update gives each state anew: 1 came, and there are 2"],
    );
    says(check("name"), &["a state cannot be named \"step\""]);
    says(check("large"), &["would have shape [102]: more than 16 times its elements"]);
    says(check("momentum"), &["a momentum is at least 0 and below 1, and it gave 1"]);
    says(
        rule("").update(
            "w",
            [2],
            &Numbers {
                value: vec![1.0],
                gradient: vec![2.0],
                states: Vec::new(),
                step: 1,
                lr: 0.1,
                momentum: 0.0,
                weight_decay: 0.0,
            },
        ),
        &["it keeps 2 states of w, and 0 came"],
    );
}

/// Says another rate each time.
struct Whim(std::sync::atomic::AtomicU64);

impl Scheduler for Whim {
    type Config = Deed;

    fn new(_: Deed) -> Result<Self> {
        Ok(Self(Default::default()))
    }

    fn rate(&self, _: &Progress, group: &Group<'_>) -> Result<Rate> {
        Ok(group.scaled(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as f64))
    }
}

#[test]
fn a_schedule_that_follows_from_more_than_its_arguments() {
    let run = Host::new().scheduler::<Whim>(json!({})).unwrap();
    says(run.rates(3), &["the rate of step 2 was 2, and is 3 when it is asked for again"]);
}

/// Pulls, measures, and holds the measure.
struct Pull {
    wrong: bool,
    params: Vec<Param>,
    measured: Option<f64>,
}

impl Regularizer for Pull {
    type Config = Deed;

    fn new(deed: Deed) -> Result<Self> {
        Ok(Self { wrong: deed.fault == "constant", params: Vec::new(), measured: None })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        self.params = model.trainable_params()?;
        Ok(())
    }

    fn penalty(&self) -> Result<Option<Tensor>> {
        let Some(measured) = self.measured else { return Ok(None) };
        let mut sum = self.params[0].tensor().square()?.sum()?;
        for param in &self.params[1..] {
            sum = sum.add(&param.tensor().square()?.sum()?)?;
        }
        let sum = if self.wrong { sum.detach()? } else { sum };
        sum.mul_scalar(measured).map(Some)
    }

    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        if let Event::TaskEnd { .. } = event {
            let mut sum = 0.0;
            let examples = model.example_gradients(FisherLabels::Exact, 3, |example| {
                sum += example.gradient.square()?.sum()?.to_scalar()? * example.weight;
                Ok(())
            })?;
            assert_eq!(examples, 3);
            self.measured = Some(sum);
        }
        Ok(())
    }

    fn save(&self) -> Result<SavedState> {
        Ok(SavedState { json: json!(self.measured), ..SavedState::default() })
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        self.measured = state.json.as_f64();
        Ok(())
    }
}

#[test]
fn a_penalty_and_what_it_measures() {
    let run = Host::new().regularizer::<Pull>(json!({})).unwrap();
    says(run.check_gradients(), &["there is no penalty on parameters now"]);
    run.check().unwrap();
    let mut wrong = Host::new().regularizer::<Pull>(json!({ "fault": "constant" })).unwrap();
    wrong.train(1, 1).unwrap();
    says(wrong.check_gradients(), &["the penalty reaches no parameter that trains"]);
}
