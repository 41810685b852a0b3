//! One side of what a model is for: the inputs of a stream as vectors, pooled features or what a head compares.

use std::path::Path;
use std::sync::Arc;

use fthost_autograd::{DType, Device, Layout, Precision, Tape, TapeOptions, Tensor, Value};
use fthost_images::Transform;
use fthost_models::{Features, Modality};
use fthost_plugin_api::{FeatureKind, HeadSpec, PredictionKind};

use super::model::{TrainedModel, TrainedTask};
use crate::adapted::AdaptedModel;
use crate::data::{self, Columns, Dataset, Files, Form, Learns, Part, Tokenizer};
use crate::plugin::HeadInstance;
use crate::run::pass::head_outputs;
use crate::run::results::evaluate::features;
use crate::{Error, Result};

/// Examples of which a head makes vectors at once.
const AT_ONCE: usize = 1024;
/// Examples by which a head is tried.
const TRIED: usize = 3;
/// How far rounding may take a vector's length from 1: half floats have three digits.
const ROUNDING: f64 = 1e-2;

/// Makes vectors of the inputs of one stream.
pub(super) struct Side<'a> {
    pub(super) model: &'a AdaptedModel,
    pub(super) stream: usize,
    pub(super) tokenizer: Option<&'a Tokenizer>,
    pub(super) transform: Option<&'a Arc<Transform>>,
    /// How files are read.
    pub(super) form: &'a Form,
    pub(super) precision: Precision,
    /// What a head makes of the pooled features; without it they are the vectors.
    pub(super) compared: Option<&'a Compared>,
}

impl Side<'_> {
    /// What the stream takes.
    pub(super) fn modality(&self) -> Modality {
        self.model.model.info().streams[self.stream].modality
    }

    /// Whether that is pictures.
    pub(super) fn is_of_pictures(&self) -> bool {
        matches!(self.modality(), Modality::Images { .. })
    }

    /// The examples of a file without their labels, block by block. `texts`: whether these are kept.
    pub(super) fn each_of_file(
        &self,
        path: &Path,
        texts: bool,
        mut each: impl FnMut(&Dataset) -> Result<()>,
    ) -> Result<()> {
        let (files, form, modality) = (Files::from(path), self.form_for(path), [self.modality()]);
        let source = self.source(&files, &form, &modality, texts);
        data::unlabelled(&source, self.tokenizer)?.try_for_each(|block| each(&block?))
    }

    /// The examples of a file with their labels.
    pub(super) fn labelled(&self, path: &Path) -> Result<Dataset> {
        let (files, form, modality) = (Files::from(path), self.form_for(path), [self.modality()]);
        data::load(&self.source(&files, &form, &modality, false), self.tokenizer)
    }

    /// The vector of each text; `what` says what they are, for messages.
    pub(super) fn of_texts(&self, texts: &[String], what: &str) -> Result<Vec<Vec<f32>>> {
        let Some(tokenizer) = self.tokenizer else { return Err(Error::run("texts for a model without a tokenizer")) };
        let (files, form, modality) = (Files::from(Path::new(what)), Form::default(), [self.modality()]);
        let data = data::of_texts(&self.source(&files, &form, &modality, false), texts, tokenizer)?;
        self.vectors(&data, &|_| {})
    }

    /// The vector of each example, which has what the stream takes. `progress` hears the number of examples done.
    pub(super) fn vectors(&self, data: &Dataset, progress: &(dyn Fn(usize) + Sync)) -> Result<Vec<Vec<f32>>> {
        let features = features(self.model, self.stream, data, self.precision, progress)?;
        match self.compared {
            Some(compared) => compared.vectors(&features),
            None => Ok(features),
        }
    }

    /// How a file is read: one text or picture of a row by itself. What is no table, as a folder of pictures, has no columns. Where the model
    /// has one stream and no head compares, as the task says: a pair of texts is one input then.
    fn form_for(&self, path: &Path) -> Form {
        let is_whole = self.compared.is_none() && self.model.model.info().streams.len() == 1;
        if is_whole && self.form.learns == Learns::Labels {
            return self.form.clone();
        }
        let Columns { text, image, label, id, .. } = self.form.columns.clone();
        let columns = match self.modality() {
            _ if !data::has_rows(path) => Columns::default(),
            Modality::Text { .. } => Columns { text, label, id, ..Columns::default() },
            Modality::Images { .. } => Columns { image, label, id, ..Columns::default() },
        };
        Form { columns, learns: Learns::Alone, ..self.form.clone() }
    }

    fn source<'a>(
        &'a self,
        files: &'a Files,
        form: &'a Form,
        modalities: &'a [Modality; 1],
        texts: bool,
    ) -> data::Source<'a> {
        data::Source {
            files,
            part: Part::Test,
            form,
            only: None,
            texts,
            labels: None,
            modalities,
            language: None,
            transform: self.transform,
            device: &self.model.device,
        }
    }
}

/// What a head compares of one stream's inputs.
pub(super) struct Compared {
    head: Arc<HeadInstance>,
    /// The width of each stream that the head reads, in its order.
    widths: Vec<usize>,
    /// Which of them it is.
    place: usize,
    /// Sequences of an example, where there is one stream.
    sequences: usize,
    /// Of the vectors.
    width: usize,
    precision: Precision,
    device: Device,
}

impl Compared {
    /// What a task's head compares of a stream's inputs.
    ///
    /// # Errors
    /// Where the head does not read the stream, reads other features than pooled ones, or does not keep to what embeddings are.
    pub(super) fn new(task: &TrainedTask, model: &AdaptedModel, stream: usize, precision: Precision) -> Result<Self> {
        let info = model.model.info();
        let (name, own) = (&task.name, &info.streams[stream].name);
        let places: Vec<usize> = task.spec.streams.iter().filter_map(|of| info.stream(&of.stream)).collect();
        let Some(place) = places.iter().position(|&place| place == stream) else {
            return Err(Error::usage(format!("the head of the task {name} does not read the stream {own:?}"))
                .with_help("name a stream that it reads, or another task by --task"));
        };
        if let Some(of) = task.spec.streams.iter().find(|of| of.features != FeatureKind::Pooled) {
            let kind = of.features.name();
            let message =
                format!("the head of the task {name} reads {kind} features, and one side is made of pooled ones");
            return Err(Error::usage(message).with_help("choose a head that reads pooled features for it"));
        }
        let mut compared = Self {
            head: Arc::clone(&task.head),
            width: 0,
            widths: places.iter().map(|&place| info.streams[place].width).collect(),
            place,
            sequences: if info.streams.len() > 1 { 1 } else { task.form.sequences() },
            precision,
            device: model.device.clone(),
        };
        compared.width = compared.check(name)?;
        Ok(compared)
    }

    /// The width of its vectors.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The vectors of pooled features.
    fn vectors(&self, features: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
        let parts = features.chunks(AT_ONCE).map(|rows| self.beside(rows, 1.0)).collect::<Result<Vec<_>>>()?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// The vectors of pooled features beside others that are made up, all of this number: the call of a head is for all sides of examples.
    fn beside(&self, rows: &[Vec<f32>], made_up: f32) -> Result<Vec<Vec<f32>>> {
        let (examples, device) = (rows.len(), &self.device);
        let tape = Tape::new(TapeOptions { precision: self.precision, ..TapeOptions::default() });
        let input = |place: usize| -> Result<Features> {
            let (width, each) = (self.widths[place], self.sequences);
            let tensor = if place == self.place {
                let own = Tensor::from_vec(rows.concat(), (examples, 1, width), device)?;
                let others = Tensor::full(made_up, (examples, each - 1, width), device)?;
                // The texts of an example stand one after the other.
                if each > 1 { Tensor::cat(&[own, others], 1)? } else { own }.reshape((examples * each, width))?
            } else {
                Tensor::full(made_up, (examples, width), device)?
            };
            let layout = Layout::from_lengths(std::iter::repeat_n(1, examples * each));
            Ok(Features { value: Value::constant(tensor), layout, map: None })
        };
        let inputs = (0..self.widths.len()).map(input).collect::<Result<Vec<_>>>()?;
        let outputs = head_outputs(&self.head, &tape, &inputs, None)?;
        let embeddings = self.head.predict(&tape, &outputs)?; // [examples, sides, width]
        // Of one stream all sides are alike; else they stand in the order of the streams.
        let own = embeddings.narrow(1, self.place, 1)?.squeeze(1)?;
        Ok(own.to_dtype(DType::F32)?.to_vec2::<f32>()?)
    }

    /// Sees to it that the head's vectors have length 1, and do not depend on the other side. Gives their width.
    fn check(&self, task: &str) -> Result<usize> {
        let width = self.widths[self.place];
        let row = |row: usize| (0..width).map(|i| (1.7 * (row * width + i + 1) as f32).sin()).collect::<Vec<f32>>();
        let rows: Vec<Vec<f32>> = (0..TRIED).map(row).collect();
        let found = self.beside(&rows, 1.0)?;
        let wrong = |what: String| {
            Error::plugin(format!("the head of the task {task} gives embeddings that {what}"))
                .with_help("its plugin's author can mend it: PredictionKind::Embeddings says what embeddings are")
        };
        let bits = |rows: &[Vec<f32>]| rows.iter().flatten().map(|x| x.to_bits()).collect::<Vec<u32>>();
        if bits(&found) != bits(&self.beside(&rows, -0.5)?) {
            return Err(wrong("depend on the other side, so that there are none of one side by itself".into()));
        }
        let length = |row: &Vec<f32>| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        match found.iter().map(length).find(|length| (length - 1.0).abs() > ROUNDING) {
            Some(length) => Err(wrong(format!("have length {length:.3}, and not 1"))),
            None => Ok(found.first().map_or(0, Vec::len)),
        }
    }
}

/// Whether a head compares sides of examples.
pub(super) fn compares(spec: &HeadSpec) -> bool {
    spec.predictions == PredictionKind::Embeddings
}

impl TrainedModel {
    /// The place of the task whose head compares; its name may be left out where there is one.
    ///
    /// # Errors
    /// Where the task that is named has no such head, or none or several have.
    pub(super) fn comparing(&self, name: Option<&str>) -> Result<usize> {
        let all: Vec<usize> = (0..self.tasks.len()).filter(|&place| compares(&self.tasks[place].spec)).collect();
        match (name, &*all) {
            (None, [one]) => Ok(*one),
            (None, [_, _, ..]) => {
                let names: Vec<&str> = all.iter().map(|&place| self.tasks[place].name.as_str()).collect();
                Err(Error::usage(format!("the heads of {} tasks compare", names.len()))
                    .with_help(format!("say which by --task: {}", names.join(", "))))
            }
            (Some(_), _) => {
                let place = self.place(name)?;
                if all.contains(&place) { Ok(place) } else { Err(no_such_head(&self.tasks[place].name)) }
            }
            (None, []) => {
                let names: Vec<&str> = self.tasks.iter().map(|task| task.name.as_str()).collect();
                Err(no_such_head(&names.join(", ")))
            }
        }
    }

    /// The stream of a task's head that takes texts, or pictures; `what` needs it.
    ///
    /// # Errors
    /// Where it reads none.
    pub(super) fn stream_for(&self, task: usize, pictures: bool, what: &str) -> Result<usize> {
        let info = self.model.model.info();
        let read = || self.tasks[task].spec.streams.iter().filter_map(|of| info.stream(&of.stream));
        let takes = |&stream: &usize| matches!(info.streams[stream].modality, Modality::Images { .. }) == pictures;
        read().find(takes).ok_or_else(|| {
            let (other, names) = if pictures { ("texts", "pictures") } else { ("pictures", "texts") };
            Error::usage(format!("the head of the task {} compares {other} alone, and {what}", self.tasks[task].name))
                .with_help(format!("{names} need a run whose model has a stream for them"))
        })
    }

    /// What a task's head compares of a stream's inputs.
    pub(super) fn side<'a>(&'a self, task: usize, stream: usize, compared: &'a Compared) -> Side<'a> {
        let task = &self.tasks[task];
        Side {
            model: &self.model,
            stream,
            tokenizer: task.tokenizer.as_ref(),
            transform: task.transform.as_ref(),
            form: &task.form,
            precision: self.precision,
            compared: Some(compared),
        }
    }
}

fn no_such_head(tasks: &str) -> Error {
    Error::usage(format!("no head here compares, and so gives vectors for what is looked for: {tasks}"))
        .with_help("it needs a run whose head learns what belongs together, as texts and their pictures")
}
