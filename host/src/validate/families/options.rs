//! Options drawn from the schema.

use serde_json::{Map, Value as Json};

use crate::Result;
use crate::plugin::probe;
use crate::validate::bench::Bench;
use crate::validate::options;
use crate::validate::outcome::Outcome;
use crate::validate::subject::Subject;

/// So many are tried of one method: some have dozens of options.
const MOST: usize = 40;

fn one(option: &str, value: &Json) -> Map<String, Json> {
    [(option.to_owned(), value.clone())].into_iter().collect()
}

/// Options that the schema takes: with each the method is set up or refuses it with a reason.
pub(in crate::validate) fn right(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    let (mut tried, mut panics) = (0, Vec::new());
    for (option, value) in options::right(&bench.info()?).into_iter().take(MOST) {
        // Where the host refuses it, the plugin never hears of it.
        let Ok(with) = bench.with(&one(&option, &value)) else { continue };
        tried += 1;
        probe::account();
        drop(with.set_up());
        panics.extend(probe::account().panics.into_iter().map(|text| format!("{option} = {value}: {text}")));
    }
    if tried == 0 {
        return Ok(Outcome::skipped("its schema has no option with other values"));
    }
    Ok(Outcome::unless(&panics, "options that fit the schema work, or are refused by an error"))
}

/// Options of another type, out of range, or unknown: the schema or the method refuses each.
pub(in crate::validate) fn wrong(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    let mut seen = Vec::new();
    for (option, value) in options::wrong(&bench.info()?).into_iter().take(MOST) {
        let by_host = bench.with(&one(&option, &value)).is_err();
        let mut options = bench.options();
        if let Some(options) = options.as_object_mut() {
            options.insert(option.clone(), value.clone());
        }
        probe::account();
        let by_plugin = bench.instance(&options).is_err();
        let panics = probe::account().panics;
        if !by_host && !by_plugin {
            seen.push(format!("{option} = {value} is taken without a word"));
        }
        seen.extend(panics.into_iter().map(|text| format!("{option} = {value}: {text}")));
    }
    for (what, options) in [("no object", Json::Null), ("a list", Json::Array(Vec::new()))] {
        probe::account();
        let _ = bench.instance(&options);
        seen.extend(probe::account().panics.into_iter().map(|text| format!("options that are {what}: {text}")));
    }
    Ok(Outcome::unless(&seen, "what does not fit is refused by the schema or by an error, never by a panic"))
}
