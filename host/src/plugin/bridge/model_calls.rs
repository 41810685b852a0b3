//! The calls about the model: named and versioned, with JSON in and out. The list stands in `fthost_plugin_api`'s tables.

use crate::error::plain;
use fthost_autograd::random::Stream;
use fthost_autograd::{DType, Device, Parameter, Tape, Tensor};
use fthost_models::{Modality, ModelInfo, Read, Site, SiteKind, Stream as ModelStream};
use fthost_plugin_api as api;
use fthost_plugin_api::abi::tables::model_call;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::results;
use super::session::{self, Declares, View};
use super::targets::{Candidate, Selection, refuse_shared, select};
use crate::adapted::{AdaptedModel, ModelParameter, Owner, PatternMatch};
use crate::memory;

/// Answers a call.
pub(super) fn call(method: &str, params: &str) -> Result<String, String> {
    match method {
        model_call::DESCRIBE => session::with_model(|model, view| reply(&describe(model, view))),
        model_call::SITES => {
            let params: Sites = read(method, params)?;
            // Counts are remembered, so even this call changes the model's record.
            session::with_model_mut(|model, view| reply(&sites(model, view, &params)?))
        }
        model_call::SET_TRAINABLE => {
            let params: SetTrainable = read(method, params)?;
            session::with_model_mut(|model, view| reply(&set_trainable(model, view, &params)?))
        }
        model_call::PARAM => {
            let params: Param = read(method, params)?;
            session::with_model_mut(|model, view| reply(&declare(model, view, params)?))
        }
        model_call::PARAM_INFO => {
            let params: ParamInfo = read(method, params)?;
            let (index, _) = session::parameter(params.handle)?;
            session::with_model(|model, view| reply(&info_of(model, view, index)))
        }
        model_call::SET_LR_FACTOR => {
            let params: SetLrFactor = read(method, params)?;
            session::with_model_mut(|model, view| reply(&set_lr_factor(model, view, &params)?))
        }
        model_call::PARAMS => {
            let params: Params = read(method, params)?;
            session::with_model_mut(|model, view| reply(&named(model, view, &params)?))
        }
        model_call::TRAINABLE => session::with_model(|model, view| {
            let training = numbers(model, view, |of| of.parameter.trainable());
            reply(&training.map(|i| model.handles().handle(i)).collect::<Vec<_>>())
        }),
        model_call::SET_PARAMS => {
            let params: SetParams = read(method, params)?;
            let indices = params.handles.iter().map(|handle| Ok(session::parameter(*handle)?.0));
            let indices = indices.collect::<Result<Vec<usize>, String>>()?;
            session::with_model_mut(|model, _| reply(&set_params(model, &indices, &params)?))
        }
        model_call::SET_VALUE => {
            let params: SetValue = read(method, params)?;
            let (index, _) = session::parameter(params.handle)?;
            let value = session::value(params.tensor)?;
            session::with_model_mut(|model, _| {
                let name = model.parameters[index].parameter.name();
                model.parameters[index].must_stay().map_or(Ok(()), Err)?;
                results::floats(&value).map_err(|text| format!("the value of {name}: {text}"))?;
                if !results::are_finite(value.tensor()) {
                    return Err(format!("the value of {name} has numbers that are not finite"));
                }
                // A copy: the parameter's tensor changes in place, and the value may be computed from it.
                let set = value.tensor().copy().and_then(|value| model.parameters[index].parameter.set(&value));
                reply(&set.map_err(|error| plain(&error))?)
            })
        }
        model_call::GRADIENT => {
            let params: ParamInfo = read(method, params)?;
            let (_, parameter) = session::parameter(params.handle)?;
            let found = session::with_model(|model, _| {
                let stepped = model.stepped.as_ref().ok_or("gradients of a step are at hand in its `StepEnd` only")?;
                let gradient = stepped.get(&parameter).map(|gradient| gradient.to_dense(parameter.dims()));
                gradient.transpose().map_err(|error| plain(&error))
            })?;
            reply(&found.map(session::hand_over).transpose()?)
        }
        model_call::LOG_SCALAR => {
            let Scalar { name, value } = read(method, params)?;
            if name.is_empty() || !value.is_finite() {
                return Err(format!("a scalar has a name and a finite value, and this is {name:?} {value}"));
            }
            // Where the model is at hand calls come one at a time, so that the lines have an order.
            session::with_model(|model, _| {
                let (caller, _) = session::who()?;
                model.handles().keep_scalar(format!("{}/{name}", caller.method()), value);
                reply(&())
            })
        }
        other => Err(format!("this host has no model call {other:?}; update fthost")),
    }
}

fn read<T: DeserializeOwned>(method: &str, params: &str) -> Result<T, String> {
    serde_json::from_str(params).map_err(|error| format!("the parameters of {method} do not read: {error}"))
}

fn reply(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

#[derive(Serialize)]
struct Description {
    model_type: String,
    groups: usize,
    /// Of a plain model; 0 where it has none such, or several streams.
    layers: usize,
    width: usize,
    heads: usize,
    vocabulary: Option<usize>,
    streams: Vec<api::Stream>,
    sites: Vec<api::Site>,
    parameters: Vec<api::ParamInfo>,
}

fn describe(model: &AdaptedModel, view: &View) -> Description {
    let info = model.model.info();
    let streams = streams(model).into_iter().enumerate().filter(|(i, _)| view.sees(Some(*i)));
    let streams: Vec<api::Stream> = streams.map(|(_, stream)| stream).collect();
    let sites = model.model.sites().iter().filter(|site| view.sees(site.stream));
    let plain = match streams.as_slice() {
        [one] => Some(one),
        _ => None,
    };
    Description {
        model_type: info.model_type.clone(),
        groups: view.group(info, info.head_group()) + 1,
        layers: plain.and_then(|stream| stream.layers).unwrap_or_default(),
        width: plain.map_or(0, |stream| stream.width),
        heads: plain.and_then(|stream| stream.heads).unwrap_or_default(),
        vocabulary: plain.and_then(|stream| stream.vocabulary),
        sites: sites.map(|site| site_for_plugin(model, view, site)).collect(),
        parameters: numbers(model, view, |_| true).map(|i| info_of(model, view, i)).collect(),
        streams,
    }
}

/// The model's streams, as plugins know them.
pub(crate) fn streams(model: &AdaptedModel) -> Vec<api::Stream> {
    let stream = |stream: &ModelStream| api::Stream {
        name: stream.name.clone(),
        width: stream.width,
        layers: stream.layers,
        heads: stream.heads,
        vocabulary: match stream.modality {
            Modality::Text { vocabulary, .. } => Some(vocabulary),
            Modality::Images { .. } => None,
        },
        features: stream.reads.iter().map(|read| kind_of(*read)).collect(),
    };
    model.model.info().streams.iter().map(stream).collect()
}

/// Features in the plugins' words.
pub(in crate::plugin) const fn kind_of(read: Read) -> api::FeatureKind {
    match read {
        Read::Pooled => api::FeatureKind::Pooled,
        Read::Sequence => api::FeatureKind::Sequence,
        Read::Spatial | Read::Stage(_) => api::FeatureKind::Spatial,
    }
}

/// The name of a stream; empty for what is part of none.
fn stream_name(model: &AdaptedModel, stream: Option<usize>) -> String {
    stream.map(|stream| model.model.info().streams[stream].name.clone()).unwrap_or_default()
}

/// Numbers of the parameters that are seen and fit. Buffers are the model's own matter: no plugin hears of them.
fn numbers(model: &AdaptedModel, view: &View, wanted: impl Fn(&ModelParameter) -> bool) -> impl Iterator<Item = usize> {
    let fits = move |(i, p): (usize, &ModelParameter)| {
        (!p.buffer && !p.unread && view.sees(p.stream) && wanted(p)).then_some(i)
    };
    model.parameters.iter().enumerate().filter_map(fits)
}

fn site_for_plugin(model: &AdaptedModel, view: &View, site: &Site) -> api::Site {
    api::Site {
        path: site.path.clone(),
        kind: match site.kind {
            SiteKind::Linear => api::SiteKind::Linear,
            SiteKind::Conv => api::SiteKind::Conv,
            SiteKind::AttentionOutput => api::SiteKind::AttentionOutput,
            SiteKind::FeedForwardOutput => api::SiteKind::FeedForwardOutput,
            SiteKind::Embeddings => api::SiteKind::Embeddings,
            SiteKind::Attention => api::SiteKind::Attention,
        },
        in_features: site.in_features,
        out_features: site.out_features,
        group: view.group(model.model.info(), site.group),
        stream: stream_name(model, site.stream),
        hooked: model.model.hooked(&site.path),
        convolution: site.convolution.map(|of| api::Convolution {
            channels: of.channels,
            kernel: of.kernel,
            stride: of.stride,
            padding: of.padding,
            dilation: of.dilation,
            groups: of.groups,
        }),
    }
}

fn info_of(model: &AdaptedModel, view: &View, index: usize) -> api::ParamInfo {
    let of = &model.parameters[index];
    api::ParamInfo {
        path: of.parameter.name().to_owned(),
        shape: of.parameter.dims().to_vec(),
        trainable: of.parameter.trainable(),
        group: view.group(model.model.info(), of.group),
        stream: stream_name(model, of.stream),
        base: of.owner == Owner::Base,
        handle: model.handles().handle(index),
        head: matches!(of.owner, Owner::Head(_)),
        shared: matches!(of.owner, Owner::Head(task) if model.shared_heads.contains(&task)),
        lr_factor: of.lr_factor,
    }
}

/// Remembers what a strategy's patterns matched, for the plan. Events repeat themselves, so only `attach` counts.
fn remember(model: &mut AdaptedModel, view: &View, selection: &Selection) {
    if let Declares::Strategy(strategy) = view.declares {
        let stream = view.stream.map(|stream| stream_name(model, Some(stream)));
        let found = |(pattern, matched): &(String, usize)| PatternMatch {
            strategy,
            stream: stream.clone(),
            pattern: pattern.clone(),
            matched: *matched,
        };
        model.matches.extend(selection.counts.iter().map(found));
    }
}

#[derive(Deserialize)]
struct Sites {
    kind: api::SiteKind,
    /// Further kinds, of convolutions those of one group.
    #[serde(default)]
    also: Vec<api::SiteKind>,
    targets: Option<api::Targets>,
    exclude: Option<api::Targets>,
}

fn sites(model: &mut AdaptedModel, view: &View, params: &Sites) -> Result<Vec<api::Site>, String> {
    let info = model.model.info();
    let seen = model.model.sites().iter().filter(|site| view.sees(site.stream));
    let all = seen.map(|site| (site_for_plugin(model, view, site), site));
    let one_group = |site: &api::Site| site.convolution.is_none_or(|of| of.groups == 1);
    let all: Vec<(api::Site, &Site)> = all
        .filter(|(site, _)| site.kind == params.kind || params.also.contains(&site.kind) && one_group(site))
        .collect();
    let candidates: Vec<Candidate<'_>> =
        all.iter().map(|(_, site)| candidate(info, view, (site.stream, &site.path), false)).collect();
    let what = match params.kind {
        api::SiteKind::Linear if params.also.contains(&api::SiteKind::Conv) => "linear layer or convolution",
        api::SiteKind::Linear => "linear layer",
        api::SiteKind::Conv => "convolution",
        api::SiteKind::AttentionOutput => "attention output",
        api::SiteKind::FeedForwardOutput => "feed-forward output",
        api::SiteKind::Embeddings => "input embedding",
        api::SiteKind::Attention => "attention",
    };
    if params.kind == api::SiteKind::Linear {
        refuse_shared(info, params.targets.as_ref())?;
    }
    let selection = select(what, &candidates, params.targets.as_ref(), params.exclude.as_ref())?;
    if selection.chosen.is_empty() {
        let of = view.stream.map_or(String::new(), |stream| format!("the stream {:?} of ", info.streams[stream].name));
        return Err(format!("{of}this model ({}) has no {what} to adapt", info.model_type));
    }
    let chosen = selection.chosen.iter().map(|i| all[*i].0.clone()).collect();
    remember(model, view, &selection);
    Ok(chosen)
}

/// What may be matched at a path of a stream.
fn candidate<'a>(
    info: &'a ModelInfo,
    view: &View,
    (stream, path): (Option<usize>, &'a str),
    by_module: bool,
) -> Candidate<'a> {
    Candidate {
        path,
        prefix: info.prefix(stream),
        stream: stream.map_or("", |stream| &info.streams[stream].name),
        within: info.within(stream, path),
        alone: view.stream.is_some(),
        by_module,
    }
}

/// Numbers of the parameters that fit `wanted` and that `targets` name; `None` names all.
fn parameters(
    model: &mut AdaptedModel,
    view: &View,
    targets: Option<&api::Targets>,
    wanted: impl Fn(&ModelParameter) -> bool,
) -> Result<Vec<usize>, String> {
    let fitting: Vec<usize> = numbers(model, view, wanted).collect();
    let candidate = |i: &usize| {
        let p = &model.parameters[*i];
        candidate(model.model.info(), view, (p.stream, p.parameter.name()), true)
    };
    let candidates: Vec<Candidate<'_>> = fitting.iter().map(candidate).collect();
    let selection = select("parameter", &candidates, targets, None)?;
    let chosen = selection.chosen.iter().map(|i| fitting[*i]).collect();
    remember(model, view, &selection);
    Ok(chosen)
}

#[derive(Deserialize)]
struct SetTrainable {
    targets: Option<api::Targets>,
    trainable: bool,
}

fn set_trainable(model: &mut AdaptedModel, view: &View, params: &SetTrainable) -> Result<usize, String> {
    let chosen = parameters(model, view, params.targets.as_ref(), |p| p.owner == Owner::Base)?;
    if params.trainable {
        refuse_quantized(model, &chosen)?;
    }
    for i in &chosen {
        model.parameters[*i].parameter.set_trainable(params.trainable);
    }
    Ok(chosen.len())
}

/// Refuses to train any of these that is to stay as it is.
fn refuse_quantized(model: &AdaptedModel, chosen: &[usize]) -> Result<(), String> {
    chosen.iter().find_map(|i| model.parameters[*i].must_stay()).map_or(Ok(()), Err)
}

#[derive(Deserialize)]
struct SetLrFactor {
    targets: Option<api::Targets>,
    factor: f64,
}

fn check_lr_factor(factor: f64) -> Result<(), String> {
    if factor.is_finite() && factor >= 0.0 {
        return Ok(());
    }
    Err(format!("a learning-rate factor must be a number from 0 up, not {factor}"))
}

fn set_lr_factor(model: &mut AdaptedModel, view: &View, params: &SetLrFactor) -> Result<usize, String> {
    check_lr_factor(params.factor)?;
    let chosen = parameters(model, view, params.targets.as_ref(), |_| true)?;
    for i in &chosen {
        model.parameters[*i].lr_factor = params.factor;
    }
    Ok(chosen.len())
}

#[derive(Deserialize)]
struct Params {
    targets: Option<api::Targets>,
}

fn named(model: &mut AdaptedModel, view: &View, params: &Params) -> Result<Vec<api::ParamInfo>, String> {
    let chosen = parameters(model, view, params.targets.as_ref(), |_| true)?;
    Ok(chosen.into_iter().map(|i| info_of(model, view, i)).collect())
}

#[derive(Deserialize)]
struct SetParams {
    handles: Vec<u64>,
    trainable: Option<bool>,
    lr_factor: Option<f64>,
    decay: Option<bool>,
}

/// Changes the parameters of these numbers, whoever declared them; how many there are.
fn set_params(model: &mut AdaptedModel, indices: &[usize], params: &SetParams) -> Result<usize, String> {
    params.lr_factor.map_or(Ok(()), check_lr_factor)?;
    if params.trainable == Some(true) {
        refuse_quantized(model, indices)?;
    }
    for i in indices {
        let of = &mut model.parameters[*i];
        if let Some(trainable) = params.trainable {
            // Who has named it before its heads were there may name it again.
            of.parameter.set_trainable(trainable && !of.unread);
        }
        of.lr_factor = params.lr_factor.unwrap_or(of.lr_factor);
        of.decay_said = params.decay.or(of.decay_said);
    }
    Ok(indices.len())
}

#[derive(Deserialize)]
struct SetValue {
    handle: u64,
    tensor: u64,
}

#[derive(Deserialize)]
struct Scalar {
    name: String,
    value: f64,
}

#[derive(Deserialize)]
struct ParamInfo {
    handle: u64,
}

#[derive(Deserialize)]
struct Param {
    owner: Option<String>,
    name: String,
    shape: Vec<usize>,
    init: api::Init,
    decay: bool,
    #[serde(default)]
    head: bool,
}

/// Declares a parameter; gives its handle.
fn declare(model: &mut AdaptedModel, view: &View, params: Param) -> Result<u64, String> {
    let info = model.model.info();
    // What a strategy of one stream declares at no site is still of the stream, and named so: another may do the same in another stream.
    let nowhere = Place { group: info.head_group(), stream: view.stream };
    let root = view.stream.map_or("", |stream| &info.streams[stream].root);
    let (name, owner, Place { group, stream }) = match (&view.declares, &params.owner) {
        (Declares::Nothing, _) => {
            return Err(format!(
                "cannot declare {:?}: parameters are declared in the `attach` of strategies and heads",
                params.name
            ));
        }
        (Declares::Strategy(_), _) if params.head => {
            return Err(format!(
                "cannot declare {:?}: a head's parameters are declared in the head's `attach`",
                params.name
            ));
        }
        (Declares::Head { task, prefix }, None) => (format!("{prefix}{}", params.name), Owner::Head(*task), nowhere),
        (Declares::Head { .. }, Some(owner)) => {
            return Err(format!("cannot declare {:?} at {owner}: a head has no sites", params.name));
        }
        (Declares::Strategy(index), None) => (format!("{root}{}", params.name), Owner::Strategy(*index), nowhere),
        (Declares::Strategy(index), Some(owner)) => {
            (format!("{owner}.{}", params.name), Owner::Strategy(*index), place_of(model, owner).unwrap_or(nowhere))
        }
    };
    if params.name.is_empty() {
        return Err("a parameter needs a name".to_owned());
    }
    if let Some(known) = model.parameters.iter().find(|p| p.parameter.name() == name) {
        let whose = match known.owner {
            Owner::Base => "the model has one of that name",
            Owner::Strategy(_) => "a strategy has declared one of that name; give one of the two another name",
            Owner::Head(_) => "a head has declared one of that name",
        };
        return Err(format!("cannot declare the parameter {name}: {whose}"));
    }
    let tensor = initial(model, view, &name, (&params.shape, &params.init))
        .map_err(|error| format!("cannot make the parameter {name} {:?}: {error}", params.shape))?;
    let index = model.parameters.len();
    let decay = params.shape.len() > 1;
    model.parameters.push(ModelParameter {
        parameter: Parameter::new(name, tensor, true),
        owner,
        in_model: params.owner.is_some(),
        group,
        stream,
        buffer: false,
        quantized: false,
        unread: false,
        lr_factor: 1.0,
        decay,
        // What is said of a vector or a matrix as of all such is no word on this one.
        decay_said: Some(params.decay).filter(|said| *said != decay),
    });
    Ok(model.handles().handle(index))
}

/// Where in the model something is.
#[derive(Clone, Copy)]
struct Place {
    group: usize,
    stream: Option<usize>,
}

/// The place of a site or of what lies below a path.
fn place_of(model: &AdaptedModel, path: &str) -> Option<Place> {
    let below = |of: &str| of.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let mut sites = model.model.sites().iter().filter(|site| below(&site.path));
    let mut parameters = model.parameters.iter().filter(|p| below(p.parameter.name()));
    let site = sites.next().map(|&Site { group, stream, .. }| Place { group, stream });
    site.or_else(|| parameters.next().map(|&ModelParameter { group, stream, .. }| Place { group, stream }))
}

/// The value a parameter starts with. Random ones are a function of the run's seed and the name, drawn on the CPU, so that they
/// depend neither on the order of declarations nor on the device.
fn initial(
    model: &AdaptedModel,
    view: &View,
    name: &str,
    (shape, init): (&[usize], &api::Init),
) -> Result<Tensor, String> {
    if shape.contains(&0) {
        return Err("it would have no elements".to_owned());
    }
    // Before anything is taken: a parameter that trains takes as much again for its gradient.
    let bytes = memory::elements(shape).saturating_mul(size_of::<f32>() as u128);
    memory::room_for(bytes.saturating_mul(2)).map_err(|text| format!("with its gradient {text}"))?;
    check_init(init)?;
    let stream = Stream::new(model.seed, name);
    let elements = shape.iter().product();
    let filled = |fill: &dyn Fn(&mut [f32])| {
        let mut data = vec![0f32; elements];
        fill(&mut data);
        Tensor::from_vec(data, shape, &Device::Cpu)
    };
    let tensor = match init {
        api::Init::Zeros => filled(&|_| {}),
        api::Init::Ones => filled(&|data| data.fill(1.0)),
        api::Init::Constant { value } => filled(&|data| data.fill(*value as f32)),
        api::Init::Uniform { low, high } => filled(&|data| stream.fill_uniform(data, *low, *high)),
        api::Init::Normal { mean, std } => filled(&|data| stream.fill_normal(data, *mean, *std)),
        api::Init::TruncatedNormal { std } => filled(&|data| stream.fill_truncated_normal(data, 0.0, *std, 2.0)),
        api::Init::VocabularyRows => {
            let (table, rows) = embedding_rows(model, view, shape)?;
            let vocabulary = table.dims()[0];
            if rows > vocabulary {
                return Err(format!("the vocabulary has only {vocabulary} rows"));
            }
            let mut ids = stream.permutation(vocabulary);
            ids.truncate(rows);
            gather(table, &ids)
        }
        api::Init::TextRows { text } => {
            let (table, rows) = embedding_rows(model, view, shape)?;
            let tokenize =
                model.tokenize.as_ref().ok_or("this run has no tokenizer, which an init from a text needs")?;
            let tokens = tokenize(text).map_err(|error| error.to_string())?;
            if tokens.is_empty() {
                return Err(format!("the text {text:?} has no tokens"));
            }
            gather(table, &tokens.iter().copied().cycle().take(rows).collect::<Vec<_>>())
        }
        api::Init::Copy { tensor } => copy(*tensor, shape),
        other => return Err(format!("this host does not know the init {other:?}; update fthost")),
    };
    tensor.and_then(|tensor| tensor.to_device(&model.device)).map_err(|error| plain(&error))
}

/// Refuses a start that is no number, or spread over nothing.
fn check_init(init: &api::Init) -> Result<(), String> {
    let right = match init {
        api::Init::Constant { value } => value.is_finite(),
        api::Init::Uniform { low, high } => low.is_finite() && high.is_finite() && low <= high,
        api::Init::Normal { mean, std } => mean.is_finite() && std.is_finite() && *std >= 0.0,
        api::Init::TruncatedNormal { std } => std.is_finite() && *std >= 0.0,
        _ => true,
    };
    if right { Ok(()) } else { Err(format!("it cannot start as {init:?}: finite numbers are needed, in order")) }
}

/// The word embeddings `[vocabulary, width]` and how many of their rows make `shape`.
fn embedding_rows<'a>(model: &'a AdaptedModel, view: &View, shape: &[usize]) -> Result<(&'a Parameter, usize), String> {
    let info = model.model.info();
    let seen = info.streams.iter().enumerate().filter(|(i, _)| view.sees(Some(*i)));
    let mut paths = seen.filter_map(|(_, stream)| stream.word_embeddings.as_deref());
    let path = paths.next().ok_or_else(|| format!("{} has no word embeddings", info.model_type))?;
    let table = model
        .parameters
        .iter()
        .map(|p| &p.parameter)
        .find(|p| p.name().strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest == ".weight"))
        .ok_or_else(|| format!("the word embeddings {path} are no parameter of the model"))?;
    match (table.dims(), shape) {
        ([_, width], [rows, columns]) if width == columns => Ok((table, *rows)),
        (table, _) => Err(format!("rows of the word embeddings {table:?} do not have this shape")),
    }
}

/// A copy of a tensor that a plugin holds, in `f32`.
fn copy(handle: u64, shape: &[usize]) -> fthost_autograd::Result<Tensor> {
    let value = session::value(handle).map_err(fthost_autograd::Error::Msg)?;
    if value.dims() != shape {
        candle_core::bail!("the tensor to copy has shape {:?}", value.dims());
    }
    if !results::are_finite(value.tensor()) {
        candle_core::bail!("the tensor to copy has numbers that are not finite");
    }
    // A parameter is changed in place, so it shares its memory with nothing.
    value.tensor().to_dtype(DType::F32)?.copy()
}

/// A copy of some rows, on the CPU.
fn gather(table: &Parameter, ids: &[u32]) -> fthost_autograd::Result<Tensor> {
    let tape = Tape::evaluation();
    tape.embedding(&tape.parameter(table), ids)?.into_tensor().to_device(&Device::Cpu)
}
