//! Which strategies are searched, and what their plugins say may be drawn.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value as Json;

use super::draw::{Space, untested};
use crate::compare::{Candidate, Found, number};
use crate::data::Files;
use crate::plugin::{Library, MethodKind, Search as PluginSearch};
use crate::processes::Runner;
use crate::run::DeviceChoice;
use crate::run::file::{Drawn, HeldOut, Method, RunFile};
use crate::{Error, Result};

/// The share of the training examples that is watched where the run file says nothing.
const SHARE: f64 = 0.1;

/// The strategies that are searched: each plugin's in the place of the run file's, or the run file's own together. The second value
/// says whether the task had no validation examples and a share of its training examples becomes them.
///
/// # Errors
/// Where there are several tasks, no strategy, or the validation examples are the test examples.
pub fn candidates(base: &RunFile, plugins: &[String], device: DeviceChoice) -> Result<(Vec<Candidate>, bool)> {
    let mut base = base.clone();
    let shared = watched(&mut base)?;
    let mut found = match plugins {
        [] if base.strategies.is_empty() => {
            return Err(Error::usage("there is no strategy to search").with_help(
                "name one or several by --plugin FILE, or in the run file:\n[[strategy]]\nplugin = \"NAME\"",
            ));
        }
        [] => {
            let names: Vec<&str> = base.strategies.iter().map(|method| method.plugin.as_str()).collect();
            vec![Candidate::of_file(&base, names.join("+"), Vec::new(), device)]
        }
        plugins => plugins.iter().map(|plugin| Candidate::of_plugin(&base, plugin, device)).collect::<Result<_>>()?,
    };
    number(&mut found);
    Ok((found, shared))
}

/// Sees to it that the only task has validation examples other than its test examples. Says whether it had none.
fn watched(file: &mut RunFile) -> Result<bool> {
    let [task] = file.tasks.as_mut_slice() else {
        return Err(Error::usage(format!("auto searches for one task, and the run file has {}", file.tasks.len()))
            .with_help("leave one [[task]] in the run file; several are trained by fthost RUN.toml"));
    };
    let files = |part: &Option<HeldOut>| -> Vec<PathBuf> {
        part.as_ref().and_then(HeldOut::files).into_iter().flat_map(Files::named).map(real).collect()
    };
    let tested = files(&task.test);
    if let Some(path) = files(&task.validation).iter().find(|path| tested.contains(path)) {
        return Err(Error::usage(format!("{} holds both the validation and the test examples", path.display()))
            .with_help("a search chooses by validation examples: give others, or a share such as validation = 0.1"));
    }
    let shared = task.validation.is_none();
    task.validation.get_or_insert(HeldOut::Drawn(Drawn::Share(SHARE)));
    Ok(shared)
}

/// A file by whatever name.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// A method as `inspect` tells it.
#[derive(Deserialize)]
struct Inspected {
    kind: MethodKind,
    name: String,
    options: Vec<Searched>,
}

#[derive(Deserialize)]
struct Searched {
    name: String,
    #[serde(default)]
    search: Vec<Json>,
}

/// What may be drawn for a candidate: the options for which its plugins declare values and its run file none. The plugins are
/// asked in a process of their own: one that cannot even say what it holds loses its runs only.
pub(super) fn space(candidate: &Candidate, runner: &Runner<'_>, say: &dyn Fn(&str)) -> Result<Space> {
    let file = RunFile::parse(&candidate.identity.run_file, Path::new("run.toml"), &[])?;
    let mut options = BTreeMap::new();
    for (i, method) in file.strategies.iter().enumerate() {
        let prefix = if file.strategies.len() == 1 { "strategy".to_owned() } else { format!("strategy.{i}") };
        match declared(candidate, method, runner)? {
            Ok(found) => options.extend(found.into_iter().map(|(name, values)| (format!("{prefix}.{name}"), values))),
            Err(error) => say(&format!("{}: no options are drawn: {error}", candidate.name)),
        }
    }
    Ok(Space { strategy: candidate.name.clone(), lr: file.train.lr, suggested: None, options })
}

/// Options with the values to draw from.
type Declared = Vec<(String, Vec<Json>)>;

/// The options of a method with values to draw from, or why its plugin does not say.
fn declared(candidate: &Candidate, method: &Method, runner: &Runner<'_>) -> Result<Result<Declared, String>> {
    let path = match (candidate.identity.plugins.first(), &method.file) {
        (Some(plugin), _) => plugin.path.clone(),
        (None, Some(file)) => file.display().to_string(),
        (None, None) => {
            let library = Library::new(PluginSearch::from_environment());
            library.file_of(MethodKind::Strategy, &method.plugin)?.display().to_string()
        }
    };
    let answer = runner.ask(["inspect", &path])?;
    not_stopped(runner)?;
    let methods = answer.and_then(|answer| {
        serde_json::from_value::<Vec<Inspected>>(answer["plugins"][0]["methods"].clone())
            .map_err(|error| error.to_string())
    });
    Ok(methods.map(|methods| {
        let own = methods.into_iter().find(|own| own.kind == MethodKind::Strategy && own.name == method.plugin);
        let options = own.into_iter().flat_map(|own| own.options);
        let drawn = options.filter(|option| !option.search.is_empty() && method.config.get(&option.name).is_none());
        drawn.map(|option| (option.name, option.search)).collect()
    }))
}

/// The learning rate that `lr-find` suggests for a candidate; none where it says so, or fails.
pub(super) fn suggested(candidate: &Candidate, runner: &Runner<'_>, say: &dyn Fn(&str)) -> Result<Option<f64>> {
    say(&format!("{}: looking for its learning rate", candidate.name));
    let found = Found::of(candidate, runner)?;
    not_stopped(runner)?;
    match found {
        Ok(Found { suggestion: Some(lr), .. }) => return Ok(Some(lr)),
        Ok(Found { reason, .. }) => say(&format!("{}: {reason}", candidate.name)),
        Err(error) => say(&format!("{}: no learning rate is suggested: {error}", candidate.name)),
    }
    Ok(None)
}

/// The optimizer steps of a whole run, as `plan` tells them for the first candidate that it can plan: they are those of all.
pub(super) fn whole_steps(candidates: &[Candidate], runner: &Runner<'_>) -> Result<u64> {
    let mut errors = Vec::new();
    for candidate in candidates {
        let file = RunFile::parse(&candidate.identity.run_file, Path::new("run.toml"), &[])?;
        let answer = runner.ask_of("plan", &untested(file), &candidate.identity.plugins)?;
        not_stopped(runner)?;
        match answer.map(|plan| plan["steps"].as_u64()) {
            Ok(Some(steps)) => return Ok(steps),
            Ok(None) => errors.push(format!("{}: its plan tells no steps", candidate.name)),
            Err(error) => errors.push(format!("{}: {error}", candidate.name)),
        }
    }
    Err(Error::run(format!("no strategy can run:\n{}", errors.join("\n")))
        .with_help("fthost plan with the same run file and plugin says more"))
}

fn not_stopped(runner: &Runner<'_>) -> Result<()> {
    match runner.interrupt.came() {
        true => Err(Error::Interrupted { message: "stopped before the first run".to_owned(), help: None }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tasks: &str, strategies: &str) -> RunFile {
        let text = format!("[model]\npath = \"demo\"\n{tasks}{strategies}");
        RunFile::parse(&text, Path::new("a.toml"), &[]).unwrap()
    }

    const TASK: &str = "[[task]]\nname = \"t\"\nhead = { plugin = \"h\" }\ntrain = \"a.tsv\"\ntest = \"b.tsv\"\n";
    const TWO: &str = "[[strategy]]\nplugin = \"s\"\n[[strategy]]\nplugin = \"r\"\n";

    #[test]
    fn the_run_files_own_strategies_are_one_candidate_and_validation_is_seen_to() {
        let check = |validation: &str, share: bool, expected: HeldOut| {
            let (found, shared) =
                candidates(&file(&format!("{TASK}{validation}"), TWO), &[], DeviceChoice::Cpu).unwrap();
            let [candidate] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!((candidate.name.as_str(), shared), ("s+r", share));
            let file = RunFile::parse(&candidate.identity.run_file, Path::new("b.toml"), &[]).unwrap();
            assert_eq!(file.tasks[0].validation, Some(expected));
            assert!(file.tasks[0].test.is_some(), "the best configuration's run file names it again");
        };
        check("", true, HeldOut::Drawn(Drawn::Share(0.1)));
        check("validation = 0.3\n", false, HeldOut::Drawn(Drawn::Share(0.3)));
        let other = std::path::absolute("c.tsv").unwrap();
        check("validation = \"c.tsv\"\n", false, HeldOut::Files(Files::One(other)));
    }

    #[test]
    fn what_cannot_be_searched_is_refused() {
        let check = |tasks: &str, strategies: &str, plugins: &[&str], expected: &str| {
            let plugins: Vec<String> = plugins.iter().map(|plugin| (*plugin).to_owned()).collect();
            let error = candidates(&file(tasks, strategies), &plugins, DeviceChoice::Cpu).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(TASK, "", &[], "there is no strategy to search");
        check(TASK, "", &["/nowhere/libx.so"], "/nowhere/libx.so");
        check(&format!("{TASK}{}", TASK.replace("\"t\"", "\"u\"")), TWO, &[], "for one task, and the run file has 2");
        let same = "b.tsv holds both the validation and the test examples";
        check(&format!("{TASK}validation = \"./b.tsv\"\n"), TWO, &[], same);
    }
}
