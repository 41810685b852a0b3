//! The toy model's forward pass, hooks and all.

use std::{collections::HashMap, sync::Arc};

use super::{
    ops::{
        Sweep, add, affine, concat, gelu, index_select, layer_norm, linear, log_softmax, matmul, narrow, reshape,
        softmax, tanh, transpose,
    },
    random::Stream,
    run::{Answer, Function, Hook, Run},
    toy::{Batch, EPS, HEADS, LAYERS, MAP, PICTURE, POSITIONS, WIDTH},
    value::Value,
};
use crate::{Convolution, Error, Result, abi::tables::fisher_labels};

/// What a pass gives.
pub(crate) struct Features {
    /// `[examples, width]`
    pub(crate) pooled: Value,
    /// `[tokens, width]`, without the rows of prompts; of pictures a map of each.
    pub(crate) sequence: Value,
    /// Start of each example's rows in `sequence`, and the end of the last.
    pub(crate) offsets: Vec<u32>,
    /// Each layer that has hooks: its path, its input `[rows, in]` before them, and its output `[rows, out]` after them.
    pub(crate) layers: Vec<(String, Value, Value)>,
}

struct Pass<'a> {
    run: &'a Arc<Run>,
    parameters: HashMap<String, Value>,
    layers: Vec<(String, Value, Value)>,
}

/// One result of a hook, of the shape of what it replaces.
fn required(answer: &mut Answer, at: usize, like: &Value, site: &str) -> Result<Value> {
    match answer.values.get_mut(at).and_then(Option::take) {
        Some(value) if value.shape() == like.shape() => Ok(value),
        Some(value) => {
            let (found, needed) = (value.shape(), like.shape());
            Err(Error::new(format!("at {site} the hook gave shape {found:?} where {needed:?} is needed")))
        }
        None => Err(Error::new(format!("at {site} the hook gave no tensor"))),
    }
}

/// Rows of the sequences with the same rows put before each: these, and the new offsets.
fn before_each(rows: &Value, prompt: &Value, offsets: &[u32]) -> Result<(Value, Vec<u32>)> {
    let mut parts = Vec::new();
    for ends in offsets.windows(2) {
        parts.push(prompt.clone());
        parts.push(narrow(rows, 0, ends[0] as usize, (ends[1] - ends[0]) as usize)?);
    }
    let longer = (0..).zip(offsets).map(|(i, offset)| offset + i * prompt.shape()[0] as u32).collect();
    Ok((concat(&parts.iter().collect::<Vec<_>>(), 0)?, longer))
}

fn rows(x: &Value, ids: impl IntoIterator<Item = usize>) -> Result<Value> {
    index_select(x, &ids.into_iter().collect::<Vec<_>>(), 0)
}

impl Pass<'_> {
    fn parameter(&self, name: &str) -> Result<&Value> {
        self.parameters.get(name).ok_or_else(|| Error::new(format!("the toy model has no parameter {name}")))
    }

    fn hooked(&self, hook: &Arc<dyn Hook>, inputs: &[&Value], offsets: &[u32], outputs: usize) -> Result<Answer> {
        hook.call(self.run, Function::Forward, inputs, offsets, outputs).map(Option::unwrap_or_default)
    }

    /// A linear layer, or a convolution over patches. `x`: `[rows, in]`.
    fn linear(&mut self, path: &str, x: &Value) -> Result<Value> {
        let merged = self.run.state().merged.get(path).cloned();
        if let Some((weight, bias)) = merged {
            return linear(x, &weight, bias.as_ref());
        }
        let kernel = self.parameter(&format!("{path}.weight"))?;
        let matrix = kernel.data().len() / kernel.shape()[0];
        let weight = reshape(kernel, [kernel.shape()[0], matrix])?;
        let bias = self.parameter(&format!("{path}.bias"))?.clone();
        let hooks = self.run.hooks(path);
        let mut input = x.clone();
        for hook in &hooks {
            let answer = hook.call(self.run, Function::Input, &[&input], &[], 1)?;
            if let Some(mut answer) = answer.filter(|answer| answer.values.iter().any(Option::is_some)) {
                input = required(&mut answer, 0, x, path)?;
            }
        }
        let mut y = linear(&input, &weight, Some(&bias))?;
        for hook in &hooks {
            y = required(&mut self.hooked(hook, &[&input, &y, &weight], &[], 1)?, 0, &y, path)?;
        }
        if !hooks.is_empty() {
            self.layers.push((path.to_owned(), x.clone(), y.clone()));
        }
        Ok(y)
    }

    /// `x + f(x)` through a norm, with what hooks at the site make of `f(x)`.
    fn residual(&self, site: &str, update: Value, residual: &Value) -> Result<Value> {
        let mut x = update;
        for hook in self.run.hooks(site) {
            x = required(&mut self.hooked(&hook, &[&x, residual], &[], 1)?, 0, &x, site)?;
        }
        self.norm(&format!("{site}.LayerNorm"), &add(&x, residual)?)
    }

    fn norm(&self, path: &str, x: &Value) -> Result<Value> {
        layer_norm(x, self.parameter(&format!("{path}.weight"))?, Some(self.parameter(&format!("{path}.bias"))?), EPS)
    }

    /// The patches that the convolution's kernel meets in maps `[images * height * width, channels]`.
    fn patches(&self, x: &Value, images: usize, map: [usize; 2]) -> Value {
        let ((_, Convolution { kernel, .. }), window) = (self.run.toy.convolution(), self.run.toy.window());
        Sweep { images, map, places: window.output(map, kernel), kernel, window }.patches(x)
    }

    /// What stands before the blocks: rows, offsets, and whose row is pooled.
    fn embeddings(&mut self, batch: &Batch) -> Result<(Value, Vec<u32>, Prompted)> {
        let site = "embeddings";
        let (mut x, mut offsets) = match batch {
            Batch::Texts(texts) => {
                let ids = texts.iter().flatten().map(|&id| id as usize);
                (rows(self.parameter("embeddings.word_embeddings.weight")?, ids)?, ends(texts.iter().map(Vec::len)))
            }
            Batch::Pictures(n, pixels) => {
                let channels = pixels.len() / (n * PICTURE[0] * PICTURE[1]).max(1);
                let pixels = Value::floats([n * PICTURE[0] * PICTURE[1], channels], pixels.clone());
                let patches = self.patches(&pixels, *n, PICTURE);
                (self.linear(self.run.toy.convolution().0, &patches)?, ends((0..*n).map(|_| MAP[0] * MAP[1])))
            }
        };
        let mut prompted = Prompted { rows: 0, pools_first_token: false };
        for hook in self.run.hooks(site) {
            let mut answer = self.hooked(&hook, &[&x], &offsets, 2)?;
            x = required(&mut answer, 0, &x, site)?;
            if let Some(prompt) = answer.values.get_mut(1).and_then(Option::take) {
                if prompt.shape().len() != 2 || prompt.width() != WIDTH {
                    let shape = prompt.shape();
                    return Err(Error::new(format!(
                        "at {site} the prompt has shape {shape:?}, and must be [rows, {WIDTH}]"
                    )));
                }
                prompted = Prompted { rows: prompted.rows + prompt.shape()[0], pools_first_token: answer.flag != 0 };
                (x, offsets) = before_each(&x, &prompt, &offsets)?;
            }
        }
        // A text's prompt takes the first positions; a picture's has none.
        let text = matches!(batch, Batch::Texts(_));
        let mut shift = 0;
        for layer in 0..LAYERS {
            let hooks = self.run.hooks(&format!("encoder.layer.{layer}.attention.self"));
            shift = hooks.iter().map(|hook| hook.position_shift()).fold(shift, usize::max);
        }
        let lengths = offsets.windows(2).map(|ends| (ends[1] - ends[0]) as usize);
        let table = self.parameter("embeddings.position_embeddings.weight")?;
        let zero = Value::floats([1, WIDTH], vec![0.0; WIDTH]);
        let table = concat(&[table, &zero], 0)?;
        let place = |i: usize| if text { shift + i } else { i.checked_sub(prompted.rows).unwrap_or(POSITIONS) };
        let places: Vec<usize> = lengths.flat_map(|length| (0..length).map(place)).collect();
        if let Some(place) = places.iter().find(|place| text && **place >= POSITIONS) {
            return Err(Error::new(format!("position {place} is beyond the toy model's {POSITIONS}: give fewer rows")));
        }
        let mut x = self.norm("embeddings.LayerNorm", &add(&x, &rows(&table, places)?)?)?;
        if text {
            // Each text is a map of its own; a hook sees all their patches as one layer's rows.
            let mut patches = Vec::new();
            for ends in offsets.windows(2) {
                let (start, length) = (ends[0] as usize, (ends[1] - ends[0]) as usize);
                patches.push(self.patches(&narrow(&x, 0, start, length)?, 1, [1, length]));
            }
            let patches = concat(&patches.iter().collect::<Vec<_>>(), 0)?;
            x = add(&x, &self.linear(self.run.toy.convolution().0, &patches)?)?;
        }
        Ok((x, offsets, prompted))
    }

    fn block(&mut self, layer: usize, x: &Value, offsets: &[u32]) -> Result<Value> {
        let path = |end: &str| format!("encoder.layer.{layer}.{end}");
        let query = self.linear(&path("attention.self.query"), x)?;
        let mut keys = self.linear(&path("attention.self.key"), x)?;
        let mut values = self.linear(&path("attention.self.value"), x)?;
        let site = path("attention.self");
        let mut prefix: Option<(Value, Value)> = None;
        for hook in self.run.hooks(&site) {
            let mut answer = self.hooked(&hook, &[&keys, &values], offsets, 4)?;
            keys = required(&mut answer, 0, &keys, &site)?;
            values = required(&mut answer, 1, &values, &site)?;
            let mut rows = answer.values.drain(2..);
            match (rows.next().flatten(), rows.next().flatten()) {
                (Some(keys), Some(values)) => prefix = Some((keys, values)),
                (None, None) => {}
                _ => return Err(Error::new(format!("at {site} a prefix needs keys and values"))),
            }
        }
        let mut seen = offsets.to_vec();
        if let Some((prefix_keys, prefix_values)) = &prefix {
            (keys, _) = before_each(&keys, prefix_keys, offsets)?;
            (values, seen) = before_each(&values, prefix_values, offsets)?;
        }
        let attended = attention(&query, &keys, &values, offsets, &seen)?;
        let output = self.linear(&path("attention.output.dense"), &attended)?;
        let x = self.residual(&path("attention.output"), output, x)?;
        let inner = gelu(&self.linear(&path("intermediate.dense"), &x)?);
        let output = self.linear(&path("output.dense"), &inner)?;
        self.residual(&path("output"), output, &x)
    }
}

/// What a prompt put before each sequence.
#[derive(Clone, Copy)]
struct Prompted {
    rows: usize,
    pools_first_token: bool,
}

/// Offsets of sequences of these lengths.
fn ends(lengths: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut offsets = vec![0];
    lengths.for_each(|length| offsets.push(offsets[offsets.len() - 1] + length as u32));
    offsets
}

/// Each sequence attends to itself, head by head.
fn attention(query: &Value, keys: &Value, values: &Value, offsets: &[u32], seen: &[u32]) -> Result<Value> {
    let size = WIDTH / HEADS;
    let mut sequences = Vec::new();
    for (ends, seen) in offsets.windows(2).zip(seen.windows(2)) {
        let part = |x: &Value, ends: &[u32], head: usize| {
            narrow(&narrow(x, 0, ends[0] as usize, (ends[1] - ends[0]) as usize)?, 1, head * size, size)
        };
        let mut heads = Vec::new();
        for head in 0..HEADS {
            let (q, k, v) = (part(query, ends, head)?, part(keys, seen, head)?, part(values, seen, head)?);
            let scores = affine(&matmul(&q, &transpose(&k, 0, 1))?, 1.0 / (size as f64).sqrt(), 0.0); // [n, m]
            heads.push(matmul(&softmax(&scores)?, &v)?);
        }
        sequences.push(concat(&heads.iter().collect::<Vec<_>>(), 1)?);
    }
    concat(&sequences.iter().collect::<Vec<_>>(), 0)
}

/// Examples through the model.
pub(crate) fn features(run: &Arc<Run>, batch: &Batch) -> Result<Features> {
    let parameters = run.state().parameters.iter().map(|of| (of.name.clone(), of.value.clone())).collect();
    let mut pass = Pass { run, parameters, layers: Vec::new() };
    let (mut x, offsets, prompted) = pass.embeddings(batch)?;
    for layer in 0..LAYERS {
        x = pass.block(layer, &x, &offsets)?;
    }
    let starts = &offsets[..offsets.len() - 1];
    let pooled_row = if prompted.pools_first_token { prompted.rows } else { 0 };
    let pooled = rows(&x, starts.iter().map(|&start| start as usize + pooled_row))?;
    let pooled = tanh(&pass.linear("pooler.dense", &pooled)?);
    let own = offsets.windows(2).flat_map(|ends| ends[0] as usize + prompted.rows..ends[1] as usize);
    let sequence = rows(&x, own)?;
    let lengths = offsets.windows(2).map(|ends| (ends[1] - ends[0]) as usize - prompted.rows);
    Ok(Features { pooled, sequence, offsets: ends(lengths), layers: pass.layers })
}

/// Classes that the toy's own head knows.
pub(crate) const CLASSES: usize = 3;

/// What the toy holds of each class: the first of its pooled features are the logits. `[examples, 3]`
pub(crate) fn log_probabilities(run: &Arc<Run>, batch: &Batch) -> Result<Value> {
    log_softmax(&logits(run, batch)?)
}

/// The same before their softmax.
fn logits(run: &Arc<Run>, batch: &Batch) -> Result<Value> {
    Ok(affine(&narrow(&features(run, batch)?.pooled, 1, 0, CLASSES)?, 3.0, 0.0))
}

/// Calls with number, gradient of `-log p(label)`, or of the squared length of the logits, and weight for each trainable parameter of each
/// example, one example at a time.
///
/// # Errors
/// Those of `visit`, which end the walk.
pub(crate) fn example_gradients(
    run: &Arc<Run>,
    labels: u32,
    limit: u64,
    visit: &mut dyn FnMut(usize, Value, f64) -> Result<()>,
) -> Result<()> {
    const EXAMPLES: u64 = 6;
    let examples = if limit == 0 { EXAMPLES } else { limit.min(EXAMPLES) } as usize;
    let whole = run.toy.batch(examples);
    let mut visit_all = |of: &Value, seed: Vec<f64>, weight: f64| {
        let gradients = of.gradients(seed);
        for (index, _, value) in run.trainable() {
            if let Some(gradient) = gradients.by(&value) {
                visit(index, Value::floats(value.shape(), gradient.to_vec()), weight)?;
            }
        }
        Ok::<_, Error>(())
    };
    for example in 0..examples {
        if labels == fisher_labels::SQUARED_OUTPUT_NORM {
            let logits = logits(run, &one_of(&whole, example))?;
            visit_all(&logits, logits.data().iter().map(|logit| 2.0 * logit).collect(), 1.0)?;
            continue;
        }
        let log_p = log_probabilities(run, &one_of(&whole, example))?;
        let p: Vec<f64> = log_p.data().iter().map(|log_p| log_p.exp()).collect();
        let chosen: Vec<(usize, f64)> = match labels {
            fisher_labels::SAMPLED => vec![(drawn(&p, Stream::new(run.seed, "labels").uniform(example as u64)), 1.0)],
            fisher_labels::EMPIRICAL => vec![(example % CLASSES, 1.0)],
            fisher_labels::EXACT => p.iter().copied().enumerate().collect(),
            other => return Err(Error::new(format!("there is no kind {other} of labels; the mock host knows 1 to 4"))),
        };
        for (label, weight) in chosen {
            let seed = (0..CLASSES).map(|class| if class == label { -1.0 } else { 0.0 }).collect();
            visit_all(&log_p, seed, weight)?;
        }
    }
    Ok(())
}

fn drawn(p: &[f64], mut at: f64) -> usize {
    let past = p.iter().take_while(|p| {
        at -= **p;
        at >= 0.0
    });
    past.count().min(p.len() - 1)
}

fn one_of(batch: &Batch, example: usize) -> Batch {
    match batch {
        Batch::Texts(texts) => Batch::Texts(vec![texts[example].clone()]),
        Batch::Pictures(n, pixels) => {
            let size = pixels.len() / n;
            Batch::Pictures(1, pixels[example * size..(example + 1) * size].to_vec())
        }
    }
}
