//! L2-SP (Li et al. 2018, arXiv:1802.01483): weight decay towards the pretrained weights instead of towards zero.
//!
//! penalty = alpha / 2 ||w - w0||^2 + beta / 2 ||v||^2, with w the pretrained model's parameters that train, w0 their values
//! before they did, and v the new ones, of heads and strategies. It is added to the mean loss of each step. At step 0 w is w0,
//! so the penalty is that of the new parameters alone. A parameter that is thawed later has its w0 from that moment.

use std::collections::BTreeMap;

use fthost_plugin_api::{prelude::*, tracing};

/// Options of L2-SP.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct L2spConfig {
    /// Pull of the pretrained model's parameters towards their start.
    #[schemars(range(min = 0))]
    alpha: f64,
    /// Pull of new parameters towards zero.
    #[schemars(range(min = 0))]
    beta: f64,
}

impl Default for L2spConfig {
    fn default() -> Self {
        Self { alpha: 0.01, beta: 0.01 }
    }
}

struct L2sp {
    config: L2spConfig,
    /// w0 of every pretrained parameter that has trained, by name.
    start: BTreeMap<String, Kept>,
    /// What trains now: the pretrained model's parameters, and the new ones.
    pretrained: Vec<Param>,
    new: Vec<Param>,
    /// The handles of both, as the host lists them.
    handles: Vec<u64>,
}

impl L2sp {
    /// Learns what trains now. What has just been thawed still has its w0.
    fn follow(&mut self, model: &Model) -> Result<()> {
        let handles = model.trainable_handles()?;
        if handles == self.handles {
            return Ok(());
        }
        self.handles = handles;
        (self.pretrained, self.new) = (Vec::new(), Vec::new());
        for info in model.parameters()?.into_iter().filter(|info| info.trainable) {
            let base = info.base;
            let param = Param::from(info);
            if base && !self.start.contains_key(param.name()) {
                self.start.insert(param.name().to_owned(), param.tensor().keep()?);
            }
            if base { &mut self.pretrained } else { &mut self.new }.push(param);
        }
        Ok(())
    }
}

impl Regularizer for L2sp {
    type Config = L2spConfig;

    fn new(config: L2spConfig) -> Result<Self> {
        for (option, value) in [("alpha", config.alpha), ("beta", config.beta)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::new(format!("{option} is {value}, and must be at least 0")));
            }
        }
        if config.alpha == 0.0 && config.beta == 0.0 {
            return Err(Error::new("alpha and beta are 0, so nothing is penalised: give one, or leave l2sp out"));
        }
        Ok(Self { config, start: BTreeMap::new(), pretrained: Vec::new(), new: Vec::new(), handles: Vec::new() })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        self.follow(model)?;
        if self.pretrained.is_empty() && self.config.alpha > 0.0 {
            tracing::warn!(
                "l2sp: no parameter of the pretrained model trains, so alpha pulls at nothing until one does"
            );
        }
        Ok(())
    }

    fn penalty(&self) -> Result<Option<Tensor>> {
        let L2spConfig { alpha, beta } = self.config;
        let mut terms = Vec::new(); // scalars
        for param in self.pretrained.iter().filter(|_| alpha > 0.0) {
            let start = self.start.get(param.name());
            let start = start.ok_or_else(|| Error::new(format!("{param} trains, and its start was not kept")))?;
            terms.push(param.tensor().squared_distance(start, None)?.mul_scalar(alpha / 2.0)?);
        }
        for param in self.new.iter().filter(|_| beta > 0.0) {
            terms.push(param.tensor().square()?.sum()?.mul_scalar(beta / 2.0)?);
        }
        let mut terms = terms.into_iter();
        let Some(first) = terms.next() else { return Ok(None) };
        terms.try_fold(first, |sum, term| sum.add(&term)).map(Some)
    }

    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        match event {
            // Strategies heard it first: what they thaw for this step is thawed now, and has not moved yet.
            Event::StepBegin { .. } => self.follow(model),
            _ => Ok(()),
        }
    }

    fn save(&self) -> Result<SavedState> {
        let start = self.start.iter().map(|(name, start)| (name.clone(), start.tensor()));
        Ok(SavedState { json: Value::Null, tensors: start.collect() })
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        for (name, start) in state.tensors {
            let known = self.pretrained.iter().find(|param| param.name() == name);
            if let Some(param) = known.filter(|param| start.shape().is_ok_and(|shape| param.shape() != shape)) {
                return Err(Error::new(format!(
                    "the state has {name} as {:?}, and the model as {:?}: it is of another model",
                    start.shape()?,
                    param.shape()
                )));
            }
            self.start.insert(name, start.keep()?);
        }
        Ok(())
    }
}

register! {
    /// L2-SP: pulls trained weights towards their pretrained values.
    Regularizer "l2sp" => L2sp
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = ["square@1", "sum@1", "affine@1", "add@1", "squared_distance@1", "keep@1"]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;
    use fthost_plugin_api::test::Host;

    #[test]
    fn refuses_what_cannot_be_meant() {
        for options in [json!({ "alpha": -1.0 }), json!({ "beta": -0.1 }), json!({ "alpha": 0.0, "beta": 0.0 })] {
            assert!(L2sp::new(from_value(options.clone()).unwrap()).is_err(), "{options}");
        }
    }

    #[test]
    fn pulls_by_its_gradient() {
        let mut run = Host::new().regularizer::<L2sp>(json!({ "alpha": 0.5 })).unwrap();
        assert_eq!(run.penalty().unwrap(), Some(0.0), "nothing has moved");
        run.train(1, 3).unwrap();
        assert!(run.penalty().unwrap() > Some(0.0));
        run.check().unwrap();
    }
}
