//! Methods that hand over what cannot be right, as their options say, so that tests can see the host refuse each by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fthost_plugin_api::prelude::*;

/// What a strategy hands over.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Given {
    /// A hook's output in f64.
    WideOutput,
    /// A block hook's output in u32.
    IndexOutput,
    /// Rows of another width before every text.
    PromptWidth,
    /// A prefix with more keys than values.
    Prefix,
    /// A shift of positions without end.
    Shift,
    /// A parameter of more elements than there is memory for.
    Parameter,
    /// A parameter whose number of elements is no number of a machine's.
    Overflow,
    /// A parameter that starts at no number.
    Start,
    /// A value that is no number, for a base parameter.
    Value,
    /// PEFT's fields without the type.
    Fields,
    /// Adapter tensors that are no numbers.
    Tensors,
    /// An op on a map of more pixels than there is memory for.
    Pixels,
    /// After the first step its hook leaves its parameter out.
    Stops,
}

/// Options of the strategy.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GivesConfig {
    gives: Given,
}

struct Gives {
    given: Given,
    stopped: Arc<AtomicBool>,
}

impl Strategy for Gives {
    type Config = GivesConfig;

    fn new(config: GivesConfig) -> Result<Self> {
        Ok(Self { given: config.gives, stopped: Arc::default() })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.freeze_all()?;
        let given = self.given;
        match given {
            Given::Parameter => drop(model.shared_param("vast", [100_000, 1_000_000_000], Init::Zeros)?),
            Given::Overflow => drop(model.shared_param("vast", [usize::MAX, usize::MAX], Init::Zeros)?),
            Given::Start => {
                let nan = Tensor::scalar(f64::NAN)?.reshape([1])?;
                drop(model.shared_param("odd", [1], Init::copy_of(&nan))?);
            }
            Given::Value => {
                let word = model.base_param("encoder.layer.0.attention.self.query.bias")?;
                let shape = word.tensor().shape()?;
                model.set_value(&word, &Tensor::scalar(f64::NAN)?.add(&word)?.reshape(shape)?)?;
            }
            Given::Pixels => {
                let pixel = Tensor::from_slice(&[1f32], [1, 1])?;
                drop(pixel.upsample_nearest2d([1, 1], [1 << 20, 1 << 20])?);
            }
            _ => {}
        }
        let hook = |param| Hook { given, param, stopped: Arc::clone(&self.stopped) };
        match given {
            Given::IndexOutput => {
                for site in model.feed_forward_outputs()?.into_iter().take(1) {
                    model.hook_block(&site, hook(None))?;
                }
            }
            Given::PromptWidth => {
                for site in model.embeddings()? {
                    model.hook_embeddings(&site, hook(None))?;
                }
            }
            Given::Prefix | Given::Shift => {
                for site in model.attentions()?.into_iter().take(1) {
                    model.hook_attention(&site, hook(None))?;
                }
            }
            _ => {
                for site in model.linears(&Targets::from(["query"]))?.into_iter().take(1) {
                    let scale = model.param(&site, "scale", [1], Init::Ones)?;
                    model.hook_linear(&site, hook(Some(scale)))?;
                }
            }
        }
        Ok(())
    }

    fn on_event(&mut self, event: &Event, _model: &mut Model) -> Result<()> {
        if matches!(event, Event::StepEnd { .. }) && self.given == Given::Stops {
            self.stopped.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn adapter_config(&self) -> Result<Option<Value>> {
        Ok(match self.given {
            Given::Fields => Some(json!(["LORA"])),
            Given::Tensors => Some(json!({ "peft_type": "ODD" })),
            _ => None,
        })
    }

    fn adapter_tensors(&self) -> Result<Option<BTreeMap<String, Tensor>>> {
        if self.given != Given::Tensors {
            return Ok(None);
        }
        Ok(Some([("odd".to_owned(), Tensor::scalar(f64::INFINITY)?)].into()))
    }
}

struct Hook {
    given: Given,
    param: Option<Param>,
    stopped: Arc<AtomicBool>,
}

impl LinearHook for Hook {
    fn forward(&self, _x: &Tensor, y: Tensor, _weight: &Tensor) -> Result<Tensor> {
        match (&self.param, self.given) {
            (_, Given::WideOutput) => y.cast(DType::F64),
            (Some(_), Given::Stops) if self.stopped.load(Ordering::Relaxed) => Ok(y),
            (Some(scale), _) => y.mul(scale),
            (None, _) => Ok(y),
        }
    }
}

impl BlockHook for Hook {
    fn forward(&self, x: Tensor, _residual: &Tensor) -> Result<Tensor> {
        x.cast(DType::U32)
    }
}

impl EmbeddingHook for Hook {
    fn forward(&self, embeddings: Tensor, _offsets: &[u32]) -> Result<(Tensor, Option<Prompt>)> {
        let rows = embeddings.narrow(0, 0, 1)?.narrow(1, 0, 3)?;
        Ok((embeddings, Some(Prompt { rows, pool_first_token: false })))
    }
}

impl AttentionHook for Hook {
    fn forward(&self, keys: Tensor, values: Tensor, _offsets: &[u32]) -> Result<(Tensor, Tensor, Option<Prefix>)> {
        let prefix = Prefix { keys: keys.narrow(0, 0, 2)?, values: values.narrow(0, 0, 1)? };
        Ok((keys, values, Some(prefix)))
    }

    fn position_shift(&self) -> usize {
        if self.given == Given::Shift { usize::MAX } else { 0 }
    }
}

/// What a head hands over.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Answered {
    /// As it should.
    Right,
    /// Every output twice.
    OutputsTwice,
    /// Logits in u32.
    IndexLogits,
    /// The loss of each row.
    Losses,
    /// A loss that is no number.
    LossNan,
    /// A loss that is divided by infinity.
    WeightInfinite,
    /// A loss that is divided by 0.
    WeightZero,
    /// Every prediction twice.
    Twice,
    /// Classes by rows.
    Transposed,
    /// Probabilities that are no numbers.
    Nan,
    /// Classes in place of their probabilities.
    Indices,
    /// Logits in place of probabilities.
    Logits,
}

/// Options of the head.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AnswersConfig {
    answers: Answered,
}

struct Answers {
    answered: Answered,
    weight: Option<Param>,
}

impl TaskHead for Answers {
    type Config = AnswersConfig;

    fn new(config: AnswersConfig) -> Result<Self> {
        Ok(Self { answered: config.answers, weight: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let shape = [task.labels.len(), task.width];
        self.weight = Some(model.head_param("odd.weight", shape, Init::kaiming_uniform(task.width))?);
        Ok(HeadSpec::new(FeatureKind::Pooled, TargetKind::Class, PredictionKind::Classes))
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        let weight = self.weight.as_ref().ok_or_else(|| Error::new("used before it was attached"))?;
        let logits = features.tensor.linear(weight, None)?;
        match self.answered {
            Answered::OutputsTwice => Tensor::concat(&[&logits, &logits], 0),
            Answered::IndexLogits => logits.cast(DType::U32),
            _ => Ok(logits),
        }
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let (sum, weight) = outputs.cross_entropy(targets.tensor, None, 0.0)?;
        let weight = weight.to_scalar()?;
        Ok(match self.answered {
            Answered::Losses => Loss { sum: outputs.sum_dim(1, false)?, weight },
            Answered::LossNan => Loss { sum: sum.mul_scalar(f64::NAN)?, weight },
            Answered::WeightInfinite => Loss { sum, weight: f64::INFINITY },
            Answered::WeightZero => Loss { sum, weight: 0.0 },
            _ => Loss { sum, weight },
        })
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        let probabilities = outputs.softmax()?;
        match self.answered {
            Answered::Twice => Tensor::concat(&[&probabilities, &probabilities], 0),
            Answered::Transposed => probabilities.t(),
            Answered::Nan => probabilities.mul_scalar(f64::NAN),
            Answered::Indices => probabilities.cast(DType::U32),
            Answered::Logits => outputs.mul_scalar(1e3),
            _ => Ok(probabilities),
        }
    }
}

/// What a schedule answers.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ScheduleConfig {
    lr: f64,
    momentum: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { lr: 1e-3, momentum: 0.9 }
    }
}

struct Answer(ScheduleConfig);

impl Scheduler for Answer {
    type Config = ScheduleConfig;

    fn new(config: ScheduleConfig) -> Result<Self> {
        Ok(Self(config))
    }

    fn rate(&self, _: &Progress, _: &Group<'_>) -> Result<Rate> {
        Ok(Rate { lr: self.0.lr, momentum: self.0.momentum })
    }
}

/// What a penalty is.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Penalized {
    /// No number.
    Nan,
    /// As many numbers as the parameter has.
    Many,
    /// A number with a gradient that is none.
    Steep,
    /// In u32.
    Index,
}

/// Options of the regularizer.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PenaltyConfig {
    gives: Penalized,
}

struct Penalty {
    given: Penalized,
    param: Option<Param>,
}

impl Regularizer for Penalty {
    type Config = PenaltyConfig;

    fn new(config: PenaltyConfig) -> Result<Self> {
        Ok(Self { given: config.gives, param: None })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        self.param = model.trainable_params()?.into_iter().next();
        Ok(())
    }

    fn penalty(&self) -> Result<Option<Tensor>> {
        let Some(param) = &self.param else { return Ok(None) };
        let tensor = param.tensor();
        Ok(Some(match self.given {
            Penalized::Nan => tensor.sum()?.mul_scalar(f64::NAN)?,
            Penalized::Many => tensor.square()?,
            // The slope of a root is infinite at 0.
            Penalized::Steep => tensor.sub(&tensor.detach()?)?.sqrt()?.sum()?,
            Penalized::Index => tensor.sum()?.cast(DType::U32)?,
        }))
    }
}

register! {
    /// Hands over what cannot be right.
    Strategy "gives" => Gives,
    /// Answers what cannot be right.
    TaskHead "answers" => Answers,
    /// Answers what it is told.
    Scheduler "answer" => Answer,
    /// Penalizes by what cannot be right.
    Regularizer "penalty" => Penalty,
}
