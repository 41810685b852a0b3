//! Host calls that fail, and handles that are not kept in order.

use crate::Result;
use crate::plugin::probe::{self, HostCall};
use crate::validate::bench::{Bench, Left};
use crate::validate::outcome::Outcome;
use crate::validate::subject::Subject;

/// Of every kind of call into the host one fails, in turn, that in the midst of them: the run has to end with it, or come to the same.
pub(in crate::validate) fn failing_calls(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?.short()?;
    let (whole, calls, _) = probe::watching(None, || bench.run(&subject.folder.join("whole")));
    let whole = whole?;
    let mine: Vec<(HostCall, u64)> = calls.into_iter().filter(|(call, _)| call.method == bench.method.name).collect();
    if mine.is_empty() {
        return Ok(Outcome::skipped("it calls no function of the host"));
    }
    let mut seen = Vec::new();
    for (i, (call, times)) in mine.iter().enumerate() {
        probe::account();
        let (ended, _, failed) =
            probe::watching(Some((call, times / 2 + 1)), || bench.run(&subject.folder.join(format!("fails-{i}"))));
        let panics = probe::account().panics;
        if !panics.is_empty() {
            seen.extend(panics.into_iter().map(|text| format!("{call} failed: {text}")));
            continue;
        }
        // Where the host only tries whether a head is of a form that others open, the run goes on and says what it met.
        let said = |left: &Left| left.summary.saved.own_heads.as_deref().is_some_and(|why| why.contains(probe::REASON));
        if let (Ok(left), true) = (ended, failed)
            && !said(&left)
            && let Some(difference) = left.difference(&whole)?
        {
            seen.push(format!("{call} failed, the run went on as if nothing had happened, and {difference}"));
        }
    }
    Ok(Outcome::unless(&seen, "a call of the host that fails ends the call into the plugin with an error status"))
}

/// Tensors that are not given back.
pub(in crate::validate) fn leaked_handles(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    probe::account();
    let before = probe::kept_tensors();
    bench.run(&subject.folder.join("run"))?;
    let mine = format!("plugin {} (", bench.method.name);
    let forgotten = probe::account().forgotten;
    let forgotten = forgotten.into_iter().find(|(who, _)| who.starts_with(&mine));
    let mut seen: Vec<String> = forgotten
        .map(|(who, tensors)| {
            format!("{who} ended a call with tensors that it had neither released nor given back: {tensors}")
        })
        .into_iter()
        .collect();
    let kept = probe::kept_tensors().saturating_sub(before);
    if kept > 0 {
        seen.push(format!(
            "{kept} tensors that were kept by keep@1 are still there after the run, its instances freed"
        ));
    }
    Ok(Outcome::unless(
        &seen,
        "every tensor that an op gives is released or given back before the call ends; what is kept, when the instance is freed",
    ))
}

/// Handles that name nothing any more.
pub(in crate::validate) fn stale_handles(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    probe::account();
    let (ended, ..) = probe::watching(None, || bench.run(&subject.folder.join("run")));
    let invalid = probe::account().invalid;
    if invalid.is_empty() {
        ended?;
    }
    Ok(Outcome::unless(&invalid, "a tensor's handle is used within its call, on its thread, before its release"))
}
