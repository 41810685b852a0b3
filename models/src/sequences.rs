//! What models of packed sequences have in common: prompts before the sequences, hooks on their way, the rows that are read.

use fthost_autograd::{Layout, Parameter, Result, Tape, Value};

use crate::hooks::Pass;
use crate::{PoolBy, Pooling, Prefix, Prompt, TextInput};

/// Hidden states before the first block, prompts before those of each sequence.
pub(crate) struct Embedded {
    /// `[tokens, width]`, prompts included.
    pub(crate) value: Value,
    /// The layout of `value`.
    pub(crate) layout: Layout,
    /// The layout without prompts.
    pub(crate) own: Layout,
    /// Prompt rows before every sequence.
    pub(crate) prompt: usize,
    /// The row of each sequence that is pooled.
    pub(crate) pooled: usize,
}

/// Embeddings after the hooks, with the rows that will stand before every sequence.
pub(crate) struct Prompted {
    pub(crate) value: Value,
    pub(crate) prompts: Vec<Prompt>,
    /// Rows that stand before those of each sequence already.
    pub(crate) before: usize,
}

impl Prompted {
    /// Runs the hooks. Each sees the sequences' own tokens.
    pub(crate) fn new(pass: Pass<'_>, site: usize, mut value: Value, layout: &Layout) -> Result<Self> {
        pass.tape.set_layout(layout.clone());
        let mut prompts = Vec::new();
        for hook in pass.embedding_hooks(site) {
            let (changed, prompt) = hook.forward(pass.tape, value, layout)?;
            value = changed;
            prompts.extend(prompt);
        }
        Ok(Self { value, prompts, before: 0 })
    }

    /// Puts rows of its own before each sequence, `[sequences * rows, width]`. Prompts stand before these.
    pub(crate) fn behind(self, tape: &Tape, before: &Value, layout: &Layout) -> Result<Self> {
        let (sequences, width) = (layout.sequences(), self.value.dims().get(1).copied().unwrap_or_default());
        let &[rows, of_width] = before.dims() else { candle_core::bail!("what stands before texts has no rows") };
        if of_width != width || rows == 0 || !rows.is_multiple_of(sequences.max(1)) {
            candle_core::bail!(
                "{rows} rows of {of_width} numbers cannot stand before {sequences} texts of {width}: each has as many"
            );
        }
        let each = rows / sequences;
        let own = layout.ranges().map(|range| (rows + range.start) as u32..(rows + range.end) as u32);
        let order = (0..rows as u32).step_by(each).zip(own).flat_map(|(at, own)| (at..at + each as u32).chain(own));
        let value = tape.concat(&[before, &self.value], 0)?;
        let value = tape.select_rows(&value, &order.collect::<Vec<_>>())?; // [rows + tokens, width]
        Ok(Self { value, before: each, ..self })
    }

    /// Puts the prompts before every sequence, each before those of earlier hooks.
    pub(crate) fn prepend(self, tape: &Tape, own: Layout) -> Result<Embedded> {
        let (mut value, mut layout) = (self.value, own.extended(self.before));
        let (mut prompt, mut pooled) = (self.before, self.before);
        for Prompt { rows, pool_first_token } in self.prompts {
            let n = rows.dims().first().copied().unwrap_or(0);
            value = tape.prepend_rows(&value, &rows, &layout)?;
            layout = layout.extended(n);
            prompt += n;
            pooled = if pool_first_token { pooled + n } else { 0 };
        }
        tape.set_layout(layout.clone());
        Ok(Embedded { value, layout, own, prompt, pooled })
    }
}

/// Rows that the prompts of a pass put before every sequence: seen on a sequence of one token. `words` is `[vocabulary, width]`.
pub(crate) fn prompt_rows(pass: Pass<'_>, site: usize, words: &Parameter) -> Result<usize> {
    let words = pass.tape.embedding(&pass.tape.parameter(words), &[0])?; // [1, width]
    let Prompted { prompts, .. } = Prompted::new(pass, site, words, &Layout::from_lengths([1]))?;
    Ok(prompts.iter().map(|prompt| prompt.rows.dims().first().copied().unwrap_or(0)).sum())
}

/// Refuses ids that do not fit their layout or the word embeddings.
pub(crate) fn check_ids(text: &TextInput, words: &Parameter) -> Result<()> {
    let tokens = text.layout.tokens();
    if text.ids.len() != tokens || text.types.len() != tokens {
        let (ids, types) = (text.ids.len(), text.types.len());
        candle_core::bail!("the layout has {tokens} tokens, but there are {ids} ids and {types} token types");
    }
    if let Some(i) = text.layout.ranges().position(|range| range.is_empty()) {
        candle_core::bail!("sequence {i} is empty; even an empty text has its special tokens");
    }
    within(&text.ids, words, "token id")
}

/// Refuses a row that a table does not have.
pub(crate) fn within(ids: &[u32], table: &Parameter, what: &str) -> Result<()> {
    match ids.iter().max() {
        Some(&max) if max as usize >= table.dims()[0] => {
            let rows = table.dims()[0];
            candle_core::bail!("{what} {max} is outside {}, which has {rows} rows", table.name())
        }
        _ => Ok(()),
    }
}

/// The rows of a block's output that are computed.
pub(crate) struct Rows {
    pub(crate) ids: Vec<u32>,
    /// How they belong to the sequences.
    pub(crate) layout: Layout,
}

impl Rows {
    /// One of each sequence.
    pub(crate) fn single(ids: Vec<u32>) -> Self {
        Self { layout: Layout::single_rows(ids.len()), ids }
    }

    /// The last one of each sequence.
    pub(crate) fn last(layout: &Layout) -> Self {
        Self::single(layout.ranges().map(|range| range.end as u32 - 1).collect())
    }

    /// Of each sequence, all rows but the first few.
    pub(crate) fn without(layout: &Layout, skip: usize) -> Self {
        Self {
            ids: layout.ranges().flat_map(|range| range.skip(skip)).map(|row| row as u32).collect(),
            layout: Layout::from_lengths(layout.ranges().map(|range| range.len() - skip)),
        }
    }
}

/// One row of each sequence of `x`, `[rows, width]`, as `rows` says; where pooling takes one, that is all there is of it.
pub(crate) fn pooled(tape: &Tape, x: Value, rows: &Layout, Pooling { by, normalize }: Pooling) -> Result<Value> {
    let value = match by {
        PoolBy::First | PoolBy::Pooler | PoolBy::Last | PoolBy::End => x,
        PoolBy::Mean => tape.segment_mean(&x, rows)?,
        PoolBy::Max => tape.segment_max(&x, rows)?,
    }; // [sequences, width]
    if normalize { tape.normalize(&value) } else { Ok(value) }
}

/// Keys and values after the hooks of a site, `[tokens, width]`, and the prefix that those give.
pub(crate) fn attended(
    pass: Pass<'_>,
    site: usize,
    mut keys: Value,
    mut values: Value,
    layout: &Layout,
) -> Result<(Value, Value, Option<Prefix>)> {
    let tape = pass.tape;
    let mut prefixes = Vec::new();
    for hook in pass.attention_hooks(site) {
        let prefix;
        (keys, values, prefix) = hook.forward(tape, keys, values, layout)?;
        prefixes.extend(prefix);
    }
    Ok((keys, values, joined(tape, prefixes)?))
}

/// The rows wanted of `x`, `[tokens, width]`.
pub(crate) fn select(tape: &Tape, x: &Value, rows: Option<&Rows>) -> Result<Value> {
    match rows {
        Some(rows) => tape.select_rows(x, &rows.ids),
        None => Ok(x.clone()),
    }
}

/// `x` after the block hooks of a site.
pub(crate) fn hooked(pass: Pass<'_>, site: usize, x: Value, residual: &Value) -> Result<Value> {
    pass.block_hooks(site).iter().try_fold(x, |x, hook| hook.forward(pass.tape, x, residual))
}

/// Several hooks' prefixes as one.
fn joined(tape: &Tape, mut prefixes: Vec<Prefix>) -> Result<Option<Prefix>> {
    if prefixes.len() < 2 {
        return Ok(prefixes.pop());
    }
    let keys: Vec<&Value> = prefixes.iter().map(|prefix| &prefix.keys).collect();
    let values: Vec<&Value> = prefixes.iter().map(|prefix| &prefix.values).collect();
    Ok(Some(Prefix { keys: tape.concat(&keys, 0)?, values: tape.concat(&values, 0)? }))
}
