//! The penalty on singular vectors that are not orthogonal: orth_reg_weight times the mean of the Frobenius norms |A A^T - I| and |B^T B - I| over
//! all A and B, as PEFT's `AdaLoraModel.forward` adds it to the loss.

use std::collections::BTreeMap;

use fthost_plugin_api::prelude::*;

/// Options of the penalty.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OrthogonalityConfig {
    /// Weight of the penalty.
    #[schemars(extend("exclusiveMinimum" = 0))]
    orth_reg_weight: f64,
}

impl Default for OrthogonalityConfig {
    fn default() -> Self {
        Self { orth_reg_weight: 0.5 }
    }
}

pub(crate) struct Orthogonality {
    weight: f64,
    layers: Vec<Vectors>,
}

/// The singular vectors of a layer.
struct Vectors {
    a: Param,       // [rank, in]
    b: Param,       // [out, rank]
    identity: Kept, // [rank, rank]
}

impl Regularizer for Orthogonality {
    type Config = OrthogonalityConfig;

    fn new(OrthogonalityConfig { orth_reg_weight: weight }: OrthogonalityConfig) -> Result<Self> {
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(Error::new(format!(
                "orth_reg_weight is {weight}, and must be more than 0: for none leave the regularizer out"
            )));
        }
        Ok(Self { weight, layers: Vec::new() })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        let params: BTreeMap<String, Param> =
            model.parameters()?.into_iter().map(|info| (info.path.clone(), Param::from(info))).collect();
        for layer in params.keys().filter_map(|path| path.strip_suffix("lora_E")) {
            let [a, b] = ["lora_A", "lora_B"].map(|name| params.get(&format!("{layer}{name}")).cloned());
            if let (Some(a), Some(b)) = (a, b) {
                let identity = identity(a.shape()[0])?.keep()?;
                self.layers.push(Vectors { a, b, identity });
            }
        }
        match self.layers.is_empty() {
            true => Err(Error::new(
                "no layer has singular vectors: add [[strategy]] plugin = \"adalora\", which the penalty belongs to",
            )),
            false => Ok(()),
        }
    }

    fn penalty(&self) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for Vectors { a, b, identity } in &self.layers {
            let of_layer = distance(&a.tensor(), identity)?.add(&distance(&b.tensor().t()?, identity)?)?;
            sum = Some(match sum {
                Some(sum) => sum.add(&of_layer)?,
                None => of_layer,
            });
        }
        sum.map(|sum| sum.mul_scalar(self.weight / (2 * self.layers.len()) as f64)).transpose()
    }
}

fn identity(rank: usize) -> Result<Tensor> {
    let one = |place: usize| f32::from(u8::from(place / rank == place % rank));
    Tensor::from_slice(&(0..rank * rank).map(one).collect::<Vec<_>>(), [rank, rank])
}

/// |V V^T - I| of vectors V `[rank, width]`.
fn distance(vectors: &Tensor, identity: &impl Operand) -> Result<Tensor> {
    let products = vectors.matmul(&vectors.t()?)?; // [rank, rank]
    // Where they are orthogonal to the bit the norm has no gradient, and 0 / 0 is none.
    products.squared_distance(identity, None)?.maximum_scalar(f64::from(f32::MIN_POSITIVE))?.sqrt()
}
