//! What a language model says while it trains: a few validation prompts that it continues at each evaluation, for a person to read.

use fthost_models::Input;

use super::model::{rows_before, text_folder};
use crate::Result;
use crate::adapted::AdaptedModel;
use crate::data::{Asker, Dataset};
use crate::run::file::RunFile;
use crate::run::generation::{Continuation, Decoding, Settings, Vocabulary};

/// How many rows are continued where the run file does not say it.
pub(super) const ROWS: usize = 3;
/// The most tokens that each of them gets.
const TOKENS: usize = 48;

/// Prompts of a task's validation rows.
pub struct Samples {
    decoding: Decoding,
    prompts: Vec<Prompt>,
    /// What stands before each, where the model sees.
    pictures: Option<Input>,
}

/// What a model goes on from.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// The number of the row in its file, from 1.
    pub row: u64,
    /// Its text, special tokens by their names.
    pub text: String,
    ids: Vec<u32>,
}

impl Samples {
    /// The first rows of which an answer is left, or something of a text: as many as the task of the run file says.
    pub(super) fn of(file: &RunFile, index: usize, model: &AdaptedModel, asker: Asker, data: &Dataset) -> Result<Self> {
        let (wanted, before) = (file.tasks[index].samples.unwrap_or(ROWS), asker.tokens_before());
        let (mut prompts, mut rows) = (Vec::new(), Vec::new());
        for row in 0..data.len() as u32 {
            if prompts.len() == wanted {
                break;
            }
            let Some(ids) = data.prompt(row, before)? else { continue };
            let text = asker.tokenizer().text_with_special(&ids)?;
            rows.push(row);
            prompts.push(Prompt { row: u64::from(data.number(row)) + 1, text, ids });
        }
        let vocabulary = Vocabulary::of(model, &file.model.name())?;
        let base = text_folder(&file.model, model)?;
        let before = rows_before(file, &file.tasks[index], model)?;
        let decoding = Decoding::new(model, vocabulary, asker, base.as_deref(), file.train.precision.into(), before)?;
        let behind = data.stands_behind_pictures() && !rows.is_empty();
        let pictures = behind.then(|| data.pictures_of(&data.show(&rows)?)).transpose()?;
        Ok(Self { decoding, prompts, pictures })
    }

    /// How each goes on by the model as it is now: by the most probable token each time, so that nothing is drawn, and as in evaluation.
    ///
    /// # Errors
    /// Where the model fails.
    pub fn say(&self, model: &AdaptedModel) -> Result<Vec<(&Prompt, Continuation)>> {
        if self.prompts.is_empty() {
            return Ok(Vec::new());
        }
        let asked: Vec<Vec<u32>> = self.prompts.iter().map(|prompt| prompt.ids.clone()).collect();
        let said = self.decoding.generate(
            model,
            (&asked, self.pictures.as_ref()),
            0,
            &Settings::greedy(TOKENS),
            &mut |_, _| Ok(()),
        )?;
        Ok(self.prompts.iter().zip(said).collect())
    }
}
