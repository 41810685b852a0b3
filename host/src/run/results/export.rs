//! What a run leaves to be used elsewhere: an adapter in PEFT's format, or a whole Hugging Face folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_autograd::Tensor;
use fthost_models::{Answer, Modality, SavedHead, Stream, is_joined, stream_folder, write_tensors};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::keys::{Keys, TUNED, WRAPPED};
use super::own_form::Origin;
use super::plain::{SavedHeads, Trained};
use super::{adapter_config, inputs, own_form, sentences};
use crate::Result;
use crate::adapted::{AdaptedModel, ModelParameter, Owner};
use crate::plugin::State;
use crate::run::file::StreamTable;
use crate::run::pass::Decision;
use crate::run::state::folder::write_json;

/// The folder of a whole model within a run folder.
pub const MODEL: &str = "model";
/// The file of an adapter's tensors, as PEFT names it.
pub const ADAPTER: &str = "adapter_model.safetensors";

/// What is saved beside the weights.
pub struct Saved<'a> {
    /// The model with what was trained.
    pub model: &'a AdaptedModel,
    /// Path of the base model as the run file names it.
    pub base: &'a str,
    /// Its commit, where it is of the hub.
    pub revision: Option<&'a str>,
    /// The models that were joined, where it is no single one.
    pub streams: &'a [StreamTable],
    /// Each strategy's own fields of `adapter_config.json`, in order, where PEFT knows what it is.
    pub adapter_configs: Vec<Option<Value>>,
    /// What PEFT's form holds in place of each strategy's parameters, in order, where it is not they themselves.
    pub adapter_tensors: Vec<Option<BTreeMap<String, Tensor>>>,
    /// The tasks, in order.
    pub tasks: &'a [Trained<'a>],
    /// What made it.
    pub origin: &'a Origin,
    /// The strategies' states, in order.
    pub states: Vec<State>,
}

/// Where the results are, and in what form.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Exported {
    /// What opens it.
    pub format: Format,
    /// The folder.
    pub path: PathBuf,
    /// Why no class of Transformers' opens the heads, where none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_heads: Option<String>,
}

/// What opens a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// An adapter that loads in Python's PEFT.
    Peft,
    /// The same layout for what PEFT does not know.
    Fthost,
    /// A whole model that Transformers opens with its head.
    Huggingface,
    /// A whole model that sentence-transformers opens, with its head as a dense layer where it has a layer.
    SentenceTransformers,
    /// A whole model that Transformers opens without its heads, which are fthost's own.
    Encoder,
    /// Two whole models in folders that open by themselves, and heads of fthost's own.
    Joined,
    /// A language model that llama.cpp and what is built on it open.
    Gguf,
}

impl Format {
    /// Whether it is a whole model.
    pub fn is_whole(self) -> bool {
        !matches!(self, Self::Peft | Self::Fthost)
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Peft => "adapter (PEFT)",
            Self::Fthost => "adapter (fthost)",
            Self::Huggingface => "model (Hugging Face)",
            Self::SentenceTransformers => "model (sentence-transformers)",
            Self::Encoder => "encoder (Hugging Face) with heads of fthost's own",
            Self::Joined => "both streams' models, each a folder that opens by itself, and heads of fthost's own",
            Self::Gguf => "model (GGUF)",
        })
    }
}

impl std::fmt::Display for Exported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} saved in {}", self.format, self.path.display())?;
        self.own_heads.iter().try_for_each(|why| write!(f, "; no class of Transformers' has its heads: {why}"))
    }
}

impl Saved<'_> {
    /// Saves an adapter, or a whole model where base weights trained and no strategy added anything, neither a parameter nor a hook
    /// that a plain folder would lose.
    pub fn write(&self, run: &Path) -> Result<Exported> {
        let adds = self.model.parameters.iter().any(|p| matches!(p.owner, Owner::Strategy(_)))
            || self.model.model.sites().iter().any(|site| self.model.model.hooked(&site.path));
        let base_trained = self.model.parameters.iter().any(|p| p.owner == Owner::Base && p.trained());
        if base_trained && !adds {
            write_model(self.model, self.tasks, self.origin, &run.join(MODEL))
        } else {
            self.write_adapter(&run.join("adapter"))
        }
    }

    /// The fields where all strategies together are something that PEFT knows: exactly one says so.
    fn adapter_config(&self) -> Option<&Value> {
        let mut known = self.adapter_configs.iter().flatten();
        known.next().filter(|_| known.next().is_none())
    }

    /// Those of what one stream got, where that is of one strategy.
    fn config_of(&self, stream: usize) -> Option<&Value> {
        let of_stream = |p: &&ModelParameter| p.stream == Some(stream);
        let mut owners = self.model.parameters.iter().filter(of_stream).filter_map(|p| match p.owner {
            Owner::Strategy(place) => Some(place),
            _ => None,
        });
        let first = owners.next()?;
        self.adapter_configs.get(first).filter(|_| owners.all(|owner| owner == first))?.as_ref()
    }

    fn write_adapter(&self, folder: &Path) -> Result<Exported> {
        let mut heads = SavedHeads::of(self.model, self.tasks)?;
        if heads.sentences && outside(&self.added(&Keys::of(self.model, false), None)) {
            let why = "prompts and prefixes are no part of what sentence-transformers pools";
            heads = heads.into_own(self.model, Some(why.into()));
        }
        // PEFT knows models that Transformers knows.
        let Some(fields) = self.adapter_config().filter(|_| heads.own.is_none()) else {
            return self.write_own(heads.own, folder);
        };
        let dense = heads.as_dense();
        write_tensors(&folder.join(ADAPTER), &self.adapter(&heads))?;

        let info = self.model.model.info();
        // PEFT's class for a kind of task hands on what texts are made of, and no images.
        let task_type = match (info.plain().modality, heads.answer) {
            (Modality::Images { .. }, _) => None,
            _ if info.streams.len() > 1 => None,
            (_, Answer::TokenClass(_)) => Some("TOKEN_CLS"),
            // PEFT has no word for the other kind.
            (_, Answer::Token) => info.vocabulary.as_ref().is_some_and(|layer| layer.causal).then_some("CAUSAL_LM"),
            _ if heads.sentences => Some("FEATURE_EXTRACTION"),
            _ => Some("SEQ_CLS"),
        };
        let mut config = json!({
            "base_model_name_or_path": self.base,
            "revision": self.revision,
            "task_type": task_type,
            "inference_mode": true,
            "modules_to_save": if heads.sentences { Vec::new() } else { self.modules_to_save(&heads) },
        });
        merge(&mut config, fields);
        adapter_config::name_layers(&mut config, &Keys::of(self.model, !heads.sentences), self.model.model.as_ref());
        write_json(&folder.join("adapter_config.json"), &config)?;
        write_labels(self.tasks, folder)?;
        write_decision(self.tasks, true, folder)?;
        if heads.sentences {
            sentences::write(folder, info.plain(), longest(self.model)?, dense, heads.compares())?;
        }
        Ok(Exported { format: Format::Peft, path: folder.to_owned(), own_heads: None })
    }

    /// An adapter in fthost's own form: all parameters as they stand, and what opens them. No field of PEFT's says what it is to others,
    /// which would open something else.
    fn write_own(&self, own_heads: Option<String>, folder: &Path) -> Result<Exported> {
        let mut tensors = own_form::adapter(self.model);
        tensors.extend(self.origin.write(folder, self.tasks, Some(&self.states))?);
        write_tensors(&folder.join(ADAPTER), &tensors)?;
        let config = json!({ "base_model_name_or_path": self.base, "revision": self.revision, "inference_mode": true });
        write_json(&folder.join("adapter_config.json"), &config)?;
        write_labels(self.tasks, folder)?;
        write_decision(self.tasks, false, folder)?;
        self.write_parts(folder)?;
        Ok(Exported { format: Format::Fthost, path: folder.to_owned(), own_heads })
    }

    /// Beside an adapter of joined models in fthost's own form, for each of them that got something an adapter of PEFT's on that model alone, as
    /// what opens it knows no two: the heads are not in it.
    fn write_parts(&self, folder: &Path) -> Result<()> {
        let info = self.model.model.info();
        for own in self.streams {
            let Some(place) = info.stream(&own.name) else { continue };
            let Some(fields) = self.config_of(place) else { continue };
            let mut added = self.model.parameters.iter().filter(|p| matches!(p.owner, Owner::Strategy(_)));
            // What stands before a stream's tokens, or is shared by layers, is not taken apart.
            if added.any(|p| p.stream.is_none_or(|stream| stream == place) && !p.in_model) {
                continue;
            }
            let keys = Keys::of_part(self.model, place);
            let (part, stream) = (folder.join(&own.name), &self.model.model.info().streams[place]);
            let base = self.model.parameters.iter().filter(|p| p.owner == Owner::Base && p.trained());
            let base = base.filter(|p| p.stream == Some(place));
            let mut tensors = self.added(&keys, Some(place));
            tensors.extend(base.map(|p| (format!("{TUNED}{}", keys.path(p)), p.parameter.tensor())));
            write_tensors(&part.join(ADAPTER), &tensors)?;
            let of_texts = matches!(stream.modality, Modality::Text { .. });
            let mut config = json!({
                "base_model_name_or_path": own.refer(),
                "revision": own.named.as_ref().map(|name| &name.revision),
                "task_type": of_texts.then_some("FEATURE_EXTRACTION"),
                "inference_mode": true,
                "modules_to_save": [],
            });
            merge(&mut config, fields);
            adapter_config::name_layers(&mut config, &keys, self.model.model.as_ref());
            write_json(&part.join("adapter_config.json"), &config)?;
            if info.vocabulary.is_none() && sentences::pools(stream) {
                sentences::write(&part, stream, longest(self.model)?, None, false)?;
                inputs::copy_of_stream(&own.path, &part, stream)?;
            }
        }
        Ok(())
    }

    /// What strategies added, by its names in PEFT's files; of one stream alone where one is named.
    fn added(&self, keys: &Keys<'_>, stream: Option<usize>) -> BTreeMap<String, Tensor> {
        let given = &self.adapter_tensors;
        let mut instead: BTreeMap<String, Tensor> = given.iter().flatten().flat_map(Clone::clone).collect();
        let mut tensors = BTreeMap::new();
        for p in &self.model.parameters {
            let Owner::Strategy(strategy) = p.owner else { continue };
            let instead = instead.remove(p.parameter.name());
            if stream.is_some() && p.stream != stream {
                continue;
            }
            let root = if p.in_model { TUNED } else { "" };
            let name = || format!("{root}{}", keys.path(p));
            if given.get(strategy).is_none_or(Option::is_none) {
                tensors.insert(name(), p.parameter.tensor());
            } else if let Some(instead) = instead {
                tensors.insert(name(), instead);
            }
        }
        // What is of no parameter's name.
        if stream.is_none() {
            tensors.extend(instead);
        }
        tensors
    }

    /// The tensors of an adapter of PEFT's.
    fn adapter(&self, heads: &SavedHeads<'_>) -> BTreeMap<String, Tensor> {
        let keys = Keys::of(self.model, !heads.sentences);
        let mut tensors = self.added(&keys, None);
        let root = if outside(&tensors) { WRAPPED } else { TUNED };
        let base = self.model.parameters.iter().filter(|p| p.owner == Owner::Base && p.trained());
        let base = base.map(|p| (keys.path(p), p.parameter.tensor()));
        // A dense layer lies beside the adapter.
        let of_heads = heads.tensors.iter().filter(|_| !heads.sentences).cloned();
        tensors.extend(base.chain(of_heads).map(|(path, tensor)| (format!("{root}{path}"), tensor)));
        tensors
    }

    /// The modules that PEFT keeps whole beside what it wraps: those of a head, in the model or beside it. What a model compares streams by is
    /// the model's own, and is named where it has trained. Its scale is a number in no module: PEFT reads it into the model as it opens
    /// the adapter, by its name alone.
    fn modules_to_save(&self, heads: &SavedHeads<'_>) -> Vec<String> {
        let info = self.model.model.info();
        let trained = |name: &&String| {
            let mut parameters = self.model.parameters.iter();
            parameters.any(|p| p.owner == Owner::Base && p.trained() && p.parameter.name() == **name)
        };
        let compares = heads.compares().then_some(info.contrastive.as_ref()).flatten();
        let own = compares.into_iter().flat_map(|own| &own.projections).filter(trained);
        let paths = heads.tensors.iter().map(|(path, _)| path.strip_prefix(&info.plain().prefix).unwrap_or(path));
        let paths = paths.chain(own.map(String::as_str));
        let mut modules: Vec<String> =
            paths.map(|path| path.split('.').next().unwrap_or_default().to_owned()).collect();
        modules.sort();
        modules.dedup();
        modules
    }
}

/// Whether what strategies added stands outside of the model, as prompts and prefixes do: PEFT then does not wrap the model once more.
fn outside(added: &BTreeMap<String, Tensor>) -> bool {
    !added.is_empty() && !added.keys().any(|key| key.starts_with(TUNED))
}

/// Writes a whole model with its heads: a Hugging Face folder. Where the heads are of fthost's own, `origin` says beside it what they are.
pub fn write_model(model: &AdaptedModel, tasks: &[Trained<'_>], origin: &Origin, folder: &Path) -> Result<Exported> {
    let mut heads = SavedHeads::of(model, tasks)?;
    if heads.own.is_some() {
        heads.tensors.extend(origin.write(folder, tasks, None)?);
    }
    let (stream, dense) = (model.model.info().plain(), heads.as_dense());
    let head = match heads.sentences {
        true => SavedHead::default(),
        false => SavedHead { tensors: &heads.tensors, answer: heads.answer, dropout: heads.dropout },
    };
    model.model.save_folder(folder, &head)?;
    let joined = is_joined(folder);
    let format = match &heads.own {
        Some(_) if joined => Format::Joined,
        Some(_) => Format::Encoder,
        None if heads.sentences => Format::SentenceTransformers,
        None => Format::Huggingface,
    };
    // Also beside heads of fthost's own: the encoder is one that pools so.
    if heads.sentences
        || format == Format::Encoder && !model.model.info().pools_as_its_class() && sentences::pools(stream)
    {
        sentences::write(folder, stream, longest(model)?, dense, heads.compares())?;
    }
    // Of joined models each is to be opened by itself, and one that says tokens as what it is.
    let says_tokens = model.model.info().vocabulary.is_some();
    let pools = |stream: &&Stream| joined && !says_tokens && sentences::pools(stream);
    for stream in model.model.info().streams.iter().filter(pools) {
        sentences::write(&stream_folder(folder, &stream.name)?, stream, longest(model)?, None, false)?;
    }
    write_labels(tasks, folder)?;
    write_decision(tasks, heads.own.is_none(), folder)?;
    Ok(Exported { format, path: folder.to_owned(), own_heads: heads.own })
}

/// The longest text of a model, in tokens; 0 where it reads none.
fn longest(model: &AdaptedModel) -> Result<usize> {
    Ok(model.model.longest_sequence()?.unwrap_or_default())
}

/// What is said beside a saved head of how classes follow from its probabilities.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedDecision {
    /// Temperature and threshold.
    #[serde(flatten)]
    pub decision: Decision,
    /// Whether the last layer was divided by the temperature: what opens it gives calibrated probabilities.
    pub folded: bool,
    /// Whether the classes are independent of each other: each has a probability of its own, the sigmoid of its logit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multi_label: bool,
    /// The class whose probability the threshold is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive: Option<String>,
    /// The same in words.
    #[serde(default)]
    note: String,
}

impl SavedDecision {
    /// The file's name.
    pub const FILE: &str = "decision.json";

    fn new(task: &Trained<'_>, folded: bool) -> Self {
        let Decision { temperature, threshold, thresholds } = task.decision.clone();
        let multi_label = task.is_multi_label();
        let positive = threshold.and(task.labels.get(1)).filter(|_| !multi_label).cloned();
        let mut note = Vec::new();
        if temperature != 1.0 {
            note.push(match folded {
                true => format!(
                    "The last layer is divided by a temperature of {temperature:.4}: its probabilities are calibrated."
                ),
                false => format!(
                    "Its probabilities are calibrated at a temperature of {temperature:.4}, which fthost alone applies."
                ),
            });
        }
        if let (Some(threshold), Some(positive)) = (threshold, &positive) {
            note.push(format!(
                "{positive:?} is meant where its probability is {threshold:.4} or more: other tools take the more probable class."
            ));
        }
        if multi_label {
            let half = threshold.unwrap_or(Decision::HALF);
            note.push(match thresholds.is_empty() {
                true => format!("A class is meant where its probability, the sigmoid of its logit, is {half:.4} or more."),
                false => "A class is meant where its probability, the sigmoid of its logit, is its own threshold or more, in the order of \
                          the labels: other tools take 0.5 for all."
                    .into(),
            });
        }
        Self { decision: task.decision.clone(), folded, multi_label, positive, note: note.join(" ") }
    }
}

/// Says how classes follow from probabilities, where it is not as is usual. A folder with several heads opens nowhere but in its run.
fn write_decision(tasks: &[Trained<'_>], folded: bool, folder: &Path) -> Result<()> {
    match tasks {
        [task] if task.decision != Decision::default() || task.is_multi_label() => {
            write_json(&folder.join(SavedDecision::FILE), &SavedDecision::new(task, folded))
        }
        _ => Ok(()),
    }
}

/// Class names in index order, empty for real values: a list where there is one task, else lists by task.
fn write_labels(tasks: &[Trained<'_>], folder: &Path) -> Result<()> {
    let labels = match tasks {
        [task] => json!(task.labels),
        tasks => json!(tasks.iter().map(|task| (task.name, task.labels)).collect::<BTreeMap<_, _>>()),
    };
    write_json(&folder.join("labels.json"), &labels)
}

/// Fields of `from` over those of `into`.
fn merge(into: &mut Value, from: &Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}
