//! Texts that a decoder continues: of a run, or of a model as it came.

use std::path::{Path, PathBuf};

use fthost_autograd::Precision;

use super::head;
use super::model::TrainedModel;
use crate::adapted::AdaptedModel;
use crate::data::{Asked, Asker, LanguageForm, LanguageModel, Tokenizer, Writing};
use crate::hub;
use crate::plugin::StrategyInstance;
use crate::run::file::Override;
use crate::run::generation::{Continuation, Conversation, Decoding, Settings, Vocabulary};
use crate::run::machine::DeviceChoice;
use crate::run::setup::{model as base, start};
use crate::{Error, Result};

/// A decoder that continues texts.
pub struct Generator {
    model: AdaptedModel,
    /// Kept because their hooks stand in the model.
    _strategies: Vec<StrategyInstance>,
    decoding: Decoding,
}

/// What is opened of a run or a model.
struct Opened {
    model: AdaptedModel,
    strategies: Vec<StrategyInstance>,
    tokenizer: Option<Tokenizer>,
    form: LanguageForm,
    precision: Precision,
    /// Where the model's own files are; none of the embedded one.
    base: Option<PathBuf>,
}

impl Generator {
    /// Opens a run folder, a folder that PEFT saved, or a decoder: a folder, or one file of llama.cpp's.
    ///
    /// # Errors
    /// As [`open`](super::open), where the model says no next token, and where there is no template for what is asked.
    pub fn open(
        folder: &Path,
        plugins: &[String],
        overrides: &[Override],
        device: DeviceChoice,
        writing: &Writing,
    ) -> Result<Self> {
        let folder = &hub::local(folder)?;
        if !folder.exists() {
            return Err(Error::usage(format!("there is no {}", folder.display())).with_help(
                "name the folder of a run or of a decoder, a .gguf file, or a model of the hub: hf:org/name",
            ));
        }
        // A model's own layer says the next token: no head is needed.
        let opened = match super::is_whole(folder) {
            true => whole(folder, overrides, device)?,
            false => super::open(folder, plugins, overrides, device)?.into_opened()?,
        };
        let Opened { model, strategies, tokenizer, form, precision, base } = opened;
        let no_tokenizer = || Error::usage(format!("{} reads no text", folder.display()));
        let tokenizer = tokenizer.ok_or_else(no_tokenizer)?;
        let vocabulary = Vocabulary::of(&model, &folder.display().to_string())?;
        let asker = Asker::new(&form, &tokenizer, writing)?;
        let multiplied = model.parameters.iter().map(|p| &p.parameter).filter(|parameter| parameter.packs());
        start::pack(multiplied.chain([&vocabulary.weight]), precision)?;
        let decoding = Decoding::new(&model, vocabulary, asker, base.as_deref(), precision)?;
        Ok(Self { model, _strategies: strategies, decoding })
    }

    /// The tokens that a text goes on from.
    ///
    /// # Errors
    /// As [`Decoding::ids`].
    pub fn ids(&self, asked: &Asked) -> Result<Vec<u32>> {
        self.decoding.ids(asked)
    }

    /// Continues texts, all of them at once, as [`Decoding::generate`].
    ///
    /// # Errors
    /// Where the model fails, or `tell` does.
    pub fn generate(
        &self,
        asked: &[Vec<u32>],
        first: u64,
        settings: &Settings,
        tell: &mut dyn FnMut(usize, &str) -> Result<()>,
    ) -> Result<Vec<Continuation>> {
        self.decoding.generate(&self.model, asked, first, settings, tell)
    }

    /// Answers in a conversation, as [`Decoding::answer`].
    ///
    /// # Errors
    /// Where the model fails, or `tell` does.
    pub fn answer(
        &self,
        conversation: &mut Conversation,
        asked: Vec<u32>,
        number: u64,
        settings: &Settings,
        tell: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Continuation> {
        self.decoding.answer(&self.model, conversation, asked, number, settings, tell)
    }
}

/// Opens a model without any head.
fn whole(folder: &Path, overrides: &[Override], device: DeviceChoice) -> Result<Opened> {
    let mut file = head::run_file(folder, overrides)?;
    file.language = Some(LanguageModel::Causal);
    let model = base::load_model(&file, device.open()?)?;
    let lacking = model.model.info().vocabulary.as_ref().filter(|layer| layer.causal).map(|layer| layer.new.as_slice());
    if let Some([name, ..]) = lacking {
        return Err(Error::usage(format!("{} lacks {name}, and so says no next token", folder.display())).with_help(
            "name the folder of a whole language model: this one was saved without its layer over the vocabulary",
        ));
    }
    let task = &file.tasks[0];
    let (tokenizer, form) = (base::tokenizer(&file, task, &model)?, task.form.language.clone());
    let (precision, base) = (file.train.precision.into(), Some(file.model.path.clone()));
    Ok(Opened { model, strategies: Vec::new(), tokenizer, form, precision, base })
}

impl TrainedModel {
    /// Without its heads: the next token is said by the model's own layer, as it has trained.
    fn into_opened(self) -> Result<Opened> {
        let Self { model, _strategies: strategies, mut tasks, precision, base, .. } = self;
        if tasks.is_empty() {
            return Err(Error::usage("the run has no task"));
        }
        let task = tasks.swap_remove(0);
        let base = base.map(|base| base.path);
        Ok(Opened { model, strategies, tokenizer: task.tokenizer, form: task.form.language, precision, base })
    }
}
