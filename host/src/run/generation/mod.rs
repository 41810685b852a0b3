//! Texts that a language model in memory continues, token by token: one that is being trained, or one that was opened.

mod sampling;
mod streaming;

use std::collections::BTreeSet;
use std::path::Path;

use fthost_autograd::random::Stream;
use fthost_autograd::{DType, Parameter, Precision, Tape, TapeOptions, Value as Tensors};
use fthost_models::{Cache, Input, Read};
use serde::Serialize;
use serde_json::Value;

use crate::adapted::AdaptedModel;
use crate::data::{Asked, Asker};
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

impl Settings {
    /// The most probable token each time, and so no chance: the same text each time.
    pub fn greedy(max_tokens: usize) -> Self {
        Self { max_tokens, sampling: Sampling::default(), stops: Vec::new(), seed: 0 }
    }
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

/// What a model has seen of a conversation, so that what was said before is not computed again for a question more.
#[derive(Debug, Default)]
pub struct Conversation {
    /// And the tokens that it is of.
    seen: Option<(Cache, Vec<u32>)>,
}

impl Conversation {
    /// What was seen of these tokens, but not of the last one, and how many that is; nothing where they begin otherwise.
    fn of(&mut self, ids: &[u32]) -> Option<(Cache, usize)> {
        let (mut cache, seen) = self.seen.take()?;
        let common = seen.iter().zip(ids).take_while(|(seen, id)| seen == id).count().min(ids.len().saturating_sub(1));
        cache.forget(seen.len() - common);
        (common > 0).then_some((cache, common))
    }
}

/// A model's own layer over its vocabulary, which says the next token: with the values that it has at the time, also while it trains.
pub struct Vocabulary {
    /// `[vocabulary, width]`
    pub weight: Parameter,
    /// `[vocabulary]`
    bias: Option<Parameter>,
}

/// How a language model's texts go on: what it takes for that besides the model.
pub struct Decoding {
    asker: Asker,
    vocabulary: Vocabulary,
    precision: Precision,
    /// Tokens that end a text.
    ends: BTreeSet<u32>,
    /// Tokens that the model takes, beside what a picture puts before them.
    longest: usize,
}

impl Vocabulary {
    /// That of a model, which is called `name` where it says no next token.
    ///
    /// # Errors
    /// Where it says none.
    pub fn of(model: &AdaptedModel, name: &str) -> Result<Self> {
        let info = model.model.info();
        let refused = |why: &str| {
            Err(Error::usage(format!("{name} ({}) {why}", info.model_type)).with_help(
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
            (Some(weight), None) => Ok(Self { weight, bias: None }),
            (Some(weight), Some(Some(bias))) => Ok(Self { weight, bias: Some(bias) }),
            _ => Err(Error::run(format!("the model has no parameter {}", layer.weight))),
        }
    }
}

impl Decoding {
    /// Of a model whose own files are in `base`; an embedded one has none. `rows` are those that a picture puts before each text.
    ///
    /// # Errors
    /// Where a file of its own cannot be read, or the tokenizer fails.
    pub fn new(
        model: &AdaptedModel,
        vocabulary: Vocabulary,
        asker: Asker,
        base: Option<&Path>,
        precision: Precision,
        rows: usize,
    ) -> Result<Self> {
        let ends = ends(base, &asker)?;
        let longest = model.model.longest_sequence()?.unwrap_or(usize::MAX).saturating_sub(rows);
        Ok(Self { asker, vocabulary, precision, ends, longest })
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

    /// Continues texts by the model as it is now, all of them at once, each behind its picture where there are some; `first` is the number of
    /// the first of them, from which what is drawn follows. `tell` gets the place of a text and what comes to it, as soon as that is known.
    ///
    /// # Errors
    /// Where the model fails or sees no pictures, or `tell` fails.
    pub fn generate(
        &self,
        model: &AdaptedModel,
        (asked, pictures): (&[Vec<u32>], Option<&Input>),
        first: u64,
        settings: &Settings,
        tell: &mut dyn FnMut(usize, &str) -> Result<()>,
    ) -> Result<Vec<Continuation>> {
        let mut texts: Vec<Text<'_>> =
            (first..).zip(asked).map(|(number, ids)| self.begun(ids.clone(), number, settings)).collect();
        let mut cache = model.model.begin(texts.len())?;
        let before = pictures.map(|pictures| self.maps(model, pictures)).transpose()?;
        self.write(model, &mut cache, (asked.to_vec(), before), &mut texts, settings, tell)?;
        Ok(texts.into_iter().map(Text::finish).collect())
    }

    /// Continues one text as [`generate`](Self::generate) does, without computing again what `conversation` has of its beginning; it has all of
    /// it afterwards.
    ///
    /// # Errors
    /// Where the model fails, or `tell` does.
    pub fn answer(
        &self,
        model: &AdaptedModel,
        conversation: &mut Conversation,
        asked: Vec<u32>,
        number: u64,
        settings: &Settings,
        tell: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Continuation> {
        let (mut cache, known) = match conversation.of(&asked) {
            Some(known) => known,
            None => (model.model.begin(1)?, 0),
        };
        let new = asked[known..].to_vec();
        let mut texts = [self.begun(asked, number, settings)];
        self.write(model, &mut cache, (vec![new], None), &mut texts, settings, &mut |_, text| tell(text))?;
        let [text] = texts;
        // The last token was chosen, and nothing asked what follows it.
        conversation.seen = Some((cache, text.seen[..text.seen.len().saturating_sub(1)].to_vec()));
        Ok(text.finish())
    }

    /// The text of this number.
    fn begun<'a>(&'a self, ids: Vec<u32>, number: u64, settings: &'a Settings) -> Text<'a> {
        Text {
            asked: ids.len(),
            seen: ids,
            drawn: Stream::new(settings.seed, "generate").at(&[number]),
            streaming: Streaming::new(self.asker.tokenizer(), &settings.stops),
            ended: None,
        }
    }

    /// The maps of pictures, which stand before texts.
    fn maps(&self, model: &AdaptedModel, pictures: &Input) -> Result<Tensors> {
        let Some(sight) = &model.model.info().sight else {
            return Err(Error::usage(format!("this {} sees no pictures", model.model.info().model_type)).with_help(
                "name a run whose model is streams = { text = ..., image = ... }, and whose head says the next token",
            ));
        };
        Ok(model.model.features(&self.tape(), sight.pictures, pictures, Read::Spatial)?.value)
    }

    fn tape(&self) -> Tape {
        Tape::new(TapeOptions { precision: self.precision, parallel_ops: true, ..TapeOptions::default() })
    }

    /// Continues texts to their ends, from tokens of each that the cache lacks, `new`, and what stands before those that begin. It keeps what the model sees of the last of them to end.
    fn write(
        &self,
        model: &AdaptedModel,
        cache: &mut Cache,
        (mut new, mut before): (Vec<Vec<u32>>, Option<Tensors>),
        texts: &mut [Text<'_>],
        settings: &Settings,
        tell: &mut dyn FnMut(usize, &str) -> Result<()>,
    ) -> Result<()> {
        let mut going: Vec<usize> = (0..texts.len()).collect();
        while !going.is_empty() {
            let logits = self.logits(model, cache, &new, before.take().as_ref())?; // [going, vocabulary]
            let mut places = Vec::with_capacity(going.len());
            new.clear();
            for (place, (&i, mut logits)) in going.iter().zip(logits).enumerate() {
                let text = &mut texts[i];
                let random = || text.drawn.uniform(text.generated() as u64);
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
                if !places.is_empty() {
                    cache.keep(&places);
                }
                going = places.into_iter().map(|place| going[place]).collect();
            }
        }
        Ok(())
    }

    /// The logits of each text's next token, after new ones, `[texts][vocabulary]`.
    fn logits(
        &self,
        model: &AdaptedModel,
        cache: &mut Cache,
        new: &[Vec<u32>],
        before: Option<&Tensors>,
    ) -> Result<Vec<Vec<f32>>> {
        let tape = self.tape();
        let features = model.model.extend(&tape, cache, new, before)?.value; // [texts, width]
        let Vocabulary { weight, bias } = &self.vocabulary;
        let bias = bias.as_ref().map(|bias| tape.parameter(bias));
        let logits = tape.linear(&features, &tape.parameter(weight), bias.as_ref())?; // [texts, vocabulary]
        Ok(logits.tensor().to_dtype(DType::F32)?.to_vec2()?)
    }
}

/// A text that goes on.
struct Text<'a> {
    /// What it went on from, and what has come.
    seen: Vec<u32>,
    asked: usize,
    /// What chance gives for each of its tokens.
    drawn: Stream,
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

/// The tokens that end a text: as the model's files say, its tokenizer, and its template.
fn ends(base: Option<&Path>, asker: &Asker) -> Result<BTreeSet<u32>> {
    let mut said = Vec::new();
    if let Some(base) = base {
        said.push(fthost_models::config(base)?);
        let own = base.join(GENERATION);
        if own.is_file() {
            let wrong = |what: &dyn std::fmt::Display| Error::usage(format!("cannot read {}: {what}", own.display()));
            let text = std::fs::read_to_string(&own).map_err(|error| wrong(&error))?;
            said.push(serde_json::from_str(&text).map_err(|error| wrong(&error))?);
        }
    }
    let of_tokenizer = asker.tokenizer().special_id("eos_token");
    let mut ends: BTreeSet<u32> = of_tokenizer.into_iter().chain(asker.end_of_turn()?).collect();
    for ids in said.iter().map(|said| &said["eos_token_id"]) {
        let ids = ids.as_array().map_or(std::slice::from_ref(ids), Vec::as_slice);
        ends.extend(ids.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()));
    }
    Ok(ends)
}
