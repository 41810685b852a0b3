//! One block: attention and feed-forward, each with a residual.

use fthost_autograd::{Activation, Attention as Attending, Layout, Result, Sees, Value};

use super::config::TowerConfig;
use crate::builder::{Builder, Init};
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
    of: Attending,
}

impl Block {
    /// `path`: `encoder.layer.3`.
    pub(crate) fn build(
        builder: &mut Builder<'_>,
        config: &TowerConfig,
        path: &str,
    ) -> std::result::Result<Self, LoadError> {
        let (names, stds) = (&config.names.block, config.stds);
        let (width, inner, eps, qkv_bias) = (config.width, config.inner, config.eps, config.qkv_bias);
        let at = |name: &str| format!("{path}.{name}");
        let linear = |builder: &mut Builder<'_>, name: &str, sizes: [usize; 2], bias: bool, std: f64| {
            builder.linear_from(&at(name), sizes, bias, [Init::Normal(std), Init::Zeros])
        };
        let full = Attending::full(config.heads, config.attention_dropout);
        let of = if config.names.causal { Attending { sees: Sees::Past { window: None }, ..full } } else { full };
        Ok(Self {
            attention: Attention {
                query: linear(builder, names.query, [width, width], qkv_bias, stds.attention)?,
                key: linear(builder, names.key, [width, width], qkv_bias, stds.attention)?,
                value: linear(builder, names.value, [width, width], qkv_bias, stds.attention)?,
                site: builder.site(at(names.attention), SiteKind::Attention, width, width),
                of,
            },
            attention_dense: linear(builder, names.attention_dense, [width, width], true, stds.attention_dense)?,
            attention_dense_dropout: if config.names.attention_output_dropout { config.hidden_dropout } else { 0.0 },
            attention_output: builder.site(at(names.attention_output), SiteKind::AttentionOutput, width, width),
            attention_norm: builder.layer_norm(&at(names.attention_norm), width, eps)?,
            intermediate: linear(builder, names.intermediate, [width, inner], true, stds.intermediate)?,
            activation: config.activation,
            output_dense: linear(builder, names.output_dense, [inner, width], true, stds.output_dense)?,
            output_dense_dropout: config.hidden_dropout,
            output: builder.site(at(names.output), SiteKind::FeedForwardOutput, width, width),
            output_norm: builder.layer_norm(&at(names.output_norm), width, eps)?,
            pre_norm: config.names.pre_norm,
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
        tape.attention(&queries, &keys, &values, &self.of, query_layout, layout, prefix)
    }
}
