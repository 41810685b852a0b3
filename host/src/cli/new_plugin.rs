//! `fthost new-plugin`: a plugin to begin with.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use fthost::Result;
use fthost::new_plugin::{Language, begin};
use fthost::plugin::MethodKind;
use fthost::report::output::say;
use fthost::report::text::wrapped;

/// What there are templates for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// What of a model trains, and what is added to it
    Strategy,
    /// The learning rate of each step
    Scheduler,
    /// What is added to the loss
    Regularizer,
    /// Outputs, loss and predictions of a task
    Head,
}

/// The arguments of what begins a plugin.
#[derive(Debug, Args)]
pub(super) struct NewPluginArguments {
    /// The method's name, in run files; its folder, made in the working directory, and its library are called so too
    name: String,

    /// What it is
    #[arg(long, value_enum)]
    kind: Kind,

    /// Writes one file of C with a Makefile, and not a crate
    #[arg(long)]
    c: bool,

    /// Folder of the crate fthost-plugin-api; by default that of the checkout that fthost was built in, else the registry's crate
    #[arg(long, value_name = "PATH", conflicts_with = "c")]
    api: Option<PathBuf>,
}

impl NewPluginArguments {
    /// Begins it, and says how it goes on.
    pub(super) fn begin(self, json: bool) -> Result<()> {
        let kind = match self.kind {
            Kind::Strategy => MethodKind::Strategy,
            Kind::Scheduler => MethodKind::Scheduler,
            Kind::Regularizer => MethodKind::Regularizer,
            Kind::Head => MethodKind::TaskHead,
        };
        let language = if self.c { Language::C } else { Language::Rust(self.api) };
        let begun = begin(Path::new(""), &self.name, kind, &language)?;
        match json {
            true => say(&serde_json::to_string(&begun).unwrap_or_default()),
            false => say(&wrapped(&begun.to_string())),
        }
    }
}
