//! What is compared: run files as they are, or one run file with each plugin's strategy in turn.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_plugin_api::MethodInfo;
use serde::{Deserialize, Serialize};

use crate::plugin::{Search, note};
use crate::run::DeviceChoice;
use crate::run::file::{Offer, RunFile, split_argument};
use crate::run::state::identity::Identity;
use crate::run::state::identity::PluginUsed;
use crate::{Error, Result};

/// One of those that are compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// What it is called, and its folder: the strategy's name, or the run file's.
    pub name: String,
    /// Its run file, and the plugin that the command line names. What a run itself checks, weights and data, is left out.
    pub identity: Identity,
}

impl Candidate {
    /// A run file as it is, under a name.
    pub(crate) fn of_file(file: &RunFile, name: String, plugins: Vec<PluginUsed>, device: DeviceChoice) -> Self {
        let identity = Identity {
            fthost: env!("CARGO_PKG_VERSION").into(),
            run_file: file.to_toml(),
            plugins,
            model: String::new(),
            files: BTreeMap::new(),
            device: device.to_string(),
            kernels: String::new(),
        };
        Self { name, identity }
    }

    /// Its run file.
    ///
    /// # Errors
    /// Where it does not read.
    pub(crate) fn file(&self) -> Result<RunFile> {
        RunFile::parse(&self.identity.run_file, Path::new(&format!("{}.toml", self.name)), &[])
    }

    /// The run file with the strategy of a plugin. The plugin's note is read and none of its code runs: a plugin that would take
    /// the process with it takes a run's only.
    pub(crate) fn of_plugin(file: &RunFile, argument: &str, device: DeviceChoice) -> Result<Self> {
        let path = Search::from_environment().find(split_argument(argument).0)?;
        let used = used(&path)?;
        let methods: Vec<MethodInfo> = note::check(&path)?
            .methods
            .into_iter()
            .map(|method| MethodInfo {
                kind: method.kind,
                name: method.name,
                summary: method.summary,
                config_schema: serde_json::Value::Null,
                config_default: serde_json::Value::Null,
                serves: method.serves,
            })
            .collect();
        let (file, name) = file.with_strategy_of(Offer { argument, methods: &methods })?;
        Ok(Self::of_file(&file, name, vec![used], device))
    }

    /// The same candidate, whose runs write the probabilities of all classes.
    ///
    /// # Errors
    /// Where its run file does not read.
    pub(super) fn with_probabilities(&self) -> Result<Self> {
        let mut file = self.file()?;
        file.run.probabilities = true;
        let identity = Identity { run_file: file.to_toml(), ..self.identity.clone() };
        Ok(Self { name: self.name.clone(), identity })
    }

    /// The same candidate with its plugin as the file is now.
    pub(crate) fn as_of_now(&self) -> Result<Self> {
        let mut now = self.clone();
        for plugin in &mut now.identity.plugins {
            *plugin = used(Path::new(&plugin.path))?;
        }
        Ok(now)
    }
}

/// A plugin as its file is now.
fn used(path: &Path) -> Result<PluginUsed> {
    let checked = note::check(path)?;
    let path = std::path::absolute(path).map_err(Error::io(format!("cannot find {}", path.display())))?;
    Ok(PluginUsed {
        name: checked.note.name,
        version: checked.note.version,
        path: path.display().to_string(),
        sha256: checked.sha256,
    })
}

/// The candidates that the command line names: each run file, or each plugin with the only run file. Equal names are numbered. `alone`:
/// one is enough.
///
/// # Errors
/// Where there are fewer than two, both forms are mixed, or one of them cannot be used.
pub fn candidates(
    files: &[(PathBuf, RunFile)],
    base: &RunFile,
    plugins: &[String],
    device: DeviceChoice,
    alone: bool,
) -> Result<Vec<Candidate>> {
    let least = if alone { 1 } else { 2 };
    let mut found = match (files.len(), plugins.len()) {
        (number, 0) if number >= least => files
            .iter()
            .map(|(path, file)| {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                Candidate::of_file(file, name, Vec::new(), device)
            })
            .collect::<Vec<_>>(),
        (2.., _) => {
            return Err(Error::usage("several run files are compared as they are, without --plugin").with_help(
                "name one run file and several plugins, or several run files with their strategies in them",
            ));
        }
        (_, 0) if alone => {
            return Err(Error::usage(
                "there is nothing to run on folds: name a run file, or a plugin for the embedded demo",
            )
            .with_help("fthost compare RUN.toml --folds 5"));
        }
        (_, number) if number < least => {
            return Err(Error::usage("a comparison needs two candidates at least").with_help(
                "fthost compare RUN.toml --plugin FILE --plugin FILE, or fthost compare A.toml B.toml; one alone is measured by \
                 cross-validation: fthost compare RUN.toml --folds 5",
            ));
        }
        _ => plugins.iter().map(|plugin| Candidate::of_plugin(base, plugin, device)).collect::<Result<Vec<_>>>()?,
    };
    number(&mut found);
    Ok(found)
}

/// Tells equal names apart: `a-1`, `a-2`.
pub(crate) fn number(candidates: &mut [Candidate]) {
    let names: Vec<String> = candidates.iter().map(|candidate| candidate.name.clone()).collect();
    let mut taken: Vec<String> = names.clone();
    for (i, candidate) in candidates.iter_mut().enumerate() {
        if names.iter().filter(|name| **name == candidate.name).count() < 2 {
            continue;
        }
        let number = names[..=i].iter().filter(|name| **name == candidate.name).count();
        let free = (number..).map(|number| format!("{}-{number}", candidate.name)).find(|name| !taken.contains(name));
        candidate.name = free.unwrap_or_default();
        taken.push(candidate.name.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_numbered_and_never_taken_twice() {
        let check = |names: &[&str], expected: &[&str]| {
            let file = RunFile::demo(&[]).unwrap();
            let named = |name: &&str| Candidate::of_file(&file, (*name).into(), Vec::new(), DeviceChoice::Cpu);
            let mut candidates: Vec<Candidate> = names.iter().map(named).collect();
            number(&mut candidates);
            assert_eq!(candidates.iter().map(|candidate| candidate.name.as_str()).collect::<Vec<_>>(), expected);
        };
        check(&["a", "b"], &["a", "b"]);
        check(&["a", "b", "a"], &["a-1", "b", "a-2"]);
        check(&["a", "a-1", "a", "a"], &["a-2", "a-1", "a-3", "a-4"]);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let check_of = |files: usize, plugins: &[&str], alone: bool, expected: &str| {
            let demo = RunFile::demo(&[]).unwrap();
            let files = vec![(PathBuf::from("a.toml"), demo.clone()); files];
            let plugins: Vec<String> = plugins.iter().map(|plugin| (*plugin).to_owned()).collect();
            let error = candidates(&files, &demo, &plugins, DeviceChoice::Cpu, alone).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        let check = |files, plugins: &[&str], expected| check_of(files, plugins, false, expected);
        check(1, &["x"], "needs two candidates");
        check(0, &[], "needs two candidates");
        check(2, &["x", "y"], "without --plugin");
        check(0, &["/nowhere/libx.so", "y"], "/nowhere/libx.so");
        check_of(0, &[], true, "nothing to run on folds");
        check_of(1, &["/nowhere/libx.so"], true, "/nowhere/libx.so");
    }
}
