//! Whole calls in one process: methods that are linked into the test, on a model of one layer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::run::state::optimizer::Optimizer;
use fthost_autograd::{Device, Layout, Parameter, Tape, Tensor, Value};
use fthost_models::{
    BaseParameter, BlockGroup, Features, Hook, Input, LoadError, Modality, Model, ModelInfo, PoolBy, Pooling, Read,
    SavedHead, Site, SiteKind, Stream,
};
use fthost_plugin_api::{Event, Group, Progress, Rate, TargetKind, TaskInfo};
use serde_json::json;

use super::*;
use crate::adapted::{AdaptedModel, Owner};
use crate::run::state::snapshot::Parts;
use crate::{Error, Result};

mod hostile;
mod methods;
mod mock;
mod streams;
mod tables;
mod whole_batch;

/// y = x W^T with W the identity, hooked at `layer.0.dense`.
struct OneLayer {
    info: ModelInfo,
    sites: Vec<Site>,
    parameters: Vec<BaseParameter>,
    hooks: SetHooks,
}

/// What was set, for tests that call hooks themselves.
type SetHooks = Arc<Mutex<Vec<Arc<dyn fthost_models::LinearHook>>>>;

impl OneLayer {
    fn new() -> Self {
        let weight = tensor(&[1.0, 0.0, 0.0, 1.0], &[2, 2]);
        let words = tensor(&[0.0, 1.0, 10.0, 11.0, 20.0, 21.0], &[3, 2]);
        let parameter = |name: &str, tensor| BaseParameter {
            parameter: Parameter::new(name, tensor, true),
            group: 1,
            stream: Some(0),
            buffer: false,
            quantized: false,
        };
        let group = |name: &str, stream| BlockGroup { name: name.into(), stream };
        Self {
            info: ModelInfo {
                model_type: "test".into(),
                streams: vec![Stream {
                    name: "text".into(),
                    modality: Modality::Text { max_tokens: 8, vocabulary: 3 },
                    prefix: "test.".into(),
                    root: String::new(),
                    width: 2,
                    layers: Some(1),
                    heads: Some(1),
                    block: None,
                    word_embeddings: Some("words".into()),
                    reads: vec![Read::Pooled, Read::Sequence],
                    maps: Vec::new(),
                    pooling: Pooling { by: PoolBy::First, normalize: false },
                }],
                groups: vec![group("embeddings", Some(0)), group("layer.0", Some(0)), group("head", None)],
                base_class: None,
                classification: None,
                vocabulary: None,
                contrastive: None,
                sight: None,
                head_dropout: 0.0,
            },
            sites: vec![Site {
                path: "layer.0.dense".into(),
                kind: SiteKind::Linear,
                in_features: 2,
                out_features: 2,
                group: 1,
                stream: Some(0),
                convolution: None,
            }],
            parameters: vec![parameter("layer.0.dense.weight", weight), parameter("words.weight", words)],
            hooks: SetHooks::default(),
        }
    }
}

impl Model for OneLayer {
    fn info(&self) -> &ModelInfo {
        &self.info
    }
    fn sites(&self) -> &[Site] {
        &self.sites
    }
    fn parameters(&self) -> &[BaseParameter] {
        &self.parameters
    }
    fn set_pooling(&mut self, _: usize, _: Pooling) -> fthost_autograd::Result<()> {
        candle_core::bail!("not needed here")
    }
    fn set_hook(&mut self, path: &str, hook: Hook) -> fthost_autograd::Result<()> {
        match hook {
            Hook::Linear(hook) if path == "layer.0.dense" => self.hooks.lock().unwrap().push(hook),
            _ => candle_core::bail!("no hook here"),
        }
        Ok(())
    }
    fn hooked(&self, _: &str) -> bool {
        !self.hooks.lock().unwrap().is_empty()
    }
    fn folded(&self, _: &[Input]) -> fthost_autograd::Result<Vec<(Parameter, Tensor)>> {
        candle_core::bail!("not needed here")
    }
    fn clear_hooks(&mut self) {
        self.hooks.lock().unwrap().clear();
    }
    fn save_folder(&self, _: &Path, _: &SavedHead<'_>) -> Result<(), LoadError> {
        Ok(())
    }
    fn features(&self, tape: &Tape, _: usize, input: &Input, _: Read) -> fthost_autograd::Result<Features> {
        let Input::Images(x) = input else { candle_core::bail!("this model takes tensors") };
        let x = Value::constant(x.clone());
        let weight = tape.parameter(&self.parameters[0].parameter);
        let mut y = tape.linear(&x, &weight, None)?;
        let hooks = self.hooks.lock().unwrap().clone();
        for hook in hooks {
            y = hook.forward(tape, &x, y, &weight)?;
        }
        Ok(Features { value: y, layout: Layout::single_rows(1), map: None })
    }
}

fn tensor(data: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(data, shape, &Device::Cpu).unwrap()
}

fn model() -> AdaptedModel {
    AdaptedModel::new(Box::new(OneLayer::new()), Device::Cpu, 7)
}

/// One row through the model, on a tape that records.
fn forward(model: &AdaptedModel) -> Result<(Tape, Value)> {
    let tape = Tape::recording();
    let features = model.model.forward(&tape, &Input::Images(tensor(&[1.0, 2.0], &[1, 2])), Read::Pooled)?;
    Ok((tape, features.value))
}

fn plugin() -> Plugin {
    Plugin::built_in().unwrap().expect("the test registers methods")
}

fn shift(what: &str) -> Result<StrategyInstance> {
    StrategyInstance::create(&plugin(), "test-shift", &json!({ "what": what }))
}

fn message<T>(result: Result<T>) -> String {
    let Err(error) = result else { panic!("no error") };
    error.to_string()
}

#[test]
fn a_strategy_adapts_the_model() {
    let mut model = model();
    let mut strategy = shift("").unwrap();
    strategy.attach(&mut model, 0).unwrap();
    let names: Vec<_> = model.parameters.iter().map(|p| (p.parameter.name(), &p.owner, p.group)).collect();
    let (base, mine) = (Owner::Base, Owner::Strategy(0));
    let expected = [
        ("layer.0.dense.weight", &base, 1),
        ("words.weight", &base, 1),
        ("layer.0.dense.shift", &mine, 1),
        ("prompt", &mine, 2),
    ];
    assert_eq!(names, expected);
    assert_eq!(model.parameters.iter().map(|p| p.in_model).collect::<Vec<_>>(), [true, true, true, false]);
    assert_eq!(model.trainable().map(|p| p.parameter.name()).collect::<Vec<_>>(), ["layer.0.dense.shift", "prompt"]);
    assert_eq!((model.matches[0].pattern.as_str(), model.matches[0].matched), ("dense", 1));
    let prompt = model.parameters[3].parameter.tensor().to_vec2::<f32>().unwrap();
    assert!(prompt.iter().all(|row| row[1] == row[0] + 1.0 && row[0] % 10.0 == 0.0), "{prompt:?}");

    let (tape, y) = forward(&model).unwrap();
    assert_eq!(y.tensor().to_vec2::<f32>().unwrap(), [[2.0, 3.0]]);
    let loss = tape.sum(&y).unwrap();
    let gradients = tape.backward(&loss).unwrap();
    assert_eq!(gradients.len(), 1, "only the shift lies below the output and trains");
    assert!(gradients.get(&model.parameters[2].parameter).is_some());

    strategy.event(&Event::EpochBegin { epoch: 0, epochs: 1 }, &mut model, None).unwrap();
    assert!(model.parameters[0].parameter.trainable());
    assert_eq!(model.matches.len(), 1, "events are not counted");
    assert_eq!(strategy.adapter_config().unwrap(), None);
}

#[test]
fn a_strategy_may_be_saved_as_what_it_computes() {
    let saved = |what: &str| {
        let mut strategy = shift(what).unwrap();
        strategy.attach(&mut model(), 0).unwrap();
        strategy.adapter_tensors().unwrap()
    };
    assert!(saved("").is_none());
    assert_eq!(saved("compute").unwrap()["sum"].to_scalar::<f32>().unwrap(), 3.0);
}

#[test]
fn parameters_change_whoever_declared_them() {
    let mut model = model();
    let mut strategy = shift("tune").unwrap();
    strategy.attach(&mut model, 0).unwrap();
    strategy.event(&Event::EpochBegin { epoch: 0, epochs: 1 }, &mut model, None).unwrap();
    let found: Vec<_> =
        model.parameters.iter().map(|p| (p.parameter.trainable(), p.lr_factor, p.decays(false))).collect();
    let (base, shift, prompt) = ((false, 1.0, true), (false, 0.5, true), (true, 1.0, true));
    assert_eq!(found, [base, base, shift, prompt]);
}

/// A strategy in its place.
fn plugins(strategy: &mut StrategyInstance) -> Vec<(String, &mut dyn Stateful)> {
    vec![("strategy.0".to_owned(), strategy)]
}

/// Tensors as a file gives them back: parameters change in place.
fn written(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    tensors.into_iter().map(|(name, tensor)| (name, tensor.copy().unwrap())).collect()
}

/// What an event changes after the best evaluation is as it was then: values, flags, rates and states.
#[test]
fn the_best_model_is_put_back_with_all_that_makes_it() {
    let mut model = model();
    let mut strategy = shift("tune").unwrap();
    strategy.attach(&mut model, 0).unwrap();
    let mut optimizer = Optimizer::default();
    let value = |model: &AdaptedModel, at: usize| {
        model.parameters[at].parameter.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let flags = |model: &AdaptedModel| {
        let flags = model.parameters.iter().map(|p| (p.parameter.trainable(), p.lr_factor, p.decay_said));
        flags.collect::<Vec<_>>()
    };
    let (before, values) = (flags(&model), (0..4).map(|i| value(&model, i)).collect::<Vec<_>>());
    let parts = Parts { model: &mut model, plugins: plugins(&mut strategy), optimizer: &mut optimizer };
    let (best, tensors) = parts.changed().unwrap();
    let tensors = written(tensors);
    assert!(tensors.keys().all(|name| !name.contains("dense.weight")), "the base model is not in it: {tensors:?}");

    // Since then the strategy has changed rates and flags, a base parameter was thawed and trained, another one set.
    strategy.event(&Event::EpochBegin { epoch: 0, epochs: 1 }, &mut model, None).unwrap();
    assert_ne!(flags(&model), before);
    let tuned = Parts { model: &mut model, plugins: plugins(&mut strategy), optimizer: &mut optimizer };
    let (tuned, tuned_tensors) = tuned.changed().unwrap();
    let tuned_tensors = written(tuned_tensors);
    model.parameters[0].parameter.set_trainable(true);
    for p in &model.parameters {
        p.parameter.set(&p.parameter.tensor().affine(2.0, 1.0).unwrap()).unwrap();
    }
    let pretrained = || Ok(self::model());
    let mut parts = Parts { model: &mut model, plugins: plugins(&mut strategy), optimizer: &mut optimizer };
    parts.restore_best(&best, &tensors, &pretrained).unwrap();
    assert_eq!(flags(&model), before);
    assert_eq!((0..4).map(|i| value(&model, i)).collect::<Vec<_>>(), values);
    assert_eq!(
        strategy.save().unwrap().json,
        json!({ "what": "{\"what\":\"tune\"} [3, 4]" }),
        "it took its state back"
    );

    // What events have said of decay goes with a checkpoint, too.
    let mut parts = Parts { model: &mut model, plugins: plugins(&mut strategy), optimizer: &mut optimizer };
    parts.restore_best(&tuned, &tuned_tensors, &pretrained).unwrap();
    assert_eq!(model.parameters[2].decay_said, Some(true));
    assert!(model.parameters[2].decays(false) && !model.parameters[2].parameter.trainable());
}

#[test]
fn a_plugins_word_on_decay_holds_whatever_the_run_file_says() {
    let mut model = model();
    shift("").unwrap().attach(&mut model, 0).unwrap();
    let decays = |model: &AdaptedModel| {
        let shift = model.parameters.iter().find(|p| p.parameter.name().ends_with("shift")).unwrap();
        (shift.decays(false), shift.decays(true))
    };
    assert_eq!(decays(&model), (false, true), "a vector decays where the run file wants it");
    for said in [false, true] {
        model.parameters.iter_mut().for_each(|p| p.decay_said = Some(said));
        assert_eq!(decays(&model), (said, said));
    }
}

#[test]
fn a_hook_merges_into_weight_and_bias() {
    let layer = OneLayer::new();
    let hooks = layer.hooks.clone();
    let mut model = AdaptedModel::new(Box::new(layer), Device::Cpu, 7);
    shift("").unwrap().attach(&mut model, 0).unwrap();
    let (hook, tape) = (hooks.lock().unwrap()[0].clone(), Tape::recording());
    let weight = hook.merge(&tape, &tape.parameter(&model.parameters[0].parameter)).unwrap().unwrap();
    assert_eq!(weight.tensor().to_vec2::<f32>().unwrap(), [[1.0, 0.0], [0.0, 1.0]]);
    let bias = hook.merge_bias(&tape, &Value::constant(tensor(&[5.0, 6.0], &[2]))).unwrap().unwrap();
    assert_eq!(bias.tensor().to_vec1::<f32>().unwrap(), [6.0, 7.0], "the shift, one, is added");
}

#[test]
fn hooks_run_on_any_thread() {
    let mut model = model();
    shift("").unwrap().attach(&mut model, 0).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(forward(&model).unwrap().1.tensor().to_vec2::<f32>().unwrap(), [[2.0, 3.0]]));
        }
    });
}

#[test]
fn state_travels() {
    let mut model = model();
    let mut strategy = shift("it").unwrap();
    strategy.attach(&mut model, 0).unwrap();
    let state = strategy.save().unwrap();
    assert_eq!(state.json, json!({ "what": "it" }));
    assert_eq!(state.tensors["steps"].to_vec1::<u32>().unwrap(), [3, 4]);
    strategy.load(&state).unwrap();
    assert_eq!(strategy.save().unwrap().json, json!({ "what": "{\"what\":\"it\"} [3, 4]" }));
}

#[test]
fn errors_name_plugin_and_call() {
    assert_eq!(message(shift("refuse")), "plugin test-shift (built-in) failed in its options: no such deed");
    let unknown = StrategyInstance::create(&plugin(), "test-shift", &json!({ "who": 1 }));
    assert!(message(unknown).contains("unknown field `who`"));
    let check = |what: &str, expected: &[&str]| {
        let text = message(shift(what).unwrap().attach(&mut model(), 0));
        assert!(text.starts_with("plugin test-shift (built-in) failed in attach: "), "{text}");
        for part in expected {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    };
    check("miss", &["target \"dens\" matches no linear layer", "Did you mean \"dense\""]);
    check("twice", &["cannot declare the parameter layer.0.dense.shift"]);
    check("shape", &["matmul@1 on [], [2]: "]);
}

#[test]
fn a_panic_is_an_error_and_poisons() {
    let mut model = model();
    let mut strategy = shift("panic").unwrap();
    let text = message(strategy.attach(&mut model, 0));
    assert!(text.starts_with("plugin test-shift (built-in) panicked in attach at "), "{text}");
    assert!(text.ends_with(": out of cheese") && text.contains("methods.rs:"), "{text}");
    assert!(message(strategy.save()).contains("is not called for save: it panicked before"));

    let mut strategy = shift("bad hook").unwrap();
    strategy.attach(&mut model, 0).unwrap();
    let text = message(forward(&model));
    assert!(text.contains("panicked in its linear hook at layer.0.dense at "), "{text}");
    assert!(message(forward(&model)).contains("it panicked before"));
    assert!(message(strategy.save()).contains("it panicked before"), "hooks and instance are one");
}

/// Two parameters' gradients for two labels.
struct Examples(usize);

impl ExampleGradients for Examples {
    fn visit(
        &mut self,
        model: &AdaptedModel,
        examples: super::Examples,
        visit: &mut dyn FnMut(&Parameter, &Tensor, f64) -> Result<()>,
    ) -> Result<()> {
        assert_eq!((examples.labels, examples.limit, examples.seed), (FisherLabels::Exact, Some(5), None));
        for weight in [0.25, 0.75] {
            self.0 += 1;
            // The model can be run meanwhile: hooks open sessions inside this one.
            forward(model)?;
            visit(&model.parameters[0].parameter, &tensor(&[1.0, 2.0, 3.0, 4.0], &[2, 2]), weight)?;
        }
        Ok(())
    }
}

#[test]
fn a_regularizer_keeps_and_measures() {
    let mut model = model();
    shift("").unwrap().attach(&mut model, 0).unwrap();
    model.parameters[0].parameter.set_trainable(true);
    let mut anchor = RegularizerInstance::create(&plugin(), "test-anchor", &json!({})).unwrap();
    assert_eq!(model.handles().kept_bytes(), 0);
    anchor.attach(&mut model).unwrap();
    assert_eq!(model.handles().kept_bytes(), 2 * 2 * size_of::<f32>());
    assert!(!anchor.needs_reference().unwrap());
    let penalty = |anchor: &RegularizerInstance| {
        let tape = Tape::recording();
        let penalty = anchor.penalty(&tape).unwrap().unwrap();
        (penalty.tensor().to_scalar::<f32>().unwrap(), tape.backward(&penalty).unwrap().len())
    };
    assert_eq!(penalty(&anchor), (0.0, 1));
    model.parameters[0].parameter.set(&tensor(&[3.0, 0.0, 0.0, 1.0], &[2, 2])).unwrap();
    assert_eq!(penalty(&anchor), (4.0, 1), "the kept copy does not follow the parameter");

    let event = Event::TaskEnd { task: "a".into() };
    let text = message(anchor.event(&event, &mut model, None));
    assert!(text.contains("failed in an event: gradients of single examples are measured in events"), "{text}");
    let mut examples = Examples(0);
    anchor.event(&event, &mut model, Some(&mut examples)).unwrap();
    assert_eq!((examples.0, anchor.save().unwrap().json), (2, json!([2.5, 7.5])));
    drop(anchor);
    assert_eq!(model.handles().kept_bytes(), 0, "what is let go is not counted any more");
}

#[test]
fn a_head_gives_a_loss() {
    let mut model = model();
    model.tasks = 2;
    let task = TaskInfo {
        name: "mood".into(),
        labels: vec!["sad".into(), "glad".into()],
        class_counts: vec![1, 1],
        examples: 0,
        width: 2,
        streams: Vec::new(),
        hidden_activation: None,
        bias: true,
        dropout: 0.0,
        image: None,
        vocabulary: None,
        comparison: None,
        sequences: 1,
    };
    let mut head = HeadInstance::create(&plugin(), "test-classes", &json!({})).unwrap();
    let spec = head.attach(&task, &mut model, 1).unwrap();
    assert_eq!(spec.targets, TargetKind::Class);
    let weight = &model.parameters[2];
    assert_eq!((weight.parameter.name(), &weight.owner, weight.group), ("mood.classifier.weight", &Owner::Head(1), 2));
    let bound = 1.0 / 2f32.sqrt();
    let drawn = weight.parameter.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(drawn.iter().all(|x| x.abs() <= bound) && drawn[0] != drawn[1]);

    let tape = Tape::recording();
    let features = Value::constant(tensor(&[0.0; 6], &[3, 2]));
    let outputs = head.forward(&tape, &features, &Layout::single_rows(3)).unwrap();
    let targets = Tensor::new(&[0u32, 1, u32::MAX], &Device::Cpu).unwrap();
    let (sum, terms) = head.loss(&tape, &outputs, &targets, &[]).unwrap();
    assert!((sum.tensor().to_scalar::<f32>().unwrap() - 2.0 * 2f32.ln()).abs() < 1e-6);
    assert_eq!(terms, 2.0);
    assert_eq!(head.predict(&tape, &outputs).unwrap().to_vec2::<f32>().unwrap(), [[0.5, 0.5]; 3]);
    assert!(message(head.loss(&tape, &outputs, &tensor(&[0.0; 3], &[3]), &[])).contains("must be u32"));
}

#[test]
fn a_scheduler_gives_rates() {
    let progress = Progress { step: 3, total_steps: 10, steps_per_epoch: 5 };
    let group = Group::new(0.5, 0.9);
    let create = |what: &str| SchedulerInstance::create(&plugin(), "test-half", &json!({ "what": what })).unwrap();
    assert_eq!(create("").rate(&progress, &group).unwrap(), Rate { lr: 0.25, momentum: 0.9 });
    let text = message(create("nan").rate(&progress, &group));
    assert_eq!(
        text,
        "plugin test-half (built-in) failed in rate: step 3 would have learning rate NaN and momentum 0.9: a learning rate is a number \
         from 0 up"
    );
}

#[test]
fn the_library_says_what_is_known() {
    let mut library = Library::new(Search::new(Vec::new()));
    assert_eq!(library.known_names(MethodKind::Scheduler), ["test-half"]);
    assert_eq!(library.find(MethodKind::Strategy, "test-shift").unwrap().1.summary, "Shifts.");
    let Err(Error::Plugin { message, help }) = library.find(MethodKind::Strategy, "test-shfit") else {
        panic!("found")
    };
    assert_eq!(message, "there is no strategy \"test-shfit\"");
    assert!(help.unwrap().starts_with("did you mean \"test-shift\"? known: test-sees, test-shift; looked in"));
}
