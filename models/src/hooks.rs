//! The hooks that are set at a model's sites.

use std::ops::Range;
use std::sync::Arc;

use fthost_autograd::{Result, Tape};

use crate::merge::Folded;
use crate::site::{AttentionHook, BlockHook, Convolution, EmbeddingHook, Hook, LinearHook, Site, SiteKind};
use crate::weights::closest;

/// Hooks by site. Each site has one kind, so at most one of the lists of a site is filled.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    linear: Vec<Vec<Arc<dyn LinearHook>>>,
    block: Vec<Vec<Arc<dyn BlockHook>>>,
    embeddings: Vec<Vec<Arc<dyn EmbeddingHook>>>,
    attention: Vec<Vec<Arc<dyn AttentionHook>>>,
}

impl Hooks {
    /// None, at this many sites.
    pub(crate) fn none(sites: usize) -> Self {
        Self {
            linear: vec![Vec::new(); sites],
            block: vec![Vec::new(); sites],
            embeddings: vec![Vec::new(); sites],
            attention: vec![Vec::new(); sites],
        }
    }

    /// Sets a hook after those already there.
    pub(crate) fn set(&mut self, sites: &[Site], path: &str, hook: Hook) -> Result<()> {
        let Some(i) = sites.iter().position(|site| site.path == path) else {
            let closest = closest(path, sites.iter().map(|site| site.path.as_str()));
            let hint = closest.map(|name| format!("; the closest is {name}")).unwrap_or_default();
            candle_core::bail!("the model has no site {path}{hint}");
        };
        if let (Hook::Linear(_), Some(Convolution { groups: groups @ 2.., .. })) = (&hook, &sites[i].convolution) {
            candle_core::bail!(
                "{path} is a convolution in {groups} groups, whose outputs see only some of the channels: nothing can be added to it; \
                 leave it out"
            );
        }
        match (hook, sites[i].kind) {
            (Hook::Linear(hook), SiteKind::Linear | SiteKind::Conv) => self.linear[i].push(hook),
            (Hook::Block(hook), SiteKind::AttentionOutput | SiteKind::FeedForwardOutput) => self.block[i].push(hook),
            (Hook::Embeddings(hook), SiteKind::Embeddings) => self.embeddings[i].push(hook),
            (Hook::Attention(hook), SiteKind::Attention) => self.attention[i].push(hook),
            (hook, kind) => {
                let hook = match hook {
                    Hook::Linear(_) => "linear",
                    Hook::Block(_) => "block",
                    Hook::Embeddings(_) => "embedding",
                    Hook::Attention(_) => "attention",
                };
                candle_core::bail!("site {path} is of kind {kind:?} and takes no {hook} hook");
            }
        }
        Ok(())
    }
}

impl Hooks {
    /// Whether a site has hooks.
    pub(crate) fn any(&self, site: usize) -> bool {
        !self.linear[site].is_empty() || self.beside_weights(site)
    }

    /// Whether a site has hooks that stand beside the weights, and so cannot be folded into them.
    pub(crate) fn beside_weights(&self, site: usize) -> bool {
        !(self.block[site].is_empty() && self.embeddings[site].is_empty() && self.attention[site].is_empty())
    }
}

/// One forward pass: the tape, and the hooks to call.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) tape: &'a Tape,
    hooks: &'a Hooks,
    /// The first site that it passes, and the one behind the last.
    sites: [usize; 2],
    /// What hooked layers are held against, by site.
    folded: &'a [Option<Folded>],
}

impl<'a> Pass<'a> {
    pub(crate) fn new(tape: &'a Tape, hooks: &'a Hooks) -> Self {
        Self { tape, hooks, sites: [0, hooks.linear.len()], folded: &[] }
    }

    /// The pass through these sites alone: one stream's of a model that has several.
    pub(crate) fn among(self, sites: &Range<usize>) -> Self {
        Self { sites: [sites.start, sites.end], ..self }
    }

    /// The pass in which each hooked layer is held against what it is folded into.
    pub(crate) fn checking(self, folded: &'a [Option<Folded>]) -> Self {
        Self { folded, ..self }
    }

    /// What the layer at a site is held against in this pass.
    pub(crate) fn folded(&self, site: usize) -> Option<&'a Folded> {
        self.folded.get(site)?.as_ref()
    }

    pub(crate) fn linear_hooks(&self, site: usize) -> &'a [Arc<dyn LinearHook>] {
        &self.hooks.linear[site]
    }

    pub(crate) fn block_hooks(&self, site: usize) -> &'a [Arc<dyn BlockHook>] {
        &self.hooks.block[site]
    }

    pub(crate) fn embedding_hooks(&self, site: usize) -> &'a [Arc<dyn EmbeddingHook>] {
        &self.hooks.embeddings[site]
    }

    pub(crate) fn attention_hooks(&self, site: usize) -> &'a [Arc<dyn AttentionHook>] {
        &self.hooks.attention[site]
    }

    /// Whether blocks are [recomputed](Tape::recomputed).
    pub(crate) fn recomputes(self) -> bool {
        let options = self.tape.options();
        options.recompute && options.recording
    }

    /// By how many positions the prefixes shift the sequences.
    pub(crate) fn position_shift(&self) -> usize {
        let [first, end] = self.sites;
        let hooks = self.hooks.attention[first..end].iter().flatten();
        hooks.map(|hook| hook.position_shift()).max().unwrap_or(0)
    }
}
