//! A model of two streams, with a buffer: what plugins see of it, what heads may read, what schedules go by.

use std::sync::atomic::{AtomicUsize, Ordering};

use fthost_autograd::Precision;
use fthost_plugin_api::{FeatureKind, HeadSpec, PredictionKind, StreamFeatures};

use super::whole_batch::{attached, digits};
use super::*;
use crate::plugin::instance::of_this_model;
use crate::run::pass::{Decision, Pass, head_outputs, reads_of};

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
    parts.restore_best(&changed, &tensors, &|| Ok(pair())).unwrap();
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
