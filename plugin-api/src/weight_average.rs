//! Averages of the weights along a training, evaluated and kept in their place: what EMA and SWA have in common.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{from_value, json};

use crate::{Error, Event, Kept, Model, Param, Result, SavedState};

/// Averages of all that trains, of one task after the other. A strategy that keeps one hands it every event, and takes the weights into it when
/// it wants to, after a step.
///
/// What trains only later was until then what it is now, and so its average begins. The averages stand in the model while it is evaluated, and
/// for good once a task has ended; where its best model is put back first, that was evaluated with them, and none is taken twice. Buffers (a
/// batch norm's statistics) are not averaged: those of the weights that train are evaluated. Since 1.1
#[derive(Debug, Default)]
pub struct WeightAverage {
    /// By name, of all that has trained in this task.
    averages: BTreeMap<String, Kept>,
    /// With what training goes on, while the averages stand in the model.
    live: Option<BTreeMap<String, Kept>>,
    taken: u64,
    /// What has an average.
    params: BTreeMap<String, Param>,
    /// What trains now, as the host lists it.
    handles: Vec<u64>,
}

/// What a state holds beside the averages.
#[derive(Serialize, Deserialize)]
struct Saved {
    taken: u64,
    /// Whether the averages stand in the model, and so are no part of the state.
    evaluated: bool,
}

impl WeightAverage {
    /// How often weights were taken in this task.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Follows what trains, and puts averages into the model and out of it.
    ///
    /// # Errors
    /// The host's words, where it refuses a value.
    pub fn hear(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        match event {
            Event::StepBegin { .. } => self.follow(model),
            Event::EvaluationBegin { .. } => self.evaluate(model),
            Event::EvaluationEnd { .. } => self.go_on(model),
            Event::TaskEnd { .. } => self.finish(model),
            _ => Ok(()),
        }
    }

    /// Takes the weights as they are now: averages move by `share`, from 0 to 1, of the way to them; the first time they become them.
    ///
    /// # Errors
    /// The host's words, where it refuses an op.
    pub fn take(&mut self, share: f64) -> Result<()> {
        for (name, average) in &mut self.averages {
            let now = param(&self.params, name)?.tensor();
            *average = match self.taken {
                0 => now.keep()?,
                _ => average.tensor().add(&now.sub(average)?.mul_scalar(share)?)?.keep()?,
            };
        }
        self.taken += 1;
        Ok(())
    }

    /// The averages, and with what training goes on where they stand in the model.
    pub fn save(&self) -> SavedState {
        let json = json!(Saved { taken: self.taken, evaluated: self.live.is_some() });
        // Those that stand in the model are saved as its weights.
        let averages = self.averages.iter().filter(|_| self.live.is_none());
        SavedState { json, tensors: averages.map(|(name, average)| (name.clone(), average.tensor())).collect() }
    }

    /// Takes back what [`save`](Self::save) gave.
    ///
    /// # Errors
    /// Where that is no state of averages.
    pub fn load(&mut self, state: SavedState) -> Result<()> {
        let Saved { taken, evaluated } = from_value(state.json)?;
        let averages = state.tensors.into_iter().map(|(name, average)| Ok((name, average.keep()?)));
        let averages = averages.collect::<Result<_>>()?;
        // With nothing to go on with: the state is that of a best model, whose task has ended.
        *self = Self { averages, taken, live: evaluated.then(BTreeMap::new), ..Self::default() };
        Ok(())
    }

    /// Learns what trains now. What has just been thawed has not moved yet.
    fn follow(&mut self, model: &Model) -> Result<()> {
        let handles = model.trainable_handles()?;
        if handles == self.handles {
            return Ok(());
        }
        for param in model.trainable_params()? {
            if !self.averages.contains_key(param.name()) {
                self.averages.insert(param.name().to_owned(), param.tensor().keep()?);
            }
        }
        self.handles = handles;
        self.find(model)
    }

    /// Finds what has an average.
    fn find(&mut self, model: &Model) -> Result<()> {
        if self.averages.keys().all(|name| self.params.contains_key(name)) {
            return Ok(());
        }
        let all = model.parameters()?.into_iter().filter(|info| self.averages.contains_key(&info.path));
        self.params = all.map(|info| (info.path.clone(), Param::from(info))).collect();
        Ok(())
    }

    /// Puts the averages into the model, and logs how far they are from what stood there.
    fn evaluate(&mut self, model: &mut Model) -> Result<()> {
        if self.taken == 0 || self.live.is_some() {
            return Ok(());
        }
        self.find(model)?;
        let (mut live, mut distance) = (BTreeMap::new(), 0.0);
        for (name, average) in &self.averages {
            let param = param(&self.params, name)?;
            distance += param.tensor().squared_distance(average, None)?.to_scalar()?;
            live.insert(name.clone(), param.tensor().keep()?);
            model.set_value(param, &average.tensor())?;
        }
        self.live = Some(live);
        if distance.is_finite() {
            model.log_scalar("distance", distance.sqrt())?;
        }
        Ok(())
    }

    /// Puts back with what training goes on.
    fn go_on(&mut self, model: &mut Model) -> Result<()> {
        for (name, live) in self.live.take().unwrap_or_default() {
            model.set_value(param(&self.params, &name)?, &live.tensor())?;
        }
        Ok(())
    }

    /// Leaves the averages in the model, and begins anew.
    fn finish(&mut self, model: &mut Model) -> Result<()> {
        let averaged = self.taken > 0 && self.live.is_none();
        if averaged {
            self.find(model)?;
            for (name, average) in &self.averages {
                model.set_value(param(&self.params, name)?, &average.tensor())?;
            }
        }
        *self = Self::default();
        Ok(())
    }
}

fn param<'a>(params: &'a BTreeMap<String, Param>, name: &str) -> Result<&'a Param> {
    params.get(name).ok_or_else(|| {
        Error::new(format!(
            "there is an average of {name}, and this model has no such parameter: the state is another run's"
        ))
    })
}
