//! The command line: arguments to calls, and what comes back to text or JSON.

mod arguments;
mod auto;
mod classes;
mod compare;
mod errors;
mod generate;
mod help;
mod init;
mod input;
mod inspect;
mod log;
mod new_plugin;
mod output;
mod search;
mod trust;
mod using;
mod validate;
mod values;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use fthost::data::{Survey, may_have_header};
use fthost::processes::guarded;
use fthost::report::metrics;
use fthost::report::text::wrapped;
use fthost::run::file::RunFile;
use fthost::run::lr_find::Range;
use fthost::run::results::result::TaskResult;
use fthost::run::state::folder::{cannot_write, write_atomically, write_file_atomically};
use fthost::run::trained::embed::{Embedder, Form, Wanted};
use fthost::run::trained::export::export;
use fthost::run::trained::masks::MaskFolder;
use fthost::run::trained::model::TrainedModel;
use fthost::run::trained::predict::{Format, Style};
use fthost::run::{self, Output};
use fthost::{Error, Result};

use arguments::{AnswerArguments, Arguments, Command, RangeArguments, RunArguments, TaskArgument};
use classes::Asked;
use fthost::report::output::say;
use input::Input;
use output::must_not_exist;
use using::UseArguments;
use values::overrides;

/// Runs the command and gives its exit code: 0, 1 where the work failed, 2 where what was asked was wrong.
pub(crate) fn main(started: Instant) -> ExitCode {
    if let Some(code) = fthost::plugin::trial::answer() {
        return code;
    }
    run::machine::keep_free_memory();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return errors::wrong_arguments(&error),
    };
    let json = arguments.json;
    let failed = |error: Error| {
        errors::print(&error, json);
        error.exit_code()
    };
    let begun = log::to_stderr(arguments.verbose).and_then(|()| fthost::kernels::from_environment());
    let begun = begun.and_then(|()| arguments.run.watch_parent());
    let calls_plugins = arguments.command.as_ref().is_none_or(Command::calls_plugins);
    let work = || dispatch(arguments, started).unwrap_or_else(failed);
    ExitCode::from(match begun {
        Ok(()) if calls_plugins => guarded(work).unwrap_or_else(failed),
        Ok(()) => work(),
        Err(error) => failed(error),
    })
}

/// Does what was asked; gives the code to end with.
fn dispatch(arguments: Arguments, started: Instant) -> Result<u8> {
    let Arguments { command, run, trust, json, verbose: _ } = arguments;
    trust.settle()?;
    let Some(command) = command else {
        return train(run, json, started).map(|()| 0);
    };
    run.must_be_unused()?;
    let done = match command {
        Command::Inspect { plugins } => inspect::inspect(&plugins, json),
        Command::Plugins => inspect::list(json),
        Command::Help { topic } => help::help(&topic, json),
        Command::NewPlugin(arguments) => arguments.begin(json),
        Command::Validate(arguments) => return arguments.validate(json),
        Command::Schema => inspect::schema(),
        Command::Init { train, model, out, plugins } => init::init(&train, model.as_deref(), out, &plugins, json),
        Command::Plan(run) => plan(&run, json),
        Command::Data(run) => data(&run, json),
        Command::Augment(run) => augment(&run, json),
        Command::LrFind { run, range } => lr_find(&run, &range, json),
        Command::Eval { run, data, episodes, seed, answers, classes, of, with } => {
            answers.out.as_deref().map_or(Ok(()), must_not_exist)?;
            let classes = classes.read()?;
            let data = Input::open(&data)?;
            let (task, path) = (of.task.as_deref(), data.path());
            let evaluated = with.open_for(&run, &of, path).and_then(|mut model| match (episodes, &classes) {
                (Some(episodes), _) => few_shot(&mut model, task, path, (episodes, seed), json),
                (None, Some(classes)) => tell(model.evaluate_named(task, path, classes.named(), !json)?, json),
                (None, None) => evaluate(&model, task, path, &answers, json),
            });
            evaluated.map_err(|error| data.named(error))
        }
        Command::Predict { run, input, out, format, probabilities, masks, classes, of, with } => {
            let named = if json && out.is_none() { format.or(Some(Format::Jsonl)) } else { format };
            out.as_deref().map_or(Ok(()), must_not_exist)?;
            let classes = classes.read()?;
            classes.as_ref().map_or(Ok(()), Asked::must_have_names)?;
            let masks = masks.as_deref().map(MaskFolder::new).transpose()?;
            let input = Input::open(&input)?;
            let style = Style { format: Format::choose(named, out.as_deref(), input.path())?, probabilities };
            let mut rows = 0;
            let mut predicted = || {
                let model = with.open_for(&run, &of, input.path())?;
                predict(out.as_deref(), |out| {
                    let (task, path) = (of.task.as_deref(), input.path());
                    rows = match &classes {
                        Some(classes) => model.predict_named(task, path, classes.named(), style, out)?,
                        None => model.predict(task, path, style, masks.as_ref(), out)?,
                    };
                    Ok(())
                })
            };
            predicted().map_err(|error| input.named(error))?;
            match (json, out) {
                (true, Some(out)) => say(&serde_json::json!({ "rows": rows, "out": out }).to_string()),
                _ => Ok(()),
            }
        }
        Command::Embed { model, input, out, stream, features, task, header, with } => {
            let form = Form::of(&out)?;
            must_not_exist(&out)?;
            let wanted = Wanted { stream: stream.as_deref(), task: task.as_deref(), features };
            let sets = overrides(&with.sets, None, None)?;
            let mut embedder = Embedder::open(&model, wanted, &with.plugins, &sets, with.device)?;
            header.into_iter().for_each(|header| embedder.set_header(header));
            let mut written = (0, 0);
            write_file_atomically(&out, |file| {
                written = embedder.write(&input, file, form)?;
                Ok(())
            })?;
            let ((rows, width), what) = (written, embedder.what());
            let (stream, compared) = (embedder.stream(), embedder.is_compared());
            let pooling = (!compared).then_some(&what);
            match json {
                true => say(&serde_json::json!({
                    "rows": rows, "width": width, "stream": stream, "compared": compared, "pooling": pooling, "out": out,
                })
                .to_string()),
                false => say(&format!("{rows} rows of {width} numbers ({what}) in {}", out.display())),
            }
        }
        Command::Search(arguments) => arguments.search(json),
        Command::Generate(arguments) => arguments.generate(json),
        Command::Compare(arguments) => {
            let comparison = fthost::compare::execute(&arguments.options(json)?)?;
            match json {
                true => say(&serde_json::to_string(&comparison).unwrap_or_default()),
                false => say(&wrapped(comparison.to_text().trim_end())),
            }
        }
        Command::Auto(arguments) => {
            let trail = fthost::auto::execute(&arguments.options(json)?)?;
            match json {
                true => say(&serde_json::to_string(&trail).unwrap_or_default()),
                false => say(&wrapped(trail.to_text().trim_end())),
            }
        }
        Command::Export { run, folder, format, dtype, with } => {
            let handed = export(&run, &folder, format, dtype, || with.open(&run))?;
            match json {
                true => say(&serde_json::to_string(&handed).unwrap_or_default()),
                false => say(&wrapped(&handed.to_string())),
            }
        }
        Command::Merge { run, folder, with } => {
            let handed = with.open(&run)?.merge_and_say(&folder)?;
            match json {
                true => say(&serde_json::to_string(&handed).unwrap_or_default()),
                false => say(&wrapped(&handed.to_string())),
            }
        }
    };
    done.map(|()| 0)
}

/// Evaluates a run on a file, and what it says to the file's prompts where that is asked for.
fn evaluate(
    model: &TrainedModel,
    task: Option<&str>,
    data: &Path,
    answers: &AnswerArguments,
    json: bool,
) -> Result<()> {
    // What is wrong with prompts and answers is said before any of them takes time.
    let questions = answers.generate.then(|| model.questions(task, data)).transpose()?;
    let (task, mut result) = model.evaluate(task, data, !json)?;
    if let Some(questions) = questions {
        let said = model.answer(questions, answers.max_tokens as usize, answers.batch as usize, !json)?;
        result.test.metrics.extend(metrics::answers::of(said.iter().map(|said| &said.compared)));
        if let Some(path) = &answers.out {
            write_file_atomically(path, |file| {
                let mut out = BufWriter::new(File::create(file).map_err(cannot_write(path))?);
                let written = said.iter().try_for_each(|said| said.write(&mut out)).and_then(|()| out.flush());
                written.map_err(cannot_write(path))
            })?;
        }
    }
    tell((task, result), json)
}

/// Tells a task's result.
fn tell((task, result): (String, TaskResult), json: bool) -> Result<()> {
    match json {
        true => say(&of_task(task, &result)),
        false => say(&wrapped(result.to_text(&task, "what --json prints").trim_end())),
    }
}

/// Evaluates a run's encoder by so many few-shot episodes and their seed.
fn few_shot(
    model: &mut TrainedModel,
    task: Option<&str>,
    data: &Path,
    (episodes, seed): (u32, u64),
    json: bool,
) -> Result<()> {
    let (task, result) = model.few_shot(task, data, episodes as usize, seed, !json)?;
    match json {
        true => say(&of_task(task, &result)),
        false => say(&result.to_text(&task)),
    }
}

/// The result of a task as JSON.
fn of_task(task: String, result: &impl serde::Serialize) -> String {
    serde_json::json!({ "tasks": { task: result } }).to_string()
}

impl UseArguments {
    fn open(&self, run: &Path) -> Result<TrainedModel> {
        let sets = overrides(&self.sets, None, None)?;
        run::trained::open(run, &self.plugins, &sets, self.device)
    }

    /// Opens a run for a file of examples, of which the arguments may say whether its first row is a header.
    fn open_for(&self, run: &Path, of: &TaskArgument, file: &Path) -> Result<TrainedModel> {
        if of.header.is_some() && !may_have_header(file, None) {
            return Err(Error::usage(format!("--header does nothing for {}", file.display()))
                .with_help("leave it out: a .tsv or .csv file may have a header, and no other"));
        }
        let mut model = self.open(run)?;
        if let Some(header) = of.header {
            model.set_header(header);
        }
        Ok(model)
    }
}

/// Starts as many threads as the run file asks for.
fn start_threads(file: &RunFile) -> Result<()> {
    let Some(threads) = file.train.threads else { return Ok(()) };
    let started = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    started.map_err(|error| Error::usage(format!("cannot start {threads} threads: {error}")))
}

fn plan(arguments: &RunArguments, json: bool) -> Result<()> {
    arguments.must_leave_no_folder()?;
    let file = arguments.run_file()?;
    start_threads(&file)?;
    let plan = run::plan(file, &arguments.plugins, arguments.device)?;
    match json {
        true => say(&serde_json::to_string(&plan).unwrap_or_default()),
        false => {
            let surveys: String = plan.data.iter().map(|survey| format!("\n{}", survey.to_text())).collect();
            say(&wrapped(format!("{}{surveys}", plan.to_text()).trim_end()))
        }
    }
}

fn data(arguments: &RunArguments, json: bool) -> Result<()> {
    arguments.must_resume_nothing()?;
    arguments.must_leave_no_folder()?;
    let file = arguments.run_file()?;
    start_threads(&file)?;
    let (notes, surveys) = run::data(file, &arguments.plugins, arguments.device)?;
    match json {
        true => say(&serde_json::json!({ "notes": notes, "data": surveys }).to_string()),
        false => {
            let texts: Vec<String> = surveys.iter().map(Survey::to_text).collect();
            let notes: String = notes.iter().map(|note| format!("{note}\n")).collect();
            say(&wrapped(format!("{notes}{}", texts.join("\n")).trim_end()))
        }
    }
}

fn augment(arguments: &RunArguments, json: bool) -> Result<()> {
    arguments.must_resume_nothing()?;
    let page = arguments.out.as_deref().unwrap_or(Path::new(""));
    must_not_exist(page)?;
    let file = arguments.run_file()?;
    start_threads(&file)?;
    let looks = run::augment::augment(file, &arguments.plugins, arguments.device)?;
    write_atomically(page, run::augment::page(&arguments.run_file_name(), &looks).as_bytes())?;
    match json {
        true => say(&serde_json::json!({ "tasks": looks, "page": page }).to_string()),
        false => {
            let texts: Vec<String> = looks.iter().map(run::augment::Look::to_text).collect();
            say(&format!("{}\npictures in {}", texts.join("\n"), page.display()))
        }
    }
}

fn lr_find(arguments: &RunArguments, range: &RangeArguments, json: bool) -> Result<()> {
    arguments.must_resume_nothing()?;
    let page = arguments.out.as_deref();
    page.map_or(Ok(()), must_not_exist)?;
    let file = arguments.run_file()?;
    start_threads(&file)?;
    let range = Range { from: range.from, to: range.to, steps: range.steps };
    let shown = !json && !arguments.quiet;
    let curve = run::lr_find::lr_find(file, &arguments.plugins, arguments.device, range, shown)?;
    if let Some(page) = page {
        write_atomically(page, run::lr_find::page::page(&arguments.run_file_name(), &curve).as_bytes())?;
    }
    match (json, page) {
        (true, _) => say(&serde_json::to_string(&curve).unwrap_or_default()),
        (false, Some(page)) => say(&format!("{}\ncurve in {}", curve.to_text(), page.display())),
        (false, None) => say(&curve.to_text()),
    }
}

/// What a bare `fthost` does: one run.
fn train(arguments: RunArguments, json: bool, started: Instant) -> Result<()> {
    let file = arguments.run_file()?;
    start_threads(&file)?;
    let output = if json { Output::Json } else { Output::Human { quiet: arguments.quiet } };
    run::execute(run::Options {
        file,
        plugins: arguments.plugins,
        out: arguments.out,
        resume: arguments.resume,
        device: arguments.device,
        output,
        listener: None,
        interrupt: None,
        started,
    })?;
    Ok(())
}

/// Writes predictions to a file, or row by row to standard output. A reader that has left, as `head` does, is no error.
fn predict(out: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let Some(path) = out else {
        let mut stdout = BufWriter::new(io::stdout().lock());
        return match write(&mut stdout) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            // What was predicted before the error is the user's.
            outcome => outcome.and(stdout.flush().map_err(Error::io("cannot write to standard output"))),
        };
    };
    write_file_atomically(path, |file| {
        let file = File::create(file).map_err(cannot_write(path))?;
        write(&mut BufWriter::new(file))
    })
}
