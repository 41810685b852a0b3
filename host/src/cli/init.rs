//! `fthost init`: a first run file, and questions on a terminal.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use fthost::init::{Ask, draft};
use fthost::report::text::wrapped;
use fthost::run::state::folder::write_atomically;
use fthost::{Error, Result};
use serde_json::json;

use super::output::must_not_exist;
use fthost::report::output::say;

/// Writes the run file and shows it.
pub(super) fn init(
    train: &Path,
    model: Option<&str>,
    out: Option<PathBuf>,
    plugins: &[String],
    as_json: bool,
) -> Result<()> {
    let out = out.unwrap_or_else(|| {
        let name = train.file_name().unwrap_or_default().to_string_lossy().into_owned();
        PathBuf::from(format!("{}.toml", name.split('.').next().unwrap_or("run")))
    });
    must_not_exist(&out)?;
    let terminal = io::stdin().is_terminal() && io::stderr().is_terminal() && !as_json;
    let draft = draft(train, model, plugins, &Terminal { is_one: terminal })?;
    write_atomically(&out, draft.to_toml().as_bytes())?;
    if as_json {
        return say(&json!({ "file": out, "entries": draft.entries }).to_string());
    }
    say(draft.to_toml().trim_end())?;
    say(&wrapped(&format!(
        "\nwritten to {}; look at the data by fthost data {0}, at the plan by fthost plan {0}, and run it by fthost {0}",
        out.display()
    )))
}

/// Where questions go: to a person, if one is there.
struct Terminal {
    is_one: bool,
}

impl Ask for Terminal {
    fn ask(&self, question: &str, choices: &[String]) -> Result<(usize, bool)> {
        if !self.is_one {
            return Ok((0, false));
        }
        let failed = Error::io("cannot ask on the terminal");
        let mut out = io::stderr().lock();
        let mut read = || -> io::Result<(usize, bool)> {
            writeln!(out, "{question}")?;
            for (i, choice) in choices.iter().enumerate() {
                writeln!(out, "  {}. {choice}", i + 1)?;
            }
            loop {
                write!(out, "number [1]: ")?;
                out.flush()?;
                let mut answer = String::new();
                // The end of the input answers nothing more.
                if io::stdin().read_line(&mut answer)? == 0 {
                    return Ok((0, false));
                }
                match answer.trim().parse::<usize>() {
                    _ if answer.trim().is_empty() => return Ok((0, true)),
                    Ok(number) if (1..=choices.len()).contains(&number) => return Ok((number - 1, true)),
                    _ => writeln!(out, "a number from 1 to {}", choices.len())?,
                }
            }
        };
        read().map_err(failed)
    }
}
