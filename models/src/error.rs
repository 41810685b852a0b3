//! What can be wrong with a model folder.

use std::path::PathBuf;

/// Why a model cannot be loaded or saved. Every message names the file and says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}. A model folder holds config.json and model.safetensors", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The folder holds weights in a form that is not read.
    #[error(
        "{} holds no model.safetensors{}",
        folder.display(),
        match other {
            Some(name) => format!(", only {name}; save the model again with Transformers, which writes model.safetensors"),
            None => ", nor model.safetensors.index.json; download the weights too".into(),
        }
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// Another weight file that is there.
        other: Option<String>,
    },
    /// The folder holds several files with weights, and none by a name that says which is meant.
    #[error("{} holds {} and {}: name one of them", folder.display(), files[0].display(), files[1].display())]
    Ambiguous {
        /// The folder.
        folder: PathBuf,
        /// Two of the files.
        files: [PathBuf; 2],
    },
    /// A file of PyTorch's that is damaged, or holds what is not read.
    #[error("{} {reason}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// What is wrong, and what would do.
        reason: String,
    },
    /// config.json is not what it should be.
    #[error("{} is not a usable config: {source}", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// An architecture that is not supported.
    #[error(
        "{} has {key} {found}; supported are {supported}",
        file.display(),
        found = match name { Some(name) => format!("{name:?}"), None => "missing".into() }
    )]
    UnknownArchitecture {
        /// The file.
        file: PathBuf,
        /// The key that names it: Hugging Face's `model_type`, timm's `architecture`.
        key: &'static str,
        /// What it says.
        name: Option<String>,
        /// What is supported.
        supported: String,
    },
    /// Weights without a config.json, whose tensors are of no network that is known.
    #[error(
        "the names of the tensors in {} are those of no network that is known without its config.json. Name the folder that holds both. \
         Known by their tensors are {supported}",
        file.display()
    )]
    UnknownTensors {
        /// The file.
        file: PathBuf,
        /// What is known.
        supported: String,
    },
    /// A setting of the architecture that is not supported, or contradicts another.
    #[error("{}: {key} = {value} {why}", file.display())]
    Setting {
        /// The file.
        file: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it, and what would do.
        why: String,
    },
    /// A weight file is cut off or is no safetensors file.
    #[error("{} is damaged or incomplete: {reason}. Download it again", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor is not there.
    #[error(
        "{} has no tensor {tensor}{}. Is it the checkpoint that belongs to config.json?",
        file.display(),
        match closest { Some(name) => format!("; the closest name is {name}"), None => String::new() }
    )]
    MissingTensor {
        /// The file.
        file: PathBuf,
        /// The tensor, with the architecture's prefix.
        tensor: String,
        /// The most similar name in the file.
        closest: Option<String>,
    },
    /// A tensor has a shape that config.json does not say.
    #[error(
        "{}: tensor {tensor} has shape {found:?}, config.json says {expected:?}. \
         Is it the checkpoint that belongs to config.json?",
        file.display()
    )]
    WrongShape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape wanted.
        expected: Vec<usize>,
    },
    /// A tensor of a type that is no weight.
    #[error(
        "{}: tensor {tensor} holds {found}; weights are read from F32, F16, BF16 and F64. \
         Save the model again in one of these",
        file.display()
    )]
    WrongType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// candle failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
