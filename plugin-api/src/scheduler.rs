//! Schedulers: the learning rate of each parameter group at each step.

use serde::de::DeserializeOwned;

use crate::{Error, Result, SavedState};

/// Where a run stands. Steps are optimizer steps, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The step about to be taken; 0 is the first.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Steps of one epoch.
    pub steps_per_epoch: u64,
}

impl Progress {
    /// The epoch of this step, counted from 0.
    pub fn epoch(&self) -> u64 {
        self.step / self.steps_per_epoch.max(1)
    }

    /// The share of the run that lies behind, 0 at the first step and below 1 at the last.
    pub fn fraction(&self) -> f64 {
        self.step as f64 / self.total_steps.max(1) as f64
    }
}

/// A `warmup` option: below 1 a share of the run's steps (rounded up), from 1 on a number of steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Warmup(#[schemars(range(min = 0))] pub f64);

impl Warmup {
    /// # Errors
    /// Where it is negative or no number.
    pub fn check(self) -> Result<()> {
        if self.0.is_finite() && self.0 >= 0.0 {
            return Ok(());
        }
        Err(Error::new(format!("warmup is {}: give a share of the run below 1, or a number of steps", self.0)))
    }

    /// The steps it takes.
    pub fn steps(self, total_steps: u64) -> u64 {
        if self.0 < 1.0 { (self.0 * total_steps as f64).ceil() as u64 } else { self.0 as u64 }
    }

    /// # Errors
    /// Where so many steps are the whole run or more: nothing would come after them.
    pub fn fits(self, progress: &Progress) -> Result<()> {
        let (steps, total) = (self.steps(progress.total_steps), progress.total_steps);
        if self.0 < 1.0 || steps < total {
            return Ok(());
        }
        Err(Error::new(format!(
            "warmup takes {steps} steps and the run {total}, so the rate would never be reached: give fewer, or a share of the run \
             below 1, such as 0.1"
        )))
    }

    /// The factor of a step's rate: during warm-up a linear rise from 0, then what `after` makes of the share of the
    /// remaining run that lies behind, 0 at the end of the warm-up and 1 at the end of the run.
    pub fn factor(self, progress: &Progress, after: impl FnOnce(f64) -> f64) -> f64 {
        let warmup = self.steps(progress.total_steps);
        if progress.step < warmup {
            return progress.step as f64 / warmup as f64;
        }
        let remaining = progress.total_steps.saturating_sub(warmup).max(1);
        after((progress.step - warmup) as f64 / remaining as f64)
    }
}

/// A `unit` option: what a schedule counts in.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Epochs of the training data.
    #[default]
    Epochs,
    /// Optimizer steps.
    Steps,
}

impl TimeUnit {
    /// How many whole ones lie behind.
    pub fn passed(self, progress: &Progress) -> u64 {
        match self {
            Self::Epochs => progress.epoch(),
            Self::Steps => progress.step,
        }
    }

    /// How many whole ones lie behind at the run's last step: what is to come after more never comes.
    pub fn passed_in_all(self, progress: &Progress) -> u64 {
        self.passed(&Progress { step: progress.total_steps.saturating_sub(1), ..*progress })
    }

    /// `epochs` or `steps`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epochs => "epochs",
            Self::Steps => "steps",
        }
    }
}

/// A group of parameters that share a base rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group<'a> {
    /// Its name: `embeddings`, `layer.3`, `head`.
    pub name: &'a str,
    /// Its number in its stream, counted from the bottom: 0 holds the embeddings, then one group per block, then the heads.
    pub number: usize,
    /// The name of the stream that it is part of, `text` or `image`; empty for what belongs to none.
    pub stream: &'a str,
    /// `train.lr` times the learning-rate factor of these parameters.
    pub lr: f64,
    /// The optimizer's momentum (SGD) or beta1 (Adam, AdamW).
    pub momentum: f64,
}

/// What a scheduler answers for one group and step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The learning rate of this step, absolute, from 0 up.
    pub lr: f64,
    /// Momentum or beta1 of this step, in [0, 1). Schedules that do not cycle it return the group's.
    pub momentum: f64,
}

impl Group<'_> {
    /// A group without a name.
    pub const fn new(lr: f64, momentum: f64) -> Self {
        Self { name: "", number: 0, stream: "", lr, momentum }
    }

    /// The group's rate times a factor, its momentum as it is.
    pub fn scaled(&self, factor: f64) -> Rate {
        Rate { lr: self.lr * factor, momentum: self.momentum }
    }
}

/// What an evaluation of the validation examples gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation<'a> {
    /// The monitored value; with several tasks their weighted mean. May be no number.
    pub value: f64,
    /// The monitored metric's name: `accuracy`, `loss`.
    pub metric: &'a str,
    /// Whether a higher value is a better one.
    pub higher_is_better: bool,
    /// The task's name in the run file; empty where the value is a mean over several.
    pub task: &'a str,
}

/// A learning-rate schedule. All calls come on the run's thread.
///
/// [`rate`](Self::rate) must be a function of its arguments and the state in [`save`](Self::save), so that a resumed run
/// continues on the same curve.
pub trait Scheduler: Sized + Send + 'static {
    /// The options of the `[schedule]` table.
    type Config: DeserializeOwned + schemars::JsonSchema;

    /// Makes an instance from checked options.
    fn new(config: Self::Config) -> Result<Self>;

    /// The rate of one group at one step.
    fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate>;

    /// Hears each evaluation of the monitored metric (plateau schedules react to it).
    fn on_evaluation(&mut self, progress: &Progress, evaluation: &Evaluation<'_>) -> Result<()> {
        let _ = (progress, evaluation);
        Ok(())
    }

    /// State that a resumed run needs.
    fn save(&self) -> Result<SavedState> {
        Ok(SavedState::default())
    }

    /// Takes back what [`save`](Self::save) gave.
    fn load(&mut self, state: SavedState) -> Result<()> {
        let _ = state;
        Ok(())
    }
}
