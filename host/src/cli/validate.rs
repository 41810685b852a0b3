//! `fthost validate`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fthost::report::output::say;
use fthost::{Result, validate};

/// The arguments of the conformance suite.
#[derive(Debug, Args)]
pub(super) struct ValidateArguments {
    /// A file (./libNAME.so), or a name that is looked for
    #[arg(value_name = "PLUGIN", required_unless_present = "list")]
    plugin: Option<String>,

    /// Only tests whose name, or whose method's, holds this; "METHOD TEST" is one test of one method
    #[arg(long, value_name = "PART")]
    only: Option<String>,

    /// Lists the tests, and runs none
    #[arg(long)]
    list: bool,

    /// Sets an option of the method that is tried: rank=4, or METHOD.rank=4 where the file has several
    #[arg(long = "set", value_name = "OPTION=VALUE")]
    sets: Vec<String>,

    /// A run file that shows the method at work, where the suite's own data do not fit it; 12 steps of it are taken
    #[arg(long, value_name = "RUN.toml")]
    run: Option<PathBuf>,

    /// How long one test may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,

    /// One test, as fthost starts it in a process of its own
    #[arg(long = validate::INSIDE.trim_start_matches('-'), hide = true, value_name = "JSON")]
    inside: Option<String>,
}

impl ValidateArguments {
    /// Runs the suite, says what it came to, and ends with 1 where a test failed.
    pub(super) fn validate(self, json: bool) -> Result<u8> {
        if let Some(job) = self.inside {
            return validate::inside(&job).map(|()| 0);
        }
        if self.list {
            return say(&validate::listing()).map(|()| 0);
        }
        let options = validate::Options {
            plugin: self.plugin.unwrap_or_default(),
            only: self.only,
            sets: self.sets,
            run: self.run,
            limit: Duration::from_secs(self.timeout),
        };
        let report = validate::validate(&options)?;
        match json {
            true => say(&serde_json::to_string(&report).unwrap_or_default())?,
            false => say(&report.to_text())?,
        }
        Ok(u8::from(report.failed > 0))
    }
}
