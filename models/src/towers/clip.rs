//! CLIP: a tower for texts and one for images, and the head that compares what they give.

use std::path::Path;
use std::sync::Arc;

use fthost_autograd::{Parameter, Result, Tape, Tensor};

use super::config::Config;
use crate::builder::Builder;
use crate::family::Source;
use crate::folder::{self, InFiles};
use crate::hooks::{Hooks, Pass};
use crate::transformer::config::TowerConfig;
use crate::transformer::tower::Tower;
use crate::{
    BaseParameter, BlockGroup, Contrastive, Features, FileState, Hook, Input, LoadError, Model, ModelInfo, PoolBy,
    Pooling, Read, SavedHead, Site, fold,
};

/// `model_type` of its folders.
pub(super) const CLIP: &str = "clip";
/// What the paths of each stream begin with.
const ROOTS: [&str; 2] = ["text_model.", "vision_model."];
/// The matrix over the pooled features of each stream.
const PROJECTIONS: [&str; 2] = ["text_projection.weight", "visual_projection.weight"];
/// The logarithm of what similarities are multiplied with.
const SCALE: &str = "logit_scale";

/// CLIP, as Hugging Face's `CLIPModel`: the stream of texts, that of images, and its contrastive head.
///
/// What a stream gives as pooled features is what its projection reads, not what that gives: heads of other kinds stand on the former, as
/// Transformers' own do, and each stream has a width of its own. The projections and the scale are parameters of the model by their names
/// in its files, so that they are frozen, trained and saved as such; whoever compares the streams reads them there.
pub(crate) struct Clip {
    info: ModelInfo,
    towers: [Tower; 2],
    sites: Vec<Site>,
    hooks: Arc<Hooks>,
    parameters: Vec<BaseParameter>,
    stored: InFiles,
    files: Vec<FileState>,
}

impl Clip {
    pub(super) fn build(source: &Source<'_>) -> std::result::Result<Self, LoadError> {
        source.refuse_vocabulary()?;
        let config = &Config::parse(source)?;
        let origin = source.origin()?;
        let mut builder = Builder::new(&origin, "", 0.0, source.device).quantized(source.quantize);
        let second = config.text.layers + 1;
        let head = second + config.vision.layers + 1;
        let tower = |builder: &mut Builder<'_>, stream: usize, config: &TowerConfig, first: usize| {
            (builder.root, builder.stream, builder.group) = (ROOTS[stream], Some(stream), first);
            Tower::build(builder, config, head)
        };
        let towers = [tower(&mut builder, 0, &config.text, 0)?, tower(&mut builder, 1, &config.vision, second)?];
        (builder.root, builder.group) = ("", head);
        for (stream, tower) in [&config.text, &config.vision].into_iter().enumerate() {
            builder.stream = Some(stream);
            builder.init_std = config.factor * (tower.width as f64).powf(-0.5);
            builder.matrix(PROJECTIONS[stream], config.projection, tower.width)?;
        }
        builder.stream = None;
        builder.number(SCALE, config.scale)?;

        let Builder { sites, parameters, stored_shapes, .. } = builder;
        Ok(Self {
            info: info(config, &towers, source.contrastive),
            towers,
            hooks: Arc::new(Hooks::none(sites.len())),
            sites,
            parameters,
            stored: InFiles {
                config: source.config.clone(),
                shapes: stored_shapes,
                counters: Vec::new(),
                transposed: Default::default(),
            },
            files: origin.files(source.quantize),
        })
    }

    /// Features of a stream's micro-batch by the layers' hooks.
    fn forward_pass(&self, pass: Pass<'_>, stream: usize, input: &Input, read: Read) -> Result<Features> {
        self.towers[stream].forward(pass, &self.hooks, input, read, self.info.streams[stream].pooling)
    }
}

fn info(config: &Config, towers: &[Tower; 2], contrastive: bool) -> ModelInfo {
    let pooling = |by| Pooling { by, normalize: false };
    let head = BlockGroup { name: "head".into(), stream: None };
    ModelInfo {
        model_type: CLIP.into(),
        streams: vec![
            towers[0].stream(&config.text, ROOTS[0], "", pooling(PoolBy::End)),
            towers[1].stream(&config.vision, ROOTS[1], "", pooling(PoolBy::First)),
        ],
        groups: Tower::groups(&config.text, 0).chain(Tower::groups(&config.vision, 1)).chain([head]).collect(),
        base_class: Some("CLIPModel".into()),
        classification: None,
        vocabulary: None,
        contrastive: contrastive.then(|| Contrastive {
            projections: PROJECTIONS.map(str::to_owned).into(),
            scale: SCALE.into(),
            width: config.projection,
        }),
        sight: None,
        head_dropout: 0.0,
    }
}

impl Model for Clip {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn sites(&self) -> &[Site] {
        &self.sites
    }

    fn parameters(&self) -> &[BaseParameter] {
        &self.parameters
    }

    fn files(&self) -> &[FileState] {
        &self.files
    }

    fn set_pooling(&mut self, stream: usize, pooling: Pooling) -> Result<()> {
        self.info.refuse_stream(stream)?;
        self.towers[stream].check_pooling(&self.info.model_type, pooling)?;
        self.info.streams[stream].pooling = pooling;
        Ok(())
    }

    fn set_hook(&mut self, path: &str, hook: Hook) -> Result<()> {
        Arc::make_mut(&mut self.hooks).set(&self.sites, path, hook)
    }

    fn hooked(&self, path: &str) -> bool {
        self.sites.iter().position(|site| site.path == path).is_some_and(|site| self.hooks.any(site))
    }

    fn folded(&self, inputs: &[Input]) -> Result<Vec<(Parameter, Tensor)>> {
        let inputs = fold::of_each_stream(&self.info, inputs)?;
        fold::folded(&self.sites, &self.parameters, &self.hooks, |pass| {
            let each = |(stream, input)| self.forward_pass(pass, stream, input, Read::Pooled).map(drop);
            inputs.iter().enumerate().try_for_each(each)
        })
    }

    fn clear_hooks(&mut self) {
        self.hooks = Arc::new(Hooks::none(self.sites.len()));
    }

    fn save_folder(&self, folder: &Path, head: &SavedHead<'_>) -> std::result::Result<(), LoadError> {
        folder::write(self, &self.stored, folder, head)
    }

    fn passes(&self, stream: usize, read: Read, parameter: &str) -> bool {
        if parameter == SCALE || PROJECTIONS.contains(&parameter) {
            let compared = self.info.contrastive.is_some() && read == Read::Pooled;
            return compared && (parameter == SCALE || parameter == PROJECTIONS[stream]);
        }
        self.towers[stream].passes(read, self.info.streams[stream].pooling, parameter)
    }

    fn recomputes(&self) -> bool {
        true
    }

    fn longest_sequence(&self) -> Result<Option<usize>> {
        let tape = Tape::evaluation();
        self.towers[0].longest_sequence(Pass::new(&tape, &self.hooks))
    }

    fn map_size(&self, stream: usize, _: [usize; 2]) -> Result<Option<[usize; 2]>> {
        Ok(self.towers.get(stream).and_then(|tower| tower.map(1)).map(|map| map.size()))
    }

    fn features(&self, tape: &Tape, stream: usize, input: &Input, read: Read) -> Result<Features> {
        self.info.refuse_stream(stream)?;
        self.forward_pass(Pass::new(tape, &self.hooks), stream, input, read)
    }
}
