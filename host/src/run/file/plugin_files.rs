//! Plugins that a run file names by their files: `plugin = "./libmine.so"`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_plugin_api::MethodKind;

use super::document::{Document, Node, Value};
use super::files::absolute;
use super::words::list;
use crate::plugin::search::{is_file_name, split_argument};
use crate::plugin::{Search, note};
use crate::{Error, Result};

/// Puts the names of methods in the place of the files that tables name, and gives the files, absolute, by the tables' paths. Which methods a
/// file has its notes say: none of its code runs.
///
/// # Errors
/// At the name of a file that is not there, is no plugin, or has no method of the table's kind or several.
pub(super) fn take(document: &mut Document, folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for (table, kind) in tables(document) {
        let path = format!("{table}.plugin");
        let Some(Node { value: Value::String(said), at }) = document.find(&path) else { continue };
        let (said, at) = (said.clone(), *at);
        if !is_file_name(split_argument(&said).0) {
            continue;
        }
        let (file, name) = method_of(folder, &said, kind).map_err(|error| match error {
            Error::Plugin { message, help } | Error::Usage { message, help } => {
                document.error(at, message, "named here", help)
            }
            other => other,
        })?;
        if let Some(node) = document.find_mut(&path) {
            node.value = Value::String(name);
        }
        files.insert(table, file);
    }
    Ok(files)
}

/// The paths of the tables that name a method, with the kind of each.
fn tables(document: &Document) -> Vec<(String, MethodKind)> {
    let count = |list: &str| match document.find(list) {
        Some(Node { value: Value::Array(items), .. }) => items.len(),
        _ => 0,
    };
    let mut tables = vec![("schedule".to_owned(), MethodKind::Scheduler)];
    tables.extend((0..count("schedule")).map(|i| (format!("schedule[{i}]"), MethodKind::Scheduler)));
    tables.extend((0..count("strategy")).map(|i| (format!("strategy[{i}]"), MethodKind::Strategy)));
    tables.extend((0..count("regularizer")).map(|i| (format!("regularizer[{i}]"), MethodKind::Regularizer)));
    if document.find("train.optimizer.plugin").is_some() {
        tables.push(("train.optimizer".to_owned(), MethodKind::Optimizer));
    }
    tables.extend((0..count("task")).map(|i| (format!("task[{i}].head"), MethodKind::TaskHead)));
    tables
}

/// The file that a run file in this folder names, and the name of the method.
fn method_of(folder: &Path, said: &str, kind: MethodKind) -> Result<(PathBuf, String)> {
    let (file, chosen) = split_argument(said);
    let beside = absolute(folder, file, &[])?;
    let search = Search::from_environment();
    let file = match file.contains('/') || beside.is_file() {
        true => beside,
        // A bare name is looked for where plugins lie, as `--plugin` does.
        false => absolute(Path::new(""), &search.find(file)?.display().to_string(), &[])?,
    };
    // A run folder's own copy names the method, and is read where the file is gone too.
    if let Some(name) = chosen {
        return Ok((file, name.to_owned()));
    }
    let methods = note::check(&search.find(&file.display().to_string())?)?.methods;
    let own: Vec<&str> =
        methods.iter().filter(|method| method.kind == kind).map(|method| method.name.as_str()).collect();
    match own.as_slice() {
        [name] => Ok((file, (*name).to_owned())),
        [] => {
            let has: Vec<String> = methods.iter().map(|method| format!("{} {:?}", method.kind, method.name)).collect();
            let has = if has.is_empty() { "nothing".to_owned() } else { format!("the {}", list(&has, "and")) };
            Err(Error::plugin(format!("{} has no {kind}: it has {has}", file.display())))
        }
        names => {
            let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
            let which: Vec<String> = names.iter().map(|name| format!("plugin = \"{said}#{name}\"")).collect();
            let message = format!("{} has {} of kind {kind}: {}", file.display(), names.len(), list(&quoted, "and"));
            Err(Error::plugin(message).with_help(format!("say which: {}", list(&which, "or"))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::file::RunFile;

    /// A folder with plugins that were built once, and are kept in the repository.
    fn golden() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
    }

    fn parse(strategy: &str, schedule: &str) -> Result<RunFile> {
        let text = format!(
            "[model]\npath = \"demo\"\n[[task]]\nhead = {{ plugin = \"1.0/../1.0/libclassification.so\", dropout = 0.1 }}\ntrain = \"demo\"\n\
             [[strategy]]\nplugin = \"{strategy}\"\nrank = 4\n[schedule]\nplugin = \"{schedule}\"\n"
        );
        RunFile::parse(&text, &golden().join("run.toml"), &[])
    }

    #[test]
    fn a_file_stands_for_its_method() {
        let file = parse("./1.0/liblora.so", "1.0/libcosine.so#cosine-restarts").unwrap();
        let named: Vec<_> = file.methods().map(|(method, _)| (&*method.plugin, method.file.clone().unwrap())).collect();
        let at = |file: &str| golden().join(file);
        assert_eq!(named[0], ("lora", at("./1.0/liblora.so")));
        assert_eq!(named[1], ("cosine-restarts", at("1.0/libcosine.so")));
        assert_eq!(named[2].0, "classification");
        assert_eq!(file.tasks[0].head.config, serde_json::json!({ "dropout": 0.1 }));

        // What the run folder keeps reads as the same, from wherever it is read, and where the files are gone.
        let kept = file.to_toml();
        assert_eq!(RunFile::parse(&kept, Path::new("/elsewhere/run.toml"), &[]).unwrap(), file);
        let gone = kept.replace("liblora.so", "libgone.so");
        assert_eq!(RunFile::parse(&gone, Path::new("/run.toml"), &[]).unwrap().strategies[0].plugin, "lora");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_at_its_line() {
        let check = |strategy: &str, schedule: &str, line: usize, message: &str, help: &str| {
            let error = parse(strategy, schedule).unwrap_err();
            let Error::RunFile { message: said, help: advice, span, source_code, .. } = &error else {
                panic!("{error}")
            };
            assert!(said.contains(message), "{said}");
            assert!(advice.as_deref().unwrap_or_default().contains(help), "{advice:?}");
            assert_eq!(source_code.inner()[..span.offset()].lines().count(), line, "{said}");
        };
        let (lora, cosine) = ("1.0/liblora.so", "constant");
        check("1.0/libLora.so", cosine, 7, "there is no plugin file", "did you mean");
        check("1.0/ORIGIN.txt", cosine, 7, "ORIGIN.txt", "shared library");
        check("1.0/libcosine.so", cosine, 7, "has no strategy: it has the scheduler \"cosine\"", "");
        check(
            lora,
            "./1.0/libcosine.so",
            10,
            "has 2 of kind scheduler",
            "plugin = \"./1.0/libcosine.so#cosine-restarts\"",
        );
        check("libnowhere.so", cosine, 7, "there is no plugin \"libnowhere.so\"", "looked in");
    }
}
