//! One block: attention to the past and a feed-forward half, each behind a norm and with a residual.

use std::ops::Range;

use fthost_autograd::{Activation, Angles, Attention as Attending, Layout, Parameter, Result, Sees, Tape, Value};

use super::config::{Config, LayerConfig};
use crate::builder::Builder;
use crate::cache::Seen;
use crate::hooks::Pass;
use crate::layers::{LayerNorm, Linear};
use crate::sequences::{Rows, attended, hooked, select};
use crate::{LoadError, SiteKind};

/// RMS norm over the last dimension.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    /// `[width]`
    weight: Parameter,
    /// What is added to the weight.
    offset: f64,
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn build(
        builder: &mut Builder<'_>,
        config: &Config,
        path: &str,
        width: usize,
    ) -> std::result::Result<Self, LoadError> {
        let offset = config.architecture.norm_offset;
        Ok(Self { weight: builder.scale(path, width, 1.0 - offset)?, offset, eps: config.eps })
    }

    /// `x`: `[.., width]`.
    pub(crate) fn forward(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let weight = tape.parameter(&self.weight);
        let weight = if self.offset == 0.0 { weight } else { tape.affine(&weight, 1.0, self.offset)? };
        tape.rms_norm(x, &weight, self.eps)
    }
}

/// The norm of an architecture.
#[derive(Debug)]
pub(crate) enum Norm {
    Rms(RmsNorm),
    Layer(LayerNorm),
}

impl Norm {
    pub(crate) fn build(
        builder: &mut Builder<'_>,
        config: &Config,
        path: &str,
    ) -> std::result::Result<Self, LoadError> {
        Ok(match config.architecture.layer_norms {
            true => Self::Layer(builder.layer_norm(path, config.width, config.eps)?),
            false => Self::Rms(RmsNorm::build(builder, config, path, config.width)?),
        })
    }

    /// `x`: `[rows, width]`.
    pub(crate) fn forward(&self, tape: &Tape, x: &Value) -> Result<Value> {
        match self {
            Self::Rms(norm) => norm.forward(tape, x),
            Self::Layer(norm) => norm.forward(tape, x),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Block {
    norm: Norm,
    attention: Attention,
    attention_output: usize,
    /// Before the sum.
    attention_norm: Option<Norm>,
    inner_norm: Norm,
    gate: Option<Linear>,
    up: Linear,
    activation: Activation,
    down: Linear,
    output: usize,
    /// Before the sum.
    output_norm: Option<Norm>,
    /// Before the sums.
    dropout: Option<f64>,
}

#[derive(Debug)]
struct Attention {
    site: usize,
    projections: Projections,
    query_norm: Option<RmsNorm>,
    key_norm: Option<RmsNorm>,
    dense: Linear,
    head_dim: usize,
    of: Attending,
}

/// What makes queries, keys and values.
#[derive(Debug)]
enum Projections {
    Apart {
        query: Linear,
        key: Linear,
        value: Linear,
    },
    /// One below the other, each as wide as the model.
    Together(Linear),
}

/// How the tokens of a pass are turned: keys, and the queries of the rows that are read in the last block.
pub(crate) struct Turns {
    pub(crate) keys: Angles,
    pub(crate) queries: Option<Angles>,
}

impl Block {
    /// `path`: `layers.3`, `h.3`.
    pub(crate) fn build(
        builder: &mut Builder<'_>,
        config: &Config,
        layer: &LayerConfig,
        path: &str,
    ) -> std::result::Result<Self, LoadError> {
        let (width, inner, bias) = (config.width, config.inner, config.inner_bias);
        let (after, names) = (config.architecture.norms_after, config.architecture.names);
        let at = |name: &str| format!("{path}.{name}");
        let [first, second] = names.norms;
        let norm = Norm::build(builder, config, &at(first))?;
        let attention = Attention::build(builder, config, layer, &at(names.attention))?;
        let attention_output = builder.site(at("attention_output"), SiteKind::AttentionOutput, width, width);
        // With norms on both sides of the halves, what other files call the one before the second half stands after the first.
        let second = Norm::build(builder, config, &at(second))?;
        let (attention_norm, inner_norm) = match after {
            true => (Some(second), Norm::build(builder, config, &at("pre_feedforward_layernorm"))?),
            false => (None, second),
        };
        Ok(Self {
            norm,
            attention,
            attention_output,
            attention_norm,
            inner_norm,
            gate: names.gate.map(|gate| builder.linear(&at(gate), width, inner, bias)).transpose()?,
            up: builder.linear(&at(names.inner[0]), width, inner, bias)?,
            activation: config.activation,
            down: builder.linear(&at(names.inner[1]), inner, width, bias)?,
            output: builder.site(at("output"), SiteKind::FeedForwardOutput, width, width),
            output_norm: match after {
                true => Some(Norm::build(builder, config, &at("post_feedforward_layernorm"))?),
                false => None,
            },
            dropout: config.residual_dropout,
        })
    }

    /// `x`: `[tokens, width]`. Returns `[rows, width]`; every token is a row where `rows` is `None`. Sets the tape's layout to
    /// that of the rows. With `seen`, what the block has seen of each sequence before these tokens, which it adds to.
    pub(crate) fn forward(
        &self,
        pass: Pass<'_>,
        x: &Value,
        layout: &Layout,
        rows: Option<&Rows>,
        turns: Option<&Turns>,
        seen: Option<&mut [Seen]>,
    ) -> Result<Value> {
        let tape = pass.tape;
        let after = |norm: &Option<Norm>, y: Value| match (norm, self.dropout) {
            (Some(norm), _) => norm.forward(tape, &y),
            (None, Some(p)) => tape.dropout(&y, p),
            (None, None) => Ok(y),
        };
        let normed = self.norm.forward(tape, x)?; // [tokens, width]
        let y = self.attention.forward(pass, &normed, layout, rows, turns, seen)?; // [rows, width]
        let x = select(tape, x, rows)?;
        let y = hooked(pass, self.attention_output, after(&self.attention_norm, y)?, &x)?;
        let x = tape.add(&y, &x)?;

        let normed = self.inner_norm.forward(tape, &x)?;
        let y = match &self.gate {
            Some(gate) => {
                let gate = gate.forward(pass, &normed, Activation::Identity)?;
                let up = self.up.forward(pass, &normed, Activation::Identity)?;
                tape.gated(&gate, &up, self.activation)?
            }
            None => self.up.forward(pass, &normed, self.activation)?,
        }; // [rows, inner]
        let y = self.down.forward(pass, &y, Activation::Identity)?;
        let y = hooked(pass, self.output, after(&self.output_norm, y)?, &x)?; // [rows, width]
        tape.add(&y, &x)
    }
}

impl Attention {
    /// `path`: `layers.3.self_attn`.
    fn build(
        builder: &mut Builder<'_>,
        config: &Config,
        layer: &LayerConfig,
        path: &str,
    ) -> std::result::Result<Self, LoadError> {
        let Config { width, heads, kv_heads, head_dim, qkv_bias, output_bias, .. } = *config;
        let (all, shared) = (heads * head_dim, kv_heads * head_dim);
        let at = |name: &str| format!("{path}.{name}");
        let norm = |builder: &mut Builder<'_>, name: &str| {
            let normed = config.architecture.head_norms;
            normed.then(|| RmsNorm::build(builder, config, &at(name), head_dim)).transpose()
        };
        let names = config.architecture.names;
        Ok(Self {
            projections: match names.together {
                Some(name) => Projections::Together(builder.linear(&at(name), width, all + 2 * shared, qkv_bias)?),
                None => Projections::Apart {
                    query: builder.linear(&at("q_proj"), width, all, qkv_bias)?,
                    key: builder.linear(&at("k_proj"), width, shared, qkv_bias)?,
                    value: builder.linear(&at("v_proj"), width, shared, qkv_bias)?,
                },
            },
            query_norm: norm(builder, "q_norm")?,
            key_norm: norm(builder, "k_norm")?,
            site: builder.site(path, SiteKind::Attention, width, shared),
            dense: builder.linear(&at(names.dense), all, width, output_bias)?,
            head_dim,
            of: Attending {
                heads,
                kv_heads,
                scale: Some(config.scale),
                sees: Sees::Past { window: layer.window },
                dropout: config.attention_dropout,
            },
        })
    }

    /// `x`: `[tokens, width]`. Returns `[rows, width]`.
    fn forward(
        &self,
        pass: Pass<'_>,
        x: &Value,
        layout: &Layout,
        rows: Option<&Rows>,
        turns: Option<&Turns>,
        seen: Option<&mut [Seen]>,
    ) -> Result<Value> {
        let tape = pass.tape;
        let turned = |x: Value, angles: Option<&Angles>| match angles {
            Some(angles) => tape.rotary(&x, angles),
            None => Ok(x),
        };
        let all = self.of.heads * self.head_dim;
        let (keys, values, queries) = match &self.projections {
            Projections::Apart { key, value, .. } => {
                let [keys, values] = [key, value].map(|layer| layer.forward(pass, x, Activation::Identity));
                (keys?, values?, None)
            }
            Projections::Together(layer) => {
                let y = layer.forward(pass, x, Activation::Identity)?; // [tokens, (heads + 2 * kv heads) * dim]
                let shared = self.of.kv_heads * self.head_dim;
                let part = |from: usize, width: usize| tape.narrow(&y, 1, from, width);
                (part(all, shared)?, part(all + shared, shared)?, Some(part(0, all)?))
            }
        }; // [tokens, kv heads * dim]
        let keys = turned(self.normed(tape, keys, self.key_norm.as_ref())?, turns.map(|turns| &turns.keys))?;
        let (keys, values, prefix) = attended(pass, self.site, keys, values, layout)?;

        let query_layout = rows.map_or(layout, |rows| &rows.layout);
        let asking = select(tape, queries.as_ref().unwrap_or(x), rows)?;
        tape.set_layout(query_layout.clone());
        let queries = match &self.projections {
            Projections::Apart { query, .. } => query.forward(pass, &asking, Activation::Identity)?,
            Projections::Together(_) => asking,
        }; // [rows, heads * dim]
        let queries = self.normed(tape, queries, self.query_norm.as_ref())?;
        let angles = turns.map(|turns| match &turns.queries {
            Some(angles) if rows.is_some() => angles,
            _ => &turns.keys,
        });
        let queries = turned(queries, angles)?;
        let prefix = prefix.as_ref().map(|prefix| (&prefix.keys, &prefix.values));
        let context = match seen {
            None => tape.attention(&queries, &keys, &values, &self.of, query_layout, layout, prefix)?,
            Some(seen) => self.attend(tape, (&queries, query_layout), (&keys, &values, layout), prefix, seen)?,
        }; // [rows, heads * dim]
        self.dense.forward(pass, &context, Activation::Identity) // [rows, width]
    }

    /// Attention of new tokens to all that was seen of their sequences, and to each other. Each sequence by itself: what was seen of several
    /// does not lie together.
    fn attend(
        &self,
        tape: &Tape,
        (queries, query_layout): (&Value, &Layout),
        (keys, values, layout): (&Value, &Value, &Layout),
        prefix: Option<(&Value, &Value)>,
        seen: &mut [Seen],
    ) -> Result<Value> {
        let mut contexts = Vec::with_capacity(seen.len());
        for ((seen, asking), new) in seen.iter_mut().zip(query_layout.ranges()).zip(layout.ranges()) {
            let of = |x: &Value, range: &Range<usize>| x.tensor().narrow(0, range.start, range.len());
            let (keys, values) = seen.extended(&of(keys, &new)?, &of(values, &new)?)?; // [all, kv heads * dim]
            let queries = Value::constant(of(queries, &asking)?); // [asking, heads * dim]
            let [asking, all] = [asking.len(), keys.dims()[0]].map(|length| Layout::from_lengths([length]));
            contexts.push(tape.attention(&queries, &keys, &values, &self.of, &asking, &all, prefix)?);
        }
        match contexts.len() {
            1 => Ok(contexts.swap_remove(0)),
            _ => tape.concat(&contexts.iter().collect::<Vec<_>>(), 0),
        }
    }

    /// Each head by itself: `x` is `[rows, heads * dim]`.
    fn normed(&self, tape: &Tape, x: Value, norm: Option<&RmsNorm>) -> Result<Value> {
        let Some(norm) = norm else { return Ok(x) };
        let dims = x.dims().to_vec();
        let heads = tape.reshape(&x, &[dims[0] * dims[1] / self.head_dim, self.head_dim])?;
        tape.reshape(&norm.forward(tape, &heads)?, &dims)
    }
}
