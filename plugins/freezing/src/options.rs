//! The options, and what they say of each stage and depth: pure functions.

use std::collections::BTreeMap;

use fthost_plugin_api::prelude::*;

/// Options of freezing.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("first_picture_run" = {}))]
pub(crate) struct FreezingConfig {
    /// Block groups that train besides the head, counted from the top: a number, or "all"; with `unfreeze` at first.
    #[schemars(extend("search" = [0, 1, 2, 4]))]
    pub(crate) top: Top,
    /// Parameters that never train: a regular expression over whole paths, or a list of paths or their ends.
    pub(crate) freeze: Option<Targets>,
    /// Parameters that train from the start, whatever `top` says and whoever froze them.
    pub(crate) thaw: Option<Targets>,
    /// Thaws further groups as the run goes on: { every = { epochs = 1 } }
    pub(crate) unfreeze: Option<Unfreeze>,
    /// Each group's rate is that of the group above times this.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub(crate) decay: Option<f64>,
    /// Rate of the embeddings as a share of the head's; the groups between have a geometric series of rates.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub(crate) slice: Option<f64>,
    /// Factors of rates by regular expressions over whole paths; they multiply each other and the group's rate.
    pub(crate) factors: BTreeMap<String, f64>,
}

impl Default for FreezingConfig {
    fn default() -> Self {
        Self {
            top: Top::Groups(0),
            freeze: None,
            thaw: None,
            unfreeze: None,
            decay: None,
            slice: None,
            factors: BTreeMap::new(),
        }
    }
}

/// How many block groups.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Top {
    /// Block groups besides the head.
    Groups(usize),
    /// The whole model.
    All(All),
}

/// The word for every group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum All {
    All,
}

/// How further groups thaw.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unfreeze {
    /// How long a stage lasts: { epochs = 1 } or { steps = 100 }
    pub(crate) every: Every,
    /// Groups that thaw each time.
    #[schemars(range(min = 1))]
    #[serde(default = "one")]
    pub(crate) groups: usize,
}

fn one() -> usize {
    1
}

/// A length in epochs or in optimizer steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Every {
    /// Epochs of a stage.
    #[schemars(range(min = 1))]
    pub(crate) epochs: Option<u64>,
    /// Optimizer steps of a stage.
    #[schemars(range(min = 1))]
    pub(crate) steps: Option<u64>,
}

/// The block groups of a way through the model, those of its embeddings and its blocks, counted from the bottom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tower {
    lowest: usize,
    top: usize,
}

impl Tower {
    /// How far below the head a parameter of this block group is. Above the top is the group of heads and of what strategies add to no
    /// block; what the pretrained model has there, a pooler or a norm, goes with the top block.
    pub(crate) fn depth(self, group: usize, base: bool) -> usize {
        (self.top + 1).saturating_sub(group).max(usize::from(base))
    }

    /// The depth of the embeddings.
    pub(crate) fn deepest(self) -> usize {
        self.top + 1 - self.lowest
    }
}

/// Where depths are counted: in the model as a whole, or in each of its streams.
#[derive(Debug)]
pub(crate) struct Towers {
    pub(crate) whole: Tower,
    streams: BTreeMap<String, Tower>,
}

impl Towers {
    /// Those of a model of so many block groups, that of heads among them, and so many streams. Which groups a stream has its parameters say.
    pub(crate) fn of(groups: usize, streams: usize, parameters: &[ParamInfo]) -> Self {
        let whole = Tower { lowest: 0, top: groups.saturating_sub(2) };
        let mut towers = Self { whole, streams: BTreeMap::new() };
        if streams > 1 {
            for of in parameters.iter().filter(|of| !of.stream.is_empty() && of.group <= whole.top) {
                let alone = Tower { lowest: of.group, top: of.group };
                let tower = towers.streams.entry(of.stream.clone()).or_insert(alone);
                *tower = Tower { lowest: tower.lowest.min(of.group), top: tower.top.max(of.group) };
            }
        }
        towers
    }

    /// That of a parameter.
    pub(crate) fn tower(&self, of: &ParamInfo) -> Tower {
        self.streams.get(&of.stream).copied().unwrap_or(self.whole)
    }
}

impl FreezingConfig {
    /// Refuses what a schema cannot say.
    pub(crate) fn check(&self) -> Result<()> {
        let share = |name: &str, value: Option<f64>| match value {
            Some(value) if !(value > 0.0 && value <= 1.0) => {
                Err(Error::new(format!("{name} is {value}, and must be above 0 and at most 1")))
            }
            _ => Ok(()),
        };
        share("decay", self.decay)?;
        share("slice", self.slice)?;
        if self.decay.is_some() && self.slice.is_some() {
            return Err(Error::new("decay and slice both set the rates of the groups: give one of them"));
        }
        if let Some((pattern, factor)) =
            self.factors.iter().find(|(_, factor)| !(factor.is_finite() && **factor >= 0.0))
        {
            return Err(Error::new(format!("the factor of {pattern:?} is {factor}, and must be a number from 0 up")));
        }
        let head_only = self.top == Top::Groups(0) && self.unfreeze.is_none() && self.thaw.is_none();
        if head_only && (self.decay.is_some() || self.slice.is_some()) {
            return Err(Error::new(
                "only the head trains, so there are no groups whose rates could differ: give top = \"all\", or unfreeze",
            ));
        }
        let Some(Unfreeze { every: Every { epochs, steps }, groups }) = self.unfreeze else { return Ok(()) };
        match epochs.xor(steps) {
            None => {
                Err(Error::new("unfreeze.every is a number of epochs or of steps: give one of them, { epochs = 1 }"))
            }
            Some(0) => Err(Error::new("unfreeze.every is 0: a stage lasts at least 1 epoch or step")),
            Some(_) if groups == 0 => Err(Error::new("unfreeze.groups is 0, so nothing would thaw: give at least 1")),
            Some(_) if self.top == Top::All(All::All) => Err(Error::new(
                "top is \"all\", so nothing is left to unfreeze: give top a number, or leave unfreeze out",
            )),
            Some(_) => Ok(()),
        }
    }

    /// Whether this event tells that a further stage comes. An event that tells nothing of the run's length is none.
    ///
    /// # Errors
    /// Where none would come.
    pub(crate) fn comes(&self, event: &Event) -> Result<bool> {
        let Some(Unfreeze { every: Every { epochs, steps }, .. }) = self.unfreeze else { return Ok(true) };
        let (every, all, unit) = match (event, epochs, steps) {
            (Event::EpochBegin { epochs: all, .. }, Some(every), _) => (every, *all, "epochs"),
            (Event::StepBegin { total_steps, .. }, _, Some(every)) => (every, *total_steps, "steps"),
            _ => return Ok(false),
        };
        if every < all {
            return Ok(true);
        }
        Err(Error::new(format!(
            "unfreeze.every is {every} {unit} and there are {all}, so nothing would ever thaw: give less, train longer, or leave \
             unfreeze out"
        )))
    }

    /// The stage once so many epochs or steps have passed: parameters up to this depth train.
    pub(crate) fn stage(&self, passed: u64) -> usize {
        let top = match self.top {
            Top::Groups(groups) => groups,
            Top::All(All::All) => return usize::MAX,
        };
        let Some(Unfreeze { every: Every { epochs, steps }, groups }) = self.unfreeze else { return top };
        let every = epochs.or(steps).unwrap_or(u64::MAX);
        let times = usize::try_from(passed / every.max(1)).unwrap_or(usize::MAX);
        top.saturating_add(times.saturating_mul(groups))
    }

    /// The factor of the rate at a depth; `deepest` is that of the embeddings.
    pub(crate) fn rate(&self, depth: usize, deepest: usize) -> f64 {
        match (self.decay, self.slice) {
            (Some(decay), _) => decay.powi(depth as i32),
            (None, Some(slice)) => slice.powf(depth as f64 / deepest.max(1) as f64),
            (None, None) => 1.0,
        }
    }
}
