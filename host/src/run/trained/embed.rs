//! Vectors of a file's rows, what a head compares or features as the model pools them, written to a file that other programs read.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::data_type::{FloatType, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use serde::Serialize;

use super::head;
use super::model::TrainedModel;
use super::side::{Compared, Side, compares};
use crate::adapted::AdaptedModel;
use crate::data::{self, Tokenizer};
use crate::hub;
use crate::plugin::StrategyInstance;
use crate::run::file::Override;
use crate::run::machine::DeviceChoice;
use crate::run::setup::model as base;
use crate::{Error, Result};
use fthost_autograd::Precision;
use fthost_images::Transform;
use fthost_models::{Modality, ModelInfo};

/// Which vectors are wanted of a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// The stream, of a model of several.
    pub stream: Option<&'a str>,
    /// The task whose head compares, of a run of several.
    pub task: Option<&'a str>,
    /// Whether pooled features are, where a head compares what it makes of them.
    pub features: bool,
}

/// A model that gives vectors, with or without a head.
pub struct Embedder {
    model: AdaptedModel,
    /// Kept because their hooks stand in the model.
    _strategies: Vec<StrategyInstance>,
    tokenizer: Option<Tokenizer>,
    transform: Option<Arc<Transform>>,
    form: data::Form,
    precision: Precision,
    stream: usize,
    compared: Option<Compared>,
}

impl Embedder {
    /// Opens a run folder, a folder that PEFT or Transformers saved, or a model without a head.
    ///
    /// # Errors
    /// As [`open`](super::open), and where there is no such stream or task, or the model has several streams and none is named.
    pub fn open(
        folder: &Path,
        wanted: Wanted<'_>,
        plugins: &[String],
        overrides: &[Override],
        device: DeviceChoice,
    ) -> Result<Self> {
        let folder = &hub::local(folder)?;
        // Of a whole model its head, of whatever kind, is not needed, unless it is what compares.
        let compares = || fthost_models::config(folder).is_ok_and(|config| head::compares(&config));
        if !super::is_whole(folder) || (!wanted.features && compares()) {
            return super::open(folder, plugins, overrides, device)?.into_embedder(wanted);
        }
        if wanted.task.is_some() {
            return Err(Error::usage(format!("{} is a model, and has no tasks", folder.display()))
                .with_help("leave --task out"));
        }
        let file = head::run_file(folder, overrides)?;
        let model = base::load_model(&file, device.open()?)?;
        let (task, stream) = (&file.tasks[0], stream(model.model.info(), wanted.stream)?);
        // A stream of pictures needs no tokenizer.
        let reads_text = matches!(model.model.info().streams[stream].modality, Modality::Text { .. });
        let tokenizer = if reads_text { base::tokenizer(&file, task, &model)? } else { None };
        let transform = base::transform(&file, task, &model)?;
        Ok(Self {
            _strategies: Vec::new(),
            tokenizer,
            transform,
            form: task.form.clone(),
            precision: file.train.precision.into(),
            stream,
            compared: None,
            model,
        })
    }

    /// Says whether the first row of a TSV or CSV file is a header, in place of the run file.
    pub fn set_header(&mut self, header: bool) {
        self.form.header = Some(header);
    }

    /// What the vectors are: how features are pooled, `mean, normalised`, or that a head compares them.
    pub fn what(&self) -> String {
        match self.compared {
            Some(_) => "as the head compares them".to_owned(),
            None => self.model.model.info().streams[self.stream].pooling.to_string(),
        }
    }

    /// Whether they are what a head compares.
    pub fn is_compared(&self) -> bool {
        self.compared.is_some()
    }

    /// The name of the stream whose inputs become vectors.
    pub fn stream(&self) -> &str {
        &self.model.model.info().streams[self.stream].name
    }

    /// Writes the vector of each row of `input` to the file `to`; how many rows there were, and their width.
    ///
    /// # Errors
    /// Where the input cannot be read or the file not be written.
    pub fn write(&self, input: &Path, to: &Path, form: Form) -> Result<(usize, usize)> {
        let side = Side {
            model: &self.model,
            stream: self.stream,
            tokenizer: self.tokenizer.as_ref(),
            transform: self.transform.as_ref(),
            form: &self.form,
            precision: self.precision,
            compared: self.compared.as_ref(),
        };
        let width = match &self.compared {
            Some(compared) => compared.width(),
            None => self.model.model.info().streams[self.stream].width,
        };
        let mut sink = Sink::create(to, form, width)?;
        let mut rows = 0;
        side.each_of_file(input, false, |block| {
            let vectors = side.vectors(block, &|_| {})?;
            let lines = (0..vectors.len()).map(|row| Ok(block.place(row as u32)?.1.unwrap_or((rows + row) as u64 + 1)));
            sink.write(&lines.collect::<Result<Vec<u64>>>()?, &vectors)?;
            rows += vectors.len();
            Ok(())
        })?;
        sink.finish()?;
        Ok((rows, width))
    }
}

/// The stream of this name; it may be left out where there is one.
fn stream(info: &ModelInfo, name: Option<&str>) -> Result<usize> {
    let names = || info.streams.iter().map(|stream| format!("{:?}", stream.name)).collect::<Vec<_>>().join(" and ");
    match (name, info.streams.len()) {
        (None, 1) => Ok(0),
        (None, _) => Err(Error::usage(format!("the model has the streams {}, and one of them is embedded", names()))
            .with_help("say which by --stream")),
        (Some(name), _) => info.stream(name).ok_or_else(|| {
            Error::usage(format!("the model has no stream {name:?}")).with_help(format!("it has {}", names()))
        }),
    }
}

impl TrainedModel {
    /// As one that gives vectors: those that a head compares, or features.
    fn into_embedder(self, wanted: Wanted<'_>) -> Result<Embedder> {
        if self.tasks.is_empty() {
            return Err(Error::usage("the run has no task"));
        }
        let stream = stream(self.model.model.info(), wanted.stream)?;
        let place = match wanted.task {
            Some(_) => self.place(wanted.task)?,
            None if wanted.features || !self.tasks.iter().any(|task| compares(&task.spec)) => 0,
            None => self.comparing(None)?,
        };
        let Self { model, _strategies, mut tasks, precision, .. } = self;
        let task = tasks.swap_remove(place);
        let is_compared = compares(&task.spec) && !wanted.features;
        let compared = is_compared.then(|| Compared::new(&task, &model, stream, precision)).transpose()?;
        Ok(Embedder {
            model,
            stream,
            compared,
            _strategies,
            tokenizer: task.tokenizer,
            transform: task.transform,
            form: task.form,
            precision,
        })
    }
}

/// The form of a file of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// NumPy's: an array `[rows, width]` of `float32`.
    Npy,
    /// A row for each: its line, and a list of floats.
    Parquet,
    /// An object for each: `{"line": 2, "vector": [...]}`.
    Jsonl,
}

impl Form {
    /// That of a file by its extension.
    ///
    /// # Errors
    /// Where it is none of these.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().unwrap_or_default().to_string_lossy().to_lowercase().as_str() {
            "npy" => Ok(Self::Npy),
            "parquet" => Ok(Self::Parquet),
            "jsonl" | "ndjson" => Ok(Self::Jsonl),
            other => Err(Error::usage(format!("vectors are not written as .{other}: {}", path.display()))
                .with_help("name a file that ends with .npy, .parquet or .jsonl")),
        }
    }
}

enum Sink {
    Npy { out: BufWriter<File>, rows: usize, width: usize },
    Jsonl(BufWriter<File>),
    Parquet(SerializedFileWriter<File>),
}

#[derive(Serialize)]
struct Line<'a> {
    line: u64,
    vector: &'a [f32],
}

impl Sink {
    fn create(path: &Path, form: Form, width: usize) -> Result<Self> {
        let file = File::create(path).map_err(cannot_write)?;
        Ok(match form {
            Form::Npy => {
                let mut out = BufWriter::new(file);
                out.write_all(&npy_header(0, width)).map_err(cannot_write)?;
                Self::Npy { out, rows: 0, width }
            }
            Form::Jsonl => Self::Jsonl(BufWriter::new(file)),
            Form::Parquet => {
                let schema = "message vectors { required int64 line; \
                              required group vector (LIST) { repeated group list { required float element; } } }";
                let schema = parse_message_type(schema).map_err(parquet)?;
                let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
                let writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties));
                Self::Parquet(writer.map_err(parquet)?)
            }
        })
    }

    /// Writes vectors with their lines in the input.
    fn write(&mut self, lines: &[u64], vectors: &[Vec<f32>]) -> Result<()> {
        match self {
            Self::Npy { out, rows, .. } => {
                *rows += vectors.len();
                let mut write = |value: &f32| out.write_all(&value.to_le_bytes());
                vectors.iter().flatten().try_for_each(&mut write).map_err(cannot_write)
            }
            Self::Jsonl(out) => {
                for (&line, vector) in lines.iter().zip(vectors) {
                    serde_json::to_writer(&mut *out, &Line { line, vector })
                        .map_err(|error| cannot_write(error.into()))?;
                    out.write_all(b"\n").map_err(cannot_write)?;
                }
                Ok(())
            }
            Self::Parquet(writer) => row_group(writer, lines, vectors).map_err(parquet),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Npy { mut out, rows, width } => {
                let mut write = || {
                    out.seek(SeekFrom::Start(0))?;
                    out.write_all(&npy_header(rows, width))?;
                    out.flush()
                };
                write().map_err(cannot_write)
            }
            Self::Jsonl(mut out) => out.flush().map_err(cannot_write),
            Self::Parquet(writer) => writer.close().map(drop).map_err(parquet),
        }
    }
}

fn row_group(writer: &mut SerializedFileWriter<File>, lines: &[u64], vectors: &[Vec<f32>]) -> Result<(), ParquetError> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut group = writer.next_row_group()?;
    if let Some(mut column) = group.next_column()? {
        let lines: Vec<i64> = lines.iter().map(|&line| line as i64).collect();
        column.typed::<Int64Type>().write_batch(&lines, None, None)?;
        column.close()?;
    }
    if let Some(mut column) = group.next_column()? {
        let values: Vec<f32> = vectors.iter().flatten().copied().collect();
        // A value is there, and the first of each list begins a row.
        let (defined, begins) =
            (vec![1i16; values.len()], vectors.iter().flat_map(|vector| (0..vector.len()).map(|i| i16::from(i > 0))));
        column.typed::<FloatType>().write_batch(&values, Some(&defined), Some(&begins.collect::<Vec<_>>()))?;
        column.close()?;
    }
    group.close().map(drop)
}

/// The header of a file of NumPy's, version 1.0. Its length does not depend on the number of rows, so that it can be written again.
fn npy_header(rows: usize, width: usize) -> Vec<u8> {
    const LENGTH: usize = 128;
    const BEFORE: usize = 10;
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    text.push_str(&" ".repeat(LENGTH - BEFORE - 1 - text.len()));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(((LENGTH - BEFORE) as u16).to_le_bytes());
    header.extend(text.as_bytes());
    header
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::io("cannot write vectors")(error)
}

fn parquet(error: ParquetError) -> Error {
    match error {
        ParquetError::External(error) => match error.downcast::<std::io::Error>() {
            Ok(error) => cannot_write(*error),
            Err(error) => Error::run(format!("cannot write vectors: {error}")),
        },
        other => Error::run(format!("cannot write vectors: {other}")),
    }
}
