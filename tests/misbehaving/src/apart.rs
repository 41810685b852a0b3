//! A head as a third party writes one: layers and names of its own, and a state that its predictions need. There is nothing wrong with it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use fthost_plugin_api::prelude::*;

/// Options of the head.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ApartConfig {
    /// Width of the layer between.
    width: usize,
}

impl Default for ApartConfig {
    fn default() -> Self {
        Self { width: 6 }
    }
}

struct Layers {
    inner: Param,
    outer: Param,
}

struct Apart {
    config: ApartConfig,
    layers: Option<Layers>,
    /// What logits are multiplied by: known once something was learned, and no parameter.
    sharpness: Mutex<f64>,
}

impl Apart {
    fn layers(&self) -> Result<&Layers> {
        self.layers.as_ref().ok_or_else(|| Error::new("used before it was attached"))
    }

    fn sharpness(&self) -> MutexGuard<'_, f64> {
        self.sharpness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TaskHead for Apart {
    type Config = ApartConfig;

    fn new(config: ApartConfig) -> Result<Self> {
        Ok(Self { config, layers: None, sharpness: Mutex::new(1.0) })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let (between, classes) = (self.config.width, task.classes()?);
        let inner = model.head_param("inner.matrix", [between, task.width], Init::kaiming_uniform(task.width))?;
        let outer = model.head_param("outer.matrix", [classes, between], Init::kaiming_uniform(between))?;
        self.layers = Some(Layers { inner, outer });
        Ok(HeadSpec::new(FeatureKind::Pooled, TargetKind::Class, PredictionKind::Classes))
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        let layers = self.layers()?;
        features.tensor.linear(&layers.inner, None)?.gelu()?.linear(&layers.outer, None)
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        *self.sharpness() = 3.0;
        let (sum, weight) = outputs.cross_entropy(targets.tensor, None, 0.0)?;
        Ok(Loss { sum, weight: weight.to_scalar()? })
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        outputs.mul_scalar(*self.sharpness())?.softmax()
    }

    fn save(&self) -> Result<SavedState> {
        let tensors = [("sharpness".to_owned(), Tensor::scalar(*self.sharpness())?)].into();
        Ok(SavedState { json: json!({ "saved": true }), tensors })
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        let sharpness = state.tensors.get("sharpness").ok_or_else(|| Error::new("no sharpness was saved"))?;
        if state.json != json!({ "saved": true }) {
            return Err(Error::new(format!("this is no state of its own: {}", state.json)));
        }
        *self.sharpness() = sharpness.to_scalar()?;
        Ok(())
    }
}

register! {
    /// Classifies by two layers of its own.
    TaskHead "apart" => Apart
}
