//! What has to be the same: twice, on other threads, after a state was saved, after a kill.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use fthost_autograd::Tape;
use fthost_plugin_api::MethodKind;
use rayon::ThreadPoolBuilder;

use crate::plugin::State;
use crate::run::results::result;
use crate::run::state::snapshot::Header;
use crate::run::state::{checkpoint, snapshot};
use crate::run::train::gradients::DropoutKey;
use crate::validate::bench::{Bench, Left, first_examples, numbers, pass};
use crate::validate::outcome::Outcome;
use crate::validate::subject::Subject;
use crate::{Error, Result};

/// Two runs of one seed.
pub(in crate::validate) fn repeated(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    let (one, two) = (bench.run(&subject.folder.join("one"))?, bench.run(&subject.folder.join("two"))?);
    let seen: Vec<String> = one.difference(&two)?.into_iter().collect();
    Ok(Outcome::unless(
        &seen,
        "two runs of one seed give the same bits: no clock, no address, no count that outlives a run",
    ))
}

/// One after the other, and several at once.
pub(in crate::validate) fn threads(subject: &Subject) -> Result<Outcome> {
    const THREADS: usize = 4;
    const TIMES: usize = 6;
    let bench = Bench::new(subject)?;
    let setup = bench.set_up()?;
    let shown = first_examples(&setup, 0, 16)?;
    let pass = pass(&setup, 0);
    let once = || -> Result<Vec<u64>> {
        let given = pass.outputs(&Tape::evaluation(), &shown)?;
        Ok(numbers(given.tensor())?.into_iter().map(f64::to_bits).collect())
    };
    let expected = once()?;
    let found: Vec<Result<Vec<u64>>> = std::thread::scope(|scope| {
        let work = || (0..TIMES).map(|_| once()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let panicked = |_| vec![Err(Error::run("a thread panicked"))];
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    let mut seen = Vec::new();
    for given in found {
        match given {
            Ok(given) if given == expected => {}
            Ok(_) => seen.push("what it gives on one of several threads has other bits than on the run's".to_owned()),
            Err(error) => seen.push(error.to_string()),
        }
    }
    let gradients = |threads: usize| -> Result<Vec<u64>> {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|error| Error::usage(format!("cannot start {threads} threads: {error}")))?;
        let key = DropoutKey { seed: 7, step: 3, first: 0 };
        let mut found = pool.install(|| pass.gradients(&shown, Some(key), 1.0, None))?;
        found.gradients.settle()?;
        let mut bits = vec![found.loss.to_bits(), found.weight.to_bits()];
        for of in setup.model.trainable() {
            if let Some(gradient) = found.gradients.get(&of.parameter) {
                bits.extend(numbers(&gradient.to_dense(of.parameter.dims())?)?.into_iter().map(f64::to_bits));
            }
        }
        Ok(bits)
    };
    if gradients(1)? != gradients(THREADS)? {
        seen.push(format!("the gradients of a step have other bits on {THREADS} threads than on one"));
    }
    seen.sort();
    seen.dedup();
    Ok(Outcome::unless(&seen, "the same bits on any thread, several at once"))
}

/// States that a run saved, loaded and saved again.
pub(in crate::validate) fn state(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    let left = bench.run(&subject.folder.join("run"))?;
    let found = checkpoint::open::<Header>(&left.folder.join(snapshot::FINAL))?;
    let mut setup = bench.set_up()?;
    let place = match bench.method.kind {
        MethodKind::Strategy => {
            let at = bench.file.strategies.iter().position(|method| method.plugin == bench.method.name);
            snapshot::strategy_place(at.unwrap_or_default())
        }
        MethodKind::Regularizer => {
            let at = bench.file.regularizers.iter().position(|table| table.method.plugin == bench.method.name);
            snapshot::regularizer_place(at.unwrap_or_default())
        }
        MethodKind::Scheduler => snapshot::schedule_place(None),
        MethodKind::TaskHead => snapshot::head_place(&setup.tasks[0].name),
        MethodKind::Optimizer => {
            return Ok(Outcome::skipped("its states are parts of checkpoints, which `resume` tries"));
        }
    };
    let saved = found.header.plugin_state(&place, &found.tensors);
    if saved.is_empty() {
        return Ok(Outcome::skipped("it has no state beside its parameters"));
    }
    let at = |of: &str| place.strip_prefix(of).and_then(|rest| rest.parse::<usize>().ok()).unwrap_or_default();
    let again = {
        let mut schedules = setup.schedules.stateful();
        let stateful: &mut dyn crate::plugin::Stateful = match bench.method.kind {
            MethodKind::Strategy => &mut setup.strategies[at("strategy.")],
            MethodKind::Regularizer => &mut setup.regularizers[at("regularizer.")],
            MethodKind::Scheduler | MethodKind::Optimizer => match schedules.find(|(at, _)| *at == place) {
                Some((_, schedule)) => schedule,
                None => return Ok(Outcome::skipped("it is no schedule of the run")),
            },
            MethodKind::TaskHead => &mut setup.tasks[0].head,
        };
        stateful.load(&saved)?;
        stateful.save()?
    };
    let seen: Vec<String> = difference(&saved, &again)?.into_iter().collect();
    Ok(Outcome::unless(&seen, "what it loads it saves again, to the bit"))
}

fn difference(one: &State, other: &State) -> Result<Option<String>> {
    if one.json != other.json {
        return Ok(Some(format!("it saved {}, loaded that and saved {}", one.json, other.json)));
    }
    if one.tensors.keys().ne(other.tensors.keys()) {
        return Ok(Some("after it was loaded it saves tensors of other names".into()));
    }
    for (name, tensor) in &one.tensors {
        if numbers(tensor)?
            .into_iter()
            .map(f64::to_bits)
            .ne(numbers(&other.tensors[name])?.into_iter().map(f64::to_bits))
        {
            return Ok(Some(format!("the tensor {name:?} has other values after it was loaded")));
        }
    }
    Ok(None)
}

/// A run that goes on in another process from where a kill left it.
pub(in crate::validate) fn resumed(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    let through = bench.run(&subject.folder.join("through"))?;
    let killed = subject.folder.join("killed");
    copy(&through.folder, &killed)?;
    set_back(&killed)?;
    let program = std::env::current_exe().map_err(Error::io("cannot find this program"))?;
    let mut command = Command::new(program);
    command.args(["--resume", "--json", "--out"]).arg(&killed).stdin(Stdio::null());
    let output = command.output().map_err(Error::io("cannot start a run"))?;
    if !output.status.success() {
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let said = said["error"]["message"].as_str().unwrap_or("it said nothing").to_owned();
        return Ok(Outcome::failed(format!("the run cannot go on ({}): {said}", output.status), EXPECTED));
    }
    let mut summary = through.summary.clone();
    let within = through.summary.saved.path.strip_prefix(&through.folder).unwrap_or(Path::new("")).to_owned();
    summary.saved.path = killed.join(within);
    let seen: Vec<String> = through.difference(&Left { summary, folder: killed })?.into_iter().collect();
    Ok(Outcome::unless(&seen, EXPECTED))
}

const EXPECTED: &str = "a run that was killed and goes on ends with the bits of one that went through: whatever it counts or draws is in its state";

/// Takes a run back to where a kill after its first checkpoint would have left it.
fn set_back(run: &Path) -> Result<()> {
    let failed = || Error::io(format!("cannot change {}", run.display()));
    fs::remove_file(run.join(result::FILE)).map_err(failed())?;
    let mut checkpoints = Vec::new();
    for entry in fs::read_dir(run.join("checkpoints")).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-")) {
            checkpoints.push(path);
        }
    }
    checkpoints.sort();
    checkpoints.into_iter().skip(1).try_for_each(fs::remove_file).map_err(failed())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = || Error::io(format!("cannot copy {}", from.display()));
    fs::create_dir_all(to).map_err(failed())?;
    for entry in fs::read_dir(from).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::copy(&path, &target).map_err(failed())?;
        }
    }
    Ok(())
}
