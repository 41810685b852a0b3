//! Tiny CLIPs against Transformers (tests/reference/make_clip.py): features of both streams, logits, gradients; hooks, freezing, folders.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use fthost_models::autograd::{DType, Device, Gradients, Layout, Map, Parameter, Result, Tape, Tensor, Value};
use fthost_models::{
    AttentionHook, BlockGroup, EmbeddingHook, Features, Hook, Input, LinearHook, Loader, Modality, Model, PoolBy,
    Pooling, Prefix, Prompt, Read, SavedHead, SiteKind, TextInput,
};
use support::{Expected, assert_close, assert_relative, rows, tiny};

const KINDS: [&str; 2] = ["clip", "clip-end"];
const STREAMS: [&str; 2] = ["text", "image"];
const TOLERANCE: f64 = 1e-5;

fn open(kind: &str) -> Box<dyn Model> {
    Loader::new(&Device::Cpu).with_contrastive().open(&tiny(kind)).unwrap()
}

/// The input of each stream.
fn inputs(expected: &Expected) -> [Input; 2] {
    let vectors = expected.numbered("ids").into_iter();
    let ids: Vec<Vec<u32>> = vectors.map(|ids| ids.to_dtype(DType::U32).unwrap().to_vec1().unwrap()).collect();
    let layout = Layout::from_lengths(ids.iter().map(Vec::len));
    let text = TextInput { types: vec![0; layout.tokens()], ids: ids.concat(), layout, before: None };
    [Input::Text(text), expected.input()]
}

fn read(model: &dyn Model, tape: &Tape, stream: usize, expected: &Expected, read: Read) -> Features {
    model.features(tape, stream, &inputs(expected)[stream], read).unwrap()
}

fn parameter(model: &dyn Model, name: &str) -> Parameter {
    let found = model.parameters().iter().find(|base| base.parameter.name() == name);
    found.unwrap_or_else(|| panic!("there is no {name}")).parameter.clone()
}

/// What the projection of a stream gives of its pooled features, divided by its length: `[examples, projection]`.
fn embeds(model: &dyn Model, tape: &Tape, stream: usize, expected: &Expected) -> Value {
    let head = model.info().contrastive.as_ref().unwrap();
    let pooled = read(model, tape, stream, expected, Read::Pooled).value;
    let projection = tape.parameter(&parameter(model, &head.projections[stream]));
    tape.normalize(&tape.linear(&pooled, &projection, None).unwrap()).unwrap()
}

/// Similarities `[images, texts]`.
fn logits(model: &dyn Model, tape: &Tape, expected: &Expected) -> Value {
    let [text, image] = [0, 1].map(|stream| embeds(model, tape, stream, expected));
    let scale =
        tape.exp(&tape.parameter(&parameter(model, &model.info().contrastive.as_ref().unwrap().scale))).unwrap();
    tape.mul(&tape.linear(&image, &text, None).unwrap(), &scale).unwrap()
}

fn gradients(model: &dyn Model, expected: &Expected) -> Gradients {
    let tape = Tape::recording();
    let logits = logits(model, &tape, expected);
    tape.backward_from(vec![(logits, expected.get("weights").clone())]).unwrap()
}

#[test]
fn features_of_both_streams_equal_transformers() {
    for kind in KINDS {
        let (model, expected, tape) = (open(kind), Expected::tiny(kind), Tape::evaluation());
        for (stream, name) in STREAMS.iter().enumerate() {
            let hidden = read(&*model, &tape, stream, &expected, Read::Sequence);
            let all = expected.numbered(&format!("{name}.hidden"));
            assert_eq!(hidden.layout.sequences(), all.len());
            for (i, expected) in all.iter().enumerate() {
                let found = rows(hidden.value.tensor(), &hidden.layout, i);
                assert_close(&found, expected, TOLERANCE, &format!("{kind}, {name} {i}"));
            }
            let pooled = read(&*model, &tape, stream, &expected, Read::Pooled).value;
            assert_eq!(pooled.dims()[1], model.info().streams[stream].width);
            assert_close(pooled.tensor(), &expected.stacked(&format!("{name}.pooled")), TOLERANCE, name);
            let embeds = embeds(&*model, &tape, stream, &expected);
            assert_close(embeds.tensor(), &expected.stacked(&format!("{name}.embeds")), TOLERANCE, name);
        }
        let map = read(&*model, &tape, 1, &expected, Read::Spatial);
        assert_eq!((map.value.dims(), map.map), (&[12, 24][..], Some(Map::new(3, 2, 2))));
        assert_eq!([0, 1].map(|stream| model.map_size(stream, [8, 8]).unwrap()), [None, Some([2, 2])]);
        assert_close(logits(&*model, &tape, &expected).tensor(), expected.get("logits"), TOLERANCE, kind);
    }
}

#[test]
fn gradients_equal_torchs() {
    for kind in KINDS {
        let (model, expected) = (open(kind), Expected::tiny(kind));
        let gradients = gradients(&*model, &expected);
        let mut compared = BTreeSet::new();
        for base in model.parameters() {
            let (name, shape) = (base.parameter.name(), base.parameter.dims());
            let found = gradients.get(&base.parameter).unwrap_or_else(|| panic!("{name} got no gradient"));
            let Some((_, torch)) = expected.below("grad.").find(|(other, _)| *other == name) else { continue };
            let (found, torch) = (found.to_dense(shape).unwrap(), torch.reshape(shape).unwrap());
            // The keys' bias shifts all scores of a row alike: its gradient is zero but for rounding.
            match name.ends_with("k_proj.bias") {
                true => assert_close(&found, &torch, TOLERANCE, name),
                false => assert_relative(&found, &torch, 1e-4, name),
            }
            compared.insert(name.to_owned());
        }
        assert_eq!(compared.len(), expected.below("grad.").count(), "{kind}: every gradient has its parameter");
        assert!(
            compared.contains("logit_scale") && compared.contains("vision_model.pre_layrnorm.bias"),
            "{compared:?}"
        );
    }
}

/// The derivative of the weighted logits along a direction of each parameter, against a difference.
#[test]
fn gradients_are_slopes() {
    let (model, expected) = (open("clip"), Expected::tiny("clip"));
    let gradients = gradients(&*model, &expected);
    let total = || {
        let logits = logits(&*model, &Tape::evaluation(), &expected).tensor().to_dtype(DType::F64).unwrap();
        let weights = expected.get("weights").to_dtype(DType::F64).unwrap();
        (logits * weights).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    for base in model.parameters() {
        let parameter = &base.parameter;
        let (name, own) = (parameter.name(), parameter.tensor().copy().unwrap());
        let direction: Vec<f32> = (0..parameter.elem_count()).map(|i| (0.83 * i as f32 + 0.4).sin()).collect();
        let length = direction.iter().map(|x| x * x).sum::<f32>().sqrt();
        let direction = Tensor::from_vec(direction, parameter.dims(), &Device::Cpu).unwrap();
        let direction = (direction / f64::from(length)).unwrap();
        let gradient = gradients.get(parameter).unwrap().to_dense(parameter.dims()).unwrap();
        let along = (gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        let step = 5e-3;
        let at = |step: f64| {
            parameter.set(&(&own + (&direction * step).unwrap()).unwrap()).unwrap();
            total()
        };
        let difference = (at(step) - at(-step)) / (2.0 * step);
        parameter.set(&own).unwrap();
        let close = (difference - f64::from(along)).abs() < 0.02 * difference.abs().max(0.1);
        assert!(close, "{name}: {along} and {difference}");
    }
}

#[test]
fn a_model_says_what_its_streams_are() {
    let model = open("clip");
    let info = model.info();
    let said: Vec<_> =
        info.streams.iter().map(|of| (of.name.as_str(), of.width, of.layers, of.heads, of.pooling.by)).collect();
    assert_eq!(said, [("text", 16, Some(2), Some(4), PoolBy::End), ("image", 24, Some(2), Some(3), PoolBy::First)]);
    assert_eq!(info.streams[0].modality, Modality::Text { max_tokens: 12, vocabulary: 50 });
    assert_eq!(info.streams[1].modality, Modality::Images { channels: 3, size: 8, any_size: false, tokens: 5 });
    assert_eq!(model.longest_sequence().unwrap(), Some(12));
    let words = info.streams[0].word_embeddings.as_ref().unwrap();
    assert_eq!(parameter(&*model, &format!("{words}.weight")).dims(), [50, 16]);

    let group = |name: &str, stream| BlockGroup { name: name.into(), stream };
    let of = |stream| ["embeddings", "layer.0", "layer.1"].map(|name| group(name, Some(stream)));
    assert_eq!(info.groups, [&of(0)[..], &of(1), &[group("head", None)]].concat());
    for site in model.sites() {
        let stream = usize::from(site.path.starts_with("vision_model."));
        assert_eq!((site.stream, info.groups[site.group].stream), (Some(stream), Some(stream)), "{}", site.path);
    }
    for base in model.parameters() {
        let name = base.parameter.name();
        let stream = match name {
            "logit_scale" => None,
            name => Some(usize::from(name.starts_with("vis"))),
        };
        assert_eq!(base.stream, stream, "{name}");
        let above = ["norm.", "_projection", "logit_scale"].iter().any(|part| name.contains(part))
            && !name.contains("pre_layrnorm");
        assert_eq!(base.group == info.head_group(), above, "{name}");
        assert_eq!(info.groups[base.group].stream, stream.filter(|_| !above), "{name}");
    }
    let query = "text_model.encoder.layers.0.self_attn.q_proj";
    assert_eq!(info.within(Some(0), query), "encoder.layers.0.self_attn.q_proj");
    assert_eq!(info.within(Some(1), "visual_projection.weight"), "visual_projection.weight");

    let error = model.features(&Tape::evaluation(), 2, &Expected::tiny("clip").input(), Read::Pooled).unwrap_err();
    assert!(error.to_string().contains("clip has 2 streams, counted from 0, got 2"), "{error}");
    let error = model.features(&Tape::evaluation(), 0, &Expected::tiny("clip").input(), Read::Pooled).unwrap_err();
    assert!(error.to_string().contains("a text model got images"), "{error}");
}

/// Without being asked for, the contrastive head is kept, and no features depend on it.
#[test]
fn what_is_read_depends_on_what_stands_below_it() {
    let (asked, plain) = (open("clip"), fthost_models::open(&tiny("clip"), &Device::Cpu).unwrap());
    assert!(plain.info().contrastive.is_none() && plain.parameters().len() == asked.parameters().len());
    let head = ["text_projection.weight", "visual_projection.weight", "logit_scale"];
    for name in head {
        assert!((0..2).all(|stream| !plain.passes(stream, Read::Pooled, name)), "{name}");
    }
    assert!(asked.passes(0, Read::Pooled, head[0]) && !asked.passes(1, Read::Pooled, head[0]));
    assert!(asked.passes(1, Read::Pooled, head[1]) && asked.passes(0, Read::Pooled, head[2]));
    assert!(!asked.passes(0, Read::Sequence, head[0]) && !asked.passes(0, Read::Sequence, head[2]));

    let expected = Expected::tiny("clip");
    for (stream, read_as) in [(0, Read::Pooled), (0, Read::Sequence), (1, Read::Pooled), (1, Read::Sequence)] {
        let tape = Tape::recording();
        let value = read(&*plain, &tape, stream, &expected, read_as).value;
        let ones = value.tensor().ones_like().unwrap();
        let gradients = tape.backward_from(vec![(value, ones)]).unwrap();
        for base in plain.parameters() {
            let name = base.parameter.name();
            let passes = base.stream == Some(stream) && plain.passes(stream, read_as, name);
            assert_eq!(gradients.get(&base.parameter).is_some(), passes, "{name}, {read_as:?} of {stream}");
        }
    }
}

#[test]
fn groups_of_one_stream_freeze_alone() {
    let (model, expected) = (open("clip"), Expected::tiny("clip"));
    let first_of_images = model.info().groups.iter().position(|group| group.stream == Some(1)).unwrap();
    for base in model.parameters() {
        base.parameter.set_trainable(base.stream == Some(1) && base.group > first_of_images);
    }
    let gradients = gradients(&*model, &expected);
    for base in model.parameters() {
        let name = base.parameter.name();
        let trains = name.starts_with("vis") && !name.contains("embedding") && !name.contains("pre_layrnorm");
        assert_eq!(gradients.get(&base.parameter).is_some(), trains, "{name}");
    }
}

#[test]
fn what_a_token_sees_after_it_changes_nothing() {
    for kind in KINDS {
        let (model, expected) = (open(kind), Expected::tiny(kind));
        let pooled = |ids: &[u32]| {
            let layout = Layout::from_lengths([ids.len()]);
            let text = Input::Text(TextInput { ids: ids.to_vec(), types: vec![0; ids.len()], layout, before: None });
            model.features(&Tape::evaluation(), 0, &text, Read::Pooled).unwrap().value.into_tensor()
        };
        assert_close(&pooled(&[0, 14, 6, 49]), &pooled(&[0, 14, 6, 49, 49, 3]), 1e-6, kind);
        // No token ends it: the greatest, or the first of all.
        let (greatest, first) = (pooled(&[0, 17, 33]), pooled(&[0]));
        assert_close(&pooled(&[0, 17, 33, 21]), if kind == "clip" { &greatest } else { &first }, 1e-6, kind);
        assert_eq!(expected.numbered("ids").len(), 6);
    }
}

#[test]
fn each_stream_pools_in_its_own_way() {
    let (mut model, expected) = (open("clip"), Expected::tiny("clip"));
    let by = |by| Pooling { by, normalize: false };
    let refused = |model: &mut dyn Model, stream, way| model.set_pooling(stream, by(way)).unwrap_err().to_string();
    assert!(refused(&mut *model, 0, PoolBy::First).contains("sees nothing of the text after it"));
    assert!(refused(&mut *model, 1, PoolBy::Pooler).contains("hold no pooler"));
    assert!(refused(&mut *model, 1, PoolBy::End).contains("no token ends"));
    assert!(refused(&mut *model, 2, PoolBy::Mean).contains("2 streams"));
    for (stream, skip) in [(0, 0), (1, 1)] {
        model.set_pooling(stream, by(PoolBy::Mean)).unwrap();
        let hidden = expected.numbered(&format!("{}.hidden", STREAMS[stream])).into_iter();
        // Of images the mean is that of patches before the norm of the class token, as CLIPForImageClassification takes it.
        let mean = hidden.map(|rows| rows.narrow(0, skip, rows.dims()[0] - skip).unwrap().mean(0).unwrap());
        let mean = Tensor::stack(&mean.collect::<Vec<_>>(), 0).unwrap();
        let found = read(&*model, &Tape::evaluation(), stream, &expected, Read::Pooled).value;
        assert_close(found.tensor(), &mean, TOLERANCE, STREAMS[stream]);
    }
    model.set_pooling(0, by(PoolBy::End)).unwrap();
}

/// Adds a trained row wherever it is set, and notes that it ran.
struct Shift {
    row: Parameter,
    log: Arc<Mutex<BTreeSet<String>>>,
}

impl Shift {
    fn shift(&self, tape: &Tape, x: &Value) -> Result<Value> {
        self.log.lock().unwrap().insert(self.row.name().to_owned());
        tape.add(x, &tape.parameter(&self.row))
    }
}

impl LinearHook for Shift {
    fn input(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }
    fn forward(&self, tape: &Tape, _: &Value, y: Value, _: &Value) -> Result<Value> {
        self.shift(tape, &y)
    }
    fn merge(&self, _: &Tape, weight: &Value) -> Result<Option<Value>> {
        Ok(Some(weight.clone()))
    }
    fn merge_bias(&self, tape: &Tape, bias: &Value) -> Result<Option<Value>> {
        tape.add(bias, &tape.parameter(&self.row)).map(Some)
    }
}

impl fthost_models::BlockHook for Shift {
    fn forward(&self, tape: &Tape, x: Value, _: &Value) -> Result<Value> {
        self.shift(tape, &x)
    }
}

impl EmbeddingHook for Shift {
    fn forward(&self, tape: &Tape, embeddings: Value, _: &Layout) -> Result<(Value, Option<Prompt>)> {
        Ok((self.shift(tape, &embeddings)?, None))
    }
}

impl AttentionHook for Shift {
    fn forward(&self, tape: &Tape, keys: Value, values: Value, _: &Layout) -> Result<(Value, Value, Option<Prefix>)> {
        let values = self.shift(tape, &values)?;
        Ok((keys, values, None))
    }
}

#[test]
fn a_hook_at_every_site_of_either_tower_runs_and_trains() {
    for kind in KINDS {
        let (mut model, expected) = (open(kind), Expected::tiny(kind));
        model.parameters().iter().for_each(|base| base.parameter.set_trainable(false));
        let sites = model.sites().to_vec();
        for of_stream in [Some(0), Some(1), None] {
            model.clear_hooks();
            let log = Arc::default();
            let mut set = BTreeMap::new();
            for site in sites.iter().filter(|site| of_stream.is_none() || site.stream == of_stream) {
                let row = Tensor::zeros(site.out_features, DType::F32, &Device::Cpu).unwrap();
                let row = Parameter::new(site.path.clone(), row, true);
                let hook = Arc::new(Shift { row: row.clone(), log: Arc::clone(&log) });
                let hook = match site.kind {
                    SiteKind::Linear | SiteKind::Conv => Hook::Linear(hook),
                    SiteKind::AttentionOutput | SiteKind::FeedForwardOutput => Hook::Block(hook),
                    SiteKind::Embeddings => Hook::Embeddings(hook),
                    SiteKind::Attention => Hook::Attention(hook),
                };
                model.set_hook(&site.path, hook).unwrap();
                assert!(model.hooked(&site.path));
                set.insert(site.path.clone(), row);
            }
            let tape = Tape::recording();
            let logits = logits(&*model, &tape, &expected);
            assert_close(logits.tensor(), expected.get("logits"), TOLERANCE, "rows of zeros");
            let gradients = tape.backward_from(vec![(logits, expected.get("weights").clone())]).unwrap();
            assert_eq!(*log.lock().unwrap(), set.keys().cloned().collect(), "{kind}, {of_stream:?}");
            assert!(set.values().all(|row| gradients.get(row).is_some()) && gradients.len() == set.len());
        }
    }
}

#[test]
fn hooks_of_both_towers_merge_and_of_neither_where_one_does_not() {
    let (mut model, expected) = (open("clip"), Expected::tiny("clip"));
    let shift = |site: &fthost_models::Site| {
        let row: Vec<f32> = (0..site.out_features).map(|i| (i as f32 + 1.0).sin()).collect();
        let row = Parameter::new(site.path.clone(), Tensor::new(row, &Device::Cpu).unwrap(), true);
        Arc::new(Shift { row, log: Arc::default() })
    };
    let linear: Vec<_> = model.sites().iter().filter(|site| site.kind == SiteKind::Linear).cloned().collect();
    linear.iter().for_each(|site| model.set_hook(&site.path, Hook::Linear(shift(site))).unwrap());
    let hooked = logits(&*model, &Tape::evaluation(), &expected);
    assert!(
        (hooked.tensor() - expected.get("logits"))
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
            > 0.01
    );

    let error = model.merge_hooks(&inputs(&expected)[..1]).unwrap_err().to_string();
    assert!(error.contains("folded layers of 2 streams are tried on an input of each, and there are 1"), "{error}");
    model.merge_hooks(&inputs(&expected)).unwrap();
    assert!(!linear.iter().any(|site| model.hooked(&site.path)));
    let merged = logits(&*model, &Tape::evaluation(), &expected);
    assert_close(merged.tensor(), hooked.tensor(), 1e-4, "merged");

    let block =
        model.sites().iter().find(|site| site.path.starts_with("vision") && site.kind == SiteKind::AttentionOutput);
    let block = block.unwrap().clone();
    model.set_hook(&linear[0].path, Hook::Linear(shift(&linear[0]))).unwrap();
    model.set_hook(&block.path, Hook::Block(shift(&block))).unwrap();
    let before = logits(&*model, &Tape::evaluation(), &expected);
    let error = model.merge_hooks(&inputs(&expected)).unwrap_err().to_string();
    assert!(error.contains(&block.path), "{error}");
    assert_close(logits(&*model, &Tape::evaluation(), &expected).tensor(), before.tensor(), 0.0, "a failed merge");
}

/// Prompts before texts or patches, and prefixes that move positions.
struct Prompts(Tensor, usize);

impl EmbeddingHook for Prompts {
    fn forward(&self, _: &Tape, embeddings: Value, _: &Layout) -> Result<(Value, Option<Prompt>)> {
        Ok((embeddings, Some(Prompt { rows: Value::constant(self.0.clone()), pool_first_token: true })))
    }
}

impl AttentionHook for Prompts {
    fn forward(&self, _: &Tape, keys: Value, values: Value, _: &Layout) -> Result<(Value, Value, Option<Prefix>)> {
        let rows = Value::constant(self.0.clone());
        Ok((keys, values, Some(Prefix { keys: rows.clone(), values: rows })))
    }

    fn position_shift(&self) -> usize {
        self.1
    }
}

#[test]
fn prompts_and_prefixes_are_of_their_stream() {
    let (mut model, expected) = (open("clip"), Expected::tiny("clip"));
    let rows = |width: usize| {
        let values: Vec<f32> = (0..3 * width).map(|i| (i as f32).sin()).collect();
        Tensor::from_vec(values, (3, width), &Device::Cpu).unwrap()
    };
    let pooled = |model: &dyn Model, stream| read(model, &Tape::evaluation(), stream, &expected, Read::Pooled).value;
    let own = [pooled(&*model, 0), pooled(&*model, 1)];
    let moved = |model: &dyn Model, stream: usize| {
        let difference = (pooled(model, stream).tensor() - own[stream].tensor()).unwrap().abs().unwrap();
        difference.max_all().unwrap().to_scalar::<f32>().unwrap() > 1e-3
    };
    for (stream, width) in [(0, 16), (1, 24)] {
        let root = model.info().streams[stream].root.clone();
        let prompt = || Arc::new(Prompts(rows(width), 3));
        model.clear_hooks();
        model.set_hook(&format!("{root}embeddings"), Hook::Embeddings(prompt())).unwrap();
        assert_eq!([0, 1].map(|other| moved(&*model, other)), [stream == 0, stream == 1], "prompts");
        assert_eq!(model.longest_sequence().unwrap(), Some(if stream == 0 { 9 } else { 12 }));
        model.clear_hooks();
        model.set_hook(&format!("{root}encoder.layers.0.self_attn"), Hook::Attention(prompt())).unwrap();
        assert_eq!([0, 1].map(|other| moved(&*model, other)), [stream == 0, stream == 1], "prefixes");
        assert_eq!(model.longest_sequence().unwrap(), Some(if stream == 0 { 9 } else { 12 }));
    }
}

/// With the names, the shapes and the config that Transformers wrote.
#[test]
fn what_is_saved_is_what_was_loaded() {
    for kind in KINDS {
        let (model, expected) = (open(kind), Expected::tiny(kind));
        let folder = tempfile::tempdir().unwrap();
        model.save_folder(folder.path(), &SavedHead::default()).unwrap();
        let load = |folder: &std::path::Path| {
            candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap()
        };
        let (before, after) = (load(&tiny(kind)), load(folder.path()));
        assert_eq!(before.len(), after.len(), "{kind}");
        before.iter().for_each(|(name, tensor)| assert_close(&after[name], tensor, 0.0, name));
        let config = |folder: &std::path::Path| -> serde_json::Value {
            serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
        };
        assert_eq!(config(folder.path()), config(&tiny(kind)), "{kind}");
        // Over itself, while it is mapped.
        let again = Loader::new(&Device::Cpu).with_contrastive().open(folder.path()).unwrap();
        again.save_folder(folder.path(), &SavedHead::default()).unwrap();
        let again = Loader::new(&Device::Cpu).with_contrastive().open(folder.path()).unwrap();
        assert_close(logits(&*again, &Tape::evaluation(), &expected).tensor(), expected.get("logits"), TOLERANCE, kind);
    }
}

#[test]
fn blocks_that_are_computed_once_more_give_the_same_gradients() {
    use fthost_models::autograd::TapeOptions;
    let (model, expected) = (open("clip"), Expected::tiny("clip"));
    let of = |recompute| {
        let tape = Tape::new(TapeOptions { recompute, ..Tape::recording().options().clone() });
        let logits = logits(&*model, &tape, &expected);
        tape.backward_from(vec![(logits, expected.get("weights").clone())]).unwrap()
    };
    let (kept, again) = (of(false), of(true));
    for base in model.parameters() {
        let of =
            |gradients: &Gradients| gradients.get(&base.parameter).unwrap().to_dense(base.parameter.dims()).unwrap();
        assert_close(&of(&kept), &of(&again), 0.0, base.parameter.name());
    }
}

#[test]
fn new_weights_start_as_transformers_starts_them() {
    let text = std::fs::read_to_string(tiny("clip").join("config.json")).unwrap();
    let text =
        text.replace("\"hidden_size\": 16", "\"hidden_size\": 64").replace("\"vocab_size\": 50", "\"vocab_size\": 500");
    let model = fthost_models::random(&text, 3, &Device::Cpu).unwrap();
    let std = |name: &str| {
        let values: Vec<f32> = parameter(&*model, name).tensor().flatten_all().unwrap().to_vec1().unwrap();
        f64::from((values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt())
    };
    let block = "text_model.encoder.layers.1";
    for (name, expected) in [
        ("text_model.embeddings.token_embedding.weight".to_owned(), 0.02),
        (format!("{block}.self_attn.q_proj.weight"), 0.125 * 0.5),
        (format!("{block}.self_attn.out_proj.weight"), 0.125),
        (format!("{block}.mlp.fc1.weight"), 128f64.powf(-0.5)),
        (format!("{block}.mlp.fc2.weight"), 0.125 * 0.5),
        ("text_projection.weight".to_owned(), 0.125),
        ("logit_scale".to_owned(), 2.6592),
    ] {
        assert!((std(&name) / expected - 1.0).abs() < 0.1, "{name}: {}", std(&name));
    }
}

#[test]
fn configs_are_checked() {
    let text = std::fs::read_to_string(tiny("clip").join("config.json")).unwrap();
    let weights = std::fs::read(tiny("clip").join("model.safetensors")).unwrap();
    let error = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        match fthost_models::from_parts(&text.replacen(from, to, 1), &weights, &Device::Cpu) {
            Ok(_) => panic!("{to} loads"),
            Err(error) => error.to_string(),
        }
    };
    for (from, to, says) in [
        (
            "\"hidden_size\": 16",
            "\"hidden_size\": 15",
            "text_config.num_attention_heads = 4 must divide the width, which is 15",
        ),
        (
            "\"patch_size\": 4",
            "\"patch_size\": 3",
            "vision_config.patch_size = 3 must divide vision_config.image_size, which is 8",
        ),
        ("\"eos_token_id\": 2", "\"eos_token_id\": [2, 3]", "text_config.eos_token_id = [2,3] is not the one token"),
        ("\"hidden_act\": \"quick_gelu\"", "\"hidden_act\": \"snake\"", "text_config.hidden_act = snake is not known"),
        ("\"projection_dim\": 12", "\"projection_dim\": 0", "projection_dim = 0 must lie between"),
        (
            "\"projection_dim\": 12",
            "\"projection_dim\": 13",
            "text_projection.weight has shape [12, 16], config.json says [13, 16]",
        ),
        ("\"vocab_size\": 50", "\"vocab_size\": 51", "text_model.embeddings.token_embedding.weight has shape [50, 16]"),
    ] {
        let error = error(from, to);
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
    let error = Loader::new(&Device::Cpu).with_vocabulary(0).open(&tiny("clip")).err().unwrap().to_string();
    assert!(error.contains("has no layer over a vocabulary"), "{error}");
}
