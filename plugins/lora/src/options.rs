//! The options, and which layer gets which rank and alpha.

use std::collections::BTreeMap;

use fthost_plugin_api::prelude::*;

/// Options of LoRA.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("first_run" = {}))]
pub(crate) struct LoraConfig {
    /// Rank of the update: rows of A, columns of B.
    #[schemars(range(min = 1), extend("search" = [2, 4, 8, 16, 32]))]
    pub(crate) rank: usize,
    /// Weight of the update; `scaling` says how it becomes the scale.
    #[schemars(extend("search" = [4, 8, 16, 32, 64]))]
    pub(crate) alpha: f64,
    /// How alpha becomes the scale.
    pub(crate) scaling: Scaling,
    /// Linear layers and convolutions that get an update.
    pub(crate) targets: Targets,
    /// Layers that get none although `targets` names them.
    pub(crate) exclude: Option<Targets>,
    /// Ranks of some layers, by regular expressions over paths or their ends: { "layer.0.attention.self.query" = 16 }.
    pub(crate) rank_pattern: BTreeMap<String, usize>,
    /// Alphas of some layers, as `rank_pattern`.
    pub(crate) alpha_pattern: BTreeMap<String, f64>,
    /// Dropout on the update's input.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub(crate) dropout: f64,
    /// Which of the model's biases train too.
    pub(crate) bias: Bias,
    /// Whether the rows of the adapted weights get learned norms: DoRA.
    pub(crate) use_dora: bool,
    /// What A and B begin as.
    pub(crate) init: Start,
    /// The learning rate of B, as a multiple of A's: LoRA+.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(crate) lr_ratio: f64,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            scaling: Scaling::AlphaOverR,
            targets: Targets::from(["query", "value"]),
            exclude: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            dropout: 0.0,
            bias: Bias::None,
            use_dora: false,
            init: Start::Lora,
            lr_ratio: 1.0,
        }
    }
}

/// How alpha and rank make the scale.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scaling {
    /// alpha / rank
    AlphaOverR,
    /// alpha / sqrt rank: ranks of any size learn at the same pace
    Rslora,
    /// alpha
    Raw,
}

impl Scaling {
    /// The scale s.
    pub(crate) fn of(self, Size { rank, alpha }: Size) -> f64 {
        match self {
            Self::AlphaOverR => alpha / rank as f64,
            Self::Rslora => alpha / (rank as f64).sqrt(),
            Self::Raw => alpha,
        }
    }
}

/// What A and B begin as.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Start {
    /// A random and B zero
    Lora,
    /// The first columns of Q and rows of R of the weight, which are taken out of it
    Olora,
    /// The largest singular values of the weight, which are taken out of it
    Pissa,
}

/// Which of the model's biases train.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bias {
    /// None
    None,
    /// All, those of norms included
    All,
    /// Those of the layers that get an update
    LoraOnly,
}

/// The update of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Size {
    pub(crate) rank: usize,
    pub(crate) alpha: f64,
}

impl LoraConfig {
    /// Refuses what a schema cannot say.
    pub(crate) fn check(&self) -> Result<()> {
        if self.rank == 0 || self.rank_pattern.values().any(|rank| *rank == 0) {
            return Err(Error::new("rank is 0, so nothing would train: give at least 1"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::new(format!("dropout is {}, and must be at least 0 and below 1", self.dropout)));
        }
        if self.use_dora && self.init != Start::Lora {
            return Err(Error::new("use_dora and init = \"olora\" or \"pissa\" do not go together: leave one out"));
        }
        if !(self.lr_ratio > 0.0 && self.lr_ratio.is_finite()) {
            return Err(Error::new(format!("lr_ratio is {}, and must be more than 0", self.lr_ratio)));
        }
        Ok(())
    }

    /// Rank and alpha of each site.
    pub(crate) fn sizes(&self, model: &Model, sites: &[Site]) -> Result<Vec<Size>> {
        let ranks = by_pattern(model, "rank_pattern", &self.rank_pattern, sites)?;
        let alphas = by_pattern(model, "alpha_pattern", &self.alpha_pattern, sites)?;
        let size = |site: &Site| Size {
            rank: ranks.get(&site.path).copied().unwrap_or(self.rank),
            alpha: alphas.get(&site.path).copied().unwrap_or(self.alpha),
        };
        Ok(sites.iter().map(size).collect())
    }
}

/// The values that patterns give some of the sites, by path. As PEFT's `get_pattern_key`, but for two patterns that name one layer:
/// there the first counts, and a table of a run file has no first.
///
/// # Errors
/// A pattern that names none of the sites; two that disagree about one.
fn by_pattern<T: Copy + PartialEq>(
    model: &Model,
    option: &str,
    patterns: &BTreeMap<String, T>,
    sites: &[Site],
) -> Result<BTreeMap<String, T>> {
    let mut values: BTreeMap<String, (T, &str)> = BTreeMap::new();
    for (pattern, value) in patterns {
        let named = model.products(&Targets::Pattern(format!(r"(.*\.)?({pattern})")), None)?;
        let mut targeted = named.into_iter().filter(|site| sites.contains(site)).peekable();
        if targeted.peek().is_none() {
            return Err(Error::new(format!(
                "{option} names by {pattern:?} layers that get no update: add them to targets, or take it out"
            )));
        }
        for Site { path, .. } in targeted {
            match values.get(&path) {
                Some((other, first)) if other != value => {
                    return Err(Error::new(format!(
                        "{option} names {path} by {first:?} and by {pattern:?}: leave one value for it"
                    )));
                }
                _ => drop(values.insert(path, (*value, pattern))),
            }
        }
    }
    Ok(values.into_iter().map(|(path, (value, _))| (path, value)).collect())
}
