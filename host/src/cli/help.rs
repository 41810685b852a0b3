//! `fthost help NAME`: a method's options, as `--help` shows those of a command.

use std::fmt::Write;

use fthost::Result;
use fthost::plugin::{Library, MethodInfo, MethodKind, Search};
use fthost::report::output::say;
use fthost::report::text::line_width;
use fthost::run::file::{OptionHelp, options_of};
use serde_json::{Value, json};
use textwrap::{Options, WordSeparator, WordSplitter, fill};

use super::inspect;

/// The topic that is no method.
const RUN_FILE: &str = "run-file";
/// Before what an option does.
const INDENT: &str = "          ";

/// Explains the keys of a run file, or the options of a method.
pub(super) fn help(topic: &str, as_json: bool) -> Result<()> {
    if topic == RUN_FILE {
        return inspect::run_file(as_json);
    }
    let (plugin, methods) = Library::new(Search::from_environment()).named(topic)?;
    if as_json {
        let methods: Vec<Value> = methods.iter().map(inspect::method_json).collect();
        return say(&json!({ "path": plugin.path(), "methods": methods }).to_string());
    }
    let texts: Vec<String> = methods.iter().map(|method| text_of(method, line_width())).collect();
    say(&texts.join("\n\n"))
}

/// What a method is, how a run file names it, and each of its options.
fn text_of(method: &MethodInfo, width: usize) -> String {
    let title = format!("{} {:?}: {}", method.kind, method.name, method.summary);
    let mut text = format!("{}\n\n{}\n", filled(&title, "", width), in_run_file(method));
    let required: Vec<&str> =
        method.config_schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let options = options_of(method);
    text += if options.is_empty() { "\nIt has no options." } else { "\nOptions:" };
    for option in &options {
        // A text takes whatever is written into it.
        let _ = write!(text, "\n  {} <{}>", option.name, option.takes);
        let about = about(option, required.contains(&option.name.as_str()));
        if !about.is_empty() {
            text += &format!("\n{}", filled(&about, INDENT, width));
        }
    }
    text
}

/// What an option does, where its value comes from, and what a search tries.
fn about(option: &OptionHelp, required: bool) -> String {
    let default = match (&option.from, &option.default) {
        (Some(from), _) => Some(format!("[default: {from} of the training examples]")),
        (None, Some(default)) => Some(format!("[default: {default}]")),
        (None, None) => required.then(|| "[must be given]".to_owned()),
    };
    let tried: Vec<String> = option.search.iter().map(Value::to_string).collect();
    let tried = (!tried.is_empty()).then(|| format!("[a search tries: {}]", tried.join(", ")));
    let parts = [Some(option.description.clone()).filter(|text| !text.is_empty()), default, tried];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// The lines that choose a method.
fn in_run_file(method: &MethodInfo) -> String {
    let table = match method.kind {
        MethodKind::Strategy => "[[strategy]]",
        MethodKind::Regularizer => "[[regularizer]]",
        MethodKind::Scheduler => "[schedule]",
        MethodKind::Optimizer => return format!("    [train]\n    optimizer = {{ plugin = {:?} }}", method.name),
        MethodKind::TaskHead => return format!("    [[task]]\n    head = {{ plugin = {:?} }}", method.name),
    };
    format!("    {table}\n    plugin = {:?}", method.name)
}

/// Lines of so many characters, broken at spaces alone.
fn filled(text: &str, indent: &str, width: usize) -> String {
    let options = Options::new(width).initial_indent(indent).subsequent_indent(indent);
    let options = options.word_separator(WordSeparator::AsciiSpace).word_splitter(WordSplitter::NoHyphenation);
    fill(text, options.break_words(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_with_their_types_and_defaults() {
        let method = MethodInfo {
            kind: MethodKind::TaskHead,
            name: "values".into(),
            summary: "Values from features.".into(),
            config_schema: json!({ "type": "object", "required": ["gamma"], "properties": {
                "gamma": { "type": "number", "exclusiveMinimum": 0, "description": "How steep\nit is." },
                "mean": { "type": ["number", "null"], "from": "targets.mean", "description": "What is taken away." },
                "rank": { "type": "integer", "minimum": 1, "search": [4, 8], "description": "Rows of the update, of which each is a direction." },
                "shape": { "enum": ["a", "b"] },
            } }),
            config_default: json!({ "mean": null, "rank": 8, "shape": "a" }),
            serves: String::new(),
        };
        insta::assert_snapshot!(text_of(&method, 60), @r#"
        task head "values": Values from features.

            [[task]]
            head = { plugin = "values" }

        Options:
          gamma <a number, above 0>
                  How steep it is. [must be given]
          mean <a number>
                  What is taken away. [default: targets.mean of the
                  training examples]
          rank <a whole number, at least 1>
                  Rows of the update, of which each is a direction.
                  [default: 8] [a search tries: 4, 8]
          shape <"a" or "b">
                  [default: "a"]
        "#);
        let bare = MethodInfo { config_schema: json!({ "type": "object" }), kind: MethodKind::Strategy, ..method };
        assert!(text_of(&bare, 60).ends_with("    [[strategy]]\n    plugin = \"values\"\n\nIt has no options."));
    }
}
