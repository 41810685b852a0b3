//! `fthost generate`: texts that a language model continues, told as they come.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use fthost::data::{Asked, Turn, Writing};
use fthost::report::output::say;
use fthost::run::generation::{Continuation, Conversation, Sampling, Settings};
use fthost::run::state::folder::{cannot_write, write_file_atomically};
use fthost::run::trained::generate::{Generator, Seen};
use fthost::{Error, Result, cores};
use serde::Serialize;
use serde_json::json;

use super::output::must_not_exist;
use super::using::UseArguments;
use super::values::overrides;

/// Stands for standard input.
const STANDARD_INPUT: &str = "-";
/// What begins a conversation anew.
const NEW: &str = "/new";

/// The arguments of what continues texts.
#[derive(Debug, Args)]
pub(super) struct GenerateArguments {
    /// A run's folder, one that PEFT saved, a decoder's folder, or one file of llama.cpp's (.gguf)
    #[arg(value_name = "RUN|MODEL")]
    model: PathBuf,

    /// What the user asks, or with --raw the text that goes on; - reads it from standard input. Without it a conversation begins on the
    /// terminal: /new begins it anew, Ctrl-D ends it
    #[arg(conflicts_with = "input")]
    prompt: Option<String>,

    /// The picture before what is asked, for a run that has learned texts behind pictures. Without a prompt its text begins
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,

    /// Goes on with the text as it is, and not as a question that the model's chat template writes
    #[arg(long, conflicts_with = "system")]
    raw: bool,

    /// What the system says before a conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// The most tokens that a text gets
    #[arg(long, value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,

    /// What logits are divided by before the next token is drawn. Without it, and at 0, it is the most probable one
    #[arg(long, value_name = "X")]
    temperature: Option<f64>,

    /// Draws among the most probable tokens that make up this probability; at a temperature of 1 where none is named
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,

    /// Draws among so many of the most probable tokens; at a temperature of 1 where none is named
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,

    /// What the logits of tokens that are there already are divided by, or multiplied by below 0; 1 is none
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f64>,

    /// What is drawn follows from it
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Stops before this text; may be named several times
    #[arg(long = "stop", value_name = "TEXT")]
    stops: Vec<String>,

    /// Goes through a file of prompts: .jsonl, .json, .csv, .tsv or .parquet with messages, prompt, instruction or text, or a text on each line
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// File to write for those, a JSON object on each line; it must not exist. Without it they go to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Prompts of the file that are continued at once
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,

    #[command(flatten)]
    with: UseArguments,
}

/// What becomes of a prompt of a file.
#[derive(Serialize)]
struct Line<'a> {
    line: u64,
    #[serde(flatten)]
    continuation: &'a Continuation,
}

impl GenerateArguments {
    /// Continues what the arguments name.
    pub(super) fn generate(self, json: bool) -> Result<()> {
        cores::share_ops();
        let settings = Settings {
            max_tokens: self.max_tokens as usize,
            sampling: Sampling::new(self.temperature, self.top_k, self.top_p, self.repetition_penalty)?,
            stops: self.stops.clone(),
            seed: self.seed,
        };
        if settings.stops.iter().any(String::is_empty) {
            return Err(Error::usage("--stop names an empty text, and every text has one").with_help("leave it out"));
        }
        if self.out.is_some() && self.input.is_none() {
            return Err(Error::usage("--out is for the prompts of a file, and none is named")
                .with_help("name it by --input; a single text goes to standard output"));
        }
        self.out.as_deref().map_or(Ok(()), must_not_exist)?;
        if let Some(input) = &self.input {
            let generator = self.open()?;
            let asked = Asked::read(input, generator.sees_rows())?;
            return self.file(&generator, input, &asked, &settings, json);
        }
        match self.prompt()? {
            None if self.image.is_some() => one(&self.open()?, &Asked::Raw(String::new()), &settings, json),
            Some(prompt) => one(&self.open()?, &Asked::Text(prompt), &settings, json),
            None if json || self.raw || !io::stdin().is_terminal() => {
                Err(Error::usage("there is nothing to go on from: no prompt is named").with_help(
                    "name one, - for standard input, or a file of them by --input; on a terminal a conversation begins without, --json and --raw",
                ))
            }
            None => chat(&self.open()?, &settings),
        }
    }

    fn open(&self) -> Result<Generator> {
        let writing = Writing { raw: self.raw, system: self.system.clone() };
        let UseArguments { plugins, sets, device } = &self.with;
        let seen = match (&self.image, &self.input) {
            (Some(image), _) => Seen::Picture(image.clone()),
            (None, Some(input)) => Seen::OfRows(input.clone()),
            (None, None) => Seen::Nothing,
        };
        Generator::open(&self.model, plugins, &overrides(sets, None, None)?, *device, &writing, &seen)
    }

    /// The prompt that is named, or comes from standard input, whose last line's end is none of it.
    fn prompt(&self) -> Result<Option<String>> {
        if self.prompt.as_deref() != Some(STANDARD_INPUT) {
            return Ok(self.prompt.clone());
        }
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(Error::io("cannot read standard input"))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(Some(text.strip_suffix('\r').unwrap_or(text).to_owned()))
    }

    /// Continues the prompts of a file, some at once.
    fn file(
        &self,
        generator: &Generator,
        input: &Path,
        asked: &[(u64, Asked)],
        settings: &Settings,
        json: bool,
    ) -> Result<()> {
        // All that is wrong with them is said before any of them takes time.
        let asked: Vec<&(u64, Asked)> = asked.iter().filter(|(line, _)| generator.sees(*line)).collect();
        let ids = |(line, asked): &&(u64, Asked)| generator.ids(asked).map_err(|error| error.in_line(input, *line));
        let ids = asked.iter().map(ids).collect::<Result<Vec<_>>>()?;
        let lines: Vec<u64> = asked.iter().map(|(line, _)| *line).collect();
        let (batch, begun) = (self.batch as usize, Instant::now());
        let mut tokens = 0;
        let mut write = |out: &mut dyn Write, failed: &dyn Fn(io::Error) -> Error| -> Result<()> {
            for (number, (ids, lines)) in (0..).zip(ids.chunks(batch).zip(lines.chunks(batch))) {
                let first = number * batch as u64;
                let found = generator.generate((ids, lines), first, settings, &mut |_, _| Ok(()))?;
                for (line, continuation) in lines.iter().zip(&found) {
                    tokens += continuation.generated_tokens;
                    let text = serde_json::to_string(&Line { line: *line, continuation }).unwrap_or_default();
                    writeln!(out, "{text}").map_err(failed)?;
                }
            }
            out.flush().map_err(failed)
        };
        let Some(path) = &self.out else {
            let failed = |error: io::Error| Error::io("cannot write to standard output")(error);
            return match write(&mut io::stdout().lock(), &failed) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                outcome => outcome,
            };
        };
        write_file_atomically(path, |file| {
            let file = File::create(file).map_err(cannot_write(path))?;
            write(&mut BufWriter::new(file), &|error| cannot_write(path)(error))
        })?;
        let seconds = begun.elapsed().as_secs_f64();
        let per_second = tokens as f64 / seconds;
        match json {
            true => say(&json!({
                "rows": asked.len(), "generated_tokens": tokens, "seconds": seconds, "tokens_per_second": per_second, "out": path,
            })
            .to_string()),
            false => {
                say(&format!("{} texts in {}: {tokens} tokens, {per_second:.1} a second", asked.len(), path.display()))
            }
        }
    }
}

/// Continues one prompt: its text as it comes, or all that there is to say of it as JSON.
fn one(generator: &Generator, asked: &Asked, settings: &Settings, json: bool) -> Result<()> {
    let ids = [generator.ids(asked)?];
    let begun = Instant::now();
    let found = generator.generate((&ids, &[0]), 0, settings, &mut |_, text| if json { Ok(()) } else { tell(text) });
    let found = match found {
        // A reader that has left, as `head` does, wants no more.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        found => found?,
    };
    let seconds = begun.elapsed().as_secs_f64();
    let Some(continuation) = found.first() else { return Ok(()) };
    let per_second = continuation.generated_tokens as f64 / seconds;
    tracing::info!("{} tokens, {per_second:.1} a second", continuation.generated_tokens);
    if !json {
        return say("");
    }
    let mut told = json!(continuation);
    told["seconds"] = seconds.into();
    told["tokens_per_second"] = per_second.into();
    say(&told.to_string())
}

/// Writes what has come to standard output at once.
fn tell(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let told = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    told.map_err(Error::io("cannot write to standard output"))
}

/// A conversation on the terminal, in which each question is asked with all that was said before.
fn chat(generator: &Generator, settings: &Settings) -> Result<()> {
    let (mut turns, mut conversation) = (Vec::new(), Conversation::default());
    // Each answer draws numbers of its own.
    for number in 0.. {
        let Some(said) = question()? else { return say("") };
        match said.trim() {
            "" => continue,
            NEW => {
                turns.clear();
                continue;
            }
            said => turns.push(Turn::user(said)),
        }
        let ids = match generator.ids(&Asked::Turns(turns.clone())) {
            Ok(ids) => ids,
            // The conversation is too long, or the template refuses it: what was said before stands.
            Err(error @ Error::Usage { .. }) => {
                turns.pop();
                note(&format!("{error}; {NEW} begins anew"))?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let found = generator.answer(&mut conversation, ids, number, settings, &mut tell)?;
        say("")?;
        turns.push(Turn::assistant(found.text));
    }
    Ok(())
}

/// The next line that the user writes; none where they end the conversation.
fn question() -> Result<Option<String>> {
    let mut line = String::new();
    let mut ask = || {
        let mut out = io::stderr().lock();
        write!(out, "> ")?;
        out.flush()?;
        io::stdin().read_line(&mut line)
    };
    match ask().map_err(Error::io("cannot ask on the terminal"))? {
        0 => Ok(None),
        _ => Ok(Some(line)),
    }
}

/// Says something beside the conversation.
fn note(text: &str) -> Result<()> {
    writeln!(io::stderr(), "{text}").map_err(Error::io("cannot write to the terminal"))
}
