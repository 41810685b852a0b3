//! Freezing, gradual unfreezing and discriminative rates (ULMFiT, Howard and Ruder 2018, arXiv:1801.06146, sections 3.2 and 3.3).
//!
//! Parameters have a depth: 0 the head, 1 the top block with what the pretrained model has above it, one more for each block below,
//! and last the embeddings; of a model of several streams each tower has depths of its own, from 1 on. Those of depth d train in stage k where d <= k, at lr * decay^d, or lr * slice^(d / deepest), fastai's
//! `slice` and timm's layer decay. k is `top` at first; `unfreeze` raises it by `groups` after `every` so many epochs or steps. What
//! strategies before this one froze stays frozen, and what they added has the depth of its place, so all this works over LoRA or
//! BitFit as over the whole model. Nothing is added, so step 0 is the model as those strategies left it.

use std::collections::{BTreeMap, HashSet};

use fthost_plugin_api::{prelude::*, tracing};

mod options;

use options::{FreezingConfig, Towers};

struct Freezing {
    config: FreezingConfig,
    /// The stage: parameters up to this depth train.
    stage: usize,
    /// The stage as the model has it; `None` until told.
    applied: Option<usize>,
    /// What trains in some stage.
    members: Vec<Member>,
    rates_set: bool,
    /// Whether it is known that a further stage comes.
    comes: bool,
    /// The group of heads, and whether it is known what heads have made of the model.
    heads: usize,
    heads_known: bool,
}

struct Member {
    param: Param,
    /// The stage from which on it trains: its depth, or 0 where `thaw` names it.
    from: usize,
    /// The factor that its depth gives its rate.
    rate: f64,
}

impl Strategy for Freezing {
    type Config = FreezingConfig;

    fn new(config: FreezingConfig) -> Result<Self> {
        config.check()?;
        let stage = config.stage(0);
        Ok(Self {
            config,
            stage,
            applied: None,
            members: Vec::new(),
            rates_set: false,
            comes: false,
            heads: 0,
            heads_known: false,
        })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        let named = |model: &Model, targets: &Option<Targets>| {
            let found = targets.as_ref().map(|targets| model.parameters_of(targets)).transpose()?;
            Ok::<_, Error>(found.into_iter().flatten().map(Param::from).collect::<Vec<_>>())
        };
        let (thawed, frozen) = (named(model, &self.config.thaw)?, named(model, &self.config.freeze)?);
        model.set_trainable_of(&thawed, true)?;
        model.set_trainable_of(&frozen, false)?;

        let parameters = model.parameters()?;
        self.heads = model.groups()?.saturating_sub(1);
        let towers = Towers::of(model.groups()?, model.streams()?.len(), &parameters);
        let thawed: HashSet<&str> = thawed.iter().map(Param::name).collect();
        for param in parameters.into_iter().filter(|param| param.trainable) {
            let tower = towers.tower(&param);
            let depth = tower.depth(param.group, param.base);
            let from = if thawed.contains(param.path.as_str()) { 0 } else { depth };
            self.members.push(Member { param: param.into(), from, rate: self.config.rate(depth, tower.deepest()) });
        }
        if self.config.unfreeze.is_some() && self.members.iter().all(|member| member.from <= self.stage) {
            return Err(Error::new(format!(
                "nothing is left to unfreeze, since all that may train does from the start: lower top, which is {}, or leave \
                 unfreeze out",
                self.stage
            )));
        }
        self.apply(model)
    }

    fn starts_at_base(&self) -> bool {
        true // it adds nothing
    }

    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        if !self.heads_known {
            self.leave_to_heads(model)?;
            self.heads_known = true;
        }
        if !self.rates_set {
            self.set_rates(model)?;
            self.rates_set = true;
        }
        if !self.comes {
            self.comes = self.config.comes(event)?;
        }
        self.hear(event);
        self.apply(model)
    }

    // The host saves what trains and at which factors.
    fn save(&self) -> Result<SavedState> {
        Ok(SavedState { json: json!({ "stage": self.stage, "rates_set": self.rates_set }), ..SavedState::default() })
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        let (stage, rates_set) = (state.json["stage"].as_u64(), state.json["rates_set"].as_bool());
        self.stage = stage.ok_or_else(|| Error::new("the saved state has no stage: start the run afresh"))? as usize;
        self.rates_set = rates_set.unwrap_or_default();
        self.comes = true;
        self.applied = None;
        Ok(())
    }
}

impl Freezing {
    /// Takes the stage from the number of the epoch or step that begins: from nothing else, so that a resumed run goes on alike.
    fn hear(&mut self, event: &Event) {
        let Some(unfreeze) = &self.config.unfreeze else { return };
        let passed = match event {
            Event::EpochBegin { epoch, .. } => unfreeze.every.epochs.map(|_| *epoch),
            Event::StepBegin { step, .. } => unfreeze.every.steps.map(|_| *step),
            _ => None,
        };
        self.stage = passed.map_or(self.stage, |passed| self.config.stage(passed));
    }

    /// Freezes and thaws as the stage says, where the model has another.
    fn apply(&mut self, model: &mut Model) -> Result<()> {
        if self.applied == Some(self.stage) {
            return Ok(());
        }
        let (train, rest): (Vec<&Member>, _) = self.members.iter().partition(|member| member.from <= self.stage);
        for (members, trainable) in [(&train, true), (&rest, false)] {
            let params: Vec<Param> = members.iter().map(|member| member.param.clone()).collect();
            model.set_trainable_of(&params, trainable)?;
        }
        tracing::info!(stage = self.stage, tensors = train.len(), frozen = rest.len(), "block groups train");
        self.applied = Some(self.stage);
        Ok(())
    }

    /// Leaves out what no head reads, which is no longer there, and what heads train although it is the model's: CLIP's projections, a new layer
    /// over a vocabulary. Both are known when heads have attached.
    fn leave_to_heads(&mut self, model: &Model) -> Result<()> {
        let parameters = model.parameters()?;
        let there: BTreeMap<&str, &ParamInfo> = parameters.iter().map(|of| (of.path.as_str(), of)).collect();
        let (heads, stage) = (self.heads, self.stage);
        self.members.retain(|member| match there.get(member.param.name()) {
            None => false,
            Some(of) => !(of.base && of.group == heads && of.trainable && member.from > stage),
        });
        Ok(())
    }

    /// Multiplies the factors that other strategies left: once, when heads and all strategies are there.
    fn set_rates(&mut self, model: &mut Model) -> Result<()> {
        let parameters = model.parameters()?;
        let mine = self.members.iter().filter(|member| member.from <= self.stage).map(|member| member.param.name());
        let mine: HashSet<&str> = mine.collect();
        let of_head =
            |of: &&ParamInfo| of.head || of.base && of.group == self.heads && !mine.contains(of.path.as_str());
        let trains = parameters.iter().filter(|of| of.trainable && !of_head(of)).map(|of| of.path.as_str());
        if self.applied.is_some() && trains.collect::<HashSet<_>>() != mine {
            return Err(Error::new(
                "a strategy after this one adds parameters or changes what trains: make freezing the last [[strategy]]",
            ));
        }

        let rates = self.members.iter().map(|member| (member.param.name().to_owned(), member.rate));
        let mut factors: BTreeMap<String, f64> = rates.collect();
        for (pattern, factor) in &self.config.factors {
            for of in model.parameters_of(&Targets::Pattern(pattern.clone()))? {
                *factors.entry(of.path).or_insert(1.0) *= factor;
            }
        }
        for of in parameters {
            match factors.get(&of.path) {
                None | Some(1.0) => {}
                Some(factor) => model.set_lr_factor_of(&[Param::from(of.clone())], of.lr_factor * factor)?,
            }
        }
        Ok(())
    }
}

register! {
    /// Freezing: feature extraction, gradual unfreezing, discriminative rates.
    Strategy "freezing" => Freezing
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests;
