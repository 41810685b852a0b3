//! The pretrained model with what plugins added to it: parameters, hooks, freezing, rates.

pub mod kept;
mod read;
mod watched;

use std::collections::BTreeSet;
use std::sync::Arc;

use fthost_autograd::{Device, Gradients, Parameter, Tape};
use fthost_models::{BaseParameter, BlockGroup, Features, Hook, Input, Model, Read};

use crate::handles::RunHandles;
use kept::{Cut, Kept, Key};
pub use read::StreamRead;
use watched::{Watch, watched};

/// Who declared a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The pretrained model.
    Base,
    /// The strategy at this place of the run file.
    Strategy(usize),
    /// The head of the task at this place of the run file.
    Head(usize),
}

/// A parameter with what the run needs to know of it.
#[derive(Clone, Debug)]
pub struct ModelParameter {
    /// The parameter; its name is its Hugging Face path without prefix, or `<site path>.<declared name>`.
    pub parameter: Parameter,
    /// Who declared it.
    pub owner: Owner,
    /// Whether its name is a path in the model: a base parameter, or one that a strategy declared beside a site.
    pub in_model: bool,
    /// The block group it belongs to; heads have the last one.
    pub group: usize,
    /// The model's stream that it is part of, where it is part of one.
    pub stream: Option<usize>,
    /// Whether it is one of the model's buffers, which never train.
    pub buffer: bool,
    /// Whether the run file has it quantised: it stays what it is then.
    pub quantized: bool,
    /// Whether nothing that a head reads depends on it, as on a pooler where the mean is read: it never trains, and plugins do not hear of it.
    pub unread: bool,
    /// Its rate is `train.lr` times this.
    pub lr_factor: f64,
    /// Whether weight decay applies where nobody says otherwise: not to biases and norms.
    pub decay: bool,
    /// Whether it applies by a plugin's word, which holds whatever the run file says of biases and norms.
    pub decay_said: Option<bool>,
}

impl ModelParameter {
    /// Whether it differs from the pretrained model, or may: what plugins declared, what trains, and what has ever changed. Checkpoints,
    /// the best model and results hold these; a parameter that is none of them still has its pretrained value.
    pub fn trained(&self) -> bool {
        self.owner != Owner::Base || self.parameter.trainable() || self.parameter.version() > 0
    }

    /// What is wrong with changing or training it, where anything is.
    pub fn must_stay(&self) -> Option<String> {
        let path = self.parameter.name();
        self.quantized.then(|| {
            format!(
                "{path} is quantised (model.quantize) and neither trains nor changes: choose a strategy that adds parameters to the model, or \
                 take model.quantize out"
            )
        })
    }

    /// Whether weight decay applies. `biases_and_norms`: whether the run file wants it there too.
    pub fn decays(&self, biases_and_norms: bool) -> bool {
        self.decay_said.unwrap_or(self.decay || biases_and_norms)
    }
}

/// What one pattern of a strategy matched; printed in the plan.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PatternMatch {
    /// The strategy's place in the run file.
    pub strategy: usize,
    /// The stream that the strategy keeps to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The pattern as written.
    pub pattern: String,
    /// Number of sites or parameters it matched.
    pub matched: usize,
}

/// The model of a run.
pub struct AdaptedModel {
    /// The pretrained model with its hooks.
    pub model: Box<dyn Model>,
    /// Base parameters first, then what plugins declared, in order.
    pub parameters: Vec<ModelParameter>,
    /// What patterns matched, in order of the calls.
    pub matches: Vec<PatternMatch>,
    /// Where its tensors live.
    pub device: Device,
    /// The run's seed, for the init of declared parameters.
    pub seed: u64,
    /// Tasks of the run. With more than one, the names of heads' parameters begin with their task's.
    pub tasks: usize,
    /// The places of tasks whose head later tasks have too.
    pub shared_heads: Vec<usize>,
    /// Token ids of a text without special tokens, where the model reads text: for prompts that start from one.
    pub tokenize: Option<Tokenize>,
    /// The numbers by which plugins name the parameters.
    handles: Arc<RunHandles>,
    /// What its frozen part gives of examples, where that is kept.
    pub kept: Option<Arc<Kept>>,
    /// The gradients of the step that has just ended, while plugins hear of it.
    pub stepped: Option<Gradients>,
    /// Whether blocks keep only what they begin with in training, and are made once more for their gradients.
    pub recompute: bool,
    /// Examples that pass through it at once, at most, where a loss needs the whole batch and is to take little memory.
    pub micro_batch: Option<usize>,
    /// The hooks that strategies set, with their sites, in order: for who tries each by itself.
    pub(crate) hooks: Vec<(String, Hook)>,
    /// The lowest block group with a hook.
    lowest_hook: usize,
    /// The streams with hooks.
    hooked: BTreeSet<Option<usize>>,
    /// Shared by the hooks that [`set_hook`](Self::set_hook) set.
    watch: Arc<Watch>,
}

/// Token ids of a text.
pub type Tokenize = Box<dyn Fn(&str) -> crate::Result<Vec<u32>> + Send + Sync>;

impl AdaptedModel {
    /// The base model, everything trainable that may be.
    pub fn new(model: Box<dyn Model>, device: Device, seed: u64) -> Self {
        // A buffer never trains, whatever its maker has said of it, and what is quantised does not.
        let stays = |base: &&BaseParameter| base.buffer || base.quantized;
        model.parameters().iter().filter(stays).for_each(|base| base.parameter.set_trainable(false));
        let parameters: Vec<ModelParameter> = model
            .parameters()
            .iter()
            .map(|base| ModelParameter {
                parameter: base.parameter.clone(),
                owner: Owner::Base,
                in_model: true,
                group: base.group,
                stream: base.stream,
                buffer: base.buffer,
                quantized: base.quantized,
                unread: false,
                lr_factor: 1.0,
                decay: decays(base.parameter.name(), base.parameter.dims()),
                decay_said: None,
            })
            .collect();
        let handles = Arc::new(RunHandles::new(device.clone(), seed));
        let watch = Arc::default();
        Self {
            model,
            parameters,
            matches: Vec::new(),
            device,
            seed,
            tasks: 1,
            shared_heads: Vec::new(),
            tokenize: None,
            handles,
            kept: None,
            stepped: None,
            recompute: false,
            micro_batch: None,
            hooks: Vec::new(),
            lowest_hook: usize::MAX,
            hooked: BTreeSet::new(),
            watch,
        }
    }

    /// Sets a hook at a site, after those that are there.
    ///
    /// # Errors
    /// Where there is no such site, or it takes none of this kind.
    pub fn set_hook(&mut self, site: &str, hook: Hook) -> fthost_autograd::Result<()> {
        if let Some(of) = self.model.sites().iter().find(|of| of.path == site) {
            self.lowest_hook = self.lowest_hook.min(of.group);
            self.hooked.insert(of.stream);
        }
        self.model.set_hook(site, watched(hook.clone(), &self.watch))?;
        self.hooks.push((site.to_owned(), hook));
        Ok(())
    }

    /// Runs a pass, and says whether all hooks gave in it what they got, to the bit, and added nothing.
    pub fn watching_hooks<R>(&mut self, pass: impl FnOnce(&Self) -> R) -> (R, bool) {
        self.watch.watching(|| pass(self))
    }

    /// Runs a pass as if no hook were set.
    pub fn without_hooks<R>(&mut self, pass: impl FnOnce(&Self) -> R) -> R {
        self.watch.leaving_out(|| pass(self))
    }

    /// The numbers by which plugins name the parameters: all that `parameters` holds now.
    pub(crate) fn handles(&self) -> &Arc<RunHandles> {
        for new in &self.parameters[self.handles.len()..] {
            self.handles.push(&new.parameter);
        }
        &self.handles
    }

    /// A block group as schedules know it: its name, that of its stream, and its number in the stream. The last one, of heads, is part
    /// of none.
    pub fn block_group(&self, group: usize) -> (&str, &str, usize) {
        let info = self.model.info();
        let BlockGroup { name, stream } = &info.groups[group.min(info.head_group())];
        match stream {
            Some(stream) => {
                let below = info.groups[..group].iter().filter(|of| of.stream == Some(*stream)).count();
                (name, &info.streams[*stream].name, below)
            }
            None => (name, "", group),
        }
    }

    /// Whether what is read of a stream depends on a base parameter.
    pub fn passes(&self, of: StreamRead, parameter: &ModelParameter) -> bool {
        let in_stream = parameter.stream.is_none_or(|stream| stream == of.stream);
        in_stream && self.model.passes(of.stream, of.read, parameter.parameter.name())
    }

    /// What can be kept of examples as things are, for what one head reads, and what it follows from: the sum of the versions of what lies
    /// below the cut.
    pub fn cut(&self, read: StreamRead) -> Option<(Cut, u64)> {
        if self.model.info().streams.len() > 1 {
            return self.cut_stream(read);
        }
        let base = || self.parameters.iter().filter(|p| p.owner == Owner::Base);
        let moving = base().filter(|p| p.parameter.trainable()).map(|p| p.group).min().unwrap_or(usize::MAX);
        let lowest = moving.min(self.lowest_hook);
        if lowest == 0 {
            return None;
        }
        let cut = match lowest {
            usize::MAX => Cut::Whole(read),
            groups if self.model.can_be_cut() && !matches!(read.read, Read::Stage(_)) => Cut::Above(groups),
            _ => return None,
        };
        let versions = base().filter(|p| p.group < lowest).map(|p| p.parameter.version()).sum();
        Some((cut, versions))
    }

    /// The same of one stream of several, which are cut above all that is not the head's or not at all: where nothing in it trains or has a
    /// hook.
    fn cut_stream(&self, read: StreamRead) -> Option<(Cut, u64)> {
        // The architecture's own head stands on what is read.
        let info = self.model.info();
        let compares = |name: &str| info.contrastive.iter().any(|of| of.projections.iter().any(|own| own == name));
        let below = || {
            let base = self.parameters.iter().filter(|p| p.owner == Owner::Base && p.stream == Some(read.stream));
            base.filter(|p| self.passes(read, p) && !compares(p.parameter.name()))
        };
        if self.hooked.contains(&Some(read.stream)) || below().any(|p| p.parameter.trainable()) {
            return None;
        }
        Some((Cut::Whole(read), below().map(|p| p.parameter.version()).sum()))
    }

    /// What a head reads of examples that look as they always do, where the frozen part's share of it can be kept.
    ///
    /// # Errors
    /// As the model's features; where what is kept cannot be written or read.
    pub fn kept_features(
        &self,
        tape: &Tape,
        examples: &[Key],
        read: StreamRead,
        input: impl Fn(&[usize]) -> crate::Result<Input>,
    ) -> crate::Result<Option<Features>> {
        let (Some(kept), Some(cut)) = (&self.kept, self.cut(read)) else { return Ok(None) };
        kept.features((&*self.model, &self.device), tape, cut, examples, read, input)
    }

    /// Parameters that train now.
    pub fn trainable(&self) -> impl Iterator<Item = &ModelParameter> {
        self.parameters.iter().filter(|p| p.parameter.trainable())
    }
}

/// Whether weight decay applies to a parameter by default: not to biases and norms, which are vectors.
pub fn decays(name: &str, shape: &[usize]) -> bool {
    shape.len() > 1 && !name.ends_with("bias")
}
