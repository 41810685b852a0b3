//! What the command line takes.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand};
use fthost::processes::WITH_PARENT;
use fthost::run::DeviceChoice;
use fthost::run::file::RunFile;
use fthost::run::state::folder::RunFolder;
use fthost::run::trained::export::{Dtype, Format as ExportFormat};
use fthost::run::trained::predict::Format;
use fthost::{Error, Result};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::auto::AutoArguments;
use super::classes::{CLASSES, ClassArguments};
use super::compare::CompareArguments;
use super::generate::GenerateArguments;
use super::new_plugin::NewPluginArguments;
use super::search::SearchArguments;
use super::trust::TrustArguments;
use super::using::UseArguments;
use super::validate::ValidateArguments;
use super::values::{device, overrides};

/// What `--out` names for a search for a learning rate.
const PAGE_HELP: &str = "Page to write with the curve, to be opened in a browser; the file must not exist";
/// What `--out` names for pictures to look at.
const GALLERY_HELP: &str = "Page to write with the pictures, to be opened in a browser; the file must not exist";

/// Fine-tunes pretrained models. How is up to plugins: shared libraries with strategies, schedules, regularizers and task heads.
///
/// fthost --plugin liblora.so            adapts the embedded demo
/// fthost sst2.toml                      runs a run file
/// fthost sst2.toml --set train.lr=1e-3  runs it with another value
#[derive(Debug, Parser)]
#[command(
    name = "fthost",
    version,
    verbatim_doc_comment,
    subcommand_help_heading = "Other commands",
    disable_help_subcommand = true
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    #[command(flatten)]
    pub(super) run: RunArguments,

    #[command(flatten)]
    pub(super) trust: TrustArguments,

    /// Prints one JSON object on standard output: the result, or {"error": ...}
    #[arg(long, global = true)]
    pub(super) json: bool,

    /// Logs more to standard error: -v info, -vv debug, -vvv trace. FTHOST_LOG sets a filter instead
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(super) verbose: u8,
}

/// What there is beside running.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows what plugins hold: their methods and every option
    Inspect {
        /// Files (./liblora.so), or names that are looked for (lora)
        #[arg(value_name = "PLUGIN", required = true)]
        plugins: Vec<String>,
    },
    /// Lists the plugins that are found, and where was looked
    Plugins,
    /// Tries a plugin: does it keep to what plugins promise? Each test is a process of its own with a time limit
    Validate(ValidateArguments),
    /// Explains a method's options, or every key of a run file
    Help {
        /// A method's name (lora), a plugin's file (./liblora.so), or run-file
        #[arg(value_name = "NAME|run-file")]
        topic: String,
    },
    /// Begins a plugin: a crate, or one file of C, that builds, with a small working method, its tests, a run file and a README
    NewPlugin(NewPluginArguments),
    /// Prints the JSON Schema of run files with the options of every plugin that is found, for editors
    Schema,
    /// Writes a run file for a file of examples, with a reason for each value; what is in doubt is asked on a terminal
    Init {
        /// File with the training examples, in any of the forms that a run reads
        train: PathBuf,
        /// Folder of the model, or its name on the hub: hf:organisation/model
        #[arg(long, value_name = "MODEL")]
        model: Option<String>,
        /// Run file to write; it must not exist. By default the training file's name with .toml, in the working directory
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Plugin whose methods may be chosen, beside those that are found; may be given again
        #[arg(long = "plugin", value_name = "PLUGIN")]
        plugins: Vec<String>,
    },
    /// Shows what a run would do, and measures its time and memory on a few batches; trains nothing
    Plan(RunArguments),
    /// Shows what is in a run file's data: classes, lengths, repeated texts, and what about them is suspicious; trains nothing
    Data(RunArguments),
    /// Shows training pictures as the model sees them, on a page; trains nothing
    // --out is that of a run's arguments, where it names a folder.
    #[command(mut_arg("out", |out| out.value_name("FILE.html").help(GALLERY_HELP).required(true)))]
    Augment(RunArguments),
    /// Tries learning rates on a few batches and suggests one; the run's schedule is left aside, and nothing that is learned is kept
    // --out is that of a run's arguments, where it names a folder.
    #[command(mut_arg("out", |out| out.value_name("FILE.html").help(PAGE_HELP)))]
    LrFind {
        #[command(flatten)]
        run: RunArguments,
        #[command(flatten)]
        range: RangeArguments,
    },
    /// Evaluates what a run has trained on a file of labelled examples
    Eval {
        /// Folder that a run has left, or that PEFT or Transformers saved
        run: PathBuf,
        /// File with the examples, in the form of the run's own; - is standard input. With --classes a folder of class folders, or a table
        /// with labels
        data: PathBuf,
        /// Few-shot: draws so many episodes from the file, whose classes may be new, and learns each from its support examples
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), conflicts_with_all = CLASSES)]
        episodes: Option<u32>,
        /// What the episodes follow from
        #[arg(long, value_name = "NUMBER", default_value_t = 0, requires = "episodes")]
        seed: u64,
        #[command(flatten)]
        answers: AnswerArguments,
        #[command(flatten)]
        classes: ClassArguments,
        #[command(flatten)]
        of: TaskArgument,
        #[command(flatten)]
        with: UseArguments,
    },
    /// Predicts for each example of a file, labelled or not: labels with their probability, or values, beside the texts
    Predict {
        /// Folder that a run has left, or that PEFT or Transformers saved
        run: PathBuf,
        /// File with the examples: .tsv, .csv, .jsonl or .parquet; - is standard input
        input: PathBuf,
        /// File to write, whole or not at all; it must not exist. Its extension tells the format: .tsv, .csv or .jsonl. Without it
        /// standard output, row by row
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Format of the predictions; by default that of --out or of the input
        #[arg(long, value_enum)]
        format: Option<Format>,
        /// Writes the probabilities of all classes, and not that of the predicted one alone; JSONL has those of an example anyway
        #[arg(long)]
        probabilities: bool,
        /// Folder for the masks that are predicted of pictures, each of its picture's size: masks/NAME.png, whose levels are the indices of
        /// classes, and overlays/NAME.png to look at. It must not exist
        #[arg(long, value_name = "FOLDER", conflicts_with_all = CLASSES)]
        masks: Option<PathBuf>,
        #[command(flatten)]
        classes: ClassArguments,
        #[command(flatten)]
        of: TaskArgument,
        #[command(flatten)]
        with: UseArguments,
    },
    /// Writes a vector for each row of a file, for search, clustering or another program: what the head compares where one does, as CLIP's
    /// (projected, of length 1), else features, pooled as the model pools
    Embed {
        /// Folder of a run or of a model
        model: PathBuf,
        /// File with the examples: .tsv, .csv, .jsonl or .parquet, or a text on each line; of pictures a folder, a .tar or a table too
        input: PathBuf,
        /// File to write: .npy, .parquet or .jsonl; it must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Which of a model's streams the examples are for: text or image. A model of one needs none
        #[arg(long, value_name = "NAME")]
        stream: Option<String>,
        /// Writes pooled features where a head compares what it makes of them
        #[arg(long)]
        features: bool,
        /// The task whose head compares, where several do
        #[arg(long, value_name = "NAME")]
        task: Option<String>,
        /// Whether the file's first row is a header and no example
        #[arg(long, value_name = "true|false")]
        header: Option<bool>,
        #[command(flatten)]
        with: UseArguments,
    },
    /// Finds the pictures or texts that are nearest to a text or a picture, by a head that compares, as CLIP's
    Search(SearchArguments),
    /// Continues texts by a language model: answers a question, talks on a terminal, or goes through a file of prompts
    Generate(GenerateArguments),
    /// Compares strategies or run files over several seeds, and says whether their differences are more than chance
    Compare(CompareArguments),
    /// Searches for the strategy, learning rate and options that do best on validation examples; test examples are never seen
    Auto(AutoArguments),
    /// Writes what a run has trained as other tools open it: Transformers, PEFT, llama.cpp and Ollama
    Export {
        /// Folder that a run has left, or that PEFT or Transformers saved
        run: PathBuf,
        /// Folder to write; it must not exist
        folder: PathBuf,
        /// For whom
        #[arg(long, value_enum)]
        format: ExportFormat,
        /// How a GGUF file keeps the numbers of matrices; f16 by default
        #[arg(long, value_enum)]
        dtype: Option<Dtype>,
        #[command(flatten)]
        with: UseArguments,
    },
    /// Folds what a run has trained into the weights and writes a plain Hugging Face folder
    Merge {
        /// Folder that a run has left, or that PEFT saved
        run: PathBuf,
        /// Folder to write; it must not exist
        folder: PathBuf,
        #[command(flatten)]
        with: UseArguments,
    },
}

impl Command {
    /// Whether code of plugins runs in this command's own process.
    pub(super) fn calls_plugins(&self) -> bool {
        // What starts processes that call them watches over these itself.
        !matches!(self, Self::Compare(_) | Self::Auto(_) | Self::Validate(_) | Self::NewPlugin(_))
    }
}

/// Which learning rates are tried.
#[derive(Debug, Args)]
pub(super) struct RangeArguments {
    /// The lowest rate
    #[arg(long, default_value_t = 1e-5)]
    pub(super) from: f64,

    /// The highest rate; where the loss is lowest at an end, rates beyond it are tried too
    #[arg(long, default_value_t = 0.1)]
    pub(super) to: f64,

    /// Optimizer steps at each rate
    #[arg(long, default_value_t = 40)]
    pub(super) steps: usize,
}

/// Whether, and how, what a language model says is compared with answers.
#[derive(Debug, Args)]
pub(super) struct AnswerArguments {
    /// Lets a language model continue the prompt of each row too, by the most probable token each time, and compares what it says with the
    /// row's answer: exact match and ROUGE-L
    #[arg(long, conflicts_with = "episodes", conflicts_with_all = CLASSES)]
    pub(super) generate: bool,

    /// The most tokens that a text gets
    #[arg(long, value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..), requires = "generate")]
    pub(super) max_tokens: u32,

    /// Prompts that are continued at once
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=4096), requires = "generate")]
    pub(super) batch: u32,

    /// File to write for the texts, beside the answers, a JSON object on each line; it must not exist
    #[arg(long, value_name = "FILE", requires = "generate")]
    pub(super) out: Option<PathBuf>,
}

/// Which task of a run that has ended, and how its file is read.
#[derive(Debug, Args)]
pub(super) struct TaskArgument {
    /// The task, where the run has several
    #[arg(long, value_name = "NAME")]
    pub(super) task: Option<String>,

    /// Whether the file's first row is a header and no example; without it as the run file says
    #[arg(long, value_name = "true|false")]
    pub(super) header: Option<bool>,
}

/// The arguments of a run.
#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// Run file; without one the embedded demo runs
    #[arg(value_name = "RUN.toml")]
    file: Option<PathBuf>,

    /// Run file, as the argument
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,

    /// Opens a plugin: a file or a name, PATH#NAME where it has several strategies. Its strategy is added, or is the strategy
    /// where the run file names none
    #[arg(long = "plugin", value_name = "PATH")]
    pub(super) plugins: Vec<String>,

    /// Sets a value of the run file: train.lr=1e-3, strategy.rank=4, task.0.train=a.tsv
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,

    /// Folder that the run leaves; it must not exist. Without it runs/NAME, numbered where that exists
    #[arg(long, value_name = "FOLDER")]
    pub(super) out: Option<PathBuf>,

    /// Goes on with the run in the folder that --out names, from its newest checkpoint
    #[arg(long, requires = "out")]
    pub(super) resume: bool,

    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_parser = device)]
    pub(super) device: DeviceChoice,

    /// What every random number follows from, as train.seed
    #[arg(long)]
    seed: Option<u64>,

    /// CPU threads, as train.threads
    #[arg(long)]
    threads: Option<usize>,

    /// Prints the result only
    #[arg(short, long)]
    pub(super) quiet: bool,

    /// Stops as Ctrl-C does where the process that started it ends: the runs of a comparison or a search end with it
    #[arg(long, hide = true)]
    pub(super) ends_with_parent: bool,
}

impl RunArguments {
    /// The run file with everything that the command line sets in it.
    pub(super) fn run_file(&self) -> Result<RunFile> {
        let overrides = overrides(&self.sets, self.seed, self.threads)?;
        match self.file.as_ref().or(self.config.as_ref()) {
            Some(path) => RunFile::load(path, &overrides),
            None if self.resume && self.plugins.is_empty() => {
                let out = self.out.as_deref().unwrap_or(Path::new(""));
                RunFile::load(&RunFolder::run_file(out)?, &overrides)
            }
            None if self.plugins.is_empty() && self.sets.iter().all(|set| !set.starts_with("strategy.")) => {
                Err(Error::usage("there is nothing to run: name a run file, or a plugin for the embedded demo")
                    .with_help("fthost --plugin FILE, or fthost RUN.toml; fthost plugins lists what is found"))
            }
            None => RunFile::demo(&overrides),
        }
    }

    /// Has this process end with the one that started it, where that is asked for.
    pub(super) fn watch_parent(&self) -> Result<()> {
        if !self.ends_with_parent {
            return Ok(());
        }
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|error| Error::io("cannot watch the process that started this one")(error.into()))
    }

    /// What a page says it was made with: the run file's name.
    pub(super) fn run_file_name(&self) -> String {
        let name = self.file.as_ref().or(self.config.as_ref()).and_then(|file| file.file_name());
        name.map_or_else(|| "demo".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// Refuses --resume for a command that takes --out but leaves no run to go on with.
    pub(super) fn must_resume_nothing(&self) -> Result<()> {
        match self.resume {
            false => Ok(()),
            true => Err(Error::usage("this command does not take --resume")
                .with_help("leave it out: the command begins anew each time")),
        }
    }

    /// Refuses arguments about a run folder for a command that leaves none.
    pub(super) fn must_leave_no_folder(&self) -> Result<()> {
        match self.out {
            None => Ok(()),
            Some(_) => {
                Err(Error::usage("this command does not take --out").with_help("leave it out: nothing is written"))
            }
        }
    }

    /// Refuses arguments of a run beside a subcommand: it would not use them.
    pub(super) fn must_be_unused(&self) -> Result<()> {
        let used = [
            ("a run file", self.file.is_some()),
            ("--config", self.config.is_some()),
            ("--plugin", !self.plugins.is_empty()),
            ("--set", !self.sets.is_empty()),
            ("--out", self.out.is_some()),
            ("--resume", self.resume),
            ("--device", self.device != DeviceChoice::Cpu),
            ("--seed", self.seed.is_some()),
            ("--threads", self.threads.is_some()),
            ("--quiet", self.quiet),
            (WITH_PARENT, self.ends_with_parent),
        ];
        match used.iter().find(|(_, used)| *used) {
            None => Ok(()),
            Some((what, _)) => Err(Error::usage(format!("this command does not take {what}"))
                .with_help("leave it out; a run file that is named as a command is ./NAME")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn read(line: &str) -> Arguments {
        Arguments::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_run_file_and_the_commands_do_not_clash() {
        let run = read("fthost sst2.toml --plugin a.so --plugin b.so --seed 3 --json -vv");
        assert!(run.command.is_none() && run.json);
        assert_eq!((run.run.plugins.len(), run.run.seed, run.verbose), (2, Some(3), 2));
        assert_eq!(run.run.file, Some("sst2.toml".into()));
        assert!(read("fthost ./inspect").command.is_none());
        let inspect = read("fthost inspect lora adapter --json");
        assert!(
            matches!(inspect.command, Some(Command::Inspect { ref plugins }) if plugins.len() == 2) && inspect.json
        );
        assert!(matches!(read("fthost --json plugins").command, Some(Command::Plugins)));
        let digest = "0123456789abcdef".repeat(4);
        let trusting = read(&format!("fthost plugins --allow {digest} --allow {digest} --no-plugins-from-cwd")).trust;
        assert_eq!((trusting.allow.len(), trusting.no_plugins_from_cwd), (2, true));
        assert!(Arguments::try_parse_from(["fthost", "plugins", "--allow", "0123"]).is_err());
        let search = read("fthost lr-find sst2.toml --out curve.html").command;
        let Some(Command::LrFind { run, .. }) = &search else { panic!("{search:?}") };
        assert_eq!((run.out.as_deref(), run.run_file_name().as_str()), (Some(Path::new("curve.html")), "sst2.toml"));
        let both = read("fthost sst2.toml plugins");
        assert!(both.run.must_be_unused().unwrap_err().to_string().contains("does not take a run file"));
        assert!(Arguments::try_parse_from(["fthost", "a.toml", "--config", "b.toml"]).is_err());
        assert!(Arguments::try_parse_from(["fthost", "inspect"]).is_err());
    }

    #[test]
    fn flags_become_values_of_the_run_file() {
        let file = |line: &str| read(line).run.run_file();
        let demo = file("fthost --plugin lora --seed 5 --threads 3 --set train.seed=4 --set run.name=x").unwrap();
        assert_eq!((demo.train.seed, demo.train.threads, demo.run.name.as_str()), (5, Some(3), "x"));
        assert!(file("fthost").unwrap_err().to_string().contains("nothing to run"));
        assert!(file("fthost --plugin lora --set train").unwrap_err().to_string().contains("there is no ="));
        assert!(file("fthost /nowhere/run.toml").unwrap_err().to_string().contains("cannot read the run file"));
    }
}
