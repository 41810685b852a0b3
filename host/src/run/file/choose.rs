//! Strategies that the command line's plugins bring: `fthost --plugin liblora.so`.

use fthost_plugin_api::{MethodInfo, MethodKind};
use serde_json::Value as Json;

use super::document::{Entry, Node, Place, Value};
use super::unnamed::strategies;
use super::words::list;
use super::{Method, RunFile};
use crate::plugin::search::{did_you_mean, split_argument};
use crate::{Error, Result};

/// An opened plugin of the command line.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The value of `--plugin`: a file or name, `#` and a strategy's name where it has several.
    pub argument: &'a str,
    /// The plugin's methods.
    pub methods: &'a [MethodInfo],
}

impl Offer<'_> {
    fn strategies(&self) -> Vec<&str> {
        self.methods.iter().filter(|m| m.kind == MethodKind::Strategy).map(|m| m.name.as_str()).collect()
    }

    /// The strategy that it adds to those of the run file.
    fn added(&self, in_file: &[String]) -> Result<Option<&str>> {
        let (plugin, wanted) = split_argument(self.argument);
        let strategies = self.strategies();
        let quoted: Vec<String> = strategies.iter().map(|name| format!("{name:?}")).collect();
        match (wanted, strategies.as_slice()) {
            (Some(wanted), names) => match names.iter().find(|name| **name == wanted) {
                Some(name) => Ok(Some(*name).filter(|name| !in_file.iter().any(|known| known == name))),
                None => {
                    let has = if names.is_empty() { "none".into() } else { list(&quoted, "and") };
                    let guess = did_you_mean(wanted, names.iter().copied());
                    Err(Error::usage(format!("--plugin {}: there is no strategy {wanted:?}", self.argument)).with_help(
                        format!(
                            "{}its strategies: {has}",
                            guess.map(|name| format!("did you mean {plugin}#{name}? ")).unwrap_or_default()
                        ),
                    ))
                }
            },
            // Schedules, heads and regularizers are used where the run file names them.
            (None, []) => Ok(None),
            (None, names) if names.iter().any(|name| in_file.iter().any(|known| known == name)) => Ok(None),
            (None, [name]) => Ok(Some(*name)),
            (None, names) => {
                let named: Vec<String> = names.iter().map(|name| format!("--plugin {plugin}#{name}")).collect();
                Err(Error::usage(format!("--plugin {plugin} has {} strategies: {}", names.len(), list(&quoted, "and")))
                    .with_help(format!("say which: {}", list(&named, "or"))))
            }
        }
    }
}

impl RunFile {
    /// Adds the strategies that the command line's plugins bring. Where the run file names none, each plugin with a strategy
    /// chooses it; where it names some, a plugin adds its strategy only if the file names none of that plugin's.
    ///
    /// # Errors
    /// Where a plugin has several and none is chosen by `PATH#name`, or in the end there is no strategy.
    pub fn choose_strategies(&mut self, offers: &[Offer<'_>]) -> Result<()> {
        let in_file: Vec<String> = self.strategies.iter().map(|method| method.plugin.clone()).collect();
        let mut seen: Vec<&str> = Vec::new();
        for offer in offers {
            // Naming one plugin twice asks for no more than naming it once.
            if seen.contains(&offer.argument) {
                continue;
            }
            seen.push(offer.argument);
            if let Some(name) = offer.added(&in_file)? {
                self.add_strategy(name, offer.argument);
            }
        }
        if let Some(node) = self.unnamed.first() {
            let message = "this option has no strategy: none is named in the run file or by --plugin";
            return Err(self.document.error(node.at, message, "of which strategy?", Some(HOW_TO_NAME_ONE.into())));
        }
        if !self.strategies.is_empty() {
            return Ok(());
        }
        let has: Vec<String> = offers
            .iter()
            .flat_map(|offer| {
                offer.methods.iter().map(move |m| format!("{} has the {} {:?}", offer.argument, m.kind, m.name))
            })
            .collect();
        let help =
            if has.is_empty() { HOW_TO_NAME_ONE.into() } else { format!("{}; {HOW_TO_NAME_ONE}", has.join(", ")) };
        Err(Error::usage("there is no strategy: nothing says what to train").with_help(help))
    }

    /// The run file with an offer's strategy in the place of its own, and that strategy's name: a candidate of a comparison. Where
    /// the file has that strategy, its options stay.
    ///
    /// # Errors
    /// Where the plugin has no strategy, or several and none is chosen.
    pub fn with_strategy_of(&self, offer: Offer<'_>) -> Result<(Self, String)> {
        let Some(name) = offer.added(&[])? else {
            return Err(Error::usage(format!("--plugin {} has no strategy", offer.argument)).with_help(
                "strategies are compared; heads, schedules and regularizers are found where the run file names them",
            ));
        };
        let mut file = self.clone();
        file.strategies.retain(|method| method.plugin == name);
        for (i, method) in file.strategies.iter_mut().enumerate() {
            method.path = format!("strategy[{i}]");
        }
        if let Some(items) = strategies(&mut file.document) {
            let named = |node: &Node| matches!(node.child("plugin"), Some(Node { value: Value::String(own), .. }) if own == name);
            items.retain(named);
        }
        file.choose_strategies(&[offer])?;
        Ok((file, name.to_owned()))
    }

    /// Adds a strategy with the options that the command line sets for it.
    fn add_strategy(&mut self, name: &str, argument: &str) {
        let text = format!("--plugin {argument}");
        let source = self.document.add_argument(&text);
        let at = Place::new(source, 0..text.len());
        let mut node =
            if self.unnamed.is_empty() { Node { value: Value::Table(Vec::new()), at } } else { self.unnamed.remove(0) };
        let path = format!("strategy[{}]", self.strategies.len());
        let (mut config, mut stream) = (node.to_json(), None);
        if let Json::Object(options) = &mut config {
            let named = options.remove("stream");
            stream = named.map(|named| named.as_str().map_or_else(|| named.to_string(), str::to_owned));
        }
        self.strategies.push(Method { plugin: name.to_owned(), file: None, config, stream, path });
        if let Value::Table(entries) = &mut node.value {
            let plugin = Node { value: Value::String(name.to_owned()), at };
            entries.insert(0, Entry { key: "plugin".into(), key_at: at, node: plugin });
        }
        match strategies(&mut self.document) {
            Some(items) => items.push(node),
            None => {
                if let Value::Table(entries) = &mut self.document.root.value {
                    let node = Node { value: Value::Array(vec![node]), at };
                    entries.push(Entry { key: "strategy".into(), key_at: at, node });
                }
            }
        }
    }
}

const HOW_TO_NAME_ONE: &str = "name one by --plugin FILE, or in the run file:\n[[strategy]]\nplugin = \"NAME\"";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::run::file::Override;

    fn offered(names: &[&str]) -> Vec<MethodInfo> {
        let info = |name: &&str| MethodInfo {
            kind: MethodKind::Strategy,
            name: (*name).to_owned(),
            summary: String::new(),
            config_schema: Json::Null,
            config_default: Json::Null,
            serves: String::new(),
        };
        names.iter().map(info).collect()
    }

    #[test]
    fn an_offer_takes_the_place_of_the_files_strategies_and_keeps_its_own_options() {
        const TASK: &str = "[model]\npath = \"demo\"\n[[task]]\nhead = { plugin = \"h\" }\ntrain = \"demo\"\n";
        let check = |strategies: &str, set: &str, argument: &str, expected: &[(&str, Json)]| {
            let sets: Vec<Override> = set.split_whitespace().map(|set| Override::set(set).unwrap()).collect();
            let file = RunFile::parse(&format!("{TASK}{strategies}"), Path::new("a.toml"), &sets).unwrap();
            let offer = Offer { argument, methods: &offered(&["a", "b"]) };
            let (file, name) = file.with_strategy_of(offer).unwrap();
            let read = RunFile::parse(&file.to_toml(), Path::new("b.toml"), &[]).unwrap();
            let found: Vec<_> = read.strategies.iter().map(|s| (s.plugin.as_str(), s.config.clone())).collect();
            assert_eq!((found.as_slice(), format!("x#{name}").as_str()), (expected, argument));
        };
        let both = "[[strategy]]\nplugin = \"c\"\nr = 1\n[[strategy]]\nplugin = \"b\"\nr = 2\n";
        check("", "", "x#a", &[("a", json!({}))]);
        check("", "strategy.r=3", "x#a", &[("a", json!({ "r": 3 }))]);
        check(both, "", "x#a", &[("a", json!({}))]);
        check(both, "strategy.1.r=4", "x#b", &[("b", json!({ "r": 4 }))]);

        let file = RunFile::parse(&format!("{TASK}{both}"), Path::new("a.toml"), &[]).unwrap();
        let error = file.with_strategy_of(Offer { argument: "x", methods: &[] }).unwrap_err();
        assert_eq!(error.to_string(), "--plugin x has no strategy");
        let error = file.with_strategy_of(Offer { argument: "x", methods: &offered(&["a", "b"]) }).unwrap_err();
        assert!(error.to_string().contains("has 2 strategies"), "{error}");
    }
}
