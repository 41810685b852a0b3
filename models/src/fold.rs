//! Folding all of a model's hooks into its weights.

use fthost_autograd::{Parameter, Result, Tape, Tensor, Value};

use crate::BaseParameter;
use crate::hooks::{Hooks, Pass};
use crate::merge::Folded;
use crate::site::Site;
use crate::{Input, ModelInfo};

/// What the weights of all sites are with their hooks folded into them. `forward` is the pass in which each folded layer is tried.
///
/// # Errors
/// Where a hook cannot be folded, or a folded layer gives something else than the hooked one; the site is named.
pub(crate) fn folded(
    sites: &[Site],
    parameters: &[BaseParameter],
    hooks: &Hooks,
    forward: impl FnOnce(Pass<'_>) -> Result<()>,
) -> Result<Vec<(Parameter, Tensor)>> {
    let parameter_of = |site: &Site, name: &str| {
        let path = format!("{}.{name}", site.path);
        parameters.iter().map(|base| &base.parameter).find(|parameter| parameter.name() == path)
    };
    let tape = Tape::evaluation();
    let pass = Pass::new(&tape, hooks);
    let mut folded = Vec::with_capacity(sites.len());
    for (i, site) in sites.iter().enumerate() {
        if hooks.beside_weights(i) {
            candle_core::bail!("what is added at {} is no change of a weight", site.path);
        }
        folded.push(match pass.linear_hooks(i) {
            [] => None,
            hooks => {
                let Some(weight) = parameter_of(site, "weight") else {
                    candle_core::bail!("{} has no weight", site.path)
                };
                let weight = matrix(&tape, tape.parameter(weight))?;
                let bias = parameter_of(site, "bias").map(|bias| tape.parameter(bias));
                Some(Folded::new(&tape, &site.path, hooks, weight, bias)?)
            }
        });
    }
    forward(pass.checking(&folded))?;
    let mut changed = Vec::new();
    for (site, folded) in sites.iter().zip(folded) {
        let Some(Folded { weight, bias, .. }) = folded else { continue };
        for (name, value) in [("weight", Some(weight)), ("bias", bias)] {
            // What no hook has changed is still the parameter itself.
            if let (Some(parameter), Some(value)) = (parameter_of(site, name), value)
                && value.parameter().is_none()
            {
                changed.push((parameter.clone(), value.tensor().reshape(parameter.dims())?));
            }
        }
    }
    Ok(changed)
}

/// The inputs that folded layers are tried on: one of each stream.
pub(crate) fn of_each_stream<'a>(info: &ModelInfo, inputs: &'a [Input]) -> Result<&'a [Input]> {
    if inputs.len() == info.streams.len() {
        return Ok(inputs);
    }
    let (streams, found) = (info.streams.len(), inputs.len());
    candle_core::bail!("folded layers of {streams} streams are tried on an input of each, and there are {found}")
}

/// A weight as hooks see it, `[out, in]`: that of a convolution is `[out, channels, kh, kw]`.
pub(crate) fn matrix(tape: &Tape, weight: Value) -> Result<Value> {
    match *weight.dims() {
        [out, channels, height, width] => tape.reshape(&weight, &[out, channels * height * width]),
        _ => Ok(weight),
    }
}
