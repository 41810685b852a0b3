//! The model of a run that has ended, or of a folder that PEFT or Transformers saved: it evaluates, predicts, and is merged into a plain folder.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use fthost_autograd::Precision;
use fthost_images::Transform;
use fthost_models::Modality;
use fthost_plugin_api::{HeadSpec, PredictionKind, TargetKind};

use super::masks::{self, MaskFolder};
use super::predict::{Place, Prediction, Style, Writer};
use crate::adapted::AdaptedModel;
use crate::data::LanguageModel;
use crate::data::{self, Dataset, Files, Form, Part, Tokenizer};
use crate::plugin::{HeadInstance, StrategyInstance};
use crate::report::progress::EvaluationProgress;
use crate::run::file::{ModelTable, RunFile};
use crate::run::pass::{Decision, Pass};
use crate::run::results::evaluate::{Evaluation, evaluate, outputs, predict, predict_masks, predict_words};
use crate::run::results::own_form::Origin;
use crate::run::results::result::{Split, TaskResult};
use crate::{Error, Result};

/// The model of a run that has ended, as it was saved.
pub struct TrainedModel {
    pub(super) model: AdaptedModel,
    /// Kept because their hooks stand in the model.
    pub(super) _strategies: Vec<StrategyInstance>,
    pub(super) tasks: Vec<TrainedTask>,
    pub(super) precision: Precision,
    /// Where the model was loaded from; none for the embedded one.
    pub(super) base: Option<ModelTable>,
    /// What it was opened by.
    pub(super) origin: Origin,
    /// Opens it as it was before step 1, where it is a run's.
    pub(super) before_training: Option<Opens>,
}

/// Opens a model.
pub(super) type Opens = Box<dyn Fn() -> Result<TrainedModel> + Send + Sync>;

/// A task of a run that has ended.
pub(super) struct TrainedTask {
    pub(super) name: String,
    pub(super) form: Form,
    pub(super) head: Arc<HeadInstance>,
    pub(super) spec: HeadSpec,
    pub(super) labels: Vec<String>,
    /// Training examples of each class, and all, where they are known.
    pub(super) counts: (Vec<u64>, u64),
    /// Whether data may name classes by their numbers instead.
    pub(super) numbered: bool,
    pub(super) tokenizer: Option<Tokenizer>,
    /// What becomes of pictures.
    pub(super) transform: Option<Arc<Transform>>,
    /// What the streams take that its examples are for.
    pub(super) modalities: Vec<Modality>,
    /// What it trained on, where that is known.
    pub(super) train: Option<Files>,
    /// How classes follow from probabilities.
    pub(super) decision: Decision,
}

impl TrainedModel {
    pub(super) fn new(
        file: &RunFile,
        model: AdaptedModel,
        strategies: Vec<StrategyInstance>,
        tasks: Vec<TrainedTask>,
        plugins: &[String],
    ) -> Self {
        let base = (!file.model.is_demo()).then(|| file.model.clone());
        Self {
            model,
            _strategies: strategies,
            tasks,
            precision: file.train.precision.into(),
            base,
            origin: Origin { run_file: file.to_toml(), plugins: plugins.to_vec() },
            before_training: None,
        }
    }

    /// Says whether the first row of a TSV or CSV file is a header, in place of the run file.
    pub fn set_header(&mut self, header: bool) {
        self.tasks.iter_mut().for_each(|task| task.form.header = Some(header));
    }

    /// Computes what the model gave for a task's examples before it trained, where its head asks for that.
    fn refer(&self, task: &TrainedTask, data: &mut Dataset) -> Result<()> {
        if !(task.spec.reference && task.spec.targets == TargetKind::Preference) {
            return Ok(());
        }
        let Some(open) = &self.before_training else {
            let message = format!(
                "rewards of the task {} are over the model before training, and nothing says which that is",
                task.name
            );
            return Err(Error::usage(message).with_help("open the folder of its run"));
        };
        let before = open()?;
        let rows: Vec<u32> = (0..data.len() as u32).collect();
        let outputs = outputs(&before.pass(before.task(Some(&task.name))?, data), &rows)?;
        data.set_reference(&outputs)
    }

    /// Evaluates on a file of labelled examples of a task; its name may be left out where there is one. Gives the task's name and
    /// its result.
    ///
    /// # Errors
    /// Where there is no such task, or the file cannot be read, or has a label that training never saw.
    pub fn evaluate(&self, task: Option<&str>, path: &Path, shown: bool) -> Result<(String, TaskResult)> {
        let task = self.task(task)?;
        let mut data = data::load(&self.source(task, &path.into()), task.tokenizer.as_ref())?;
        data.notes().iter().for_each(|note| tracing::warn!("{note}"));
        if let Some(masking) = task.spec.masking {
            data.set_masked(masking)?;
        } else if task.numbered {
            data.set_named_or_numbered_targets(task.spec.targets)?;
        } else {
            data.set_targets(task.spec.targets)?;
        }
        self.refer(task, &mut data)?;
        let progress = EvaluationProgress::new(shown, "evaluating", data.len());
        let evaluation: Evaluation = evaluate(&self.pass(task, &data), &|examples| progress.advance(examples))?;
        let found = Some((Split::Test, &evaluation));
        Ok((task.name.clone(), TaskResult::new(data.labels(), Vec::new(), BTreeMap::new(), None, found)))
    }

    /// Writes what the model predicts for each example of a file, labelled or not, while it reads it; nothing before the file was read to
    /// its end once. Gives how many. Of masks it writes the share of each class, and where `masks` is given they themselves there.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate), where `masks` is given and the task predicts none, and where `out` takes no more: what stands before
    /// is written.
    pub fn predict(
        &self,
        task: Option<&str>,
        path: &Path,
        style: Style,
        masks: Option<&MaskFolder>,
        out: &mut dyn Write,
    ) -> Result<u64> {
        let task = self.task(task)?;
        if task.spec.predictions == PredictionKind::Embeddings {
            return Err(Error::usage(format!("the task {} gives embeddings, and no answer for a row", task.name))
                .with_help("fthost embed writes them, fthost search finds the nearest, fthost eval measures how often they are found"));
        }
        if matches!(task.spec.predictions, PredictionKind::Tokens | PredictionKind::Preferences) {
            return Err(Error::usage(format!(
                "the task {} is a language model's, which predicts no classes",
                task.name
            ))
            .with_help("fthost eval measures its loss on a file"));
        }
        if masks.is_some() && task.spec.predictions != PredictionKind::Masks {
            return Err(
                Error::usage(format!("the task {} predicts no masks", task.name)).with_help("leave --masks out")
            );
        }
        let files = Files::from(path);
        let source = data::Source { texts: true, ..self.source(task, &files) };
        data::check(&source)?;
        let (labels, ids) = (&task.labels, task.form.columns.id.is_some() || task.transform.is_some());
        let writer = Writer::new(out, style, task.spec.predictions, labels, ids, task.decision.clone());
        let mut writer = writer.with_separator(task.form.label_separator.as_deref());
        let mut number = 0;
        for block in data::unlabelled(&source, task.tokenizer.as_ref())? {
            let data = block?;
            let pass = self.pass(task, &data);
            if task.spec.predictions == PredictionKind::Masks {
                let rows: Vec<u32> = (0..data.len() as u32).collect();
                for rows in rows.chunks(masks::AT_ONCE) {
                    for (&row, mask) in rows.iter().zip(predict_masks(&pass, rows)?) {
                        masks.map_or(Ok(()), |folder| folder.write(&data, row, &mask))?;
                        number += 1;
                        let (line, id) = (data.place(row)?.1.unwrap_or(number), data.id(row)?);
                        let shares = Prediction::Example(masks::shares(&mask, labels.len()));
                        writer.write(&Place { line, id: id.as_deref(), texts: &[] }, &shares)?;
                    }
                }
                continue;
            }
            data.check_kind(task.spec.targets)?;
            let predictions = match task.spec.targets {
                TargetKind::TokenClass => predict_words(&pass)?.into_iter().map(Prediction::Words).collect(),
                _ => predict(&pass)?.into_iter().map(Prediction::Example).collect::<Vec<_>>(),
            };
            for (i, prediction) in (0..).zip(predictions) {
                number += 1;
                let (line, id, texts) = (data.place(i)?.1.unwrap_or(number), data.id(i)?, data.texts(i)?);
                writer.write(&Place { line, id: id.as_deref(), texts: &texts }, &prediction)?;
            }
        }
        writer.finish()?;
        Ok(number)
    }

    fn task(&self, name: Option<&str>) -> Result<&TrainedTask> {
        self.place(name).map(|place| &self.tasks[place])
    }

    /// The place of a task; its name may be left out where there is one.
    pub(super) fn place(&self, name: Option<&str>) -> Result<usize> {
        let found = match (name, self.tasks.len()) {
            (None, 1) => Some(0),
            (Some(name), _) => self.tasks.iter().position(|task| task.name == name),
            (None, _) => None,
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = self.tasks.iter().map(|task| task.name.as_str()).collect();
            let message = match name {
                Some(name) => format!("the run has no task {name:?}"),
                None => format!("the run has {} tasks", names.len()),
            };
            Error::usage(message).with_help(format!("say which by --task: {}", names.join(", ")))
        })
    }

    /// Files for a task.
    pub(super) fn source<'a>(&'a self, task: &'a TrainedTask, files: &'a Files) -> data::Source<'a> {
        data::Source {
            files,
            part: Part::Test,
            form: &task.form,
            only: None,
            texts: false,
            labels: Some(&task.labels),
            modalities: &task.modalities,
            language: match task.spec.targets {
                TargetKind::NextToken => Some(LanguageModel::Causal),
                TargetKind::MaskedToken => Some(LanguageModel::Masked),
                TargetKind::Preference => Some(LanguageModel::Preference),
                _ => None,
            },
            transform: task.transform.as_ref(),
            device: &self.model.device,
        }
    }

    pub(super) fn pass<'a>(&'a self, task: &'a TrainedTask, data: &'a Dataset) -> Pass<'a> {
        let TrainedTask { head, spec, decision, .. } = task;
        Pass { model: &self.model, head, spec, data, precision: self.precision, decision: decision.clone() }
    }
}
