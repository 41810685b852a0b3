//! Whole runs: in today's host, an older and a newer one.

use crate::Result;
use crate::adapted::{ModelParameter, Owner};
use crate::plugin::note;
use crate::plugin::probe::{self, Offered};
use crate::validate::bench::Bench;
use crate::validate::outcome::Outcome;
use crate::validate::subject::Subject;

/// A run from set-up to what it leaves.
pub(in crate::validate) fn runs(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    bench.run(&subject.folder.join("run"))?;
    Ok(Outcome::Passed)
}

/// The same with a host of minor 0.
pub(in crate::validate) fn older_host(subject: &Subject) -> Result<Outcome> {
    let least = note::check(&subject.file)?.note.min_host_minor;
    if least > 0 {
        return Ok(Outcome::skipped(format!("its note asks for a host of minor {least} or later")));
    }
    probe::offer(Offered::Oldest);
    runs(subject)
}

/// The same with a host whose table goes on behind what is known today.
pub(in crate::validate) fn later_host(subject: &Subject) -> Result<Outcome> {
    probe::offer(Offered::Longer);
    runs(subject)
}

/// The model's weights that were frozen before the first step and are at the end. Buffers and what a head predicts by are no weights that train.
pub(in crate::validate) fn frozen(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    let setup = bench.set_up()?;
    let frozen: Vec<_> = setup.model.parameters.iter().filter(|p| is_frozen(p)).map(|p| p.parameter.clone()).collect();
    let before: Vec<Vec<u32>> = frozen.iter().map(bits).collect::<Result<_>>()?;
    // What it ends with is the matter of another test.
    let ended = bench.finish(setup, &subject.folder.join("run"));
    let mut changed = Vec::new();
    for (parameter, before) in frozen.iter().zip(before) {
        if !parameter.trainable() && bits(parameter)? != before {
            changed.push(format!("{} has changed, and did not train", parameter.name()));
        }
    }
    if changed.is_empty() {
        ended?;
        if frozen.is_empty() {
            return Ok(Outcome::skipped("nothing is frozen"));
        }
    }
    Ok(Outcome::unless(&changed, "a parameter that does not train keeps its bits to the end of the run"))
}

fn is_frozen(of: &ModelParameter) -> bool {
    of.owner == Owner::Base && !of.buffer && !of.parameter.trainable()
}

fn bits(parameter: &fthost_autograd::Parameter) -> Result<Vec<u32>> {
    let mut bits = Vec::with_capacity(parameter.elem_count());
    parameter.each_value(|values| bits.extend(values.iter().map(|value| value.to_bits())))?;
    Ok(bits)
}
