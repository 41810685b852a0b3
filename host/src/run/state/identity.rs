//! What must be the same for a run to be continued, and what differs where it is not.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::plugin::Plugin;

/// Everything outside a checkpoint that a run's numbers follow from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The host's version.
    pub fthost: String,
    /// The resolved run file, as TOML.
    pub run_file: String,
    /// The plugins with the SHA-256 of their files.
    pub plugins: Vec<PluginUsed>,
    /// SHA-256 over the base model's weights.
    pub model: String,
    /// Data and tokenizer files with the SHA-256 of their contents.
    pub files: BTreeMap<String, String>,
    /// Where it computes.
    pub device: String,
    /// The CPU's kernels, where it computes there: the last bits depend on them.
    #[serde(default)]
    pub kernels: String,
}

/// A plugin that took part in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginUsed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its file.
    pub path: String,
    /// SHA-256 of the file.
    pub sha256: String,
}

impl From<&Plugin> for PluginUsed {
    fn from(plugin: &Plugin) -> Self {
        Self {
            name: plugin.info().name.clone(),
            version: plugin.info().version.clone(),
            path: plugin.path().display().to_string(),
            sha256: plugin.sha256().to_owned(),
        }
    }
}

/// Keys of the run file that do not change what is computed: where the run goes, and on how many threads.
const WITHOUT_EFFECT: [&str; 2] = ["run", "train.threads"];

impl Identity {
    /// What differs between the run that wrote a checkpoint (`self`) and the run that would continue it, one line each.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut differ = |what: &str, then: &str, now: &str| {
            if then != now {
                found.push(format!("{what}: {then} then, {now} now"));
            }
        };
        differ("fthost", &self.fthost, &now.fthost);
        differ("the device", &self.device, &now.device);
        differ("the processor's kernels", &self.kernels, &now.kernels);
        differ("the model's weights", short(&self.model), short(&now.model));
        for name in names(self.files.keys(), now.files.keys()) {
            let digest = |files: &BTreeMap<String, String>| {
                files.get(name).map_or_else(|| "not used".to_owned(), |digest| short(digest).to_owned())
            };
            differ(&format!("the contents of {}", file_name(name)), &digest(&self.files), &digest(&now.files));
        }
        let plugins = |of: &Self| -> BTreeMap<String, String> {
            let text = |plugin: &PluginUsed| format!("version {} ({})", plugin.version, short(&plugin.sha256));
            of.plugins.iter().map(|plugin| (plugin.name.clone(), text(plugin))).collect()
        };
        let (then, with) = (plugins(self), plugins(now));
        for name in names(then.keys(), with.keys()) {
            let text = |of: &BTreeMap<String, String>| of.get(name).map_or("not used", String::as_str).to_owned();
            differ(&format!("plugin {name}"), &text(&then), &text(&with));
        }
        let (then, with) = (keys(&self.run_file), keys(&now.run_file));
        for name in names(then.keys(), with.keys()) {
            let text = |of: &BTreeMap<String, String>| of.get(name).map_or("not set", String::as_str).to_owned();
            differ(name, &text(&then), &text(&with));
        }
        found
    }
}

/// The keys of both, sorted.
fn names<'a>(a: impl Iterator<Item = &'a String>, b: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let mut names: Vec<&String> = a.chain(b).collect();
    names.sort();
    names.dedup();
    names
}

/// A digest's first digits: enough to tell two apart.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn file_name(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path)
}

/// The values of a run file by their dotted keys.
fn keys(text: &str) -> BTreeMap<String, String> {
    fn collect(path: &str, value: &toml::Value, found: &mut BTreeMap<String, String>) {
        let inner = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            _ if WITHOUT_EFFECT.contains(&path) => {}
            toml::Value::Table(entries) => {
                entries.iter().for_each(|(key, value)| collect(&inner(key), value, found));
            }
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                items.iter().enumerate().for_each(|(i, item)| collect(&format!("{path}[{i}]"), item, found));
            }
            value => {
                found.insert(path.to_owned(), value.to_string());
            }
        }
    }
    let mut found = BTreeMap::new();
    match text.parse::<toml::Table>() {
        Ok(table) => collect("", &toml::Value::Table(table), &mut found),
        Err(_) => {
            found.insert("the run file".to_owned(), text.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn identity() -> Identity {
        Identity {
            fthost: "0.1.0".into(),
            run_file: "[train]\nlr = 0.1\nthreads = 2\n[[strategy]]\nplugin = \"a\"\n[run]\nout = \"x\"\n".into(),
            plugins: vec![PluginUsed {
                name: "a".into(),
                version: "1".into(),
                path: "/a.so".into(),
                sha256: "0123456789abcdef".into(),
            }],
            model: "00ff".into(),
            files: BTreeMap::from([("/data/train.tsv".into(), "aa".into())]),
            device: "cpu".into(),
            kernels: "x86_64 avx2".into(),
        }
    }

    #[test]
    fn what_differs_is_named() {
        let check = |change: &dyn Fn(&mut Identity), expected: &[&str]| {
            let mut now = identity();
            change(&mut now);
            assert_eq!(identity().differences(&now), expected);
        };
        check(&|_| {}, &[]);
        let replace = |from: &'static str, to: &'static str| {
            move |now: &mut Identity| now.run_file = now.run_file.replace(from, to)
        };
        check(&replace("threads = 2", "threads = 1"), &[]);
        check(&replace("\"x\"", "\"y\""), &[]);
        check(&replace("lr = 0.1", "lr = 0.2"), &["train.lr: 0.1 then, 0.2 now"]);
        check(&replace("plugin = \"a\"", "plugin = \"a\"\nr = 1"), &["strategy[0].r: not set then, 1 now"]);
        check(&|now| now.model = "1100".into(), &["the model's weights: 00ff then, 1100 now"]);
        check(&|now| now.device = "cuda:0".into(), &["the device: cpu then, cuda:0 now"]);
        let kernels = ["the processor's kernels: x86_64 avx2 then, x86_64 avx512 now"];
        check(&|now| now.kernels = "x86_64 avx512".into(), &kernels);
        check(&|now| now.plugins[0].path = "/b.so".into(), &[]);
        check(
            &|now| now.plugins[0].version = "2".into(),
            &["plugin a: version 1 (0123456789ab) then, version 2 (0123456789ab) now"],
        );
        check(
            &|now| drop(now.files.insert("/data/train.tsv".into(), "bb".into())),
            &["the contents of train.tsv: aa then, bb now"],
        );
    }
}
