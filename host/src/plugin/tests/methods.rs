//! The plugin's side of the tests: a method of each kind, written as authors write them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use fthost_plugin_api::prelude::*;

/// A method that does what its option says.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(crate = "fthost_plugin_api::serde", deny_unknown_fields, default)]
#[schemars(crate = "fthost_plugin_api::schemars")]
struct Deed {
    what: String,
}

/// Adds a learned shift to the layer's output, or goes wrong.
struct Shifts(Deed);

impl Strategy for Shifts {
    type Config = Deed;

    fn new(config: Deed) -> Result<Self> {
        if config.what == "refuse" { Err(Error::new("no such deed")) } else { Ok(Self(config)) }
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.freeze_all()?;
        for site in model.linears(&if self.0.what == "miss" { ["dens"] } else { ["dense"] }.into())? {
            match self.0.what.as_str() {
                "panic" => panic!("out of cheese"),
                "vast" => drop(model.shared_param("vast", [100_000, 1_000_000_000], Init::Zeros)?),
                "twice" => drop(model.param(&site, "shift", [2], Init::Zeros)?),
                "shape" => drop(Tensor::scalar(1.0)?.matmul(&Tensor::from_slice(&[1.0f32, 2.0], [2])?)?),
                _ => {}
            }
            let shift = model.param(&site, "shift", [2], Init::Ones)?;
            model.hook_linear(&site, Shift { shift, panics: self.0.what == "bad hook" })?;
        }
        model.shared_param("prompt", [2, 2], Init::VocabularyRows)?;
        Ok(())
    }

    fn on_event(&mut self, _: &Event, model: &mut Model) -> Result<()> {
        if self.0.what == "tune" {
            let shifts: Vec<Param> = model.parameters_of(&["shift"].into())?.into_iter().map(Param::from).collect();
            model.set_trainable_of(&shifts, false)?;
            model.set_decay_of(&shifts, true)?;
            return model.set_lr_factor_of(&shifts, 0.5);
        }
        if self.0.what == "thaw all" {
            return model.thaw_all();
        }
        model.thaw(&["layer.0.dense"].into()).map(drop)
    }

    fn adapter_tensors(&self) -> Result<Option<BTreeMap<String, Tensor>>> {
        if self.0.what != "compute" {
            return Ok(None);
        }
        Ok(Some([("sum".to_owned(), Tensor::scalar(1.0)?.add_scalar(2.0)?)].into()))
    }

    fn save(&self) -> Result<SavedState> {
        let tensors = [("steps".to_owned(), Tensor::from_slice(&[3u32, 4], [2])?)].into();
        Ok(SavedState { json: json!({ "what": self.0.what }), tensors })
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        let steps = state.tensors.get("steps").ok_or_else(|| Error::new("no steps"))?.to_vec_u32()?;
        self.0.what = format!("{} {steps:?}", state.json);
        Ok(())
    }
}

/// Says what it sees of the model, adds to it at each layer and beside, and slows down all that it sees.
struct Sees(Value);

impl Strategy for Sees {
    type Config = Deed;

    fn new(_: Deed) -> Result<Self> {
        Ok(Self(Value::Null))
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.freeze_all()?;
        let sites = model.linears(&["dense"].into())?;
        for site in &sites {
            model.param(site, "scale", [2], Init::Ones)?;
        }
        model.shared_param("prompt", [2], Init::Ones)?;
        let streams: Vec<&str> = model.streams()?.iter().map(|stream| stream.name.as_str()).collect();
        let place = |of: &ParamInfo| json!([of.path, of.group]);
        let parameters: Vec<Value> = model.parameters()?.iter().map(place).collect();
        let sites: Vec<Value> = sites.iter().map(|site| json!([site.path, site.group])).collect();
        let width = model.width().unwrap_or_default();
        self.0 = json!({
            "groups": model.groups()?, "streams": streams, "width": width, "sites": sites, "parameters": parameters,
        });
        Ok(())
    }

    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        if let Event::TaskEnd { .. } = event {
            let mut seen = Vec::new();
            model.example_gradients(FisherLabels::Exact, 5, |example| {
                seen.push(example.param.name().to_owned());
                Ok(())
            })?;
            self.0 = json!(seen);
            return Ok(());
        }
        model.set_lr_factor(None, 0.1)?;
        model.thaw_all()?;
        self.0 = json!(model.trainable_handles()?.len());
        Ok(())
    }

    fn save(&self) -> Result<SavedState> {
        Ok(SavedState { json: self.0.clone(), ..SavedState::default() })
    }
}

struct Shift {
    shift: Param,
    panics: bool,
}

impl LinearHook for Shift {
    fn forward(&self, _: &Tensor, y: Tensor, _: &Tensor) -> Result<Tensor> {
        assert!(!self.panics, "no more cheese");
        let kept = y.mul_scalar(1.0)?; // never handed back, so it is dropped with the call
        std::mem::forget(kept);
        y.add(&self.shift)
    }

    fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        weight.mul_scalar(1.0).map(Some)
    }

    fn merge_bias(&self, bias: &Tensor) -> Result<Option<Tensor>> {
        bias.add(&self.shift).map(Some)
    }
}

/// Keeps a copy of the parameters, and measures.
struct Anchor {
    kept: Option<(Param, Kept)>,
    seen: Mutex<Vec<f64>>,
}

impl Regularizer for Anchor {
    type Config = Deed;

    fn new(_: Deed) -> Result<Self> {
        Ok(Self { kept: None, seen: Mutex::default() })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        let weight = model.base_param("layer.0.dense.weight")?;
        let kept = weight.tensor().keep()?;
        self.kept = Some((weight, kept));
        Ok(())
    }

    fn penalty(&self) -> Result<Option<Tensor>> {
        let Some((weight, kept)) = &self.kept else { return Ok(None) };
        weight.tensor().squared_error(kept).map(Some)
    }

    fn on_event(&mut self, _: &Event, model: &mut Model) -> Result<()> {
        let mut sums = Vec::new();
        model.example_gradients(FisherLabels::Exact, 5, |example| {
            sums.push(example.gradient.sum()?.to_scalar()? * example.weight);
            Ok(())
        })?;
        self.seen.lock().unwrap().extend(sums);
        Ok(())
    }

    fn save(&self) -> Result<SavedState> {
        Ok(SavedState { json: json!(*self.seen.lock().unwrap()), ..SavedState::default() })
    }
}

/// A linear head for classes.
struct Classes(Option<Param>);

impl TaskHead for Classes {
    type Config = Deed;

    fn new(_: Deed) -> Result<Self> {
        Ok(Self(None))
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let shape = [task.labels.len(), task.width];
        self.0 = Some(model.head_param("classifier.weight", shape, Init::kaiming_uniform(task.width))?);
        Ok(HeadSpec::new(FeatureKind::Pooled, TargetKind::Class, PredictionKind::Classes))
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        features.tensor.linear(self.0.as_ref().unwrap(), None)
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let (sum, weight) = outputs.cross_entropy(targets.tensor, None, 0.0)?;
        Ok(Loss { sum, weight: weight.to_scalar()? })
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        outputs.softmax()
    }
}

/// Tells the examples of a batch from each other, by the means of their features.
struct Contrast {
    options: ContrastOptions,
    weight: Option<Param>,
}

#[derive(Deserialize, JsonSchema, Default)]
#[serde(crate = "fthost_plugin_api::serde", deny_unknown_fields, default)]
#[schemars(crate = "fthost_plugin_api::schemars")]
struct ContrastOptions {
    /// pooled, sequence or spatial
    features: String,
    /// Those that it reads, of as many channels; none of a plain model.
    streams: Vec<String>,
    twice: bool,
    dropout: f64,
}

impl TaskHead for Contrast {
    type Config = ContrastOptions;

    fn new(options: ContrastOptions) -> Result<Self> {
        Ok(Self { options, weight: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let width = task.width * self.options.streams.len().max(1);
        self.weight = Some(model.head_param("projection.weight", [4, width], Init::kaiming_uniform(width))?);
        let features = match self.options.features.as_str() {
            "sequence" => FeatureKind::Sequence,
            "spatial" => FeatureKind::Spatial,
            _ => FeatureKind::Pooled,
        };
        Ok(HeadSpec {
            scope: LossScope::Batch,
            forwards: if self.options.twice { 2 } else { 1 },
            streams: self.options.streams.iter().map(|of| StreamFeatures { stream: of.clone(), features }).collect(),
            ..HeadSpec::new(features, TargetKind::Class, PredictionKind::Classes)
        })
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        self.forward_streams(&[Features { ..*features }])
    }

    fn forward_streams(&self, features: &[Features<'_>]) -> Result<Tensor> {
        let joined = |tensors: &[Tensor], dim| {
            Tensor::concat(&tensors.iter().map(|tensor| tensor as &dyn Operand).collect::<Vec<_>>(), dim)
        };
        let mean =
            |x: &Tensor, rows: &[u32]| x.narrow(0, rows[0] as usize, (rows[1] - rows[0]) as usize)?.mean_dim(0, true);
        let means = |of: &Features<'_>| {
            let x = of.tensor.dropout(self.options.dropout)?;
            joined(&of.offsets.windows(2).map(|rows| mean(&x, rows)).collect::<Result<Vec<_>>>()?, 0)
        };
        let x = joined(&features.iter().map(means).collect::<Result<Vec<_>>>()?, 1)?; // [examples, width]
        x.linear(self.weight.as_ref().unwrap(), None)?.dropout(self.options.dropout)
    }

    /// Each row should be most like the one after it.
    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let (rows, classes) = (outputs.shape()?[0] as u32, targets.tensor.to_vec_u32()?);
        let next: Vec<u32> = (0..rows).map(|row| (row + 1 + classes[row as usize % classes.len()]) % rows).collect();
        let alike = outputs.matmul(&outputs.t()?)?.mul_scalar(0.1)?; // [rows, rows]
        let (sum, weight) = alike.cross_entropy(&Tensor::from_slice(&next, [next.len()])?, None, 0.0)?;
        Ok(Loss { sum, weight: weight.to_scalar()? })
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        outputs.softmax()
    }
}

/// Holds what earlier heads said.
struct Hold;

impl Regularizer for Hold {
    type Config = Deed;

    fn new(_: Deed) -> Result<Self> {
        Ok(Self)
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn output_penalty(&self, outputs: &Tensor, reference: &Tensor) -> Result<Option<Tensor>> {
        outputs.dropout(0.25)?.sub(reference)?.square()?.sum().map(Some)
    }
}

/// Halves the rate, multiplies it by another number, or gives none; counts evaluations.
struct Half(Deed, u64);

impl Scheduler for Half {
    type Config = Deed;

    fn new(config: Deed) -> Result<Self> {
        Ok(Self(config, 0))
    }

    fn rate(&self, now: &Progress, group: &Group<'_>) -> Result<Rate> {
        Ok(match self.0.what.as_str() {
            "" => group.scaled(0.5),
            "rise" => group.scaled((now.step + 1) as f64 / now.total_steps as f64),
            number => group.scaled(number.parse().unwrap()),
        })
    }

    fn on_evaluation(&mut self, _: &Progress, _: &Evaluation<'_>) -> Result<()> {
        self.1 += 1;
        Ok(())
    }

    fn save(&self) -> Result<SavedState> {
        Ok(SavedState { json: json!(self.1), ..SavedState::default() })
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        self.1 = state.json.as_u64().ok_or_else(|| Error::new("no number of evaluations"))?;
        Ok(())
    }
}

register! {
    /// Shifts.
    Strategy "test-shift" => Shifts,
    /// Looks.
    Strategy "test-sees" => Sees,
    /// Anchors.
    Regularizer "test-anchor" => Anchor,
    /// Classifies.
    TaskHead "test-classes" => Classes,
    /// Tells examples from each other.
    TaskHead "test-contrast" => Contrast,
    /// Holds outputs.
    Regularizer "test-hold" => Hold,
    /// Halves.
    Scheduler "test-half" => Half,
}
