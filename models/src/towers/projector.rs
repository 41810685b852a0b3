//! What stands between the streams of a decoder that sees: the pixels of a picture's map become rows that stand in place of words.

use std::path::Path;
use std::sync::Arc;

use fthost_autograd::{Activation, Device, Layout, Parameter, Result, Tape, Tensor, Value};

use crate::builder::{Builder, Init, Origin};
use crate::folder::write_tensors;
use crate::hooks::{Hooks, Pass};
use crate::layers::Linear;
use crate::weights::Weights;
use crate::{BaseParameter, FileState, Hook, LoadError, Site, fold};

/// The layers from the bottom up, by the names that LLaVA's have in Transformers.
const LAYERS: [&str; 2] = ["multi_modal_projector.linear_1", "multi_modal_projector.linear_2"];

/// Linear, GELU, linear, as in LLaVA 1.5 (Liu et al. 2023, arXiv:2310.03744).
pub(super) struct Projector {
    layers: [Linear; 2],
    sites: Vec<Site>,
    hooks: Arc<Hooks>,
    parameters: Vec<BaseParameter>,
    files: Vec<FileState>,
}

impl Projector {
    /// From channels to the decoder's width, by the weights of a file, or new ones as PyTorch starts linear layers. `group` is that of heads.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds a projector of other widths.
    pub(super) fn build(
        file: Option<&Path>,
        [channels, width]: [usize; 2],
        (seed, group): (u64, usize),
        device: &Device,
    ) -> std::result::Result<Self, LoadError> {
        let origin = match file {
            Some(file) => Origin::Checkpoint(Weights::open(file)?),
            None => Origin::New { seed },
        };
        let mut builder = Builder::new(&origin, "", 0.0, device);
        // It is of neither stream, and stays in full precision: it always trains.
        (builder.stream, builder.group) = (None, group);
        let mut layer = |path, inputs: usize| {
            let uniform = Init::Uniform((inputs.max(1) as f64).powf(-0.5));
            builder.linear_from(path, [inputs, width], true, [uniform; 2])
        };
        let layers = [layer(LAYERS[0], channels)?, layer(LAYERS[1], width)?];
        let Builder { sites, parameters, .. } = builder;
        Ok(Self { layers, hooks: Arc::new(Hooks::none(sites.len())), sites, parameters, files: origin.files(None) })
    }

    /// What stands before the texts, `[rows, width]`. `maps`: `[rows, channels]`, of so many pictures.
    pub(super) fn forward(&self, tape: &Tape, maps: &Value, pictures: usize) -> Result<Value> {
        let rows = maps.dims().first().copied().unwrap_or_default();
        if rows == 0 || !rows.is_multiple_of(pictures.max(1)) {
            candle_core::bail!("{rows} rows of maps are not those of {pictures} pictures");
        }
        tape.set_layout(Layout::from_lengths(std::iter::repeat_n(rows / pictures, pictures)));
        self.pass(Pass::new(tape, &self.hooks), maps)
    }

    fn pass(&self, pass: Pass<'_>, maps: &Value) -> Result<Value> {
        let [below, above] = &self.layers;
        let hidden = below.forward(pass, maps, Activation::Gelu)?; // [rows, width]
        above.forward(pass, &hidden, Activation::Identity)
    }

    /// Its weights with its hooks folded into them; `maps`, `[rows, channels]`, are what the folded layers are tried on.
    pub(super) fn folded(&self, maps: &Value) -> Result<Vec<(Parameter, Tensor)>> {
        fold::folded(&self.sites, &self.parameters, &self.hooks, |pass| self.pass(pass, maps).map(drop))
    }

    /// Writes its weights into a file of their own.
    pub(super) fn save(&self, file: &Path) -> std::result::Result<(), LoadError> {
        let tensor = |base: &BaseParameter| (base.parameter.name().to_owned(), base.parameter.tensor());
        write_tensors(file, &self.parameters.iter().map(tensor).collect())
    }

    /// Whether one of its sites has this path.
    pub(super) fn has(&self, path: &str) -> bool {
        self.sites.iter().any(|site| site.path == path)
    }

    /// Whether it has a parameter of this name.
    pub(super) fn is_of(&self, parameter: &str) -> bool {
        self.parameters.iter().any(|base| base.parameter.name() == parameter)
    }

    pub(super) fn set_hook(&mut self, path: &str, hook: Hook) -> Result<()> {
        Arc::make_mut(&mut self.hooks).set(&self.sites, path, hook)
    }

    pub(super) fn hooked(&self, path: &str) -> bool {
        self.sites.iter().position(|site| site.path == path).is_some_and(|site| self.hooks.any(site))
    }

    pub(super) fn clear_hooks(&mut self) {
        self.hooks = Arc::new(Hooks::none(self.sites.len()));
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.parameters.iter().map(|base| base.parameter.name().to_owned()).collect()
    }

    pub(super) fn sites(&self) -> &[Site] {
        &self.sites
    }

    pub(super) fn parameters(&self) -> &[BaseParameter] {
        &self.parameters
    }

    /// The file that its weights are from; none where they are new.
    pub(super) fn files(&self) -> &[FileState] {
        &self.files
    }
}
