//! What heads share: their layers, and cross entropy with its options.

use crate::{Error, Init, Loss, Model, Operand, Param, Result, TaskInfo, TaskTargets, Tensor};

/// The layers of a head before they are declared.
#[derive(Clone, Copy, Debug)]
pub struct HeadShape<'a> {
    /// Width of the features.
    pub width: usize,
    /// Numbers for each row: classes, or 1.
    pub outputs: usize,
    /// The activation of the layer that the architecture's own head has before its last one: [`TaskInfo::hidden_activation`]. `None`
    /// for one layer.
    pub hidden: Option<&'a str>,
    /// Whether the last layer has a bias.
    pub bias: bool,
    /// Standard deviation of the new matrices.
    pub init_std: f64,
    /// Dropout before the last layer.
    pub dropout: f64,
}

/// The layers of a head: `W h + b`, or `W act(V h + c) + b` where the architecture's own head has one more (RoBERTa, DistilBERT).
/// Matrices start normal and biases at zero, as in Transformers.
#[derive(Debug)]
pub struct HeadLayers {
    /// The extra layer: `[width, width]`, `[width]` and its activation.
    hidden: Option<(Param, Param, String)>,
    weight: Param,       // [outputs, width]
    bias: Option<Param>, // [outputs]
    dropout: f64,
}

impl HeadShape<'_> {
    /// Declares the layers: `classifier`, or `dense` and `out_proj`.
    ///
    /// # Errors
    /// The host's words, where it refuses a parameter.
    pub fn declare(self, model: &mut Model) -> Result<HeadLayers> {
        let Self { width, outputs, hidden, bias, init_std, dropout } = self;
        let normal = || Init::Normal { mean: 0.0, std: init_std };
        let hidden = match hidden {
            Some(activation) => Some((
                model.head_param("dense.weight", [width, width], normal())?,
                model.head_param("dense.bias", [width], Init::Zeros)?,
                activation.to_owned(),
            )),
            None => None,
        };
        let layer = if hidden.is_some() { "out_proj" } else { "classifier" };
        let weight = model.head_param(&format!("{layer}.weight"), [outputs, width], normal())?;
        let bias = bias.then(|| model.head_param(&format!("{layer}.bias"), [outputs], Init::Zeros)).transpose()?;
        Ok(HeadLayers { hidden, weight, bias, dropout })
    }
}

impl HeadLayers {
    /// What the layers make of features `[rows, width]`: `[rows, outputs]`.
    ///
    /// # Errors
    /// Where the host refuses an op.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| bias as &dyn Operand);
        let last = |x: &Tensor| x.dropout(self.dropout)?.linear(&self.weight, bias); // [rows, outputs]
        match &self.hidden {
            Some((dense, bias, activation)) => last(&features.linear(dense, Some(bias))?.activation(activation)?),
            None => last(features),
        }
    }
}

/// A dense layer, `W x + b`, that starts as torch's `nn.Linear`.
#[derive(Debug)]
pub struct DenseLayer {
    weight: Param,       // [out, in]
    bias: Option<Param>, // [out]
}

impl DenseLayer {
    /// Declares a new one, `[outputs, inputs]`: its parameters are `name.weight` and `name.bias`.
    ///
    /// # Errors
    /// The host's words, where it refuses a parameter.
    pub fn declare(model: &mut Model, name: &str, [outputs, inputs]: [usize; 2], bias: bool) -> Result<Self> {
        // torch's bias is uniform in the same bounds as its weight.
        let init = || Init::kaiming_uniform(inputs);
        let weight = model.head_param(&format!("{name}.weight"), [outputs, inputs], init())?;
        let bias = bias.then(|| model.head_param(&format!("{name}.bias"), [outputs], init())).transpose()?;
        Ok(Self { weight, bias })
    }

    /// One of parameters that are there.
    pub fn of(weight: Param, bias: Option<Param>) -> Self {
        Self { weight, bias }
    }

    /// What it makes of `x` `[.., in]`: `[.., out]`.
    ///
    /// # Errors
    /// Where the host refuses an op.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.linear(&self.weight, self.bias.as_ref().map(|bias| bias as &dyn Operand))
    }
}

/// torch's cross entropy with class weights and label smoothing.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// One weight for each class; `None` where all are 1.
    pub weights: Option<Vec<f32>>,
    /// Share of each target that is spread over all classes.
    pub label_smoothing: f64,
}

impl CrossEntropy {
    /// The loss of outputs `[rows, classes]`.
    ///
    /// # Errors
    /// Where the host refuses an op.
    pub fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let weights = self.weights.as_ref();
        let weights = weights.map(|weights| Tensor::from_slice(weights, [weights.len()])).transpose()?; // [classes]
        let weights = weights.as_ref().map(|weights| weights as &dyn Operand);
        let (sum, weight) = outputs.cross_entropy(targets.tensor, weights, self.label_smoothing)?;
        Ok(Loss { sum, weight: weight.to_scalar()? })
    }
}

/// Checks options that are shares, such as dropout.
///
/// # Errors
/// Where one is not at least 0 and below 1.
pub fn check_shares<const N: usize>(options: [(&str, f64); N]) -> Result<()> {
    match options.into_iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
        None => Ok(()),
        Some((option, value)) => Err(Error::new(format!("{option} is {value}, and must be at least 0 and below 1"))),
    }
}

impl TaskInfo {
    /// Number of classes.
    ///
    /// # Errors
    /// Where there are fewer than two.
    pub fn classes(&self) -> Result<usize> {
        if self.labels.len() < 2 {
            let only = self.labels.first().map_or_else(|| "no class".into(), |label| format!("no class but `{label}`"));
            return Err(Error::new(format!("task `{}` has {only}, and a classifier needs two", self.name)));
        }
        Ok(self.labels.len())
    }
}
