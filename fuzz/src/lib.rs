//! What the fuzz targets share.
//!
//! Whatever a file holds, the host may refuse it by an error that it can print. It must not panic, hang or fill the memory.

use std::path::PathBuf;
use std::sync::OnceLock;

use miette::{GraphicalReportHandler, GraphicalTheme};
use tempfile::TempDir;

/// Prints an error as a user would see it: a place outside the text that it points into would be a panic here.
pub fn show(error: &fthost::Error) {
    let mut text = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::none()).with_width(110);
    handler.render_report(&mut text, error).expect("every error can be printed");
}

/// Writes a file of this name, the same one each time. Set `TMPDIR` to a folder in memory.
pub fn file(name: &str, content: &[u8]) -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let path = FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder")).path().join(name);
    std::fs::write(&path, content).expect("a temporary file can be written");
    path
}

/// The parts of an input between the separators.
pub fn parts(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|&byte| byte == SEPARATOR)
}

/// Ends a part of an input that has several. It stands in no text.
pub const SEPARATOR: u8 = 0;
