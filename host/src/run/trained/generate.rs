//! Texts that a decoder continues: of a run, or of a model as it came.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fthost_autograd::Precision;
use fthost_images::Transform;
use fthost_models::Modality;

use super::beside::Beside;
use super::head;
use super::model::TrainedModel;
use crate::adapted::AdaptedModel;
use crate::data::{Asked, Asker, Files, Form, LanguageForm, LanguageModel, Part, Source, Tokenizer, Writing};
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
    /// What stands before what is asked.
    pictures: Option<Beside>,
}

/// Which pictures stand before what is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// None.
    #[default]
    Nothing,
    /// One of a file, before whatever is asked.
    Picture(PathBuf),
    /// Those that the rows of a file name, where they do and the model sees.
    OfRows(PathBuf),
}

/// How pictures are read for a model that sees.
struct Looking {
    transform: Arc<Transform>,
    form: Form,
    modality: Modality,
}

/// What is opened of a run or a model.
struct Opened {
    model: AdaptedModel,
    strategies: Vec<StrategyInstance>,
    tokenizer: Option<Tokenizer>,
    form: LanguageForm,
    precision: Precision,
    /// Where the files of the model's texts are; none of the embedded one.
    base: Option<PathBuf>,
    looking: Option<Looking>,
}

impl Generator {
    /// Opens a run folder, a folder that PEFT saved, or a decoder: a folder, or one file of llama.cpp's.
    ///
    /// # Errors
    /// As [`open`](super::open), where the model says no next token or sees no pictures and there are some, and where there is no template for
    /// what is asked.
    pub fn open(
        folder: &Path,
        plugins: &[String],
        overrides: &[Override],
        device: DeviceChoice,
        writing: &Writing,
        seen: &Seen,
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
        let Opened { model, strategies, tokenizer, form, precision, base, looking } = opened;
        let no_tokenizer = || Error::usage(format!("{} reads no text", folder.display()));
        let tokenizer = tokenizer.ok_or_else(no_tokenizer)?;
        let vocabulary = Vocabulary::of(&model, &folder.display().to_string())?;
        let pictures = look(seen, looking.as_ref(), &model, folder)?;
        let mut asker = Asker::new(&form, &tokenizer, writing)?;
        if pictures.is_some() {
            asker = asker.behind_pictures()?;
        }
        let rows = pictures.as_ref().map_or(Ok(0), |pictures| pictures.rows(&model))?;
        let multiplied = model.parameters.iter().map(|p| &p.parameter).filter(|parameter| parameter.packs());
        start::pack(multiplied.chain([&vocabulary.weight]), precision)?;
        let decoding = Decoding::new(&model, vocabulary, asker, base.as_deref(), precision, rows)?;
        Ok(Self { model, _strategies: strategies, decoding, pictures })
    }

    /// The tokens that a text goes on from.
    ///
    /// # Errors
    /// As [`Decoding::ids`].
    pub fn ids(&self, asked: &Asked) -> Result<Vec<u32>> {
        self.decoding.ids(asked)
    }

    /// Whether each row of a file stands behind its own picture: what it has beside that is no question then, where it is a text alone.
    pub fn sees_rows(&self) -> bool {
        self.pictures.as_ref().is_some_and(Beside::is_by_line)
    }

    /// Whether a row of the file that pictures are of has one; bad ones may be left out.
    pub fn sees(&self, line: u64) -> bool {
        self.pictures.as_ref().is_none_or(|pictures| pictures.has(line))
    }

    /// Continues texts, all of them at once, as [`Decoding::generate`]; each stands in a line of its file.
    ///
    /// # Errors
    /// Where the model fails, a picture cannot be read, or `tell` fails.
    pub fn generate(
        &self,
        (asked, lines): (&[Vec<u32>], &[u64]),
        first: u64,
        settings: &Settings,
        tell: &mut dyn FnMut(usize, &str) -> Result<()>,
    ) -> Result<Vec<Continuation>> {
        let pictures = self.pictures.as_ref().map(|pictures| pictures.of_lines(lines.iter().copied())).transpose()?;
        self.decoding.generate(&self.model, (asked, pictures.as_ref()), first, settings, tell)
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

/// The pictures that stand before what is asked.
fn look(seen: &Seen, looking: Option<&Looking>, model: &AdaptedModel, folder: &Path) -> Result<Option<Beside>> {
    let rows = match seen {
        Seen::Nothing => return Ok(None),
        Seen::Picture(_) => None,
        Seen::OfRows(path) => Some(Files::from(path.as_path())),
    };
    let Some(Looking { transform, form, modality }) = looking else {
        return match rows {
            Some(_) => Ok(None),
            None => {
                Err(Error::usage(format!("{} ({}) sees no pictures", folder.display(), model.model.info().model_type))
                    .with_help("leave --image out, or name a run that has learned texts behind pictures"))
            }
        };
    };
    let none = Files::from(Path::new(""));
    let source = Source {
        files: rows.as_ref().unwrap_or(&none),
        part: Part::Test,
        form,
        only: None,
        labels: None,
        texts: false,
        modalities: &[*modality],
        language: None,
        transform: Some(transform),
        device: &model.device,
    };
    match seen {
        Seen::Picture(path) => Beside::of_file(&source, path).map(Some),
        _ => Beside::of_rows(&source),
    }
}

/// What of a model looks at pictures that have been learned of, by a task's transform and form.
fn looking(model: &AdaptedModel, transform: Option<Arc<Transform>>, form: &Form) -> Option<Looking> {
    let info = model.model.info();
    let sight = info.sight.as_ref()?;
    let modality = info.streams.get(sight.pictures)?.modality;
    Some(Looking { transform: transform?, form: form.clone(), modality })
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
    let (precision, base) = (file.train.precision.into(), base::text_folder(&file.model, &model)?);
    // What was never trained says nothing of a picture.
    let has_seen = model.model.info().sight.as_ref().is_some_and(|sight| !sight.new);
    let transform = if has_seen { base::transform(&file, task, &model)? } else { None };
    let looking = looking(&model, transform, &task.form);
    Ok(Opened { model, strategies: Vec::new(), tokenizer, form, precision, base, looking })
}

impl TrainedModel {
    /// Without its heads: the next token is said by the model's own layer, as it has trained.
    fn into_opened(self) -> Result<Opened> {
        let Self { model, _strategies: strategies, mut tasks, precision, base, .. } = self;
        if tasks.is_empty() {
            return Err(Error::usage("the run has no task"));
        }
        let task = tasks.swap_remove(0);
        let base = base.map(|base| base::text_folder(&base, &model)).transpose()?.flatten();
        let looking = looking(&model, task.transform, &task.form);
        let (tokenizer, form) = (task.tokenizer, task.form.language);
        Ok(Opened { model, strategies, tokenizer, form, precision, base, looking })
    }
}
