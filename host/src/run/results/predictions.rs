//! `predictions.csv` of a run folder: what the saved model predicts for every test example, in their order. Where a task has a class
//! for each token, a row is one that counts.
//!
//! Four columns: `task`, `target` and `prediction`, names for classes and numbers for values, and `example`, its number from 1 in the
//! test data: tokens of one example are not independent of each other, and have the same. CSV, because a class may be named by any
//! text, a tab or a new line in it, and the `.tsv` of data files has no quoting.

use std::iter::repeat_n;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::evaluate::{Classes, Evaluation, Outcome};
use crate::{Error, Result};

/// The file's name.
pub const FILE: &str = "predictions.csv";

/// One test example, or one of its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The task's name.
    pub task: String,
    /// The true class, or the true value.
    pub target: String,
    /// The predicted one.
    pub prediction: String,
    /// The example's number in the test data, from 1.
    pub example: usize,
}

/// The rows of a task whose classes have these names.
pub fn rows(task: &str, labels: &[String], evaluation: &Evaluation) -> Vec<Row> {
    let row = |(example, (target, prediction))| Row { task: task.to_owned(), target, prediction, example };
    match &evaluation.outcome {
        Outcome::Classes(Classes { targets, predictions, counted, .. }) => {
            let name = |&class: &u32| labels.get(class as usize).cloned().unwrap_or_else(|| class.to_string());
            let named = targets.iter().map(name).zip(predictions.iter().map(name));
            match counted {
                Some(counted) => {
                    (1..).zip(counted).flat_map(|(i, &tokens)| repeat_n(i, tokens)).zip(named).map(row).collect()
                }
                None => (1..).zip(named).map(row).collect(),
            }
        }
        Outcome::Values { targets, predictions } => {
            let pairs = targets.iter().map(f32::to_string).zip(predictions.iter().map(f32::to_string));
            (1..).zip(pairs).map(row).collect()
        }
    }
}

/// Rows as the file's content.
pub fn to_csv(rows: &[Row]) -> Result<Vec<u8>> {
    let failed = |error: String| Error::run(format!("cannot write {FILE}: {error}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.serialize(row)).map_err(|error| failed(error.to_string()))?;
    writer.into_inner().map_err(|error| failed(error.to_string()))
}

/// The rows of a task in a file.
///
/// # Errors
/// Where the file is missing or does not read.
pub fn read(path: &Path, task: &str) -> Result<Vec<Row>> {
    let unreadable = |error: csv::Error| Error::Data {
        file: path.to_owned(),
        line: error.position().map(csv::Position::line),
        message: error.to_string(),
        help: Some("it is written where a run ends: remove the run's folder and run it again".into()),
    };
    let mut rows = Vec::new();
    for row in csv::Reader::from_path(path).map_err(unreadable)?.into_deserialize::<Row>() {
        rows.push(row.map_err(unreadable)?);
    }
    rows.retain(|row| row.task == task);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let labels = ["no, never", "a\t\"b\"\nc"].map(String::from);
        let classes = Outcome::Classes(Classes::new(&labels, vec![0, 1], vec![1, 1], None));
        let classes = Evaluation::new(Some(0.5), classes, 2);
        let (targets, predictions) = (vec![0.1f32, 1e-20], vec![f32::NAN, 1.0 / 3.0]);
        let values = Evaluation::new(Some(0.5), Outcome::Values { targets, predictions }, 0);

        let written = [rows("a", &labels, &classes), rows("b", &[], &values)];
        std::fs::write(&path, to_csv(&written.concat()).unwrap()).unwrap();
        assert_eq!(written[0][0].prediction, labels[1]);
        assert_eq!(read(&path, "a").unwrap(), written[0]);
        let back = read(&path, "b").unwrap();
        assert_eq!(back, written[1]);
        assert_eq!(back[1].prediction.parse(), Ok(1.0f32 / 3.0));
        assert_eq!(back.iter().map(|row| row.example).collect::<Vec<_>>(), [1, 2]);

        // Of three examples the first has two tokens that count, the second none.
        let tokens = Classes::new(&labels, vec![0, 1, 1], vec![1, 1, 0], Some(vec![2, 0, 1]));
        let tokens = rows("c", &labels, &Evaluation::new(Some(0.5), Outcome::Classes(tokens), 2));
        assert_eq!(tokens.iter().map(|row| row.example).collect::<Vec<_>>(), [1, 1, 3]);
        std::fs::write(&path, to_csv(&tokens).unwrap()).unwrap();
        assert_eq!(read(&path, "c").unwrap(), tokens);

        std::fs::write(&path, "task,target,prediction,example\na,b\n").unwrap();
        assert!(read(&path, "a").unwrap_err().to_string().contains("predictions.csv:2: "));
    }
}
