//! A model of two streams, with a buffer: what plugins see of it, what heads may read, what schedules go by, at which rates each trains.

use std::sync::atomic::{AtomicUsize, Ordering};

use fthost_autograd::Precision;
use fthost_plugin_api::{Evaluation, FeatureKind, HeadSpec, PredictionKind, StreamFeatures};

use super::whole_batch::{attached, digits};
use super::*;
use crate::plugin::instance::of_this_model;
use crate::run::file::RunFile;
use crate::run::pass::{Decision, Pass, head_outputs, reads_of};
use crate::run::setup::methods::attach_strategies;
use crate::run::setup::rates;
use crate::run::setup::schedules::Schedules;
use crate::run::train::reference::Reference;
use crate::run::train::step::Learner;

/// y = x W^T of each stream, with `W` once and twice the identity.
struct Pair {
    info: ModelInfo,
    sites: Vec<Site>,
    parameters: Vec<BaseParameter>,
    batch_statistics: bool,
    /// Passes so far.
    passes: Arc<AtomicUsize>,
}

const NAMES: [&str; 2] = ["text", "image"];

impl Pair {
    fn new() -> Self {
        let modalities = [
            Modality::Text { max_tokens: 8, vocabulary: 3 },
            Modality::Images { channels: 1, size: 2, any_size: false, tokens: 5 },
        ];
        let stream = |(name, modality): (&str, Modality)| Stream {
            name: name.into(),
            modality,
            prefix: format!("{name}_model."),
            root: format!("{name}."),
            width: 2,
            layers: Some(1),
            heads: Some(1),
            block: None,
            word_embeddings: None,
            reads: vec![Read::Pooled, Read::Sequence],
            maps: Vec::new(),
            pooling: Pooling { by: PoolBy::First, normalize: false },
        };
        let group = |name: &str, stream| BlockGroup { name: name.into(), stream };
        let groups = (0..2).flat_map(|i| [group("embeddings", Some(i)), group("layer.0", Some(i))]);
        let of = |name: String, tensor, i: usize, buffer| BaseParameter {
            parameter: Parameter::new(name, tensor, true),
            group: 2 * i + 1,
            stream: Some(i),
            buffer,
            quantized: false,
        };
        let mut parameters = Vec::new();
        for (i, name) in NAMES.iter().enumerate() {
            let scale = (i + 1) as f32;
            parameters.push(of(format!("{name}.dense.weight"), tensor(&[scale, 0.0, 0.0, scale], &[2, 2]), i, false));
        }
        parameters.push(of("image.norm.running_mean".into(), tensor(&[0.0, 0.0], &[2]), 1, true));
        let site = |(i, name): (usize, &&str)| Site {
            path: format!("{name}.dense"),
            kind: SiteKind::Linear,
            in_features: 2,
            out_features: 2,
            group: 2 * i + 1,
            stream: Some(i),
            convolution: None,
        };
        Self {
            info: ModelInfo {
                model_type: "pair".into(),
                streams: NAMES.into_iter().zip(modalities).map(stream).collect(),
                groups: groups.chain([group("head", None)]).collect(),
                base_class: None,
                classification: None,
                vocabulary: None,
                contrastive: None,
                sight: None,
                head_dropout: 0.0,
            },
            sites: NAMES.iter().enumerate().map(site).collect(),
            parameters,
            batch_statistics: true,
            passes: Arc::default(),
        }
    }

    /// Both of whose streams take the same pictures.
    fn of_pictures() -> Self {
        let mut pair = Self::new();
        pair.info.streams[0].modality = pair.info.streams[1].modality;
        pair
    }
}

impl Model for Pair {
    fn info(&self) -> &ModelInfo {
        &self.info
    }
    fn sites(&self) -> &[Site] {
        &self.sites
    }
    fn parameters(&self) -> &[BaseParameter] {
        &self.parameters
    }
    fn batch_statistics(&self) -> bool {
        self.batch_statistics
    }
    fn set_pooling(&mut self, _: usize, _: Pooling) -> fthost_autograd::Result<()> {
        candle_core::bail!("not needed here")
    }
    fn set_hook(&mut self, _: &str, _: Hook) -> fthost_autograd::Result<()> {
        Ok(())
    }
    fn hooked(&self, _: &str) -> bool {
        false
    }
    fn folded(&self, _: &[Input]) -> fthost_autograd::Result<Vec<(Parameter, Tensor)>> {
        candle_core::bail!("not needed here")
    }
    fn clear_hooks(&mut self) {}
    fn save_folder(&self, _: &Path, _: &SavedHead<'_>) -> Result<(), LoadError> {
        Ok(())
    }
    fn features(&self, tape: &Tape, stream: usize, input: &Input, _: Read) -> fthost_autograd::Result<Features> {
        let Input::Images(x) = input else { candle_core::bail!("this model takes tensors") };
        self.passes.fetch_add(1, Ordering::Relaxed);
        let weight = tape.parameter(&self.parameters[stream].parameter);
        let x = x.flatten_from(1)?.narrow(1, 0, 2)?.contiguous()?; // [examples, 2]
        let layout = Layout::single_rows(x.dims()[0]);
        Ok(Features { value: tape.linear(&Value::constant(x), &weight, None)?, layout, map: None })
    }
}

/// One whose examples do not depend on each other.
pub(super) fn independent_pair() -> AdaptedModel {
    let pair = Pair { batch_statistics: false, ..Pair::of_pictures() };
    AdaptedModel::new(Box::new(pair), Device::Cpu, 7)
}

fn pair() -> AdaptedModel {
    AdaptedModel::new(Box::new(Pair::new()), Device::Cpu, 7)
}

#[test]
fn what_plugins_declare_is_part_of_the_stream_of_its_site() {
    let mut model = pair();
    shift("").unwrap().attach(&mut model, 0).unwrap_err(); // no words to start the prompt from, after the sites
    let declared = model.parameters.iter().filter(|p| p.owner == Owner::Strategy(0));
    let declared: Vec<_> = declared.map(|p| (p.parameter.name(), p.stream, p.group)).collect();
    assert_eq!(declared, [("text.dense.shift", Some(0), 1), ("image.dense.shift", Some(1), 3)]);
}

/// A strategy that has attached to a stream, or to all of the model.
fn sees(model: &mut AdaptedModel, index: usize, stream: Option<usize>) -> StrategyInstance {
    let mut strategy = StrategyInstance::create(&plugin(), "test-sees", &json!({})).unwrap().within(stream);
    strategy.attach(model, index).unwrap();
    strategy
}

#[test]
fn a_strategy_of_a_stream_sees_no_other() {
    let mut model = pair();
    let mut image = sees(&mut model, 0, Some(1));
    assert_eq!(
        image.save().unwrap().json,
        json!({
            "groups": 3, "streams": ["image"], "width": 2, "sites": [["image.dense", 1]],
            "parameters": [["image.dense.weight", 1], ["image.dense.scale", 1], ["image.prompt", 2]],
        })
    );
    let trains = |model: &AdaptedModel| -> Vec<bool> {
        model.parameters.iter().take(2).map(|p| p.parameter.trainable()).collect()
    };
    assert_eq!(trains(&model), [true, false], "text is as it was");

    // Another of the same name in the other stream, whose parameters have names of their own.
    let mut text = sees(&mut model, 1, Some(0));
    let declared = |owner: usize| -> Vec<(String, Option<usize>, usize)> {
        let own = model.parameters.iter().filter(|p| p.owner == Owner::Strategy(owner));
        own.map(|p| (p.parameter.name().to_owned(), p.stream, p.group)).collect()
    };
    assert_eq!(declared(0), [("image.dense.scale".into(), Some(1), 3), ("image.prompt".into(), Some(1), 4)]);
    assert_eq!(declared(1), [("text.dense.scale".into(), Some(0), 1), ("text.prompt".into(), Some(0), 4)]);
    let matched: Vec<_> = model.matches.iter().map(|of| (of.strategy, of.stream.as_deref(), of.matched)).collect();
    assert_eq!(matched, [(0, Some("image"), 1), (1, Some("text"), 1)]);
    assert_eq!(trains(&model), [false; 2]);

    let begins = Event::EpochBegin { epoch: 0, epochs: 1 };
    image.event(&begins, &mut model, None).unwrap();
    assert_eq!(image.save().unwrap().json, json!(3), "so many handles of what trains");
    let slowed = |model: &AdaptedModel| -> Vec<String> {
        let slow = model.parameters.iter().filter(|p| p.lr_factor == 0.1);
        slow.map(|p| p.parameter.name().to_owned()).collect()
    };
    assert_eq!(slowed(&model), ["image.dense.weight", "image.dense.scale", "image.prompt"]);
    assert_eq!(trains(&model), [false, true]);
    text.event(&begins, &mut model, None).unwrap();
    assert_eq!((slowed(&model).len(), trains(&model)), (6, vec![true; 2]));

    // All of a model that has one stream is that stream without heads.
    let mut plain = super::model();
    let _alone = sees(&mut plain, 0, Some(0));
    assert!(plain.parameters.iter().any(|p| p.parameter.name() == "prompt" && p.stream == Some(0)));
}

/// The gradients of all that trains, for one example.
struct All;

impl ExampleGradients for All {
    fn visit(
        &mut self,
        model: &AdaptedModel,
        _: crate::plugin::Examples,
        visit: &mut dyn FnMut(&Parameter, &Tensor, f64) -> Result<()>,
    ) -> Result<()> {
        model.trainable().try_for_each(|p| visit(&p.parameter, &p.parameter.tensor(), 1.0))
    }
}

#[test]
fn a_walk_over_examples_visits_what_the_strategy_sees() {
    let walked = |stream: Option<usize>| {
        let mut model = pair();
        let mut strategy = sees(&mut model, 0, stream);
        model.parameters.iter().filter(|p| !p.buffer).for_each(|p| p.parameter.set_trainable(true));
        strategy.event(&Event::TaskEnd { task: "a".into() }, &mut model, Some(&mut All)).unwrap();
        strategy.save().unwrap().json
    };
    assert_eq!(walked(Some(0)), json!(["text.dense.weight", "text.dense.scale", "text.prompt"]));
    assert_eq!(walked(None).as_array().unwrap().len(), 5);
}

/// A run file with these tables at its end.
fn run_file(tables: &str) -> Result<RunFile> {
    const TASK: &str = "[model]\npath = \"m\"\n[[task]]\nhead = { plugin = \"test-classes\" }\ntrain = \"a.tsv\"\n";
    RunFile::parse(&format!("{TASK}{tables}\n[train]\nlr = 0.03\n"), Path::new("/a.toml"), &[])
}

/// `[[schedule]]` of a stream that multiplies the rate by `by`, or lets it rise.
fn schedule(stream: &str, by: &str) -> String {
    format!("[[schedule]]\nplugin = \"test-half\"\nstream = \"{stream}\"\nwhat = \"{by}\"\n")
}

fn schedules(file: &RunFile, model: &AdaptedModel) -> Result<Schedules> {
    Schedules::create(file, &mut Library::new(Search::new(Vec::new())), model.model.info())
}

/// The weights of both streams after one optimizer step by a run file's schedules, text first.
fn after_a_step(tables: &str, prepare: impl Fn(&mut AdaptedModel)) -> [Vec<u32>; 2] {
    let mut model = pair();
    prepare(&mut model);
    let tape = Tape::recording();
    let picture = Input::Images(tensor(&[0.3, -0.7], &[1, 2]));
    let squares = [0, 1].map(|stream| {
        let y = model.model.features(&tape, stream, &picture, Read::Pooled).unwrap().value;
        tape.sum(&tape.mul(&y, &y).unwrap()).unwrap()
    });
    let sum = tape.add(&squares[0], &squares[1]).unwrap();
    let gradients = tape.backward(&sum).unwrap();
    let file = run_file(tables).unwrap();
    let mut schedules = schedules(&file, &model).unwrap();
    let mut learner = Learner {
        settings: &file.train,
        model: &mut model,
        regularizers: &mut [],
        schedules: &mut schedules,
        fixed_lr: None,
        optimizer: &mut Optimizer::default(),
        tasks: &mut [],
        reference: Reference::default(),
        precision: Precision::F32,
    };
    learner.update(&gradients, &Progress { step: 0, total_steps: 10, steps_per_epoch: 5 }).unwrap();
    [0, 1].map(|i| {
        let weight = model.parameters[i].parameter.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        weight.into_iter().map(f32::to_bits).collect()
    })
}

/// One schedule, for all or for the rest, that multiplies the rate.
fn by(factor: &str) -> String {
    format!("[[schedule]]\nplugin = \"test-half\"\nwhat = \"{factor}\"\n")
}

#[test]
fn each_tower_trains_at_its_own_rate_as_it_would_alone_to_the_bit() {
    let single = |factor: &str| after_a_step(&by(factor), |_| ());
    let ([text, _], [_, image]) = (single("1"), single("0.1"));
    assert_ne!(image, single("1")[1], "it moves less");

    let slowed = |model: &mut AdaptedModel| {
        let mut strategy = sees(model, 0, Some(1));
        strategy.event(&Event::EpochBegin { epoch: 0, epochs: 1 }, model, None).unwrap();
    };
    assert_eq!(after_a_step(&by("1"), slowed), [text.clone(), image.clone()], "by a factor");
    let own = [schedule("image", "0.1"), by("0.5"), schedule("text", "1")].concat();
    assert_eq!(after_a_step(&own, |_| ()), [text.clone(), image.clone()], "by schedules");
    let beside = schedule("image", "0.1") + &by("1");
    assert_eq!(after_a_step(&beside, |_| ()), [text, image], "by a schedule of its own beside that of the rest");
}

#[test]
fn what_stands_above_a_streams_blocks_has_the_rate_of_the_stream() {
    let in_the_heads_group = |model: &mut AdaptedModel| model.parameters[1].group = model.model.info().head_group();
    let own = schedule("image", "0.1") + &by("1");
    assert_eq!(after_a_step(&own, in_the_heads_group)[1], after_a_step(&by("0.1"), |_| ())[1]);
}

#[test]
fn each_schedule_keeps_a_state_of_its_own() {
    let model = &mut pair();
    let of = |tables: &str, model: &AdaptedModel| schedules(&run_file(tables).unwrap(), model).unwrap();
    let places = |schedules: &mut Schedules| schedules.stateful().map(|(place, _)| place).collect::<Vec<_>>();
    assert_eq!(places(&mut of(&by("1"), model)), ["schedule"], "as ever where one is for all");
    let two = schedule("text", "1") + &by("1");
    let mut first = of(&two, model);
    assert_eq!(places(&mut first), ["schedule.text", "schedule"]);

    let fresh = first.save().unwrap();
    let now = Progress { step: 0, total_steps: 10, steps_per_epoch: 5 };
    let evaluation = Evaluation { value: 0.5, metric: "loss", higher_is_better: false, task: "a" };
    first.on_evaluation(&now, &evaluation).unwrap();
    let json =
        |schedules: &Schedules| -> Vec<_> { schedules.save().unwrap().into_iter().map(|state| state.json).collect() };
    assert_eq!(json(&first), [1, 1], "all hear of it");
    // One of the two says something else, so that no state goes to the other.
    first.stateful().next().unwrap().1.load(&State { json: json!(7), ..State::default() }).unwrap();
    let mut optimizer = Optimizer::default();
    let plugins = first.stateful().collect();
    let (changed, tensors) = Parts { model, plugins, optimizer: &mut optimizer }.changed().unwrap();
    let mut resumed = of(&two, model);
    let plugins = resumed.stateful().collect();
    Parts { model, plugins, optimizer: &mut optimizer }
        .restore_best(&changed, &written(tensors), &|| Ok(pair()))
        .unwrap();
    assert_eq!(json(&resumed), [7, 1]);
    resumed.load(&fresh).unwrap();
    assert_eq!(json(&resumed), [0, 0], "a phase begins anew");
}

#[test]
fn strategies_keep_to_the_streams_that_the_run_file_names() {
    let strategy = |stream: &str| format!("[[strategy]]\nplugin = \"test-sees\"\nstream = \"{stream}\"\n");
    let attached = |streams: &[&str], model: &mut AdaptedModel| {
        let file = run_file(&streams.iter().copied().map(strategy).collect::<String>()).unwrap();
        attach_strategies(&file, &mut Library::new(Search::new(Vec::new())), model)
    };
    let mut model = pair();
    let strategies = attached(&["image", "text"], &mut model).unwrap();
    let seen = strategies.iter().map(|strategy| strategy.save().unwrap().json["streams"].clone());
    assert_eq!(seen.collect::<Vec<_>>(), [json!(["image"]), json!(["text"])]);

    let refused = |result: Result<()>| {
        let Err(Error::RunFile { message, span, source_code, help, .. }) = result else { panic!("no error") };
        let at = source_code.inner()[span.offset()..span.offset() + span.len()].to_owned();
        (message, at, help.unwrap())
    };
    let (message, at, help) = refused(attached(&["text", "sound"], &mut pair()).map(drop));
    assert_eq!((message.as_str(), at.as_str()), ("this model (pair) has no stream \"sound\"", "\"sound\""));
    assert_eq!(help, "\"text\" and \"image\" are those it has; without the key it is for all of the model");
    let (message, at, help) = refused(attached(&["image"], &mut super::model()).map(drop));
    assert_eq!((message.as_str(), at.as_str()), ("this model (test) has no stream \"image\"", "\"image\""));
    assert_eq!(help, "\"text\" is its only one; without the key it is for all of the model");
    let (message, at, _) = refused(schedules(&run_file(&schedule("sound", "1")).unwrap(), &pair()).map(drop));
    assert_eq!((message.as_str(), at.as_str()), ("this model (pair) has no stream \"sound\"", "\"sound\""));
}

#[test]
fn a_plan_shows_the_rates_of_each_stream() {
    let shown = |model: &AdaptedModel, tables: &str| {
        let file = run_file(tables).unwrap();
        let schedules = &schedules(&file, model).unwrap();
        let phases = vec![Progress { step: 0, total_steps: 4, steps_per_epoch: 2 }];
        rates::lines(&rates::Run { file: &file, model, schedules, phases, momentum: 0.9 }.rates().unwrap())
    };
    let mut model = pair();
    assert_eq!(
        shown(&model, &(schedule("text", "rise") + &by("1"))),
        [
            "text   ▃▅▆█  0.03 at the end",
            "image  ████  0.03 throughout",
            "heads  ████  0.03 throughout, nothing of it trains at first",
        ]
    );
    // Factors that are known are in the rates.
    let mut strategy = sees(&mut model, 0, Some(1));
    strategy.event(&Event::EpochBegin { epoch: 0, epochs: 1 }, &mut model, None).unwrap();
    model.parameters[1].lr_factor = 0.05;
    assert_eq!(shown(&model, &by("1"))[1], "image  ████  0.003 throughout, by parameter down to 0.5 times that");
    // Of a plain model there is something to show where rates change.
    let plain = super::model();
    assert_eq!(shown(&plain, &by("rise")), ["▃▅▆█  0.03 at the end"]);
    assert!(shown(&plain, &by("1")).is_empty());
}

#[test]
fn a_buffer_never_trains_and_is_kept_where_it_changed() {
    let mut model = pair();
    let mut strategy = shift("thaw all").unwrap();
    let names =
        |model: &AdaptedModel| -> Vec<String> { model.trainable().map(|p| p.parameter.name().to_owned()).collect() };
    let weights = ["text.dense.weight", "image.dense.weight"];
    assert_eq!(names(&model), weights);
    strategy.event(&Event::EpochBegin { epoch: 0, epochs: 1 }, &mut model, None).unwrap();
    assert_eq!(names(&model), weights, "thawed are parameters alone");

    weights.iter().enumerate().for_each(|(i, _)| model.parameters[i].parameter.set_trainable(false));
    let mut optimizer = Optimizer::default();
    let mut kept =
        |model: &mut AdaptedModel| Parts { model, plugins: Vec::new(), optimizer: &mut optimizer }.changed().unwrap();
    assert!(kept(&mut model).1.is_empty(), "it is the pretrained model's");
    model.parameters[2].parameter.set(&tensor(&[3.0, 4.0], &[2])).unwrap();
    let (changed, tensors) = kept(&mut model);
    assert_eq!(tensors.keys().collect::<Vec<_>>(), ["parameter/image.norm.running_mean"]);

    let mut other = pair();
    let mut optimizer = Optimizer::default();
    let mut parts = Parts { model: &mut other, plugins: Vec::new(), optimizer: &mut optimizer };
    parts.restore_best(&changed, &written(tensors), &|| Ok(pair())).unwrap();
    assert_eq!(other.parameters[2].parameter.tensor().to_vec1::<f32>().unwrap(), [3.0, 4.0]);
}

#[test]
fn schedules_see_groups_by_stream() {
    let model = pair();
    let groups: Vec<_> = (0..5).map(|group| model.block_group(group)).collect();
    assert_eq!(
        groups,
        [
            ("embeddings", "text", 0),
            ("layer.0", "text", 1),
            ("embeddings", "image", 0),
            ("layer.0", "image", 1),
            ("head", "", 4)
        ]
    );
}

#[test]
fn a_head_reads_streams_that_are_there() {
    let model = pair();
    let info = model.model.info();
    let declared = |streams: &[(&str, FeatureKind)]| {
        let of =
            |(stream, features): &(&str, FeatureKind)| StreamFeatures { stream: (*stream).into(), features: *features };
        let spec = HeadSpec::new(FeatureKind::Pooled, TargetKind::Class, PredictionKind::Classes);
        let there: Vec<String> = info.streams.iter().map(|stream| stream.name.clone()).collect();
        of_this_model(HeadSpec { streams: streams.iter().map(of).collect(), ..spec }, info, &there)
    };
    let (pooled, spatial) = (FeatureKind::Pooled, FeatureKind::Spatial);
    let refused = |streams: &[(&str, FeatureKind)]| declared(streams).unwrap_err();
    let which = "say which by the task's key stream, or choose a head that reads both";
    assert_eq!(refused(&[]), format!(r#"it reads one stream, and this model has "text" and "image": {which}"#));
    assert_eq!(refused(&[("smell", pooled)]), r#"it reads the stream "smell", and this model has "text" and "image""#);
    assert_eq!(refused(&[("text", pooled), ("text", pooled)]), r#"it reads the stream "text" twice"#);
    assert_eq!(
        refused(&[("image", spatial)]),
        r#"it reads spatial features, and the stream "image" of this pair model gives pooled and sequence ones"#
    );

    let spec = declared(&[("image", pooled), ("text", FeatureKind::Sequence)]).unwrap();
    assert_eq!(spec.features, pooled, "that of the first");
    let reads = reads_of(&spec, info);
    assert_eq!(
        reads.iter().map(|of| (of.stream, of.read)).collect::<Vec<_>>(),
        [(1, Read::Pooled), (0, Read::Sequence)]
    );
    let passed =
        |stream| reads.iter().any(|&read| read.stream == stream && model.passes(read, &model.parameters[stream]));
    assert!(passed(0) && passed(1) && !model.passes(reads[0], &model.parameters[0]), "each its own stream");
}

#[test]
fn a_heads_call_has_its_streams_in_order() {
    let mut model = pair();
    let task = tables::task(&["image", "text"]);
    let mut head = HeadInstance::create(&tables::raw(), "raw", &json!({})).unwrap();
    let spec = head.attach(&task, &mut model, 0).unwrap();
    let tape = Tape::recording();
    let features: Vec<Features> = reads_of(&spec, model.model.info())
        .into_iter()
        .map(|of| {
            model.model.features(&tape, of.stream, &Input::Images(tensor(&[1.0, 2.0], &[1, 2])), of.read).unwrap()
        })
        .collect();
    assert_eq!(features[0].value.tensor().to_vec2::<f32>().unwrap(), [[2.0, 4.0]], "the image's");
    let outputs = head_outputs(&head, &tape, &features, None).unwrap();
    assert_eq!(outputs.tensor().to_vec2::<f32>().unwrap(), [[1.0, 2.0]], "it gives the last one back");
}

/// Passes of a batch of 64 pictures, of 17 patches each.
fn passes_of_a_batch(head: &str, batch_statistics: bool, micro_batch: Option<usize>) -> usize {
    let mut plain = Pair::of_pictures();
    plain.info.streams.truncate(1);
    plain.batch_statistics = batch_statistics;
    let passes = Arc::clone(&plain.passes);
    let mut model = AdaptedModel::new(Box::new(plain), Device::Cpu, 7);
    model.micro_batch = micro_batch;
    let digits = digits();
    let (head, spec) = attached(head, &json!({}), &digits, &mut model);
    let decision = Decision::default();
    let pass = Pass { model: &model, head: &head, spec: &spec, data: &digits, precision: Precision::F32, decision };
    pass.gradients(&digits.show(&(0..64).collect::<Vec<_>>()).unwrap(), None, 1.0, None).unwrap();
    passes.load(Ordering::Relaxed)
}

#[test]
fn a_batch_whose_examples_depend_on_each_other_is_one_piece() {
    for head in ["test-classes", "test-contrast"] {
        assert_eq!(passes_of_a_batch(head, true, None), 1, "{head}");
        assert_eq!(passes_of_a_batch(head, false, None), 6, "{head}");
    }
}

#[test]
fn a_batch_that_only_its_loss_needs_passes_in_pieces_twice() {
    assert_eq!(passes_of_a_batch("test-contrast", false, Some(16)), 2 * 6, "those of 16 are smaller anyway");
    assert_eq!(passes_of_a_batch("test-contrast", false, Some(4)), 2 * 16);
    assert_eq!(passes_of_a_batch("test-contrast", true, Some(4)), 1, "its norms need it too");
    assert_eq!(passes_of_a_batch("test-classes", false, Some(4)), 6, "its loss is one of examples");
}
