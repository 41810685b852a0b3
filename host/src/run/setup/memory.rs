//! The memory that a run will take: what the process has once everything is set up, which is measured, and what training adds.

use fthost_autograd::rows_of_logits;
use fthost_models::{BlockMemory, Modality, Stream};
use serde::Serialize;

use crate::Result;
use crate::adapted::{AdaptedModel, Owner};
use crate::data::{Dataset, split_micro_batches};
use crate::run::chunks::chunks;
use crate::run::machine::{give_back_free_memory, peak_rss_bytes, rss_bytes};
use crate::run::pass::Way;

/// Estimated memory in bytes, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What is there before the first step, data left out: the program, the tokenizer, and the weights as the kernels read them.
    pub weights: usize,
    /// Weights that train, their gradients and the optimizer's moments.
    pub training: usize,
    /// Tensors that plugins keep beside their parameters, as of now: averages, weights to hold on to. Of a plan these are those of the first
    /// step. A run says what there is before it: what a plugin will keep, it cannot tell.
    pub plugins: usize,
    /// What the micro-batches in flight keep for their backward pass, or evaluation's take: the larger of the two.
    pub activations: usize,
    /// Tokenized data, as far as they are not on disk.
    pub data: usize,
}

/// How much is on its way at once.
#[derive(Clone, Debug)]
pub(super) struct Load<'a> {
    /// Of each task's training examples.
    pub(super) batches: &'a [BatchOf],
    /// Bytes that the optimizer keeps from step to step.
    pub(super) optimizer_bytes: usize,
    /// Threads that take micro-batches.
    pub(super) threads: usize,
}

/// A task's batches.
#[derive(Clone, Copy, Debug)]
pub struct BatchOf {
    /// Examples of one, or of an episode.
    pub examples: usize,
    /// How they pass through network and head.
    pub way: Way,
    /// Whether the head reads one row of each example, and not one of each token or pixel.
    pub pooled: bool,
}

/// What of a batch is there at one time.
struct Pieces {
    /// Micro-batches whose tapes are.
    tapes: usize,
    /// Tokens of each.
    tokens: usize,
    /// Micro-batches that cores are at.
    flights: usize,
    /// Tokens of those.
    working: usize,
    /// Rows of features that are gathered for the head.
    gathered: usize,
}

impl Pieces {
    fn of(data: &Dataset, batch: BatchOf, threads: usize, on_cores: bool) -> Self {
        let (mean, examples) = (mean_length(data).max(1), batch.examples);
        let gathered = if batch.pooled { examples } else { examples * mean };
        let whole = Self { tapes: 1, tokens: examples * mean, flights: 1, working: examples * mean, gathered: 0 };
        let most = match batch.way {
            Way::OneTape(_) => return whole,
            Way::Twice(most) if !on_cores => {
                let tokens = most.min(examples) * mean;
                return Self { tokens, working: tokens, gathered, ..whole };
            }
            Way::Twice(most) => most,
            Way::Apart | Way::Gathered => usize::MAX,
        };
        let mut lengths = vec![mean_length(data); examples];
        if let Some(first) = lengths.first_mut() {
            *first = data.longest();
        }
        let parts = split_micro_batches(&lengths, most);
        let tokens = |places: &Vec<usize>| places.iter().map(|&place| lengths[place]).sum::<usize>();
        let (flights, largest) = (threads.min(parts.len()), parts.iter().map(tokens).max().unwrap_or_default());
        let working = flights * largest;
        match batch.way {
            Way::Gathered => Self { flights, working: working.min(whole.tokens), gathered, ..whole },
            Way::Twice(_) => Self { tapes: flights, tokens: largest, flights, working, gathered },
            Way::Apart | Way::OneTape(_) => Self { tapes: flights, tokens: largest, flights, working, gathered: 0 },
        }
    }
}

impl Memory {
    /// The sum.
    pub fn total(&self) -> usize {
        self.weights + self.training + self.plugins + self.activations + self.data
    }
}

const F32: usize = size_of::<f32>();
/// Of what is freed in one place while it is asked for in another the allocator holds a part twice: as measured, about one in so many.
const SLACK: usize = 4;
/// Scratch of the kernels and the stack of a thread.
const THREAD: usize = 10_000_000;

/// What a run takes whose model and data are there. `evaluated` are the examples that it evaluates on.
///
/// # Errors
/// Examples that cannot be read, and images that are too small for the model.
pub(super) fn estimate(
    model: &AdaptedModel,
    train: &[&Dataset],
    evaluated: &[&Dataset],
    load: &Load<'_>,
) -> Result<Memory> {
    let elements = |of: &dyn Fn(&Owner) -> bool| -> usize {
        model.trainable().filter(|p| of(&p.owner)).map(|p| p.parameter.elem_count()).sum()
    };
    let trainable = elements(&|_| true);
    let of_base = elements(&|owner| matches!(owner, Owner::Base));
    let beneath_heads = elements(&|owner| !matches!(owner, Owner::Head(_)));
    let total: usize = model.parameters.iter().map(|p| p.parameter.elem_count()).sum();
    let streams = &model.model.info().streams;

    // Gradients of embeddings are those of the rows that a micro-batch has.
    let dense = trainable - of_base.min(streams.iter().map(embedded).sum());
    let pieces: Vec<Pieces> = train
        .iter()
        .zip(load.batches)
        .map(|(data, batch)| Pieces::of(data, *batch, load.threads, model.device.is_cpu()))
        .collect();
    // What a token's way through a stream leaves, and what is there beside it while a core is at it.
    let kept_by = |layers: usize, width: usize, block: BlockMemory| {
        if beneath_heads == 0 {
            return (0, block.passing);
        }
        let kept = if 2 * of_base > total { block.kept_to_train } else { block.kept };
        // Of blocks that are made once more their inputs are kept, and of one at a time the rest.
        match model.recompute {
            true => (layers * width, kept + block.backward),
            false => (layers * kept, block.backward),
        }
    };
    let of_streams = |data: &Dataset, tokens: usize, working: usize, training: bool| -> usize {
        let of = |stream: &Stream| {
            let [tokens, working] = [tokens, working].map(|tokens| tokens_of(data, stream, tokens));
            let block = stream.block.unwrap_or_default();
            let (kept, beside) = match training {
                true => kept_by(stream.layers.unwrap_or(1), stream.width, block),
                false => (0, block.passing),
            };
            F32 * (tokens * kept + working * beside)
        };
        streams.iter().map(of).sum()
    };
    let of_logits =
        |tokens: usize| -> usize { streams.iter().map(|stream| F32 * logits(model, stream, tokens)).sum::<usize>() };
    let widths: usize = streams.iter().map(|stream| stream.width).sum();
    // Where a network's blocks are not alike it says itself what its maps take.
    let of_maps = |data: &Dataset, tokens: usize, training: bool| -> Result<Option<usize>> {
        let Some(transform) = data.transform() else { return Ok(None) };
        let (height, width) = transform.preprocess().size();
        let images = tokens.div_ceil(mean_length(data).max(1));
        Ok(model.model.held(images, [height, width], training)?.map(|numbers| F32 * numbers))
    };
    let mut passes = Vec::new();
    for (data, of) in train.iter().zip(&pieces) {
        let maps = of_maps(data, of.tokens, true)?.map(|bytes| of.tapes * bytes);
        // A network that says itself what its maps take has no blocks that are alike.
        let kept = of_streams(data, of.tapes * of.tokens, of.working, true) + of.tapes * of_logits(of.tokens);
        // One after the other, in order, and their gradient.
        let gathered = 3 * F32 * of.gathered * widths;
        passes.push(maps.unwrap_or_default() + kept + gathered);
    }
    for data in evaluated {
        let rows: Vec<u32> = (0..data.len() as u32).collect();
        let chunks = chunks(model, data, data.of_masks(), &rows)?;
        let flights = load.threads.min(chunks.len());
        let tokens = chunks.iter().map(|chunk| chunk.tokens).max().unwrap_or_default();
        let maps = of_maps(data, tokens, false)?;
        let passing = of_streams(data, tokens, tokens, false) + of_logits(tokens);
        passes.push(flights * (maps.unwrap_or_default() + passing));
    }
    let largest = passes.into_iter().max().unwrap_or_default();
    let activations = largest + largest / SLACK + load.threads * THREAD;

    let flights = pieces.iter().map(|of| of.flights).max().unwrap_or(1);
    let flights = if flights > 1 { flights } else { 0 };
    let training = F32 * (of_base + trainable + dense * flights) + load.optimizer_bytes;
    let data = train.iter().chain(evaluated).map(|data| data.in_memory()).sum();
    // What setting up has left free would be counted twice: training takes it up first.
    give_back_free_memory();
    let plugins = model.handles().kept_bytes();
    let there = if model.device.is_cpu() { rss_bytes() as usize } else { F32 * total + plugins + data };
    let memory = Memory { weights: there.saturating_sub(plugins + data), training, plugins, activations, data };
    // Setting up may have taken more than training will.
    let beyond = (peak_rss_bytes() as usize).saturating_sub(memory.total());
    Ok(Memory { weights: memory.weights + beyond, ..memory })
}

fn mean_length(data: &Dataset) -> usize {
    data.total_tokens().div_ceil(data.len().max(1))
}

/// How many of some examples' tokens are a stream's: of a text with its picture each has its own.
fn tokens_of(data: &Dataset, stream: &Stream, tokens: usize) -> usize {
    if !data.is_for(stream.modality) {
        return 0;
    }
    match (stream.modality, data.beside()) {
        (_, 0) => tokens,
        // What stands before a text passes through its stream too.
        (Modality::Text { .. }, _) if data.stands_behind_pictures() => tokens,
        (Modality::Images { .. }, beside) => tokens.div_ceil(mean_length(data).max(1)) * beside,
        (Modality::Text { .. }, beside) => tokens.saturating_sub(tokens.div_ceil(mean_length(data).max(1)) * beside),
    }
}

/// Logits over a vocabulary that are there at one time.
fn logits(model: &AdaptedModel, stream: &Stream, tokens: usize) -> usize {
    match (&model.model.info().vocabulary, stream.modality) {
        (Some(_), Modality::Text { vocabulary, .. }) => vocabulary * rows_of_logits(vocabulary).min(tokens),
        _ => 0,
    }
}

/// Elements of a stream's word embeddings.
fn embedded(stream: &Stream) -> usize {
    match (&stream.word_embeddings, stream.modality) {
        (Some(_), Modality::Text { vocabulary, .. }) => vocabulary * stream.width,
        _ => 0,
    }
}
