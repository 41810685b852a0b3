//! Files that a command writes.

use std::path::Path;

use fthost::{Error, Result};

/// Refuses to write a file that is there.
pub(super) fn must_not_exist(path: &Path) -> Result<()> {
    if path.exists() {
        return Err(Error::usage(format!("{} exists already", path.display()))
            .with_help("name a file that does not exist: nothing is overwritten"));
    }
    Ok(())
}
