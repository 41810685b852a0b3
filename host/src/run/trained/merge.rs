//! A run that has ended as a plain Hugging Face folder: what its strategies added is folded into the weights.

use std::path::Path;

use fthost_autograd::{Device, Layout, Tensor};
use fthost_models::{Input, Modality, Stream, TextInput};

use super::model::{TrainedModel, TrainedTask};
use crate::data;
use crate::run::results::export::{Exported, write_model};
use crate::run::results::inputs;
use crate::run::results::plain::Trained;
use crate::{Error, Result};

/// Examples that folded layers are tried on.
const EXAMPLES: usize = 8;

impl TrainedModel {
    /// Folds what the strategies added into the weights, and writes a plain Hugging Face folder, which must not exist.
    ///
    /// # Errors
    /// Where a method cannot be folded into weights, a folded layer gives something else than the run's, or the folder exists.
    pub fn merge(mut self, folder: &Path) -> Result<Exported> {
        must_not_exist(folder)?;
        self.fold()?;
        self.write_merged(folder).map_err(|error| {
            // Half a folder looks like a whole one, and would be in the way. Why it is half says more than that it stays.
            let _ = std::fs::remove_dir_all(folder);
            let folder = folder.display();
            error.with_help(format!("nothing is left of {folder}; name a folder on a disk with more space"))
        })
    }

    /// Folds what the strategies added into the weights.
    pub(super) fn fold(&mut self) -> Result<()> {
        let inputs = self.tried_on()?;
        self.model.model.merge_hooks(&inputs).map_err(|error| {
            Error::usage(format!("this run cannot be merged: {}", crate::error::plain(&error)))
                .with_help("its adapter works as it is: fthost eval and fthost predict read the run folder")
        })
    }

    fn write_merged(&self, folder: &Path) -> Result<Exported> {
        let heads = self.tasks.iter().map(|TrainedTask { name, labels, head, spec, decision, counts, .. }| Trained {
            name,
            labels,
            head,
            spec,
            decision: decision.clone(),
            counts: counts.clone(),
        });
        let saved = write_model(&self.model, &heads.collect::<Vec<_>>(), &self.origin, folder)?;
        if let Some(base) = &self.base {
            inputs::copy(base, folder, self.model.model.info())?;
        }
        Ok(saved)
    }

    /// For each stream the first examples that the run trained on, where they still can be read; else some that are made up, which tell
    /// layers apart as well, since a folded layer is a matter of numbers and not of what they mean. A run folder holds no text of its
    /// data, so that an adapter can be given away.
    fn tried_on(&self) -> Result<Vec<Input>> {
        let streams = &self.model.model.info().streams;
        let mut found: Vec<Option<Input>> = vec![None; streams.len()];
        for task in &self.tasks {
            if let Err(error) = self.trained_on(task, &mut found) {
                tracing::info!("the merged layers are not tried on the training examples: {error}");
            }
        }
        let or_made_up =
            |(input, of): (Option<Input>, &Stream)| input.map_or_else(|| made_up(of.modality, &self.model.device), Ok);
        found.into_iter().zip(streams).map(or_made_up).collect()
    }

    /// The first training examples of a task, for the streams that it reads and that have none yet.
    fn trained_on(&self, task: &TrainedTask, found: &mut [Option<Input>]) -> Result<()> {
        let Some(files) = &task.train else { return Ok(()) };
        let source = self.source(task, files);
        let Some(block) = data::unlabelled(&source, task.tokenizer.as_ref())?.next().transpose()? else {
            return Ok(());
        };
        let rows: Vec<u32> = (0..block.len().min(EXAMPLES) as u32).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let shown = block.show(&rows)?;
        for (found, Stream { modality, .. }) in found.iter_mut().zip(&self.model.model.info().streams) {
            if found.is_none() && task.modalities.contains(modality) {
                *found = Some(block.input_for(&shown, *modality)?);
            }
        }
        Ok(())
    }
}

/// Refuses a folder that is there.
pub(super) fn must_not_exist(folder: &Path) -> Result<()> {
    match folder.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(_) => Err(Error::usage(format!("{} exists already", folder.display()))
            .with_help("name a folder that does not exist: nothing is overwritten")),
    }
}

/// Examples of a model's own vocabulary or pixels that spread over their range.
fn made_up(modality: Modality, device: &Device) -> Result<Input> {
    Ok(match modality {
        Modality::Text { max_tokens, vocabulary } => {
            let layout = Layout::from_lengths((1..=EXAMPLES).map(|i| (3 * i).min(max_tokens)));
            let ids = (0..layout.tokens()).map(|i| (i * 7919 % vocabulary) as u32).collect();
            Input::Text(TextInput { ids, types: vec![0; layout.tokens()], layout, before: None })
        }
        Modality::Images { channels, size, .. } => {
            let shape = (EXAMPLES, size, size, channels);
            let pixels: Vec<f32> = (0..EXAMPLES * channels * size * size).map(|i| (0.7 * i as f32).sin()).collect();
            Input::Images(Tensor::from_vec(pixels, shape, device)?)
        }
    })
}
