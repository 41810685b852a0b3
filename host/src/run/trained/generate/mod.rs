//! Texts that a decoder continues: of a run, or of a model as it came.

mod sampling;
mod streaming;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fthost_autograd::random::Stream;
use fthost_autograd::{DType, Parameter, Precision, Tape, TapeOptions};
use fthost_models::Cache;
use serde::Serialize;
use serde_json::Value;

use super::head;
use super::model::TrainedModel;
use crate::adapted::AdaptedModel;
use crate::data::{Asked, Asker, LanguageForm, LanguageModel, Tokenizer, Writing};
use crate::hub;
use crate::plugin::StrategyInstance;
use crate::run::file::Override;
use crate::run::machine::DeviceChoice;
use crate::run::setup::{model as base, start};
use crate::{Error, Result};
pub use sampling::Sampling;
use streaming::Streaming;

/// What a model's own file says of generation.
const GENERATION: &str = "generation_config.json";

/// How texts are continued.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The most tokens that a text gets.
    pub max_tokens: usize,
    /// How each is chosen.
    pub sampling: Sampling,
    /// Texts at which one stops; they are no part of it.
    pub stops: Vec<String>,
    /// What chance follows from.
    pub seed: u64,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or it came to a text at which it stops.
    Stop,
    /// It has as many tokens as it may get, or as the model takes.
    Length,
}

/// How a text goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Continuation {
    /// The text, without special tokens.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens that it went on from.
    pub prompt_tokens: usize,
    /// Tokens that it got, the one that ends it counted.
    pub generated_tokens: usize,
}

/// A decoder that continues texts.
pub struct Generator {
    model: AdaptedModel,
    /// Kept because their hooks stand in the model.
    _strategies: Vec<StrategyInstance>,
    asker: Asker,
    /// The layer over the vocabulary, `[vocabulary, width]` and `[vocabulary]`.
    weight: Parameter,
    bias: Option<Parameter>,
    precision: Precision,
    /// Tokens that end a text.
    ends: BTreeSet<u32>,
    /// Tokens that the model takes.
    longest: usize,
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
        let (weight, bias) = vocabulary(&model, folder)?;
        let asker = Asker::new(&form, &tokenizer, writing)?;
        let ends = ends(base.as_deref().unwrap_or(folder), &asker)?;
        let longest = model.model.longest_sequence()?.unwrap_or(usize::MAX);
        let multiplied = model.parameters.iter().map(|p| &p.parameter).filter(|parameter| parameter.packs());
        start::pack(multiplied.chain([&weight]), precision)?;
        Ok(Self { model, _strategies: strategies, asker, weight, bias, precision, ends, longest })
    }

    /// The tokens that a text goes on from.
    ///
    /// # Errors
    /// As [`Asker::ids`], and where they are more than the model takes.
    pub fn ids(&self, asked: &Asked) -> Result<Vec<u32>> {
        let ids = self.asker.ids(asked)?;
        if ids.len() > self.longest {
            return Err(Error::usage(format!(
                "what is asked has {} tokens, more than the {} that the model takes",
                ids.len(),
                self.longest
            ))
            .with_help("ask with a shorter text"));
        }
        Ok(ids)
    }

    /// Continues texts, all of them at once; `first` is the number of the first of them, from which what is drawn follows. `tell` gets the place
    /// of a text and what comes to it, as soon as that is known.
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
        let drawn = |place: usize| Stream::new(settings.seed, "generate").at(&[first + place as u64]);
        let open = |ids: &Vec<u32>| Text {
            seen: ids.clone(),
            asked: ids.len(),
            streaming: Streaming::new(self.asker.tokenizer(), &settings.stops),
            ended: None,
        };
        let mut texts: Vec<Text<'_>> = asked.iter().map(open).collect();
        let mut going: Vec<usize> = (0..texts.len()).collect();
        let mut cache = self.model.model.begin(texts.len())?;
        let mut new = asked.to_vec();
        while !going.is_empty() {
            let logits = self.logits(&mut cache, &new)?; // [going, vocabulary]
            let mut places = Vec::with_capacity(going.len());
            new.clear();
            for (place, (&i, mut logits)) in going.iter().zip(logits).enumerate() {
                let text = &mut texts[i];
                let random = || drawn(i).uniform(text.generated() as u64);
                let id = settings.sampling.choose(&mut logits, &text.seen, random);
                text.push(id, &self.ends)?;
                if text.ended.is_none() && (text.generated() >= settings.max_tokens || text.seen.len() > self.longest) {
                    text.ended = Some(FinishReason::Length);
                }
                match text.ended {
                    Some(_) => text.streaming.end()?,
                    None => {
                        places.push(place);
                        new.push(vec![id]);
                    }
                }
                match text.streaming.tell() {
                    "" => {}
                    told => tell(i, told)?,
                }
            }
            if places.len() < going.len() {
                cache.keep(&places);
                going = places.into_iter().map(|place| going[place]).collect();
            }
        }
        Ok(texts.into_iter().map(Text::finish).collect())
    }

    /// The logits of each text's next token, after new ones, `[texts][vocabulary]`.
    fn logits(&self, cache: &mut Cache, new: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        let tape = Tape::new(TapeOptions { precision: self.precision, parallel_ops: true, ..TapeOptions::default() });
        let features = self.model.model.extend(&tape, cache, new)?.value; // [texts, width]
        let bias = self.bias.as_ref().map(|bias| tape.parameter(bias));
        let logits = tape.linear(&features, &tape.parameter(&self.weight), bias.as_ref())?; // [texts, vocabulary]
        Ok(logits.tensor().to_dtype(DType::F32)?.to_vec2()?)
    }
}

/// A text that goes on.
struct Text<'a> {
    /// What it went on from, and what has come.
    seen: Vec<u32>,
    asked: usize,
    streaming: Streaming<'a>,
    ended: Option<FinishReason>,
}

impl Text<'_> {
    fn generated(&self) -> usize {
        self.seen.len() - self.asked
    }

    /// Takes the next token, which may end it.
    fn push(&mut self, id: u32, ends: &BTreeSet<u32>) -> Result<()> {
        self.seen.push(id);
        // The token that ends a text is none of its text.
        if ends.contains(&id) || self.streaming.push(id)? {
            self.ended = Some(FinishReason::Stop);
        }
        Ok(())
    }

    fn finish(self) -> Continuation {
        Continuation {
            finish_reason: self.ended.unwrap_or(FinishReason::Length),
            prompt_tokens: self.asked,
            generated_tokens: self.generated(),
            text: self.streaming.into_text(),
        }
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
        Ok(Opened { model, strategies, tokenizer: task.tokenizer, form: task.form.language, precision, base })
    }
}

/// The layer over the vocabulary of a model that says the next token.
fn vocabulary(model: &AdaptedModel, folder: &Path) -> Result<(Parameter, Option<Parameter>)> {
    let info = model.model.info();
    let refused = |why: &str| {
        Err(Error::usage(format!("{} ({}) {why}", folder.display(), info.model_type)).with_help(
            "name a decoder, such as a Llama or a Qwen, or a run that has trained one to say the next token",
        ))
    };
    let Some(layer) = &info.vocabulary else {
        return refused("has no layer over a vocabulary here, and so says no next token");
    };
    if !layer.causal {
        return refused("says what stands in a token's place, and not what comes next");
    }
    let find = |path: &str| model.parameters.iter().map(|p| &p.parameter).find(|p| p.name() == path).cloned();
    match (find(&layer.weight), layer.bias.as_deref().map(find)) {
        (Some(weight), None) => Ok((weight, None)),
        (Some(weight), Some(Some(bias))) => Ok((weight, Some(bias))),
        _ => Err(Error::run(format!("the model has no parameter {}", layer.weight))),
    }
}

/// The tokens that end a text: as the model's files say, its tokenizer, and its template.
fn ends(base: &Path, asker: &Asker) -> Result<BTreeSet<u32>> {
    let mut said = vec![fthost_models::config(base)?];
    let own = base.join(GENERATION);
    if own.is_file() {
        said.push(head::read(&own)?);
    }
    let of_tokenizer = asker.tokenizer().special_id("eos_token");
    let mut ends: BTreeSet<u32> = of_tokenizer.into_iter().chain(asker.end_of_turn()?).collect();
    for ids in said.iter().map(|said| &said["eos_token_id"]) {
        let ids = ids.as_array().map_or(std::slice::from_ref(ids), Vec::as_slice);
        ends.extend(ids.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()));
    }
    Ok(ends)
}
