//! What a model says to the prompts of a file, beside the answers that stand there.

use std::io::Write;
use std::path::Path;

use fthost_plugin_api::TargetKind;
use serde::Serialize;

use super::beside::Beside;
use super::model::TrainedModel;
use crate::data::{Answered, Asked, Asker, Files};
use crate::report::metrics::answers::Compared;
use crate::report::progress::EvaluationProgress;
use crate::run::generation::{Continuation, Decoding, FinishReason, Settings, Vocabulary};
use crate::run::setup::model as base;
use crate::{Error, Result};

/// The prompts of a file, ready for a model, and their answers.
pub struct Questions {
    decoding: Decoding,
    rows: Vec<Answered>,
    /// The tokens of each prompt, `[rows][tokens]`.
    ids: Vec<Vec<u32>>,
    /// The pictures before them, where the task has learned of some.
    pictures: Option<Beside>,
}

/// What a model says to one of them.
#[derive(Clone, Debug, Serialize)]
pub struct Said {
    /// The row's line, or in Parquet its number.
    pub line: u64,
    /// What was asked: a text, or the turns of a conversation.
    pub prompt: Asked,
    /// What the model says, without special tokens.
    pub text: String,
    /// What it should have said.
    pub answer: String,
    /// Why the text ended.
    pub finish_reason: FinishReason,
    /// How both compare.
    #[serde(flatten)]
    pub compared: Compared,
}

impl Said {
    /// Writes it as an object in a line.
    ///
    /// # Errors
    /// Where `out` takes no more.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.write_all(b"\n")
    }
}

impl TrainedModel {
    /// Reads the prompts of a file, and the answers that stand there, as the task has learned rows. Its name may be left out where there is
    /// one.
    ///
    /// # Errors
    /// Where there is no such task or it says no next token, and where the file cannot be read, a row has no answer, or its prompt is longer
    /// than the model takes.
    pub fn questions(&self, task: Option<&str>, path: &Path) -> Result<Questions> {
        let task = &self.tasks[self.place(task)?];
        let refused = || {
            Error::usage(format!("the task {} has not learned to say the next token, so it says no text", task.name))
                .with_help("leave --generate out: it is for a language model that continues texts")
        };
        let tokenizer = task.tokenizer.as_ref().filter(|_| task.spec.targets == TargetKind::NextToken);
        let tokenizer = tokenizer.ok_or_else(refused)?;
        let pictures = Beside::of(&self.model, task, &self.source(task, &Files::from(path)))?;
        let mut rows = Answered::read(path, &task.form, pictures.is_some())?;
        let mut asker = Asker::of_rows(&task.form.language, tokenizer)?;
        if let Some(pictures) = &pictures {
            // Bad pictures are left out, where the run file says so.
            rows.retain(|row| pictures.has(row.line));
            asker = asker.behind_pictures()?;
        }
        let vocabulary = Vocabulary::of(&self.model, "the model")?;
        let base = self.base.as_ref().map(|base| base::text_folder(base, &self.model)).transpose()?.flatten();
        let before = pictures.as_ref().map_or(Ok(0), |pictures| pictures.rows(&self.model))?;
        let decoding = Decoding::new(&self.model, vocabulary, asker, base.as_deref(), self.precision, before)?;
        let ids = |row: &Answered| decoding.ids(&row.asked).map_err(|error| error.in_line(path, row.line));
        let ids = rows.iter().map(ids).collect::<Result<_>>()?;
        Ok(Questions { decoding, rows, ids, pictures })
    }

    /// Says how each prompt goes on, so many at once: by the most probable token each time, `max_tokens` of them at most.
    ///
    /// # Errors
    /// Where the model fails.
    pub fn answer(&self, questions: Questions, max_tokens: usize, batch: usize, shown: bool) -> Result<Vec<Said>> {
        let Questions { decoding, rows, ids, pictures } = questions;
        let (settings, progress) =
            (Settings::greedy(max_tokens), EvaluationProgress::new(shown, "answering", rows.len()));
        let mut texts = Vec::with_capacity(rows.len());
        let batch = batch.max(1);
        for (ids, of) in ids.chunks(batch).zip(rows.chunks(batch)) {
            let seen =
                pictures.as_ref().map(|pictures| pictures.of_lines(of.iter().map(|row| row.line))).transpose()?;
            texts.extend(decoding.generate(&self.model, (ids, seen.as_ref()), 0, &settings, &mut |_, _| Ok(()))?);
            progress.advance(ids.len());
        }
        let said = |(row, Continuation { text, finish_reason, .. }): (Answered, Continuation)| {
            let Answered { line, asked: prompt, answer } = row;
            let compared = Compared::of(&text, &answer);
            Said { line, prompt, text, answer, finish_reason, compared }
        };
        Ok(rows.into_iter().zip(texts).map(said).collect())
    }
}
