//! The author's view of the model in `attach` and `on_event`.

use std::{cell::OnceCell, collections::HashMap, marker::PhantomData};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Init, Param, ParamInfo, Site, SiteKind, Targets};
use crate::{
    AttentionHook, BlockHook, EmbeddingHook, Error, ExampleGradient, FisherLabels, LinearHook, Operand, Result, Stream,
    Tensor,
    abi::{
        hooks, host,
        tables::{fisher_labels, model_call},
    },
};

/// The model of a run, for the length of one call. `[run thread]`
///
/// Every method asks the host and fails with the host's words: a pattern that matches nothing, a name declared twice,
/// a hook at a site of another kind.
#[derive(Debug)]
pub struct Model {
    description: OnceCell<Description>,
    not_send: PhantomData<*const ()>,
}

/// The parts of the host's description that do not change.
#[derive(Debug, Deserialize)]
struct Description {
    model_type: String,
    groups: usize,
    layers: usize,
    width: usize,
    heads: usize,
    #[serde(default)]
    vocabulary: Option<usize>,
    #[serde(default)]
    streams: Vec<Stream>,
}

#[derive(Deserialize)]
struct Parameters {
    parameters: Vec<ParamInfo>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { description: OnceCell::new(), not_send: PhantomData }
    }

    fn description(&self) -> Result<&Description> {
        if let Some(known) = self.description.get() {
            return Ok(known);
        }
        let asked = host::model_call(model_call::DESCRIBE, &json!({}))?;
        Ok(self.description.get_or_init(|| asked))
    }
}

/// What the model is.
impl Model {
    /// Hugging Face's `model_type`: `bert`, `vit`, ...
    pub fn model_type(&self) -> Result<&str> {
        Ok(&self.description()?.model_type)
    }

    /// Number of block groups, counted from the bottom; group 0 holds the embeddings, the last one the heads.
    pub fn groups(&self) -> Result<usize> {
        Ok(self.description()?.groups)
    }

    /// Number of blocks.
    ///
    /// # Errors
    /// Where the model's blocks are not alike, or it has several streams: each of [`streams`](Self::streams) says its own.
    pub fn layers(&self) -> Result<usize> {
        self.one(self.description()?.layers, "number of blocks")
    }

    /// Width of the hidden states.
    ///
    /// # Errors
    /// Where the model has several streams: each of [`streams`](Self::streams) says its own.
    pub fn width(&self) -> Result<usize> {
        self.one(self.description()?.width, "width")
    }

    /// Attention heads of a block.
    ///
    /// # Errors
    /// Where the model does not attend, or it has several streams: each of [`streams`](Self::streams) says its own.
    pub fn heads(&self) -> Result<usize> {
        self.one(self.description()?.heads, "number of attention heads")
    }

    /// The ways through the model: one of a plain model, two of a pair of towers. Empty where the host is older than this method.
    pub fn streams(&self) -> Result<&[Stream]> {
        Ok(&self.description()?.streams)
    }

    /// A number of the whole model; the host says 0 where there is no such thing.
    fn one(&self, number: usize, what: &str) -> Result<usize> {
        if number > 0 {
            return Ok(number);
        }
        let Description { model_type, streams, .. } = self.description()?;
        let why = match streams.len() {
            0 | 1 => String::new(),
            several => {
                format!(": each of its {several} streams has its own, and the key stream of a [[strategy]] names one")
            }
        };
        Err(Error::new(format!("this model ({model_type}) has no {what}{why}")))
    }

    /// Size of the vocabulary; 0 where the model reads no tokens, or has several streams.
    pub fn vocabulary(&self) -> Result<usize> {
        Ok(self.description()?.vocabulary.unwrap_or(0))
    }
}

/// Where hooks can be set. In the order of the forward pass.
impl Model {
    /// Sites of one kind: all, or those that `targets` name, without those that `exclude` names.
    ///
    /// # Errors
    /// Where a target matches nothing; the message lists what is there.
    pub fn sites(&self, kind: SiteKind, targets: Option<&Targets>, exclude: Option<&Targets>) -> Result<Vec<Site>> {
        host::model_call(model_call::SITES, &json!({ "kind": kind, "targets": targets, "exclude": exclude }))
    }

    /// Linear layers.
    pub fn linears(&self, targets: &Targets) -> Result<Vec<Site>> {
        self.linears_except(targets, None)
    }

    /// Linear layers, without those that `exclude` names.
    pub fn linears_except(&self, targets: &Targets, exclude: Option<&Targets>) -> Result<Vec<Site>> {
        self.sites(SiteKind::Linear, Some(targets), exclude)
    }

    /// Linear layers, and convolutions whose channels are of one group: whatever multiplies rows by a matrix. A hook sees what it sees at
    /// a linear layer; at a convolution rows are patches, and [`Site::convolution`] says of what. A host of 1.0 gives linear layers alone.
    pub fn products(&self, targets: &Targets, exclude: Option<&Targets>) -> Result<Vec<Site>> {
        host::model_call(
            model_call::SITES,
            &json!({ "kind": SiteKind::Linear, "also": [SiteKind::Conv], "targets": targets, "exclude": exclude }),
        )
    }

    /// Convolutions.
    pub fn convs(&self, targets: &Targets) -> Result<Vec<Site>> {
        self.sites(SiteKind::Conv, Some(targets), None)
    }

    /// The outputs of all blocks' attention halves.
    pub fn attention_outputs(&self) -> Result<Vec<Site>> {
        self.sites(SiteKind::AttentionOutput, None, None)
    }

    /// The outputs of all blocks' feed-forward halves.
    pub fn feed_forward_outputs(&self) -> Result<Vec<Site>> {
        self.sites(SiteKind::FeedForwardOutput, None, None)
    }

    /// The input embeddings.
    pub fn embeddings(&self) -> Result<Vec<Site>> {
        self.sites(SiteKind::Embeddings, None, None)
    }

    /// All blocks' attentions.
    pub fn attentions(&self) -> Result<Vec<Site>> {
        self.sites(SiteKind::Attention, None, None)
    }
}

/// What trains, and how fast.
impl Model {
    /// Freezes the whole pretrained model. What plugins declare trains on.
    pub fn freeze_all(&mut self) -> Result<()> {
        self.set_trainable(None, false).map(drop)
    }

    /// Freezes base parameters by path; returns how many tensors matched.
    pub fn freeze(&mut self, targets: &Targets) -> Result<usize> {
        self.set_trainable(Some(targets), false)
    }

    /// Thaws the whole pretrained model.
    pub fn thaw_all(&mut self) -> Result<()> {
        self.set_trainable(None, true).map(drop)
    }

    /// Thaws base parameters by path; returns how many tensors matched.
    pub fn thaw(&mut self, targets: &Targets) -> Result<usize> {
        self.set_trainable(Some(targets), true)
    }

    fn set_trainable(&mut self, targets: Option<&Targets>, trainable: bool) -> Result<usize> {
        host::model_call(model_call::SET_TRAINABLE, &json!({ "targets": targets, "trainable": trainable }))
    }

    /// Sets the factor by which `train.lr` is multiplied for parameters by path (`None`: all); returns how many matched.
    pub fn set_lr_factor(&mut self, targets: Option<&Targets>, factor: f64) -> Result<usize> {
        host::model_call(model_call::SET_LR_FACTOR, &json!({ "targets": targets, "factor": factor }))
    }

    /// Freezes or thaws these parameters, whoever declared them: the pretrained model, a strategy or a head.
    pub fn set_trainable_of(&mut self, params: &[Param], trainable: bool) -> Result<()> {
        set_params(params, Change { trainable: Some(trainable), ..Change::default() })
    }

    /// Sets the factor by which `train.lr` is multiplied for these parameters, whoever declared them.
    pub fn set_lr_factor_of(&mut self, params: &[Param], factor: f64) -> Result<()> {
        set_params(params, Change { lr_factor: Some(factor), ..Change::default() })
    }

    /// Whether these parameters get weight decay, whoever declared them. Matrices do unless this says otherwise.
    pub fn set_decay_of(&mut self, params: &[Param], decay: bool) -> Result<()> {
        set_params(params, Change { decay: Some(decay), ..Change::default() })
    }

    /// Gives a parameter, whoever declared it, the values of a tensor of its shape.
    pub fn set_value(&mut self, param: &Param, value: &Tensor) -> Result<()> {
        host::model_call(model_call::SET_VALUE, &json!({ "handle": param.handle, "tensor": value.handle() }))
    }

    /// The gradient by which the optimizer has just changed a parameter: of loss and penalties, clipped where the run clips; of the
    /// parameter's shape. `None` where it got none, or the step was left out. Since 1.1
    ///
    /// # Errors
    /// Outside of [`Event::StepEnd`](crate::Event::StepEnd): it is forgotten then.
    pub fn gradient(&self, param: &Param) -> Result<Option<Tensor>> {
        let handle: Option<u64> = host::model_call(model_call::GRADIENT, &json!({ "handle": param.handle }))?;
        Ok(handle.map(Tensor::owned))
    }

    /// Keeps a number with the step that is under way: a curve in metrics.jsonl, on the run's page and in TensorBoard, under the method's
    /// name and `name`. Since 1.1
    ///
    /// # Errors
    /// Where it is not finite, or the name is empty.
    pub fn log_scalar(&mut self, name: &str, value: f64) -> Result<()> {
        host::model_call(model_call::LOG_SCALAR, &json!({ "name": name, "value": value }))
    }

    /// The parameters that `targets` name, whoever declared them.
    ///
    /// # Errors
    /// Where a target matches nothing; the message lists what is there.
    pub fn parameters_of(&self, targets: &Targets) -> Result<Vec<ParamInfo>> {
        host::model_call(model_call::PARAMS, &json!({ "targets": targets }))
    }

    /// All parameters as they stand now.
    pub fn parameters(&self) -> Result<Vec<ParamInfo>> {
        Ok(host::model_call::<Parameters>(model_call::DESCRIBE, &json!({}))?.parameters)
    }

    /// The handles of the parameters that train now. Little is said, so it is quick: where the answer is the same as at the last
    /// step, [`parameters`](Self::parameters) need not be asked again.
    pub fn trainable_handles(&self) -> Result<Vec<u64>> {
        host::model_call(model_call::TRAINABLE, &json!({}))
    }

    /// The parameters that train now.
    pub fn trainable_params(&self) -> Result<Vec<Param>> {
        Ok(self.parameters()?.into_iter().filter(|param| param.trainable).map(Param::from).collect())
    }

    /// A parameter of the pretrained model by its path.
    ///
    /// # Errors
    /// Where there is none of that path.
    pub fn base_param(&self, path: &str) -> Result<Param> {
        let found = self.parameters()?.into_iter().find(|param| param.base && param.path == path);
        found.map(Param::from).ok_or_else(|| Error::new(format!("the model has no parameter `{path}`")))
    }
}

/// New parameters. They train, the host initialises, saves and restores them. Those of one dimension get no weight decay.
impl Model {
    /// A parameter beside a site, named by the site's path and `name` as PEFT saves it: `lora_A.weight`.
    pub fn param(&mut self, site: &Site, name: &str, shape: impl AsRef<[usize]>, init: Init) -> Result<Param> {
        self.declare(Some(&site.path), name, shape.as_ref(), &init, false)
    }

    /// A parameter that belongs to no site, named by `name` alone, also in PEFT's files: `prompt_embeddings`.
    pub fn shared_param(&mut self, name: &str, shape: impl AsRef<[usize]>, init: Init) -> Result<Param> {
        self.declare(None, name, shape.as_ref(), &init, false)
    }

    /// A parameter of a task head: `classifier.weight`. Only in [`TaskHead::attach`](crate::TaskHead::attach).
    pub fn head_param(&mut self, name: &str, shape: impl AsRef<[usize]>, init: Init) -> Result<Param> {
        self.declare(None, name, shape.as_ref(), &init, true)
    }

    fn declare(&mut self, owner: Option<&str>, name: &str, shape: &[usize], init: &Init, head: bool) -> Result<Param> {
        let decay = shape.len() > 1;
        let params =
            json!({ "owner": owner, "name": name, "shape": shape, "init": init, "decay": decay, "head": head });
        let handle = host::model_call(model_call::PARAM, &params)?;
        let full = owner.map_or_else(|| name.to_owned(), |owner| format!("{owner}.{name}"));
        Ok(Param::from_parts(handle, full, shape.to_vec()))
    }
}

/// Hooks, set in `attach`. Several at one site run in the order in which they were set.
impl Model {
    /// At a linear or convolution site.
    pub fn hook_linear(&mut self, site: &Site, hook: impl LinearHook) -> Result<()> {
        hooks::linear(&site.path, hook)
    }

    /// At a block's output.
    pub fn hook_block(&mut self, site: &Site, hook: impl BlockHook) -> Result<()> {
        hooks::block(&site.path, hook)
    }

    /// At the input embeddings.
    pub fn hook_embeddings(&mut self, site: &Site, hook: impl EmbeddingHook) -> Result<()> {
        hooks::embeddings(&site.path, hook)
    }

    /// Inside attention.
    pub fn hook_attention(&mut self, site: &Site, hook: impl AttentionHook) -> Result<()> {
        hooks::attention(&site.path, hook)
    }
}

/// Measuring.
impl Model {
    /// Walks over the task's training examples, at most `limit` (0: all), and visits the gradient of each trainable
    /// parameter for each example alone. Returns how many examples it saw. Each call sees the same examples in the same order, which
    /// follows from the run's seed.
    ///
    /// # Errors
    /// The visitor's own error ends the walk and comes out as it is.
    pub fn example_gradients(
        &mut self,
        labels: FisherLabels,
        limit: u64,
        visit: impl FnMut(ExampleGradient<'_>) -> Result<()>,
    ) -> Result<u64> {
        self.walk(labels, limit, None, visit)
    }

    /// As [`example_gradients`](Self::example_gradients), over examples and labels that follow from a seed too: other ones for another
    /// seed, of which a step's number or a task's makes one. Since 1.1
    ///
    /// # Errors
    /// The visitor's own error ends the walk and comes out as it is.
    pub fn example_gradients_seeded(
        &mut self,
        labels: FisherLabels,
        limit: u64,
        seed: u64,
        visit: impl FnMut(ExampleGradient<'_>) -> Result<()>,
    ) -> Result<u64> {
        self.walk(labels, limit, Some(seed), visit)
    }

    fn walk(
        &mut self,
        labels: FisherLabels,
        limit: u64,
        seed: Option<u64>,
        mut visit: impl FnMut(ExampleGradient<'_>) -> Result<()>,
    ) -> Result<u64> {
        let params: HashMap<u64, Param> =
            self.trainable_params()?.into_iter().map(|param| (param.handle, param)).collect();
        let code = match labels {
            FisherLabels::Sampled => fisher_labels::SAMPLED,
            FisherLabels::Empirical => fisher_labels::EMPIRICAL,
            FisherLabels::Exact => fisher_labels::EXACT,
            FisherLabels::SquaredOutputNorm => fisher_labels::SQUARED_OUTPUT_NORM,
        };
        // The weights of one example's labels add up to 1, so those of any one parameter add up to the examples.
        let (mut counted, mut examples) = (None, 0.0);
        host::example_gradients((code, limit, seed), &mut |handle, gradient, weight| {
            let Some(param) = params.get(&handle) else {
                return Err(Error::new(format!("the host visits parameter {handle}, which does not train")));
            };
            if *counted.get_or_insert(handle) == handle {
                examples += weight;
            }
            visit(ExampleGradient { param, gradient: Tensor::borrowed(gradient), weight })
        })?;
        Ok(examples.round() as u64)
    }
}

/// What [`model_call::SET_PARAMS`] may change; `None` leaves as it is.
#[derive(Default, Serialize)]
struct Change {
    handles: Vec<u64>,
    trainable: Option<bool>,
    lr_factor: Option<f64>,
    decay: Option<bool>,
}

fn set_params(params: &[Param], change: Change) -> Result<()> {
    let handles = params.iter().map(|param| param.handle).collect();
    host::model_call::<usize>(model_call::SET_PARAMS, &Change { handles, ..change }).map(drop)
}

impl From<ParamInfo> for Param {
    fn from(info: ParamInfo) -> Self {
        Self::from_parts(info.handle, info.path, info.shape)
    }
}
