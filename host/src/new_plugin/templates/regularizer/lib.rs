//! An L1 penalty on what trains (Tibshirani 1996): small weights go to 0, and what a run adds to
//! the model becomes sparse.
//!
//! penalty = alpha sum |w| over all parameters that train, heads apart unless `heads` says
//! otherwise. It is added to the mean loss of each step. A parameter that is thawed later is
//! penalised from then on.

use fthost_plugin_api::{prelude::*, tracing};

#[cfg(test)]
mod tests;

/// Options of the penalty. The doc comments are their help, the defaults stand in `Default`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Weight of the penalty.
    #[schemars(extend("exclusiveMinimum" = 0, "search" = [1e-5, 1e-4, 1e-3]))]
    alpha: f64,
    /// Whether heads are penalised too.
    heads: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            alpha: 1e-4,
            heads: false,
        }
    }
}

struct AbsoluteValues {
    config: Config,
    /// What trains now, and its handles as the host lists them.
    params: Vec<Param>,
    handles: Vec<u64>,
}

impl AbsoluteValues {
    /// Learns what trains now.
    fn follow(&mut self, model: &Model) -> Result<()> {
        let handles = model.trainable_handles()?;
        if handles == self.handles {
            return Ok(());
        }
        self.handles = handles;
        let penalised = |info: &ParamInfo| info.trainable && (self.config.heads || !info.head);
        self.params = model
            .parameters()?
            .into_iter()
            .filter(penalised)
            .map(Param::from)
            .collect();
        Ok(())
    }
}

impl Regularizer for AbsoluteValues {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        if !(config.alpha.is_finite() && config.alpha > 0.0) {
            return Err(Error::new(format!(
                "alpha is {}, and must be above 0, such as 1e-4",
                config.alpha
            )));
        }
        Ok(Self {
            config,
            params: Vec::new(),
            handles: Vec::new(),
        })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        self.follow(model)?;
        if self.params.is_empty() {
            tracing::warn!(
                "nothing but a head trains, so nothing is penalised until something does: heads = true penalises it"
            );
        }
        Ok(())
    }

    fn penalty(&self) -> Result<Option<Tensor>> {
        let mut terms = self.params.iter().map(|param| param.tensor().abs()?.sum()); // scalars
        let Some(first) = terms.next() else {
            return Ok(None);
        };
        let sum = terms.try_fold(first?, |sum, term| sum.add(&term?))?;
        sum.mul_scalar(self.config.alpha).map(Some)
    }

    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        match event {
            // Strategies heard it first: what they thaw for this step trains now.
            Event::StepBegin { .. } => self.follow(model),
            _ => Ok(()),
        }
    }
}

register! {
    /// An L1 penalty on what trains.
    Regularizer "my-method" => AbsoluteValues
}
export_plugin! { license = "MIT OR Apache-2.0", ops = ["abs@1", "sum@1", "add@1", "affine@1"] }
