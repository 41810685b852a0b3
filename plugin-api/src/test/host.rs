//! The mock host as an author sees it.

use serde_json::Value as Json;

use super::{
    core::{Attached, Core},
    head::{self, HeadRun},
    optimizer::OptimizerRun,
    regularizer::RegularizerRun,
    run::Run,
    scheduler::SchedulerRun,
    session::{self, Declares, Scope},
    strategy::StrategyRun,
    toy::{Pair, Toy},
    wire::{Instance, TABLE},
};
use crate::{
    Model, Optimizer, Regularizer, Result, Scheduler, Strategy, TaskHead,
    abi::{
        draft::optimizer::OptimizerVtable,
        log,
        tables::{RegularizerVtable, SchedulerVtable, StrategyVtable, TaskHeadVtable},
        vtables,
    },
};

/// A host for tests, with a toy model. See the [module](super)'s page.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    pub(super) toy: Toy,
    pub(super) pair: Option<Pair>,
    pub(super) seed: u64,
    pub(super) classes: usize,
    pub(super) sequences: u32,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

/// Options as a run file gives them.
fn options<C: serde::de::DeserializeOwned>(options: &Json) -> Result<C> {
    serde_json::from_value(options.clone()).map_err(|error| crate::Error::new(error).context("options"))
}

impl Host {
    /// With the toy model of texts, seed 0 and three classes.
    pub const fn new() -> Self {
        Self { toy: Toy::Text, pair: None, seed: 0, classes: 3, sequences: 1 }
    }

    /// With the toy model of pictures, which gives spatial features and has no vocabulary.
    #[must_use]
    pub const fn of_pictures(self) -> Self {
        Self { toy: Toy::Pictures, pair: None, ..self }
    }

    /// With a model of both, for task heads: its streams are `text`, whose features are 6 wide, and `image`, whose are 4 wide. Other methods
    /// see the one of texts.
    #[must_use]
    pub const fn of_pair(self) -> Self {
        Self { toy: Toy::Text, pair: Some(Pair::Joined), ..self }
    }

    /// The same with a head of its own that compares both, as CLIP has: [`TaskInfo::comparison`](crate::TaskInfo::comparison), 3 wide. It is
    /// frozen until the head that is tested thaws it.
    #[must_use]
    pub const fn of_comparing_pair(self) -> Self {
        Self { toy: Toy::Text, pair: Some(Pair::Comparing), ..self }
    }

    /// With so many sequences in each example of a head's: [`TaskInfo::sequences`](crate::TaskInfo::sequences).
    #[must_use]
    pub const fn sequences(self, sequences: u32) -> Self {
        Self { sequences, ..self }
    }

    /// With another seed: new parameters start with other numbers.
    #[must_use]
    pub const fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// With so many classes in a head's task; none where its targets are no classes.
    #[must_use]
    pub const fn classes(self, classes: usize) -> Self {
        Self { classes, ..self }
    }

    /// Makes the mock host the host of this process. All tests of a binary share one, each in calls of its own.
    fn connect(self) -> Result<Self> {
        crate::builtin(&TABLE)?;
        log::forward();
        Ok(self)
    }

    fn run(self) -> std::sync::Arc<Run> {
        Run::new(self.toy, self.pair, self.seed)
    }

    /// Runs a body as a call into a strategy's `attach`, with tensors and the model at hand.
    ///
    /// # Errors
    /// The body's own; tensors that it made and still holds.
    pub fn call<T>(self, body: impl FnOnce(&mut Model) -> Result<T>) -> Result<T> {
        let run = Some(self.connect()?.run());
        let scope = Scope { run, model: true, declares: Declares::Strategy, measures: true };
        session::call("a test's call", scope, || body(&mut Model::new()))
    }

    /// Makes a strategy of these options and attaches it.
    ///
    /// # Errors
    /// Its own words.
    pub fn strategy<S: Strategy>(self, with: Json) -> Result<StrategyRun> {
        let host = self.connect()?;
        let core = Core::new(move || {
            let instance = Instance::<StrategyVtable>::create(|| Ok(vtables::strategy(S::new(options(&with)?)?)))?;
            let run = host.run();
            instance.attach(&run)?;
            Ok(Attached { instance, run, said: Json::Null })
        })?;
        Ok(StrategyRun(core))
    }

    /// Makes a scheduler of these options.
    ///
    /// # Errors
    /// Its own words.
    pub fn scheduler<S: Scheduler>(self, with: Json) -> Result<SchedulerRun> {
        let host = self.connect()?;
        let core = Core::new(move || {
            let instance = Instance::<SchedulerVtable>::create(|| Ok(vtables::scheduler(S::new(options(&with)?)?)))?;
            Ok(Attached { instance, run: host.run(), said: Json::Null })
        })?;
        Ok(SchedulerRun(core))
    }

    /// Makes a regularizer of these options and attaches it to a model all of which trains.
    ///
    /// # Errors
    /// Its own words.
    pub fn regularizer<R: Regularizer>(self, with: Json) -> Result<RegularizerRun> {
        let host = self.connect()?;
        let core = Core::new(move || {
            let instance =
                Instance::<RegularizerVtable>::create(|| Ok(vtables::regularizer(R::new(options(&with)?)?)))?;
            let run = host.run();
            instance.attach(&run)?;
            Ok(Attached { instance, run, said: Json::Null })
        })?;
        Ok(RegularizerRun(core))
    }

    /// Makes an optimizer of these options.
    ///
    /// # Errors
    /// Its own words.
    pub fn optimizer<O: Optimizer>(self, with: Json) -> Result<OptimizerRun> {
        let host = self.connect()?;
        let core = Core::new(move || {
            let instance = Instance::<OptimizerVtable>::create(|| Ok(vtables::optimizer(O::new(options(&with)?)?)))?;
            Ok(Attached { instance, run: host.run(), said: Json::Null })
        })?;
        Ok(OptimizerRun(core))
    }

    /// Makes a task head of these options and attaches it to a task of the toy model's.
    ///
    /// # Errors
    /// Its own words; where it asks for features that the toy model does not give.
    pub fn head<H: TaskHead>(self, with: Json) -> Result<HeadRun> {
        let host = self.connect()?;
        let core = Core::new(move || {
            let instance = Instance::<TaskHeadVtable>::create(|| Ok(vtables::task_head(H::new(options(&with)?)?)))?;
            let run = host.run();
            let task = head::task(&run, host.classes, host.sequences, H::PROBLEM_TYPE)?;
            let said = instance.attach(&run, &task)?;
            Ok(Attached { instance, run, said })
        })?;
        HeadRun::new(core, host.classes, host.sequences as usize)
    }
}
