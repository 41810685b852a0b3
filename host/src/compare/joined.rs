//! Out-of-fold predictions: those of all folds in one file, and what they come to together.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use fthost_plugin_api::PredictionKind;

use super::rounds::Round;
use super::runs::Left;
use crate::report::metrics::matches::{Matches, Ranks};
use crate::report::metrics::{Probabilities, preferences};
use crate::run::results::evaluate::{Classes, Evaluation, Outcome};
use crate::run::results::labels::Labels;
use crate::run::results::masks::{self, Masks};
use crate::run::results::predictions::{self, Row};
use crate::run::results::report::Report;
use crate::run::state::folder::{cannot_write, write_file_atomically};
use crate::{Error, Result};

/// A run's predictions as they are read on, row by row.
struct Source {
    round: Round,
    /// Its columns by name.
    places: BTreeMap<String, usize>,
    records: csv::StringRecordsIntoIter<File>,
    /// The next row, with the number of its example.
    next: Option<(usize, StringRecord)>,
}

impl Source {
    fn open(round: Round, run: &Path, names: &mut Vec<String>) -> Result<Self> {
        let path = run.join(predictions::FILE);
        let mut file = csv::Reader::from_path(&path).map_err(unreadable(run))?;
        let header = file.headers().map_err(unreadable(run))?.clone();
        for name in &header {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        let places = header.iter().map(str::to_owned).zip(0..).collect();
        Ok(Self { round, places, records: file.into_records(), next: None })
    }

    /// Goes to the next row of a task.
    fn advance(&mut self, run: &Path, task: &str) -> Result<()> {
        self.next = None;
        for record in self.records.by_ref() {
            let record = record.map_err(unreadable(run))?;
            let cell = |name: &str| self.places.get(name).and_then(|&place| record.get(place)).unwrap_or_default();
            if cell("task") == task {
                let example = cell("example").parse().unwrap_or(usize::MAX);
                self.next = Some((example, record));
                break;
            }
        }
        Ok(())
    }
}

fn unreadable(run: &Path) -> impl Fn(csv::Error) -> Error {
    let path = run.join(predictions::FILE);
    move |error| {
        Error::run(format!("{} does not read: {error}", path.display()))
            .with_help("remove that run's folder and go on with the comparison by --resume")
    }
}

/// Writes the predictions of all runs of a task to one file, in the order of the training examples, with columns for fold and seed. Each
/// run's are in this order already.
///
/// # Errors
/// Where one does not read, or the file cannot be written.
pub(super) fn write(path: &Path, task: &str, runs: &[(Round, PathBuf)]) -> Result<()> {
    let mut names = Vec::new();
    let mut sources =
        runs.iter().map(|(round, run)| Source::open(*round, run, &mut names)).collect::<Result<Vec<_>>>()?;
    for (source, (_, run)) in sources.iter_mut().zip(runs) {
        source.advance(run, task)?;
    }
    write_file_atomically(path, |file| {
        let mut out = csv::Writer::from_writer(BufWriter::new(File::create(file).map_err(cannot_write(path))?));
        let failed = |error: csv::Error| cannot_write(path)(error.into());
        out.write_record(names.iter().map(String::as_str).chain(["fold", "seed"])).map_err(failed)?;
        loop {
            let first = |(i, source): (usize, &Source)| Some((source.next.as_ref()?.0, i));
            let Some((_, i)) = sources.iter().enumerate().filter_map(first).min() else { break };
            let source = &mut sources[i];
            let Some((_, record)) = source.next.take() else { break };
            let cell = |name: &String| source.places.get(name).and_then(|&place| record.get(place)).unwrap_or_default();
            let fold = source.round.fold.map_or(0, |fold| fold.fold).to_string();
            let seed = source.round.seed.to_string();
            out.write_record(names.iter().map(cell).chain([fold.as_str(), seed.as_str()])).map_err(failed)?;
            source.advance(&runs[i].1, task)?;
        }
        out.flush().map_err(cannot_write(path))
    })
}

/// What the predictions of several folds come to as those of one test set; nothing where they have no classes in common.
pub(super) fn report(folds: &[&Left]) -> Option<Report> {
    let first = folds.first()?;
    let mut rows: Vec<&Row> = folds.iter().flat_map(|left| &left.predictions).collect();
    rows.sort_by_key(|row| row.example); // the words of one stay in their order
    let outcome = match first.kind {
        PredictionKind::Values => {
            let numbers = |of: fn(&Row) -> &String| rows.iter().map(|row| of(row).parse().ok()).collect::<Option<_>>();
            Outcome::Values { targets: numbers(|row| &row.target)?, predictions: numbers(|row| &row.prediction)? }
        }
        PredictionKind::Masks => {
            let examples = rows.iter().map(|row| masks::read(&row.target, &row.prediction)).collect::<Option<_>>()?;
            Outcome::Masks(Masks { examples, ..Masks::default() })
        }
        // Folds of a language model have no report: of each row its loss is there, and no token.
        PredictionKind::Tokens => return None,
        PredictionKind::Preferences => {
            let pair = |row: &&Row| {
                let [chosen, rejected] = preferences::Pair::read(&row.prediction)?;
                Some(preferences::Pair { tokens: row.target.parse().ok()?, chosen, rejected })
            };
            Outcome::Preferences(rows.iter().map(pair).collect::<Option<_>>()?)
        }
        // Among the examples of a fold, each of its own.
        PredictionKind::Embeddings => {
            let ranks = rows.iter().map(|row| Ranks::read(&row.prediction)).collect::<Option<_>>()?;
            Outcome::Matches(Matches { ranks, ..Matches::default() })
        }
        PredictionKind::Classes => Outcome::Classes(classes(&first.labels, &rows)?),
        PredictionKind::MultiLabel => {
            let classes =
                |of: fn(&Row) -> &String| rows.iter().map(|row| first.classes(of(row))).collect::<Option<_>>();
            let all: Vec<f32> = rows.iter().flat_map(|row| &row.probabilities).map(|&p| p as f32).collect();
            let whole = all.len() == first.labels.len() * rows.len();
            let probabilities = whole.then(|| Probabilities::new(first.labels.len(), all));
            Outcome::Labels(Labels {
                targets: classes(|row| &row.target)?,
                predictions: classes(|row| &row.prediction)?,
                probabilities,
            })
        }
    };
    Some(Report::of(&first.labels, &Evaluation::new(None, outcome, first.labels.len())))
}

fn classes(labels: &[String], rows: &[&Row]) -> Option<Classes> {
    let places: BTreeMap<&String, u32> = labels.iter().zip(0..).collect();
    let class = |of: fn(&Row) -> &String| rows.iter().map(|row| places.get(of(row)).copied()).collect::<Option<_>>();
    let words = rows.iter().any(|row| row.word.is_some());
    let counted = words.then(|| rows.chunk_by(|a, b| a.example == b.example).map(<[_]>::len).collect());
    let found = Classes::new(labels, class(|row| &row.target)?, class(|row| &row.prediction)?, counted);
    let confidences: Vec<Option<f32>> = rows.iter().map(|row| row.probability).collect();
    let all: Vec<f32> = rows.iter().flat_map(|row| &row.probabilities).map(|&p| p as f32).collect();
    let whole = all.len() == labels.len() * confidences.iter().flatten().count();
    Some(Classes { confidences, probabilities: whole.then(|| Probabilities::new(labels.len(), all)), ..found })
}
