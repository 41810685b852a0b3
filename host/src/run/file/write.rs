//! The resolved run file as TOML: what the run folder keeps.

use std::path::Path;

use serde_json::Value as Json;

use crate::hub::Name;

use super::{BatchNorm, HeldOut, Method, ModelTable, Optimizer, RunFile, Threshold};

impl RunFile {
    /// The run file with every default and absolute paths. Reading it gives an equal run file.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let ModelTable { path, named: _, streams, init, pooling, normalize, image, quantize } = &self.model;
        let named = |path: &Path, named: &Option<Name>| match named {
            Some(name) => value(name.to_string()),
            None => value(path),
        };
        let path = if streams.is_empty() { named(path, &self.model.named) } else { None };
        let streams = streams.iter().filter_map(|of| Some((of.name.clone(), named(&of.path, &of.named)?)));
        let streams = toml::Value::Table(streams.collect());
        let keys = [
            ("path", path),
            ("streams", Some(streams)),
            ("init", value(init)),
            ("pooling", value(pooling)),
            ("normalize", value(normalize)),
            ("image", value(image)),
            ("quantize", value(quantize)),
        ];
        section(&mut out, "[model]", keys);
        for task in &self.tasks {
            let head: toml::Table = match task.head_of {
                Some(owner) => {
                    value(&self.tasks[owner].name).map(|name| ("task".to_owned(), name)).into_iter().collect()
                }
                None => table(&task.head),
            };
            let keys = [
                ("name", value(&task.name)),
                ("head", Some(toml::Value::Table(head))),
                ("stream", value(&task.stream)),
                ("train", value(&task.train)),
                ("test", held_out(task.test.as_ref())),
                ("validation", held_out(task.validation.as_ref())),
                ("set_aside", value(task.set_aside)),
                ("split", value(&task.split)),
                ("columns", value(&task.form.columns)),
                ("header", value(task.form.header)),
                ("format", value(task.form.format)),
                ("separator", value(task.form.separator)),
                ("quote", value(task.form.quote)),
                ("encoding", unless_usual(task.form.encoding)),
                ("max_tokens", value(task.max_tokens)),
                ("augment", task.augment.is_random().then(|| value(&task.augment)).flatten()),
                ("class_folder", unless_usual(task.form.pictures.class_folder)),
                ("archive_folder", value(&task.form.pictures.under)),
                ("classes", unless_usual(task.form.pictures.masks.classes.clone())),
                ("ignore_index", value(task.form.pictures.masks.ignore_index)),
                ("on_bad_image", unless_usual(task.form.pictures.on_bad_image)),
                ("only", (!task.form.only.is_empty()).then(|| value(&task.form.only)).flatten()),
                ("permute_pixels", value(task.permute_pixels)),
                ("rotate_classes", task.form.pictures.rotate_classes.then(|| value(true)).flatten()),
                ("template", value(&task.form.language.template)),
                ("score", unless_usual(task.form.language.score)),
                ("blocks", value(task.form.language.blocks)),
                ("samples", value(task.samples)),
                ("label_separator", value(&task.form.label_separator)),
                ("balance", value(task.balance)),
                // Otherwise it would be refused when the file is read again.
                ("weight", self.joint().then(|| value(task.weight)).flatten()),
            ];
            section(&mut out, "[[task]]", keys);
        }
        for strategy in &self.strategies {
            section(&mut out, "[[strategy]]", method(strategy));
        }
        for regularizer in &self.regularizers {
            let keys = method(&regularizer.method).chain([("state", value(&regularizer.state))]);
            section(&mut out, "[[regularizer]]", keys);
        }
        let heading = if self.schedules.len() == 1 { "[schedule]" } else { "[[schedule]]" };
        for schedule in &self.schedules {
            section(&mut out, heading, method(schedule));
        }
        section(&mut out, "[train]", self.train_keys());
        let run = &self.run;
        let keys = [("name", value(&run.name)), ("out", value(&run.out)), ("probabilities", value(run.probabilities))];
        section(&mut out, "[run]", keys);
        out
    }

    fn train_keys(&self) -> Vec<Key<'static>> {
        let train = &self.train;
        let several = self.tasks.len() > 1;
        let (name, own) = match &train.optimizer {
            Optimizer::AdamW { betas, eps } => (value("adamw"), vec![("betas", value(betas)), ("eps", value(eps))]),
            Optimizer::Adam { betas, eps } => (value("adam"), vec![("betas", value(betas)), ("eps", value(eps))]),
            Optimizer::Sgd { momentum, nesterov } => {
                (value("sgd"), vec![("momentum", value(momentum)), ("nesterov", value(nesterov))])
            }
            Optimizer::Plugin(rule) => (Some(toml::Value::Table(table(rule))), Vec::new()),
        };
        let mut keys = vec![
            ("epochs", value(train.epochs)),
            ("steps", value(train.steps)),
            ("tasks", several.then(|| value(train.tasks)).flatten()),
            ("sampling", self.joint().then(|| value(train.sampling)).flatten()),
            ("batch_size", train.batch_tokens.is_none().then(|| value(train.batch_size)).flatten()),
            ("batch_tokens", value(train.batch_tokens)),
            ("group_by_length", train.group_by_length.then(|| value(true)).flatten()),
            ("accumulate", value(train.accumulate)),
            ("micro_batch", value(train.micro_batch)),
            ("lr", value(train.lr)),
            ("optimizer", name),
        ];
        keys.extend(own);
        keys.extend([
            ("weight_decay", value(train.weight_decay)),
            ("decay_biases_and_norms", value(train.decay_biases_and_norms)),
            ("clip_norm", value(train.clip_norm)),
            ("clip_value", value(train.clip_value)),
            ("precision", value(train.precision)),
            ("seed", value(train.seed)),
            ("dropout", value(train.dropout)),
            ("batch_norm", (train.batch_norm != BatchNorm::Batch).then(|| value(train.batch_norm)).flatten()),
            ("evaluate_before", value(train.evaluate_before)),
            ("evaluate_steps", value(train.evaluate_steps)),
            ("monitor", value(&train.monitor)),
            ("calibrate", value(train.calibrate)),
            ("threshold", train.threshold.and_then(threshold)),
            ("patience", value(train.patience)),
            // Without patience it would be refused when the file is read again.
            ("min_delta", train.patience.and_then(|_| value(train.min_delta))),
            ("checkpoint_steps", value(train.checkpoint_steps)),
            ("keep_checkpoints", value(train.keep_checkpoints)),
            ("keep_features", value(train.keep_features)),
            ("recompute", value(train.recompute)),
            ("threads", value(train.threads)),
        ]);
        keys
    }
}

/// Examples that are not trained on; what `split` says of them stands there alone.
fn held_out(part: Option<&HeldOut>) -> Option<toml::Value> {
    match part? {
        HeldOut::Files(files) => value(files),
        HeldOut::Drawn(drawn) => value(drawn),
        HeldOut::Rows(_) => None,
    }
}

/// A value that differs from what is meant where a file says nothing.
fn unless_usual<T: Default + PartialEq + serde::Serialize>(own: T) -> Option<toml::Value> {
    (own != T::default()).then(|| value(own)).flatten()
}

/// A key of a table; one without a value is left out.
type Key<'a> = (&'a str, Option<toml::Value>);

fn threshold(threshold: Threshold) -> Option<toml::Value> {
    match threshold {
        Threshold::At(threshold) => value(threshold),
        Threshold::BestF1 => value("f1"),
    }
}

/// The method's name, its stream and its options.
fn method(method: &Method) -> impl Iterator<Item = Key<'_>> {
    let options = method.config.as_object().into_iter().flatten();
    let named = match &method.file {
        Some(file) => format!("{}#{}", file.display(), method.plugin),
        None => method.plugin.clone(),
    };
    [("plugin", value(named)), ("stream", value(&method.stream))]
        .into_iter()
        .chain(options.map(|(key, option)| (key.as_str(), to_toml(option.clone()))))
}

/// The same as a table within another.
fn table(of: &Method) -> toml::Table {
    method(of).filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

/// Writes a table under its header, one key to a line and inner tables in braces.
fn section<'a>(out: &mut String, header: &str, keys: impl IntoIterator<Item = Key<'a>>) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(header);
    out.push('\n');
    for (key, value) in keys {
        match value {
            None => {}
            Some(toml::Value::Table(inner)) if inner.is_empty() => {}
            // A JSON string is a TOML string too.
            Some(value)
                if key.is_empty() || key.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-') =>
            {
                out.push_str(&format!("{} = {value}\n", Json::from(key)));
            }
            Some(value) => out.push_str(&format!("{key} = {value}\n")),
        }
    }
}

fn value(value: impl serde::Serialize) -> Option<toml::Value> {
    serde_json::to_value(value).ok().and_then(to_toml)
}

/// JSON as TOML. `None` for null, which TOML does not have.
fn to_toml(json: Json) -> Option<toml::Value> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(value) => toml::Value::Boolean(value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => toml::Value::Integer(number),
            None => toml::Value::Float(number.as_f64()?),
        },
        Json::String(text) => toml::Value::String(text),
        Json::Array(items) => toml::Value::Array(items.into_iter().filter_map(to_toml).collect()),
        Json::Object(entries) => {
            toml::Value::Table(entries.into_iter().filter_map(|(key, value)| Some((key, to_toml(value)?))).collect())
        }
    })
}
