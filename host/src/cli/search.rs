//! `fthost search`: what is nearest to a text or a picture.

use std::path::{Path, PathBuf};

use clap::Args;
use fthost::Result;
use fthost::report::output::say;
use fthost::run::state::folder::write_atomically;
use fthost::run::trained::search::Among;

use super::output::must_not_exist;
use super::using::UseArguments;

/// The arguments of a search.
#[derive(Debug, Args)]
pub(super) struct SearchArguments {
    /// Folder that a run has left, or of a model, whose head compares, as CLIP's
    #[arg(value_name = "RUN|MODEL")]
    run: PathBuf,

    /// What is looked for: a text, or the path of a picture
    query: String,

    #[command(flatten)]
    among: AmongArguments,

    /// How many of the nearest are shown
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,

    /// Page to write with what was found, pictures in it, to be opened in a browser; the file must not exist
    #[arg(long, value_name = "FILE.html")]
    page: Option<PathBuf>,

    /// The task whose head compares, where several do
    #[arg(long, value_name = "NAME")]
    task: Option<String>,

    /// Whether the first row of a file of texts or pictures' paths is a header; without it as the run file says
    #[arg(long, value_name = "true|false")]
    header: Option<bool>,

    #[command(flatten)]
    with: UseArguments,
}

/// What is looked through.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct AmongArguments {
    /// Looks through pictures: a folder, a .tar, or a table of their paths
    #[arg(long, value_name = "FOLDER|FILE")]
    images: Option<PathBuf>,

    /// Looks through texts: .tsv, .csv, .jsonl or .parquet, or a text on each line
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
}

impl SearchArguments {
    /// Searches, and shows what is found.
    pub(super) fn search(&self, json: bool) -> Result<()> {
        self.page.as_deref().map_or(Ok(()), must_not_exist)?;
        let among = match (&self.among.images, &self.among.texts) {
            (Some(images), _) => Among::Images(images),
            (None, texts) => Among::Texts(texts.as_deref().unwrap_or(Path::new(""))),
        };
        let mut model = self.with.open(&self.run)?;
        self.header.into_iter().for_each(|header| model.set_header(header));
        let found = model.search(self.task.as_deref(), &self.query, among, self.top as usize, self.page.is_some())?;
        if let Some(page) = &self.page {
            let name = self.run.file_name().unwrap_or(self.run.as_os_str()).to_string_lossy();
            write_atomically(page, found.page(&name).as_bytes())?;
        }
        match (json, &self.page) {
            (true, _) => say(&serde_json::to_string(&found).unwrap_or_default()),
            (false, Some(page)) => say(&format!("{}\npage in {}", found.to_text(), page.display())),
            (false, None) => say(&found.to_text()),
        }
    }
}
