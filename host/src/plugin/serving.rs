//! Which plugin opens a folder that another program saved: a strategy by PEFT's `peft_type`, a head by Transformers' `problem_type`.

use fthost_plugin_api::abi::borrow::collect_text;
use fthost_plugin_api::abi::tables::{OK, PluginApi, Str};
use fthost_plugin_api::{MethodInfo, MethodKind, field};
use serde_json::Value;

use super::bridge::session::take_reported;
use super::open::noted;
use super::{Library, Plugin};
use crate::{Error, Result};

impl Plugin {
    /// The options of its strategy `name` that compute what the fields of an `adapter_config.json` say.
    ///
    /// # Errors
    /// What the plugin does not support, in its words.
    pub fn options_from_peft(&self, name: &str, config: &Value) -> Result<Value> {
        let wrong = |text: String| Error::plugin(format!("the strategy {name} cannot open this folder: {text}"));
        let Some(function) = self.api().get(field!(PluginApi, options_from_peft)) else {
            return Err(wrong(format!("{} opens none", self.path().display())));
        };
        let _ = take_reported();
        let config = config.to_string();
        let _noted = noted(self.path(), "options_from_peft");
        // SAFETY: the plugin's own function; the texts and the sink live for the call.
        let (status, text) = collect_text(|sink| unsafe { function(Str::new(name), Str::new(&config), sink) });
        if status != OK {
            return Err(wrong(take_reported().unwrap_or_else(|| format!("status {status}"))));
        }
        serde_json::from_str(&text).map_err(|error| wrong(format!("its answer does not read: {error}")))
    }

    fn serving(&self, kind: MethodKind, what: &str) -> Option<(Self, MethodInfo)> {
        let method = self.info().methods.iter().find(|method| method.kind == kind && method.serves == what)?;
        Some((self.clone(), method.clone()))
    }
}

impl Library {
    /// The plugin that says it opens what a folder holds, and its method: one that is open, else the first library in the searched
    /// folders whose notes say so.
    ///
    /// # Errors
    /// Where there is none: what the others open, and where was looked.
    pub fn serving(&mut self, kind: MethodKind, what: &str) -> Result<(Plugin, MethodInfo)> {
        if let Some(found) = self.plugins.iter().find_map(|plugin| plugin.serving(kind, what)) {
            return Ok(found);
        }
        let noted = self.notes().find(|(_, method)| method.kind == kind && method.serves == what);
        let found = noted.map(|(path, _)| self.open_file(&path)).transpose()?;
        found.and_then(|plugin| plugin.serving(kind, what)).ok_or_else(|| {
            let mut others: Vec<String> = self
                .notes()
                .filter(|(_, method)| method.kind == kind && !method.serves.is_empty())
                .map(|(_, method)| format!("{} ({})", method.serves, method.name))
                .collect();
            others.sort();
            others.dedup();
            let others = if others.is_empty() { "nothing".to_owned() } else { others.join(", ") };
            Error::plugin(format!("no {kind} is known that opens {what:?}"))
                .with_help(format!("those that are known open {others}; {}", self.search.report()))
        })
    }
}
