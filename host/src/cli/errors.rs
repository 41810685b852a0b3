//! How errors are printed: for people on standard error, for machines as JSON on standard output.

use std::fmt;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use fthost::Error;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};
use serde_json::{Value, json};
use textwrap::{WordSeparator, WordSplitter};

use fthost::report::output::say;
use fthost::report::text::printable;

/// Prints an error.
pub(super) fn print(error: &Error, json: bool) {
    if json {
        // There is no other place to report to where this fails.
        let _ = say(&to_json(error).to_string());
    } else {
        eprintln!("{}", to_text(error, colour(&io::stderr())));
    }
}

/// Prints what clap has to say: help, the version, or what is wrong with the arguments.
pub(super) fn wrong_arguments(error: &clap::Error) -> ExitCode {
    let json = std::env::args().any(|argument| argument == "--json");
    if error.use_stderr() && json {
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let message = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let help = Some(lines.collect::<Vec<_>>().join("\n")).filter(|help| !help.is_empty());
        print(&Error::Usage { message, help }, true);
    } else {
        let _ = error.print();
    }
    // clap's codes are ours: 0 for help and version, 2 for wrong arguments.
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Are colours and line drawing wanted there? See <https://no-color.org>.
pub(super) fn colour(stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    stream.is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// An error whose texts steer no terminal: plugins and files have their part in them.
#[derive(Debug)]
struct Shown<'a>(&'a Error);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0.to_string()))
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn code<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.0.code()
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.0.help().map(|help| Box::new(printable(&help.to_string()).into_owned()) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0.source_code()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.0.labels()
    }
}

fn to_text(error: &Error, colour: bool) -> String {
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::none() };
    let mut text = String::new();
    // Messages hold their causes already. Lines break at spaces only, so that paths and commands can be copied.
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(110)
        .with_word_separator(WordSeparator::AsciiSpace)
        .with_word_splitter(WordSplitter::NoHyphenation)
        .with_break_words(false)
        .without_cause_chain()
        .with_links(false);
    match handler.render_report(&mut text, &Shown(error)) {
        Ok(()) => text.trim_end().to_owned(),
        Err(_) => format!("error: {}", Shown(error)),
    }
}

/// `{"error": {"code", "message", "file", "line", "column", "help"}}`; what is not known is null.
fn to_json(error: &Error) -> Value {
    let (file, line, column) = place(error);
    json!({ "error": {
        "code": error.code().map(|code| code.to_string()),
        "message": error.to_string(),
        "file": file,
        "line": line,
        "column": column,
        "help": error.help().map(|help| help.to_string()),
    } })
}

/// The file, line and column that an error names; lines and columns count from 1.
fn place(error: &Error) -> (Option<String>, Option<u64>, Option<u64>) {
    match error {
        Error::RunFile { source_code, span, .. } => {
            let start = source_code
                .read_span(span, 0, 0)
                .ok()
                .map(|found| (found.line() as u64 + 1, found.column() as u64 + 1));
            (Some(source_code.name().to_owned()), start.map(|(line, _)| line), start.map(|(_, column)| column))
        }
        Error::Data { file, line, .. } => (Some(file.display().to_string()), *line, None),
        _ => (None, None, None),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fthost::run::file::RunFile;

    use super::*;

    #[test]
    fn errors_as_json_have_a_place() {
        let error = RunFile::parse("[model]\npath = \"m\"\n[train]\nlr = 0\n", Path::new("a.toml"), &[]).unwrap_err();
        assert_eq!(
            to_json(&error),
            json!({ "error": {
                "code": "run_file",
                "message": "train.lr must be above 0, and is 0",
                "file": "a.toml",
                "line": 4,
                "column": 6,
                "help": "lr: learning rate that the schedule scales",
            } })
        );
        let error = Error::Data { file: "a.tsv".into(), line: Some(7), message: "no label".into(), help: None };
        assert_eq!(to_json(&error)["error"]["line"], 7);
        assert_eq!(
            to_json(&Error::usage("x"))["error"],
            json!({
                "code": "usage", "message": "x", "file": null, "line": null, "column": null, "help": null
            })
        );
    }

    #[test]
    fn plain_text_is_ascii() {
        let error = RunFile::parse("[model]\nfolder = \"m\"\n", Path::new("a.toml"), &[]).unwrap_err();
        let text = to_text(&error, false);
        assert!(text.is_ascii() && !text.contains('\u{1b}'), "{text}");
        assert!(to_text(&error, true).contains('\u{1b}'));
        let steering = Error::plugin("it said \u{1b}]0;title\u{7}").with_help("\u{1b}[2J");
        for colour in [false, true] {
            let text = to_text(&steering, colour);
            assert!(text.contains("it said \\u001b]0;title\\u0007") && text.contains("\\u001b[2J"), "{text}");
            assert!(!text.contains('\u{7}') && !text.contains("\u{1b}[2J"), "{text}");
        }
    }
}
