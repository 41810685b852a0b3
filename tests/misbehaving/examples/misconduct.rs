//! Methods of every kind that break one promise each, so that tests can see `fthost validate` name it.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{Stream, problem_type};

/// What a method does wrong.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Options {
    how: Deed,
}

/// Deeds. What a method has none of it leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Deed {
    /// Nothing wrong.
    #[default]
    Nothing,
    /// Takes the process with it.
    Abort,
    /// Ends the process as if all were well.
    Exit,
    /// Waits for ever.
    Hang,
    /// Panics as it is made.
    Made,
    /// Panics where a state is not its own.
    State,
    /// Forgets the state that it is given.
    Amnesia,
    /// Follows from the steps that it has seen, and does not save their number.
    Unsaved,
    /// Follows from how many instances there were.
    Count,
    /// Follows from the thread.
    Threads,
    /// Goes on where the host fails.
    Swallow,
    /// Forgets tensors.
    Leak,
    /// Uses tensors of the call before.
    Stale,
    /// Detaches half of what it computes with.
    Detach,
    /// Merges into another weight.
    Merge,
    /// Says that it starts at the base model.
    Start,
    /// Sets a weight that does not train.
    Frozen,
    /// Saves an adapter in PEFT's form that PEFT does not know so.
    Adapter,
    /// Gives a mean for a sum.
    Mean,
    /// Gives each prediction twice.
    Twice,
    /// Gives logits for probabilities.
    Logits,
    /// Gives a rate that is no number, in the end.
    Nan,
    /// Gives vectors of one side that depend on the other.
    Lean,
    /// Gives vectors that are longer than 1.
    Long,
}

/// Instances so far in this process.
static MADE: AtomicU64 = AtomicU64::new(0);

struct Scales {
    how: Deed,
    steps: Arc<AtomicU64>,
    frozen: Option<Param>,
}

impl Strategy for Scales {
    type Config = Options;

    fn new(Options { how }: Options) -> Result<Self> {
        #[expect(clippy::panic, reason = "the host has to survive it")]
        if how == Deed::Made {
            panic!("it was not to be made");
        }
        Ok(Self { how, steps: Arc::default(), frozen: None })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.freeze_all()?;
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        for site in model.linears(&["query"].into())? {
            let scale = model.param(&site, "scale", [site.out_features], Init::Ones)?;
            if self.how == Deed::Frozen {
                self.frozen = Some(model.base_param(&format!("{}.weight", site.path))?);
            }
            let hook = Scale { how: self.how, scale, steps: self.steps.clone(), made, home: thread::current().id() };
            model.hook_linear(&site, hook)?;
        }
        Ok(())
    }

    fn starts_at_base(&self) -> bool {
        self.how == Deed::Start
    }

    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        if !matches!(event, Event::StepEnd { .. }) {
            return Ok(());
        }
        self.steps.fetch_add(1, Ordering::Relaxed);
        if let Some(frozen) = &self.frozen {
            let moved = frozen.tensor().mul_scalar(1.001)?;
            model.set_value(frozen, &moved)?;
        }
        match self.how {
            Deed::Abort => std::process::abort(),
            Deed::Exit => std::process::exit(0),
            Deed::Hang => loop {
                thread::sleep(Duration::from_secs(1));
            },
            _ => Ok(()),
        }
    }

    fn adapter_config(&self) -> Result<Option<Value>> {
        Ok((self.how == Deed::Adapter).then(|| json!({ "peft_type": "LORA", "r": 8, "target_modules": ["query"] })))
    }

    fn save(&self) -> Result<SavedState> {
        let saves = matches!(self.how, Deed::State | Deed::Amnesia);
        let json = if saves { json!({ "steps": self.steps.load(Ordering::Relaxed) }) } else { json!(null) };
        Ok(SavedState { json, ..SavedState::default() })
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        #[expect(clippy::unwrap_used, reason = "the host has to survive it")]
        if self.how == Deed::State {
            self.steps.store(state.json["steps"].as_u64().unwrap(), Ordering::Relaxed);
        }
        Ok(())
    }
}

struct Scale {
    how: Deed,
    scale: Param, // [out]
    steps: Arc<AtomicU64>,
    made: u64,
    home: ThreadId,
}

thread_local! {
    static LAST: RefCell<Option<Tensor>> = const { RefCell::new(None) };
}

impl LinearHook for Scale {
    fn forward(&self, _: &Tensor, y: Tensor, _: &Tensor) -> Result<Tensor> {
        if self.how == Deed::Swallow {
            return y.mul(&self.scale)?.mul_scalar(2.0).or(Ok(y));
        }
        let y = y.mul(&self.scale)?;
        match self.how {
            Deed::Start => y.mul_scalar(2.0),
            Deed::Unsaved => y.mul_scalar(1.0 + 0.1 * self.steps.load(Ordering::Relaxed) as f64),
            Deed::Count => y.mul_scalar(1.0 + 0.1 * self.made as f64),
            Deed::Threads if thread::current().id() != self.home => y.mul_scalar(1.1),
            Deed::Detach => y.mul(&self.scale.tensor().detach()?),
            Deed::Leak => {
                std::mem::forget(y.mul_scalar(2.0)?);
                Ok(y)
            }
            Deed::Stale => {
                let last = LAST.replace(Some(y.mul_scalar(1.0)?));
                // What comes of it is not even asked.
                drop(last.map(|last| last.sum()));
                Ok(y)
            }
            _ => Ok(y),
        }
    }

    fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        let merged = weight.mul(&self.scale.tensor().reshape([self.scale.shape()[0], 1])?)?;
        if self.how == Deed::Merge { merged.mul_scalar(3.0).map(Some) } else { Ok(Some(merged)) }
    }

    fn merge_bias(&self, bias: &Tensor) -> Result<Option<Tensor>> {
        bias.mul(&self.scale).map(Some)
    }
}

/// A linear head for classes.
struct Classes {
    how: Deed,
    layer: Option<(Param, Param)>, // [classes, width], [classes]
}

impl Classes {
    fn layer(&self) -> Result<&(Param, Param)> {
        self.layer.as_ref().ok_or_else(|| Error::new("the head was not attached"))
    }
}

impl TaskHead for Classes {
    type Config = Options;

    fn new(Options { how }: Options) -> Result<Self> {
        Ok(Self { how, layer: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let classes = task.labels.len();
        let weight = model.head_param("classifier.weight", [classes, task.width], Init::kaiming_uniform(task.width))?;
        self.layer = Some((weight, model.head_param("classifier.bias", [classes], Init::Zeros)?));
        Ok(HeadSpec::new(FeatureKind::Pooled, TargetKind::Class, PredictionKind::Classes))
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        let (weight, bias) = self.layer()?;
        features.tensor.linear(weight, Some(bias))
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let detached;
        let outputs = match self.how {
            Deed::Detach => {
                detached = outputs.detach()?.mul(outputs)?;
                &detached
            }
            _ => outputs,
        };
        let (sum, weight) = outputs.cross_entropy(targets.tensor, None, 0.0)?;
        let weight = weight.to_scalar()?;
        match self.how {
            Deed::Mean => Ok(Loss { sum: sum.mul_scalar(1.0 / weight)?, weight: 1.0 }),
            _ => Ok(Loss { sum, weight }),
        }
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        let probabilities = outputs.softmax()?;
        match self.how {
            Deed::Twice => Tensor::concat(&[&probabilities, &probabilities], 0),
            Deed::Logits => outputs.mul_scalar(10.0),
            _ => Ok(probabilities),
        }
    }
}

/// Half the rate.
struct Half {
    how: Deed,
    asked: Mutex<u64>,
}

impl Scheduler for Half {
    type Config = Options;

    fn new(Options { how }: Options) -> Result<Self> {
        Ok(Self { how, asked: Mutex::default() })
    }

    fn rate(&self, now: &Progress, group: &Group<'_>) -> Result<Rate> {
        let mut asked = self.asked.lock().map_err(Error::new)?;
        *asked += 1;
        let lr = match self.how {
            Deed::Count => group.lr / *asked as f64,
            Deed::Nan if now.step + 1 == now.total_steps => f64::NAN,
            _ => group.lr / 2.0,
        };
        Ok(Rate { lr, momentum: group.momentum })
    }
}

/// Takes any options, and says nothing of those that it does not know.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Loose {
    factor: f64,
}

struct Any(Loose);

impl Scheduler for Any {
    type Config = Loose;

    fn new(options: Loose) -> Result<Self> {
        Ok(Self(options))
    }

    fn rate(&self, _: &Progress, group: &Group<'_>) -> Result<Rate> {
        Ok(Rate { lr: group.lr * (1.0 + self.0.factor), momentum: group.momentum })
    }
}

/// The sum of squares.
struct Squares {
    how: Deed,
    of: Vec<Param>,
}

impl Regularizer for Squares {
    type Config = Options;

    fn new(Options { how }: Options) -> Result<Self> {
        Ok(Self { how, of: Vec::new() })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        self.of = model.trainable_params()?;
        Ok(())
    }

    fn penalty(&self) -> Result<Option<Tensor>> {
        let mut sum = Tensor::scalar(0.0)?;
        for of in &self.of {
            let square = match self.how {
                Deed::Detach => of.tensor().mul(&of.tensor().detach()?)?,
                _ => of.tensor().square()?,
            };
            sum = sum.add(&square.sum()?)?;
        }
        Ok(Some(sum.mul_scalar(0.1)?))
    }
}

/// Width of what is compared.
const WIDTH: usize = 8;

/// Compares the first features of two streams.
struct Sides {
    how: Deed,
}

impl TaskHead for Sides {
    type Config = Options;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::CONTRASTIVE);

    fn new(Options { how }: Options) -> Result<Self> {
        Ok(Self { how })
    }

    fn attach(&mut self, task: &TaskInfo, _: &mut Model) -> Result<HeadSpec> {
        let read = |of: &Stream| StreamFeatures { stream: of.name.clone(), features: FeatureKind::Pooled };
        Ok(HeadSpec {
            scope: LossScope::Batch,
            streams: task.streams.iter().map(read).collect(),
            ..HeadSpec::new(FeatureKind::Pooled, TargetKind::Match, PredictionKind::Embeddings)
        })
    }

    fn forward(&self, _: &Features<'_>) -> Result<Tensor> {
        Err(Error::new("it reads two streams"))
    }

    fn forward_streams(&self, features: &[Features<'_>]) -> Result<Tensor> {
        let first = |of: &Features<'_>| of.tensor.narrow(1, 0, WIDTH);
        let [text, image] = features else { return Err(Error::new("it reads two streams")) };
        let (mut text, image) = (first(text)?, first(image)?);
        if self.how == Deed::Lean {
            text = text.add(&image)?;
        }
        let factor = if self.how == Deed::Long { 2.0 } else { 1.0 };
        let side = |of: &Tensor| -> Result<Tensor> {
            let rows = of.shape()?[0];
            of.normalize()?.mul_scalar(factor)?.reshape([rows, 1, WIDTH])
        };
        Tensor::concat(&[&side(&text)?, &side(&image)?], 1) // [examples, 2, WIDTH]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let rows = outputs.shape()?[0];
        let side = |at: usize| outputs.narrow(1, at, 1)?.reshape([rows, WIDTH]);
        let (sum, weight) = side(0)?.matmul(&side(1)?.t()?)?.cross_entropy(targets.tensor, None, 0.0)?;
        Ok(Loss { sum, weight: weight.to_scalar()? })
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        outputs.reshape(outputs.shape()?)
    }
}

register! {
    /// Multiplies outputs by learned factors.
    Strategy "misconduct" => Scales,
    /// A class for each example.
    TaskHead "misconduct-head" => Classes,
    /// What belongs together.
    TaskHead "misconduct-sides" => Sides,
    /// Half the rate.
    Scheduler "misconduct-half" => Half,
    /// Takes any options.
    Scheduler "misconduct-loose" => Any,
    /// The sum of squares.
    Regularizer "misconduct-squares" => Squares,
}
export_plugin! { license = "MIT OR Apache-2.0" }
