//! What plugins hold: `fthost inspect` and `fthost plugins`.

use fthost::plugin::{MethodInfo, Plugin, Search, note};
use fthost::report::table::Table;
use fthost::report::text::wrapped;
use fthost::run;
use fthost::run::file::{OptionHelp, Section, options_of, sections};
use fthost::{Error, Result};
use serde_json::{Value, json};

use fthost::report::output::say;

/// Shows what each plugin says of itself, its methods and their options.
pub(super) fn inspect(plugins: &[String], as_json: bool) -> Result<()> {
    let search = Search::from_environment();
    let mut found = Vec::new();
    for value in plugins {
        let path = search.find(value)?;
        let checked = note::check(&path)?;
        found.push((Plugin::open(&path)?, path, checked.note));
    }
    if as_json {
        let plugins: Vec<Value> = found
            .iter()
            .map(|(plugin, path, note)| {
                let methods: Vec<Value> = plugin.info().methods.iter().map(method_json).collect();
                Ok(json!({
                    "path": path, "sha256": plugin.sha256(), "note": note, "about": plugin.about()?, "methods": methods,
                }))
            })
            .collect::<Result<_>>()?;
        return say(&json!({ "plugins": plugins }).to_string());
    }
    for (i, (plugin, path, note)) in found.iter().enumerate() {
        if i > 0 {
            say("")?;
        }
        let ops = if note.ops.is_empty() { "none declared".to_owned() } else { note.ops.join(", ") };
        let mut facts = Table::new();
        facts.row(["file", &path.display().to_string()]);
        facts.row(["sha256", plugin.sha256()]);
        if let Some(about) = plugin.about()? {
            facts.row(["about", &about]);
        }
        facts.row(["license", &note.license]);
        facts.row([
            "abi",
            &format!("{}.{}, host at least {}.{}", note.abi_major, note.abi_minor, note.abi_major, note.min_host_minor),
        ]);
        facts.row(["compiler", &note.compiler]);
        facts.row(["ops", &ops]);
        say(&format!("{} {}\n{}", note.name, note.version, facts.to_text().trim_end()))?;
        for method in &plugin.info().methods {
            say(&method_text(method))?;
        }
    }
    Ok(())
}

pub(super) fn method_json(method: &MethodInfo) -> Value {
    json!({
        "kind": method.kind,
        "name": method.name,
        "summary": method.summary,
        "options": options_of(method),
        "schema": method.config_schema,
    })
}

fn method_text(method: &MethodInfo) -> String {
    let title = format!("\n{} {:?}: {}", method.kind, method.name, method.summary);
    let options = options_of(method);
    if options.is_empty() {
        return format!("{title}\nno options");
    }
    format!("{title}\n{}", options_table("option", &options))
}

/// Options or keys, a row each.
fn options_table(what: &str, options: &[OptionHelp]) -> String {
    let mut table = Table::new();
    table.row([what, "default", "takes", "what it does"]);
    for option in options {
        let default = option.default.as_ref().map_or_else(|| "-".to_owned(), Value::to_string);
        let default = option.from.clone().unwrap_or(default);
        let mut description = option.description.clone();
        if !option.search.is_empty() {
            let values: Vec<String> = option.search.iter().map(Value::to_string).collect();
            description += &format!(" (a search tries {})", values.join(", "));
        }
        table.row([&option.name, &default, &option.takes, &description]);
    }
    table.to_text().trim_end().to_owned()
}

/// Every key of a run file.
pub(super) fn run_file(as_json: bool) -> Result<()> {
    let sections = sections();
    if as_json {
        return say(&json!({ "sections": sections }).to_string());
    }
    for Section { heading, description, keys } in &sections {
        say(&wrapped(&format!("{heading}  {description}")))?;
        say(&format!("{}\n", options_table("key", keys)))?;
    }
    say("Options of methods stand beside plugin: fthost help NAME explains them, fthost plugins lists the names.")
}

/// The JSON Schema of run files, with the options of the plugins that are found.
pub(super) fn schema() -> Result<()> {
    let mut methods = Vec::new();
    for path in Search::from_environment().libraries() {
        match Plugin::open(&path) {
            Ok(plugin) => methods.extend(plugin.info().methods.iter().cloned()),
            // A file that is no usable plugin has no options: `fthost plugins` says why.
            Err(error) => tracing::info!("{error}"),
        }
    }
    say(&serde_json::to_string_pretty(&run::file::schema(&methods)).unwrap_or_default())
}

/// Lists the plugins that the search rule finds, by their notes: none of their code runs.
pub(super) fn list(as_json: bool) -> Result<()> {
    let search = Search::from_environment();
    let found: Vec<_> = search.libraries().into_iter().map(|path| (note::list(&path), path)).collect();
    if as_json {
        let plugins: Vec<Value> = found
            .iter()
            .map(|(checked, path)| match checked {
                Ok(checked) => json!({
                    "path": path, "sha256": checked.sha256, "note": checked.note, "methods": checked.methods, "error": null,
                }),
                Err(error) => json!({ "path": path, "error": error.to_string() }),
            })
            .collect();
        let places: Vec<Value> =
            search.places().iter().map(|place| json!({ "folder": place.folder, "why": place.why })).collect();
        return say(&json!({ "plugins": plugins, "places": places }).to_string());
    }
    let mut table = Table::new();
    let mut unusable = Vec::new();
    for (checked, path) in &found {
        match checked {
            Ok(checked) => {
                for method in &checked.methods {
                    let (kind, version, path) =
                        (method.kind.to_string(), &checked.note.version, path.display().to_string());
                    table.row([&method.name, &kind, version, &path, &method.summary]);
                }
            }
            Err(error) => unusable.push(format!("not usable: {error}")),
        }
    }
    let listing = table.to_text();
    for text in [listing.trim_end().to_owned(), unusable.join("\n"), search.report()] {
        if !text.is_empty() {
            say(&text)?;
        }
    }
    if found.is_empty() {
        let help = format!(
            "put plugins into one of these folders, or name one more by {}",
            fthost::plugin::search::PATH_VARIABLE
        );
        return Err(Error::usage("no plugin was found").with_help(help));
    }
    Ok(())
}
