//! The options, and the schedule and the ranks that they say.

use std::collections::BTreeMap;

use fthost_plugin_api::{check_shares, prelude::*};

use crate::allocation::Schedule;

/// Options of AdaLoRA.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdaLoraConfig {
    /// Triplets that each layer begins with: its rank until ranks are allocated.
    #[schemars(range(min = 1), extend("search" = [12, 16, 24]))]
    pub(crate) init_r: usize,
    /// Triplets that are left of each layer at the end, in the mean over the layers; fewer than `init_r`.
    #[schemars(range(min = 1), extend("search" = [2, 4, 8]))]
    pub(crate) target_r: usize,
    /// Steps at the beginning in which no triplet is taken away.
    pub(crate) tinit: u64,
    /// Steps at the end in which the ranks are settled, and what is left of them is trained on.
    pub(crate) tfinal: u64,
    /// Steps from one allocation to the next.
    #[schemars(range(min = 1))]
    pub(crate) delta_t: u64,
    /// How much of the smoothed importance is left after each step.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub(crate) beta1: f64,
    /// How much of the smoothed uncertainty is left after each step.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub(crate) beta2: f64,
    /// Weight of the update: its scale is alpha / init_r.
    #[schemars(extend("exclusiveMinimum" = 0, "search" = [8, 16, 32]))]
    pub(crate) alpha: f64,
    /// Linear layers and convolutions that get an update.
    pub(crate) targets: Targets,
    /// Layers that get none although `targets` names them.
    pub(crate) exclude: Option<Targets>,
    /// Dropout on the update's input.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub(crate) dropout: f64,
    /// Ranks that an earlier run has allocated, by the layers' paths or their ends: { "layer.0.attention.self.query" = 5 }. They stay, and
    /// none is allocated.
    pub(crate) rank_pattern: BTreeMap<String, usize>,
}

impl Default for AdaLoraConfig {
    fn default() -> Self {
        Self {
            init_r: 12,
            target_r: 8,
            tinit: 0,
            tfinal: 0,
            delta_t: 1,
            beta1: 0.85,
            beta2: 0.85,
            alpha: 8.0,
            targets: Targets::from(["query", "value"]),
            exclude: None,
            dropout: 0.0,
            rank_pattern: BTreeMap::new(),
        }
    }
}

impl AdaLoraConfig {
    /// Refuses what a schema cannot say.
    pub(crate) fn check(&self) -> Result<()> {
        check_shares([("dropout", self.dropout)])?;
        let Self { init_r, target_r, .. } = *self;
        if target_r == 0 || self.delta_t == 0 {
            return Err(Error::new("target_r or delta_t is 0: give at least 1"));
        }
        if target_r >= init_r {
            return Err(Error::new(format!(
                "target_r is {target_r} and init_r {init_r}, so there is nothing to allocate: let target_r be less"
            )));
        }
        for (option, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(beta > 0.0 && beta < 1.0) {
                return Err(Error::new(format!("{option} is {beta}, and must be above 0 and below 1")));
            }
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return Err(Error::new(format!("alpha is {}, and must be more than 0", self.alpha)));
        }
        match self.rank_pattern.iter().find(|(_, rank)| **rank > init_r) {
            Some((path, rank)) => Err(Error::new(format!(
                "rank_pattern says {rank} of {path}, and no layer has more than init_r = {init_r} triplets"
            ))),
            None => Ok(()),
        }
    }

    /// The budget along a training of so many steps.
    ///
    /// # Errors
    /// Where no step is left in which it falls.
    pub(crate) fn schedule(&self, total_steps: u64) -> Result<Schedule> {
        let Self { init_r, target_r, tinit, tfinal, delta_t, .. } = *self;
        let end = total_steps.checked_sub(tfinal).filter(|end| tinit < *end);
        let end = end.ok_or_else(|| {
            Error::new(format!(
                "tinit = {tinit} and tfinal = {tfinal} leave none of the {total_steps} steps to allocate ranks in: give less of them, or more \
                 steps"
            ))
        })?;
        Ok(Schedule { init_r, target_r, begin: tinit, end, total_steps, every: delta_t })
    }

    /// The scale s, whose divisor PEFT holds as an `f32`.
    pub(crate) fn scale(&self) -> f64 {
        self.alpha / f64::from(self.init_r as f32 + 1e-5)
    }

    /// The rank that each site begins with.
    ///
    /// # Errors
    /// A path of `rank_pattern` that names none of the sites.
    pub(crate) fn ranks(&self, model: &Model, sites: &[Site]) -> Result<Vec<usize>> {
        let mut ranks = vec![self.init_r; sites.len()];
        for (path, rank) in &self.rank_pattern {
            let named = model.products(&Targets::Names(vec![path.clone()]), None)?;
            let mut places =
                sites.iter().enumerate().filter(|(_, site)| named.iter().any(|of| of.path == site.path)).peekable();
            if places.peek().is_none() {
                return Err(Error::new(format!(
                    "rank_pattern names {path:?}, which gets no update: add it to targets, or take it out"
                )));
            }
            places.for_each(|(i, _)| ranks[i] = *rank);
        }
        if ranks.iter().all(|rank| *rank == 0) {
            return Err(Error::new("rank_pattern leaves no layer a triplet, so nothing would train"));
        }
        Ok(ranks)
    }
}
