//! The calls about the model: named and versioned, with JSON in and out, as [`model_call`] lists them. One more is an arm of [`call`].

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use super::{
    run::{Owner, Parameter, Run},
    session::{self, Declares, Scope},
    targets::select,
    toy::{GROUPS, HEADS, LAYERS, WIDTH},
    value::Value,
};
use crate::{Error, ParamInfo, Result, Site, SiteKind, Targets, abi::tables::model_call};

/// Answers a call.
pub(crate) fn call(method: &str, params: &str) -> Result<Json> {
    let params: Json = serde_json::from_str(params)
        .map_err(|error| Error::new(format!("the parameters of {method} do not read: {error}: {params}")))?;
    let of = Params { method, params };
    let scope = session::scope()?;
    let run = scope.run.as_ref().filter(|_| scope.model);
    let run = run.ok_or_else(|| Error::new("the model is at hand in `attach` and in events only"))?;
    match method {
        model_call::DESCRIBE => Ok(describe(run)),
        model_call::SITES => sites(run, &of),
        model_call::SET_TRAINABLE => {
            let trainable: bool = of.read("trainable")?;
            let chosen = parameters(run, &of, |parameter| parameter.owner == Owner::Base)?;
            chosen.iter().for_each(|&index| run.set_trainable(index, trainable));
            Ok(json!(chosen.len()))
        }
        model_call::PARAM => declare(run, &scope, &of),
        model_call::PARAM_INFO => Ok(json!(info(run, session::parameter(of.read("handle")?)?))),
        model_call::SET_LR_FACTOR => {
            let factor = of.read_factor("factor")?.unwrap_or(1.0);
            let chosen = parameters(run, &of, |_| true)?;
            chosen.iter().for_each(|&index| run.state().parameters[index].lr_factor = factor);
            Ok(json!(chosen.len()))
        }
        model_call::PARAMS => {
            Ok(json!(parameters(run, &of, |_| true)?.iter().map(|&index| info(run, index)).collect::<Vec<_>>()))
        }
        model_call::SET_PARAMS => set_params(run, &of),
        model_call::SET_VALUE => {
            let index = session::parameter(of.read("handle")?)?;
            let value = session::value(of.read("tensor")?)?;
            let shape = run.state().parameters[index].value.shape().to_vec();
            if value.shape() != shape {
                return Err(Error::new(format!("a parameter {shape:?} cannot take values {:?}", value.shape())));
            }
            run.set(index, value.data().to_vec());
            Ok(Json::Null)
        }
        model_call::TRAINABLE => {
            Ok(json!(run.trainable().iter().map(|(index, ..)| run.handle(*index)).collect::<Vec<_>>()))
        }
        model_call::GRADIENT => {
            let index = session::parameter(of.read("handle")?)?;
            let state = run.state();
            let gradients = state.gradients.as_ref();
            let gradients =
                gradients.ok_or_else(|| Error::new("gradients of a step are at hand in its `StepEnd` only"))?;
            let Some(gradient) = gradients.get(&index).cloned() else { return Ok(Json::Null) };
            let value = Value::floats(state.parameters[index].value.shape(), gradient);
            drop(state);
            Ok(json!(session::hand_over(value, model_call::GRADIENT)?))
        }
        model_call::LOG_SCALAR => {
            // JSON has no number for what is none, and holds null.
            let (name, value): (String, Option<f64>) = (of.read("name")?, of.read("value")?);
            let Some(value) = value.filter(|_| !name.is_empty()) else {
                return Err(Error::new(format!(
                    "a scalar has a name and a finite value, and this is {name:?} {value:?}"
                )));
            };
            let mut state = run.state();
            let taken = state.taken;
            state.scalars.push((taken, name, value));
            Ok(Json::Null)
        }
        _ => Err(Error::new(format!("the mock host has no call {method:?}"))),
    }
}

/// The parameters of one call.
struct Params<'a> {
    method: &'a str,
    params: Json,
}

impl Params<'_> {
    /// One of them; where it is missing it reads as null.
    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        serde_json::from_value(self.params[name].clone())
            .map_err(|error| Error::new(format!("{name} of {} does not read: {error}", self.method)))
    }

    fn read_factor(&self, name: &str) -> Result<Option<f64>> {
        match self.read::<Option<f64>>(name)? {
            Some(factor) if !(factor.is_finite() && factor >= 0.0) => {
                Err(Error::new(format!("a learning-rate factor must be a number from 0 up, not {factor}")))
            }
            factor => Ok(factor),
        }
    }
}

fn describe(run: &Arc<Run>) -> Json {
    let toy = run.toy;
    let (parameters, vocabulary) = (run.state().parameters.len(), toy.vocabulary());
    // Of a pair each stream says its own.
    let of_one = |number: usize| if run.pair.is_some() { 0 } else { number };
    json!({
        "model_type": if run.pair.is_some() { "toy-pair" } else { toy.model_type() },
        "groups": GROUPS,
        "layers": of_one(LAYERS),
        "width": of_one(WIDTH),
        "heads": of_one(HEADS),
        "vocabulary": vocabulary.filter(|_| run.pair.is_none()),
        "streams": run.streams(),
        "sites": run.sites.iter().map(|site| shown(run, site)).collect::<Vec<_>>(),
        "parameters": (0..parameters).map(|index| info(run, index)).collect::<Vec<_>>(),
    })
}

fn shown(run: &Run, site: &Site) -> Site {
    Site { hooked: !run.hooks(&site.path).is_empty(), ..site.clone() }
}

fn info(run: &Run, index: usize) -> ParamInfo {
    let state = run.state();
    let Parameter { name, value, owner, trainable, group, lr_factor, .. } = &state.parameters[index];
    ParamInfo {
        path: name.clone(),
        shape: value.shape().to_vec(),
        trainable: *trainable,
        group: *group,
        stream: if *owner == Owner::Head { String::new() } else { run.toy.stream().into() },
        base: *owner == Owner::Base,
        handle: run.handle(index),
        head: *owner == Owner::Head,
        shared: false,
        lr_factor: *lr_factor,
    }
}

fn sites(run: &Arc<Run>, of: &Params<'_>) -> Result<Json> {
    let kind: SiteKind = of.read("kind")?;
    let also = of.read::<Option<Vec<SiteKind>>>("also")?.unwrap_or_default();
    let candidates: Vec<&Site> =
        run.sites.iter().filter(|site| site.kind == kind || also.contains(&site.kind)).collect();
    let what = match kind {
        SiteKind::Linear if also.contains(&SiteKind::Conv) => "linear layer or convolution",
        SiteKind::Linear => "linear layer",
        SiteKind::Conv => "convolution",
        SiteKind::AttentionOutput => "attention output",
        SiteKind::FeedForwardOutput => "feed-forward output",
        SiteKind::Embeddings => "input embedding",
        SiteKind::Attention => "attention",
    };
    let paths: Vec<&str> = candidates.iter().map(|site| site.path.as_str()).collect();
    let (targets, exclude) = (of.read::<Option<Targets>>("targets")?, of.read::<Option<Targets>>("exclude")?);
    let chosen = select(what, run.toy.stream(), &paths, false, targets.as_ref(), exclude.as_ref())?;
    Ok(json!(chosen.into_iter().map(|i| shown(run, candidates[i])).collect::<Vec<_>>()))
}

/// Numbers of the parameters that fit `wanted` and that `targets` name; null names all.
fn parameters(run: &Run, of: &Params<'_>, wanted: impl Fn(&Parameter) -> bool) -> Result<Vec<usize>> {
    let targets = of.read::<Option<Targets>>("targets")?;
    let state = run.state();
    let fitting: Vec<usize> = (0..state.parameters.len()).filter(|&i| wanted(&state.parameters[i])).collect();
    let paths: Vec<&str> = fitting.iter().map(|&i| state.parameters[i].name.as_str()).collect();
    let chosen = select("parameter", run.toy.stream(), &paths, true, targets.as_ref(), None)?;
    Ok(chosen.into_iter().map(|i| fitting[i]).collect())
}

fn set_params(run: &Run, of: &Params<'_>) -> Result<Json> {
    let handles: Vec<u64> = of.read("handles")?;
    let (trainable, decay) = (of.read::<Option<bool>>("trainable")?, of.read::<Option<bool>>("decay")?);
    let factor = of.read_factor("lr_factor")?;
    let indices = handles.into_iter().map(session::parameter).collect::<Result<Vec<usize>>>()?;
    for &index in &indices {
        if let Some(trainable) = trainable {
            run.set_trainable(index, trainable);
        }
        let parameter = &mut run.state().parameters[index];
        parameter.lr_factor = factor.unwrap_or(parameter.lr_factor);
        parameter.decay = decay.or(parameter.decay);
    }
    Ok(json!(indices.len()))
}

/// Declares a parameter; gives its handle.
fn declare(run: &Run, scope: &Scope, of: &Params<'_>) -> Result<Json> {
    let (name, owner_path): (String, Option<String>) = (of.read("name")?, of.read("owner")?);
    let shape: Vec<usize> = of.read("shape")?;
    let refused = |why: &str| Err(Error::new(format!("cannot declare {name:?}: {why}")));
    let owner = match scope.declares {
        Declares::Nothing => return refused("parameters are declared in the `attach` of strategies and heads"),
        Declares::Strategy if of.read::<Option<bool>>("head")? == Some(true) => {
            return refused("a head's parameters are declared in the head's `attach`");
        }
        Declares::Head if owner_path.is_some() => return refused("a head has no sites"),
        Declares::Strategy => Owner::Strategy,
        Declares::Head => Owner::Head,
    };
    if name.is_empty() {
        return refused("a parameter needs a name");
    }
    if shape.contains(&0) {
        return refused("it would have no elements");
    }
    let full = owner_path.as_ref().map_or_else(|| name.clone(), |path| format!("{path}.{name}"));
    if run.state().parameters.iter().any(|parameter| parameter.name == full) {
        return refused(&format!("there is a parameter {full} already"));
    }
    let site = run.sites.iter().find(|site| Some(&site.path) == owner_path.as_ref());
    let init: Json = of.read("init")?;
    let data = match init["init"].as_str() {
        Some("copy") => {
            let copied = session::value(init["tensor"].as_u64().unwrap_or(0))?;
            if copied.shape() != shape {
                return refused(&format!("the tensor to copy has shape {:?}", copied.shape()));
            }
            copied.data().to_vec()
        }
        _ => run
            .toy
            .initial(run.seed, &full, &shape, &init)
            .map_err(|error| error.context(format!("the parameter {full}")))?,
    };
    let mut state = run.state();
    let decay: Option<bool> = of.read("decay")?;
    state.parameters.push(Parameter {
        name: full,
        value: Value::variable(shape, data),
        owner,
        trainable: true,
        group: site.map_or(GROUPS - 1, |site| site.group),
        lr_factor: 1.0,
        decay,
    });
    Ok(json!(run.handle(state.parameters.len() - 1)))
}
