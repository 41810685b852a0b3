//! What heads over a vocabulary share: the model's own layer.

use crate::{Error, Features, Loss, Model, Operand, Param, Result, TaskInfo, TaskTargets, Tensor, VocabularyTransform};

/// The model's own layer over its vocabulary, as [`TaskInfo::vocabulary`] names it: `W h + b`, with a dense layer, an activation and a norm
/// before it where masked language models have them. Its parameters are the model's.
#[derive(Debug)]
pub struct VocabularyLayer {
    weight: Param,       // [vocabulary, width]
    bias: Option<Param>, // [vocabulary]
    transform: Option<Transform>,
}

#[derive(Debug)]
struct Transform {
    dense: [Param; 2], // [width, width], [width]
    activation: String,
    norm: [Param; 2], // [width]
    eps: f64,
}

impl Transform {
    fn of(VocabularyTransform { dense, activation, norm, eps }: &VocabularyTransform, model: &Model) -> Result<Self> {
        let of = |path: &str| -> Result<[Param; 2]> {
            Ok([model.base_param(&format!("{path}.weight"))?, model.base_param(&format!("{path}.bias"))?])
        };
        Ok(Self { dense: of(dense)?, activation: activation.clone(), norm: of(norm)?, eps: *eps })
    }

    fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let [weight, bias] = &self.dense;
        let x = features.linear(weight, Some(bias))?.activation(&self.activation)?; // [tokens, width]
        let [weight, bias] = &self.norm;
        x.layer_norm(weight, Some(bias), self.eps)
    }
}

impl VocabularyLayer {
    /// The layer of a task's model.
    ///
    /// # Errors
    /// Where the model has none, or one that says what stands in a token's place and not what comes next (`causal`), or the other way
    /// round.
    pub fn of(task: &TaskInfo, model: &Model, causal: bool) -> Result<Self> {
        let Some(vocabulary) = &task.vocabulary else {
            let kind = model.model_type()?;
            return Err(Error::new(format!(
                "this model ({kind}) has no layer over a vocabulary, and so predicts no tokens"
            )));
        };
        if vocabulary.causal != causal {
            let (does, other) =
                if causal { ("the token in each place", "masked-lm") } else { ("the next token", "causal-lm") };
            return Err(Error::new(format!("this model ({}) says {does}: take {other}", model.model_type()?)));
        }
        let transform = vocabulary.transform.as_ref().map(|transform| Transform::of(transform, model)).transpose()?;
        let bias = vocabulary.bias.as_ref().map(|path| model.base_param(path)).transpose()?;
        Ok(Self { weight: model.base_param(&vocabulary.weight)?, bias, transform })
    }

    /// What the matrix multiplies: features `[tokens, width]`, or what the layers below it make of them.
    ///
    /// # Errors
    /// Where the host refuses an op.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        match &self.transform {
            Some(transform) => transform.forward(features),
            None => features.reshape(features.shape()?), // [tokens, width]
        }
    }

    fn bias(&self) -> Option<&dyn Operand> {
        self.bias.as_ref().map(|bias| bias as &dyn Operand)
    }

    /// Cross entropy over the tokens that count, and their number, for what [`forward`](Self::forward) gave.
    ///
    /// # Errors
    /// Where the host refuses an op.
    pub fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let (sum, number) = outputs.linear_cross_entropy(&self.weight, self.bias(), targets.tensor)?;
        Ok(Loss { sum, weight: number.to_scalar()? })
    }

    /// The log-probability of what each sequence says, summed over its tokens that count, and how many these are, both `[sequences]`.
    ///
    /// # Errors
    /// Where the host does not tell the tokens ([`Features::next`]), or refuses an op.
    pub fn log_likelihood(&self, features: &Features<'_>) -> Result<(Tensor, Tensor)> {
        let next = features.next.ok_or_else(|| Error::new("the host does not say which tokens follow"))?;
        let x = self.forward(features.tensor)?; // [tokens, width]
        x.linear_log_likelihood(&self.weight, self.bias(), next, features.offsets)
    }

    /// The most probable token for each place, `u32` `[tokens]`.
    ///
    /// # Errors
    /// Where the host refuses an op.
    pub fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        outputs.linear_argmax(&self.weight, self.bias())
    }
}
