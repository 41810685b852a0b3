//! Which files may be opened as plugins.

use std::path::PathBuf;

use clap::Args;
use fthost::Result;
use fthost::plugin::Trust;
use fthost::plugin::trust::is_digest;

/// The arguments about it; what they leave open, the environment says.
#[derive(Debug, Args)]
pub(super) struct TrustArguments {
    /// Opens no plugin but those with such a SHA-256, beside those of FTHOST_PLUGIN_SHA256; may be given again
    #[arg(long, global = true, value_name = "SHA256", value_parser = digest, help_heading = "Plugins that may be opened")]
    pub(super) allow: Vec<String>,

    /// Opens no plugin but those in a file of digests, as sha256sum writes it; FTHOST_PLUGIN_LIST names one too
    #[arg(long, global = true, value_name = "FILE", help_heading = "Plugins that may be opened")]
    allow_list: Option<PathBuf>,

    /// Opens plugins that every user of this machine can change, or that lie where every user can put files
    #[arg(long, global = true, help_heading = "Plugins that may be opened")]
    allow_world_writable: bool,

    /// Looks for no plugin in the working directory; a path such as ./liblora.so is opened all the same
    #[arg(long, global = true, help_heading = "Plugins that may be opened")]
    pub(super) no_plugins_from_cwd: bool,
}

impl TrustArguments {
    /// Makes them hold for this process and those that it starts.
    pub(super) fn settle(self) -> Result<()> {
        let mut trust = Trust::from_environment();
        if !self.allow.is_empty() {
            trust.allow.get_or_insert_default().extend(self.allow);
        }
        trust.list = self.allow_list.or(trust.list);
        trust.world_writable |= self.allow_world_writable;
        trust.not_from_cwd |= self.no_plugins_from_cwd;
        trust.settle()
    }
}

fn digest(text: &str) -> Result<String, String> {
    if is_digest(text) {
        Ok(text.to_owned())
    } else {
        Err("64 hexadecimal digits are needed, as sha256sum prints".into())
    }
}
