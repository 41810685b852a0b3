//! One block: attention and feed-forward, each with a residual.

use fthost_autograd::{Activation, Attention as Attending, Layout, Result, Value};

use super::config::Config;
use crate::builder::Builder;
use crate::hooks::Pass;
use crate::layers::{LayerNorm, Linear};
use crate::sequences::{Rows, attended, hooked, select};
use crate::{LoadError, SiteKind};

#[derive(Debug)]
pub(crate) struct Block {
    attention: Attention,
    attention_dense: Linear,
    attention_dense_dropout: f64,
    attention_output: usize,
    attention_norm: LayerNorm,
    intermediate: Linear,
    activation: Activation,
    output_dense: Linear,
    output_dense_dropout: f64,
    output: usize,
    output_norm: LayerNorm,
    /// Norms stand before the layers (ViT) instead of after the sums (BERT).
    pre_norm: bool,
}

#[derive(Debug)]
struct Attention {
    site: usize,
    query: Linear,
    key: Linear,
    value: Linear,
    heads: usize,
    dropout: f64,
}

impl Block {
    /// `path`: `encoder.layer.3`.
    pub(crate) fn build(
        builder: &mut Builder<'_>,
        config: &Config,
        path: &str,
    ) -> std::result::Result<Self, LoadError> {
        let names = &config.architecture.block;
        let (width, inner, eps, bias) = (config.width, config.inner, config.eps, config.qkv_bias);
        let at = |name: &str| format!("{path}.{name}");
        Ok(Self {
            attention: Attention {
                query: builder.linear(&at(names.query), width, width, bias)?,
                key: builder.linear(&at(names.key), width, width, bias)?,
                value: builder.linear(&at(names.value), width, width, bias)?,
                site: builder.site(at(names.attention), SiteKind::Attention, width, width),
                heads: config.heads,
                dropout: config.attention_dropout,
            },
            attention_dense: builder.linear(&at(names.attention_dense), width, width, true)?,
            attention_dense_dropout: if config.architecture.attention_output_dropout {
                config.hidden_dropout
            } else {
                0.0
            },
            attention_output: builder.site(at(names.attention_output), SiteKind::AttentionOutput, width, width),
            attention_norm: builder.layer_norm(&at(names.attention_norm), width, eps)?,
            intermediate: builder.linear(&at(names.intermediate), width, inner, true)?,
            activation: config.activation,
            output_dense: builder.linear(&at(names.output_dense), inner, width, true)?,
            output_dense_dropout: config.hidden_dropout,
            output: builder.site(at(names.output), SiteKind::FeedForwardOutput, width, width),
            output_norm: builder.layer_norm(&at(names.output_norm), width, eps)?,
            pre_norm: config.architecture.pre_norm,
        })
    }

    /// `x`: `[tokens, width]`. Returns `[rows, width]`; every token is a row where `rows` is `None`. Sets the tape's layout to
    /// that of the rows.
    pub(crate) fn forward(&self, pass: Pass<'_>, x: &Value, layout: &Layout, rows: Option<&Rows>) -> Result<Value> {
        let tape = pass.tape;
        let before = |norm: &LayerNorm, x: &Value| if self.pre_norm { norm.forward(tape, x) } else { Ok(x.clone()) };
        let after = |norm: &LayerNorm, x: &Value, residual: &Value| match self.pre_norm {
            true => tape.add(x, residual),
            false => norm.forward_sum(tape, x, residual),
        };

        let seen = before(&self.attention_norm, x)?; // [tokens, width]
        let context = self.attention.forward(pass, &seen, layout, rows)?; // [rows, width]
        let x = select(tape, x, rows)?;
        let y = self.attention_dense.forward(pass, &context, Activation::Identity)?;
        let y = tape.dropout(&y, self.attention_dense_dropout)?;
        let y = hooked(pass, self.attention_output, y, &x)?;
        let x = after(&self.attention_norm, &y, &x)?;

        let seen = before(&self.output_norm, &x)?;
        let y = self.intermediate.forward(pass, &seen, self.activation)?; // [rows, inner]
        let y = self.output_dense.forward(pass, &y, Activation::Identity)?; // [rows, width]
        let y = tape.dropout(&y, self.output_dense_dropout)?;
        let y = hooked(pass, self.output, y, &x)?;
        after(&self.output_norm, &y, &x)
    }
}

impl Attention {
    /// `x`: `[tokens, width]`. Returns `[rows, width]`.
    fn forward(&self, pass: Pass<'_>, x: &Value, layout: &Layout, rows: Option<&Rows>) -> Result<Value> {
        let tape = pass.tape;
        let keys = self.key.forward(pass, x, Activation::Identity)?; // [tokens, width]
        let values = self.value.forward(pass, x, Activation::Identity)?;
        let (keys, values, prefix) = attended(pass, self.site, keys, values, layout)?;

        let query_layout = rows.map_or(layout, |rows| &rows.layout);
        let asking = select(tape, x, rows)?;
        tape.set_layout(query_layout.clone());
        let queries = self.query.forward(pass, &asking, Activation::Identity)?; // [rows, width]
        let prefix = prefix.as_ref().map(|prefix| (&prefix.keys, &prefix.values));
        let of = Attending::full(self.heads, self.dropout);
        tape.attention(&queries, &keys, &values, &of, query_layout, layout, prefix)
    }
}
