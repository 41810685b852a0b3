//! Options of a head that follow from the training examples where the run file does not set them.
//!
//! A head asks for one in its schema, `#[schemars(extend("from" = "targets.mean"))]`. What is found becomes the option's value in the run
//! file, so that who opens the run again has it from there, and the head itself keeps nothing.

use fthost_plugin_api::{MethodInfo, MethodKind, TargetKind};
use serde::Serialize;
use serde_json::{Number, Value as Json};

use crate::Result;
use crate::data::{Dataset, Moments};
use crate::plugin::Library;
use crate::report::numbers::significant;
use crate::report::text::{NAME, shortened};
use crate::run::file::Method;

/// What an option may be from, by its name in a schema.
const SOURCES: [Source; 2] = [
    Source { name: "targets.mean", text: "the mean of the training targets", of: |moments| moments.mean },
    Source {
        name: "targets.std",
        text: "the standard deviation of the training targets",
        // Targets that are all the same are divided by nothing.
        of: |moments| if moments.std > 0.0 { moments.std } else { 1.0 },
    },
];

/// Something that is known of the training examples.
struct Source {
    name: &'static str,
    text: &'static str,
    of: fn(&Moments) -> f64,
}

/// An option that was found so.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FromData {
    /// The task.
    pub task: String,
    /// The head's option.
    pub option: String,
    /// Its value.
    pub value: f64,
    /// What that is: `the mean of the training targets`.
    pub what: &'static str,
}

impl FromData {
    /// `sts: center = 2.614, the mean of the training targets`.
    pub fn to_text(&self) -> String {
        let Self { task, option, value, what } = self;
        format!("{}: {option} = {}, {what}", shortened(task, NAME), significant(*value))
    }
}

/// The options of a head that ask for something that is known.
fn asked(info: &MethodInfo) -> impl Iterator<Item = (&str, &'static Source)> {
    let properties = info.config_schema.get("properties").and_then(Json::as_object).into_iter().flatten();
    properties.filter_map(|(option, schema)| {
        let from = schema.get("from")?.as_str()?;
        Some((option.as_str(), SOURCES.iter().find(|source| source.name == from)?))
    })
}

/// A method's defaults, without those that the training examples give.
pub(super) fn fixed_defaults(info: &MethodInfo) -> Json {
    let mut defaults = info.config_default.clone();
    if let (Json::Object(defaults), MethodKind::TaskHead) = (&mut defaults, info.kind) {
        asked(info).for_each(|(option, _)| drop(defaults.remove(option)));
    }
    defaults
}

/// Sets those options of a task's head that ask for something of the training examples and that the run file leaves out.
/// `trained_on` takes the examples with their labels as values, and gives those that train.
///
/// # Errors
/// Where examples cannot be read. Labels that are no values are left to the head, which says whether it wants some.
pub(super) fn fill(
    task: &str,
    head: &mut Method,
    library: &mut Library,
    train: &Dataset,
    trained_on: impl FnOnce(Dataset) -> Result<Dataset>,
) -> Result<Vec<FromData>> {
    let info = library.find_in(head.file.as_deref(), MethodKind::TaskHead, &head.plugin)?.1;
    let Json::Object(options) = &mut head.config else { return Ok(Vec::new()) };
    let asked: Vec<_> = asked(&info).filter(|(option, _)| !options.contains_key(*option)).collect();
    let mut values = train.clone();
    if asked.is_empty() || values.set_targets(TargetKind::Value).is_err() {
        return Ok(Vec::new());
    }
    let moments = trained_on(values)?.moments()?;
    let mut filled = Vec::new();
    for (option, source) in asked {
        let value = (source.of)(&moments);
        if let Some(number) = Number::from_f64(value) {
            options.insert(option.to_owned(), Json::Number(number));
            filled.push(FromData { task: task.to_owned(), option: option.to_owned(), value, what: source.text });
        }
    }
    Ok(filled)
}
