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

/// What an error says where a model does not start where its strategies say.
pub(crate) const NOT_AT_BASE: &str = "should start at the base model";
/// Training examples that the model before and after `attach` is compared on.
const EXAMPLES: usize = 8;

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

/// Pooled features of the first training examples, `[examples, width]`, or of several streams one after the other in one row, by products in `precision` and without dropout.
fn features(model: &AdaptedModel, data: &Dataset, precision: Precision) -> Result<Tensor> {
    let rows: Vec<u32> = (0..data.len().min(EXAMPLES) as u32).collect();
    let tape = Tape::new(TapeOptions { precision, parallel_ops: true, ..TapeOptions::default() });
    let shown = data.show(&rows)?;
    let mut found = Vec::new();
    for (stream, of) in model.model.info().streams.iter().enumerate().filter(|(_, of)| data.is_for(of.modality)) {
        let features = model.model.features(&tape, stream, &data.input_for(&shown, of.modality)?, Read::Pooled)?;
        found.push(features.value.tensor().to_device(&Device::Cpu)?);
    }
    Ok(match &*found {
        [one] => one.clone(),
        // Streams have widths of their own.
        more => {
            let rows = more.iter().map(|of| of.reshape((1, ()))).collect::<fthost_autograd::Result<Vec<_>>>()?;
            Tensor::cat(&rows, 1)?
        }
    })
}

impl Start {
    /// Compares features of the first training examples with those of the base model. `claims`: each strategy's name and whether it
    /// says that it starts at the base model. `pretrained` reads the base model anew.
    ///
    /// Where no base parameter has changed and every hook gives what it got, to the bit, what reaches each layer is what reaches the
    /// base model's, and one pass shows it. Otherwise there is a second.
    ///
    /// # Errors
    /// Where all say so and the features differ.
    pub fn of(
        model: &mut AdaptedModel,
        data: &Dataset,
        precision: Precision,
        claims: &[(String, bool)],
        pretrained: impl FnOnce(Device) -> Result<AdaptedModel>,
    ) -> Result<Self> {
        let intact = base(model).all(|p| p.parameter.version() == 0);
        let (attached, unchanged) = model.watching_hooks(|model| features(model, data, precision));
        let attached = attached?;
        let base = match (intact, unchanged) {
            (true, true) => attached.clone(),
            (true, false) => model.without_hooks(|model| features(model, data, precision))?,
            (false, _) => features(&pretrained(model.device.clone())?, data, precision)?,
        };
        let start = Self::compare(&base, &attached, claims)?;
        // Where an example is a pair of sequences, there are features of both.
        Ok(Self { examples: data.len().min(EXAMPLES), ..start })
    }

    fn compare(base: &Tensor, attached: &Tensor, claims: &[(String, bool)]) -> Result<Self> {
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
                "{names} {NOT_AT_BASE}, and the features differ by up to {difference:.1e} before step 1"
            ))
            .with_help(
                "the plugin's hooks are not the identity at first: tell its author, or choose another strategy",
            ));
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
            pack(base(model).map(|p| &p.parameter).filter(|parameter| parameter.packs()), precision)?;
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
        let parameters = largest_first(parameters.map(|p| &p.parameter));
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

/// Packs weights for products in `precision`, all cores at once.
pub fn pack<'a>(parameters: impl Iterator<Item = &'a Parameter>, precision: Precision) -> Result<()> {
    Ok(largest_first(parameters).par_iter().with_max_len(1).try_for_each(|parameter| parameter.pack(precision))?)
}

/// So that the cores end together.
fn largest_first<'a>(parameters: impl Iterator<Item = &'a Parameter>) -> Vec<&'a Parameter> {
    let mut parameters: Vec<&Parameter> = parameters.collect();
    parameters.sort_by_key(|parameter| std::cmp::Reverse(parameter.elem_count()));
    parameters
}

fn changed(name: &str) -> Error {
    Error::run(format!("the frozen parameter {name} has changed during training"))
        .with_help("this is a bug of fthost or of a plugin: please report it with the run file")
}

/// Floats that are digested at once.
const PIECE: usize = 1 << 14;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use fthost_autograd::{Layout, Value};
    use fthost_models::{BlockHook, EmbeddingHook, Hook, LinearHook, Prompt};

    use super::*;
    use crate::data::{self, Files, Form, Part};
    use crate::run::setup::demo;

    type Made = fthost_autograd::Result<Value>;

    const QUERY: &str = "encoder.layer.1.attention.attention.query";
    const OUTPUT: &str = "encoder.layer.0.output";

    /// Multiplies, and counts its calls.
    struct Times {
        factor: f64,
        calls: Arc<AtomicUsize>,
    }

    impl Times {
        fn of(&self, x: &Value) -> Made {
            self.calls.fetch_add(1, Ordering::Relaxed);
            Ok(Value::constant(x.tensor().affine(self.factor, 0.0)?))
        }
    }

    impl LinearHook for Times {
        fn input(&self, _: &Tape, _: &Value) -> fthost_autograd::Result<Option<Value>> {
            Ok(None)
        }
        fn forward(&self, _: &Tape, _: &Value, y: Value, _: &Value) -> Made {
            self.of(&y)
        }
        fn merge(&self, _: &Tape, _: &Value) -> fthost_autograd::Result<Option<Value>> {
            Ok(None)
        }
    }

    impl BlockHook for Times {
        fn forward(&self, _: &Tape, x: Value, _: &Value) -> Made {
            self.of(&x)
        }
    }

    /// Puts the first row before each sequence.
    struct Prompted;

    impl EmbeddingHook for Prompted {
        fn forward(&self, _: &Tape, x: Value, _: &Layout) -> fthost_autograd::Result<(Value, Option<Prompt>)> {
            let rows = Value::constant(x.tensor().narrow(0, 0, 1)?);
            Ok((x, Some(Prompt { rows, pool_first_token: true })))
        }
    }

    fn model() -> AdaptedModel {
        let base = fthost_models::from_parts(demo::CONFIG, demo::WEIGHTS, &Device::Cpu).unwrap();
        AdaptedModel::new(base, Device::Cpu, 0)
    }

    fn start(model: &mut AdaptedModel, claimed: bool, pretrained: impl FnOnce() -> AdaptedModel) -> Result<Start> {
        let (files, form) = (&Files::from(Path::new("demo")), &Form::default());
        let (part, modality, device) = (Part::Train, model.model.info().plain().modality, &Device::Cpu);
        let source = data::Source {
            files,
            part,
            form,
            only: None,
            texts: false,
            labels: None,
            modalities: &[modality],
            language: None,
            transform: None,
            device,
        };
        let data = data::load(&source, None).unwrap();
        Start::of(model, &data, Precision::F32, &[("method".into(), claimed)], |_| Ok(pretrained()))
    }

    /// The start of a model with hooks that multiply by these, all at one site, and how often each was called.
    fn multiplied(site: &str, factors: &[f64], claimed: bool) -> (Result<Start>, usize) {
        let (mut model, calls) = (model(), Arc::new(AtomicUsize::new(0)));
        for &factor in factors {
            let hook = Arc::new(Times { factor, calls: calls.clone() });
            let hook = if site == OUTPUT { Hook::Block(hook) } else { Hook::Linear(hook) };
            model.set_hook(site, hook).unwrap();
        }
        let start = start(&mut model, claimed, || panic!("the weights are those of the base model"));
        (start, calls.load(Ordering::Relaxed) / factors.len().max(1))
    }

    #[test]
    fn hooks_that_give_what_they_got_start_at_the_base_model() {
        for site in [QUERY, OUTPUT] {
            for factors in [&[][..], &[1.0], &[1.0, 1.0]] {
                let (start, calls) = multiplied(site, factors, true);
                let expected = Start { claimed: true, equals_base: true, examples: EXAMPLES, max_difference: 0.0 };
                assert_eq!((start.unwrap(), calls), (expected, factors.len().min(1)));
            }
            // What one hook does another undoes: to see that takes the base model's features.
            let (start, calls) = multiplied(site, &[2.0, 0.5], true);
            assert!(start.unwrap().equals_base && calls == 1);
        }
    }

    #[test]
    fn a_strategy_that_says_so_and_does_not_is_refused() {
        for site in [QUERY, OUTPUT] {
            let (start, _) = multiplied(site, &[1.0, 1.5], false);
            let start = start.unwrap();
            assert!(!start.claimed && !start.equals_base && start.max_difference > 0.0, "{start:?}");
            let error = multiplied(site, &[1.5], true).0.unwrap_err().to_string();
            assert!(error.contains("method should start at the base model"), "{error}");
        }
    }

    #[test]
    fn what_is_added_or_set_is_no_start_at_the_base_model() {
        let mut prompted = model();
        prompted.set_hook("embeddings", Hook::Embeddings(Arc::new(Prompted))).unwrap();
        let found = start(&mut prompted, false, || panic!("no weight has changed")).unwrap();
        assert!(!found.equals_base && found.max_difference > 0.0);
        assert!(start(&mut prompted, true, || panic!("no weight has changed")).is_err());

        let mut moved = model();
        let parameter =
            &moved.parameters.iter().find(|p| p.parameter.name() == format!("{QUERY}.weight")).unwrap().parameter;
        parameter.set(&parameter.tensor().affine(2.0, 0.0).unwrap()).unwrap();
        let found = start(&mut moved, false, model).unwrap();
        assert!(!found.equals_base && found.max_difference > 0.0);
        assert!(start(&mut moved, true, model).is_err());
    }
}
