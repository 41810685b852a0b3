//! A strategy that fails where and how its options say, so that tests can see the host contain it.

mod apart;
mod wrong;

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Duration;

use fthost_plugin_api::draft::Run;
use fthost_plugin_api::prelude::*;
use fthost_plugin_api::tracing;
use signal_hook::consts::SIGSEGV;
use signal_hook::low_level;

/// Where and how to fail.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Misbehaviour {
    /// In which call.
    at: Place,
    /// In what way.
    how: Way,
}

/// Calls into a strategy.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Place {
    New,
    Attach,
    Event,
    Forward,
}

/// Ways to fail.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// Returns an error.
    Error,
    /// Panics.
    Panic,
    /// Takes the process with it, by SIGABRT.
    Abort,
    /// Takes the process with it, by a memory fault.
    Fault,
    /// Takes the process with it, by a stack that overflows.
    Overflow,
    /// Takes the process with it, as if all were well: nothing registered for the end of a process runs.
    Exit,
    /// Never comes back.
    Block,
    /// Moves the process to another working directory.
    Move,
    /// Does what cannot be right: a hook whose output has another shape.
    Shape,
    /// Makes numbers that are none.
    Nan,
    /// Declares a parameter that no forward pass reads.
    Unused,
    /// Doubles outputs, and says that a weight three times as large does the same.
    Merge,
    /// Nothing wrong: holds what a second call on its thread would find held, and a lock, while ops run.
    Hold,
    /// Nothing wrong: says what the host's draft says of the run.
    Draft,
}

impl Misbehaviour {
    fn act(self, at: Place) -> Result<()> {
        match self.how {
            Way::Error if self.at == at => Err(Error::new("the left phalange is missing").context("looking for it")),
            #[expect(clippy::panic, reason = "the host has to survive it")]
            Way::Panic if self.at == at => panic!("lost the left phalange"),
            Way::Abort if self.at == at => std::process::abort(),
            Way::Fault if self.at == at => loop {
                // The first one takes the handler away that Rust's library has put there.
                low_level::raise(SIGSEGV).map_err(Error::new)?;
            },
            Way::Overflow if self.at == at => Err(Error::new(format!("not deep enough: {}", deeper(1)))),
            // This is `_exit`.
            Way::Exit if self.at == at => low_level::exit(0),
            Way::Block if self.at == at => loop {
                std::thread::sleep(Duration::from_secs(60));
            },
            Way::Move if self.at == at => std::env::set_current_dir("model").map_err(Error::new),
            _ => Ok(()),
        }
    }
}

/// Goes deeper than any stack.
fn deeper(depth: u64) -> u64 {
    let here = black_box([depth; 64]);
    if depth == u64::MAX { depth } else { deeper(depth + 1) + here[7] }
}

struct Misbehaving(Misbehaviour);

impl Strategy for Misbehaving {
    type Config = Misbehaviour;

    fn new(config: Misbehaviour) -> Result<Self> {
        config.act(Place::New)?;
        Ok(Self(config))
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        self.0.act(Place::Attach)?;
        model.freeze_all()?;
        if self.0.how == Way::Unused {
            model.shared_param("unused", [3], Init::Ones)?;
        }
        for site in model.linears(&Targets::from(["query"]))? {
            model.hook_linear(&site, Hook { how: self.0, lock: Mutex::new(()) })?;
        }
        Ok(())
    }

    fn on_event(&mut self, event: &Event, _model: &mut Model) -> Result<()> {
        // Not at once: a run that breaks off in its second step has logged the first one.
        if !matches!(event, Event::StepEnd { step: 1, .. }) {
            return Ok(());
        }
        if self.0.how == Way::Draft {
            let run = Run::of_host().ok_or_else(|| Error::new("this host has no draft of a run"))?;
            tracing::warn!("step {} of the run with seed {}", run.step()?, run.seed()?);
        }
        self.0.act(Place::Event)
    }
}

struct Hook {
    how: Misbehaviour,
    lock: Mutex<()>,
}

thread_local! {
    static HELD: RefCell<()> = const { RefCell::new(()) };
}

impl LinearHook for Hook {
    fn forward(&self, _x: &Tensor, y: Tensor, _weight: &Tensor) -> Result<Tensor> {
        self.how.act(Place::Forward)?;
        match self.how.how {
            Way::Shape => y.t(),
            Way::Nan => y.mul_scalar(f64::NAN),
            Way::Merge => y.mul_scalar(2.0),
            Way::Hold => HELD.with_borrow_mut(|()| {
                let _held = self.lock.lock().map_err(Error::new)?;
                for _ in 0..20 {
                    y.softmax()?; // an op that a host may split over threads
                }
                Ok(y)
            }),
            _ => Ok(y),
        }
    }

    fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        match self.how.how {
            Way::Merge => weight.mul_scalar(3.0).map(Some),
            _ => Ok(None),
        }
    }
}

register! {
    /// Fails as told.
    Strategy "misbehaving" => Misbehaving
}
export_plugin! { license = "MIT OR Apache-2.0" }
