//! Where training starts: how far from the base model, and digests of what is to stay as it is.

use fthost_autograd::{DType, Device, Parameter, Precision, Tape, TapeOptions, Tensor};
use fthost_models::Read;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::digests::{Digests, Remembered};
use crate::adapted::{AdaptedModel, ModelParameter, Owner};
use crate::data::Dataset;
use crate::report::numbers::hexadecimal;
use crate::{Error, Result};

/// Training examples that the model before and after `attach` is compared on.
pub const EXAMPLES: usize = 8;

/// The model with the strategies attached, before the first step, beside the base model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Whether every strategy says that it starts at the base model. If so, a difference is an error.
    pub claimed: bool,
    /// Whether the features of some training examples are the base model's to the bit, in the run's precision.
    pub equals_base: bool,
    /// Number of these examples.
    pub examples: usize,
    /// The greatest difference of a feature.
    pub max_difference: f64,
}

/// The base parameters that never trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Frozen {
    /// Number of tensors.
    pub tensors: usize,
    /// Number of elements.
    pub elements: usize,
    /// Whether the SHA-256 of each is what it was, and its packed form what its values give. Otherwise the run ends with an error.
    pub unchanged: bool,
}

/// Pooled features of the first training examples, `[examples, width]`, by products in `precision` and without dropout.
pub fn features(model: &AdaptedModel, data: &Dataset, precision: Precision) -> Result<Tensor> {
    let rows: Vec<u32> = (0..data.len().min(EXAMPLES) as u32).collect();
    let tape = Tape::new(TapeOptions { precision, parallel_ops: true, ..TapeOptions::default() });
    let features = model.model.forward(&tape, &data.input(&rows)?, Read::Pooled)?;
    Ok(features.value.tensor().to_device(&Device::Cpu)?)
}

impl Start {
    /// Compares features before and after `attach`. `claims`: each strategy's name and whether it says that it starts at the base
    /// model.
    ///
    /// # Errors
    /// Where all say so and the features differ.
    pub fn compare(base: &Tensor, attached: &Tensor, claims: &[(String, bool)]) -> Result<Self> {
        let bits = |tensor: &Tensor| -> Result<Vec<u32>> {
            Ok(tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
        };
        let difference = (base - attached)?.abs()?.flatten_all()?.to_dtype(DType::F64)?.max(0)?.to_scalar::<f64>()?;
        let start = Self {
            claimed: claims.iter().all(|(_, claimed)| *claimed),
            equals_base: bits(base)? == bits(attached)?,
            examples: base.dim(0)?,
            max_difference: difference,
        };
        if start.claimed && !start.equals_base {
            let names: Vec<&str> = claims.iter().map(|(name, _)| name.as_str()).collect();
            let names = names.join(" and ");
            return Err(Error::plugin(format!(
                "{names} should start at the base model, and the features differ by up to {difference:.1e} before step 1"
            ))
            .with_help("the plugin's hooks are not the identity at first: tell its author, or choose another strategy"));
        }
        Ok(start)
    }
}

/// SHA-256 of each base parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksums(Digests);

impl Checksums {
    /// Those of all base parameters, in one pass in which their weights are also packed for products in `precision`. Where those of
    /// the same files are remembered, weights are packed alone.
    pub fn prepare(model: &AdaptedModel, precision: Precision) -> Result<Self> {
        let remembered = Remembered::of(model.model.files());
        let names: Vec<&str> = base(model).map(|p| p.parameter.name()).collect();
        if let Some(digests) = remembered.read(&names) {
            let parameters = largest_first(base(model));
            parameters.par_iter().with_max_len(1).try_for_each(|parameter| parameter.pack(precision))?;
            return Ok(Self(digests));
        }
        let found = Self::of(base(model), |parameter, see| parameter.prepare(precision, see).map(|()| true))?;
        remembered.write(&found.0);
        Ok(found)
    }

    /// Those of all base parameters, computed.
    pub fn of_base(model: &AdaptedModel) -> Result<Self> {
        Self::of(base(model), |parameter, see| parameter.each_value(see).map(|()| true))
    }

    /// Of parameters whose values `visit` shows, all cores at once; it says whether all is well with one.
    pub fn of<'a>(
        parameters: impl Iterator<Item = &'a ModelParameter>,
        visit: impl Fn(&Parameter, &mut dyn FnMut(&[f32])) -> fthost_autograd::Result<bool> + Sync,
    ) -> Result<Self> {
        let parameters = largest_first(parameters);
        let digest = |parameter: &&Parameter| -> Result<(String, [u8; 32])> {
            let mut digest = Sha256::new();
            let mut bytes = Vec::with_capacity(4 * PIECE);
            let well = visit(parameter, &mut |values| {
                for values in values.chunks(PIECE) {
                    bytes.clear();
                    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                    digest.update(&bytes);
                }
            })?;
            if !well {
                return Err(changed(parameter.name()));
            }
            Ok((parameter.name().to_owned(), digest.finalize().into()))
        };
        parameters.par_iter().with_max_len(1).map(digest).collect::<Result<_>>().map(Self)
    }

    /// All as one, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for (name, checksum) in &self.0 {
            digest.update(name.as_bytes());
            digest.update(checksum);
        }
        hexadecimal(&digest.finalize())
    }

    /// Compares those base parameters that never trained with what they were.
    ///
    /// # Errors
    /// Where one has changed: the run is not what it says.
    pub fn frozen(&self, model: &AdaptedModel) -> Result<Frozen> {
        let frozen = || base(model).filter(|p| !p.trained());
        let now = Self::of(frozen(), |parameter, see| parameter.verify(see))?;
        match now.0.iter().find(|(name, checksum)| self.0.get(*name) != Some(checksum)) {
            Some((name, _)) => Err(changed(name)),
            None => Ok(Frozen {
                tensors: now.0.len(),
                elements: frozen().map(|p| p.parameter.elem_count()).sum(),
                unchanged: true,
            }),
        }
    }
}

fn base(model: &AdaptedModel) -> impl Iterator<Item = &ModelParameter> {
    model.parameters.iter().filter(|p| p.owner == Owner::Base)
}

/// So that the cores end together.
fn largest_first<'a>(parameters: impl Iterator<Item = &'a ModelParameter>) -> Vec<&'a Parameter> {
    let mut parameters: Vec<&Parameter> = parameters.map(|p| &p.parameter).collect();
    parameters.sort_by_key(|parameter| std::cmp::Reverse(parameter.elem_count()));
    parameters
}

fn changed(name: &str) -> Error {
    Error::run(format!("the frozen parameter {name} has changed during training"))
        .with_help("this is a bug of fthost or of a plugin: please report it with the run file")
}

/// Floats that are digested at once.
const PIECE: usize = 1 << 14;
