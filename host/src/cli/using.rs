//! What every command takes that uses a run that has ended.

use clap::Args;
use fthost::run::DeviceChoice;

use super::values::device;

/// The arguments of what uses a run that has ended.
#[derive(Debug, Args)]
pub(super) struct UseArguments {
    /// Opens these plugins instead of those that the run used
    #[arg(long = "plugin", value_name = "PATH")]
    pub(super) plugins: Vec<String>,

    /// Sets a value of its run file: model.path=FOLDER says where the base model is
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) sets: Vec<String>,

    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_parser = device)]
    pub(super) device: DeviceChoice,
}
