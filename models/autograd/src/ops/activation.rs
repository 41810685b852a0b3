//! Activations.

use candle_core::{DType, Result, Tensor};

use crate::kernels::elementwise;
use crate::{Activation, Tape, Value, slices};

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044_715;
const QUICK: f64 = 1.702;

impl Activation {
    /// The activation of each element.
    pub(crate) fn forward(self, x: &Tensor) -> Result<Tensor> {
        let fast = slices::read([x], |[x]| {
            let mut y = x.to_vec();
            elementwise::activate(self, &mut y);
            y
        });
        match (fast, self) {
            (Some(y), _) => Tensor::from_vec(y, x.dims(), x.device()),
            (None, Self::Identity) => Ok(x.clone()),
            (None, Self::Relu) => x.relu(),
            (None, Self::Relu6) => x.clamp(0.0, 6.0),
            (None, Self::Tanh) => x.tanh(),
            (None, _) => in_float(x, |x| match self {
                Self::Gelu => x * normal_cdf(x)?,
                Self::GeluTanh => x * gelu_tanh(x)?.affine(0.5, 0.5)?,
                Self::Sigmoid => sigmoid(x),
                Self::HardSigmoid => hard_sigmoid(x),
                Self::HardSwish => x * hard_sigmoid(x)?,
                Self::QuickGelu => x * sigmoid(&x.affine(QUICK, 0.0)?)?,
                _ => x * sigmoid(x)?,
            }),
        }
    }

    /// `gradient` times the derivative at `x`.
    pub(crate) fn backward(self, x: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let fast = slices::read([x, gradient], |[x, gradient]| {
            let mut gradient = gradient.to_vec();
            elementwise::activate_backward(self, x, &mut gradient);
            gradient
        });
        match fast {
            Some(gradient) => Tensor::from_vec(gradient, x.dims(), x.device()),
            None => gradient * in_float(x, |x| self.derivative(x))?,
        }
    }

    fn derivative(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => {
                // Phi(x) + x phi(x)
                let density = x.sqr()?.affine(-0.5, 0.0)?.exp()?.affine(0.5 * SQRT_2_OVER_PI, 0.0)?;
                normal_cdf(x)? + (x * density)?
            }
            Self::GeluTanh => {
                let t = gelu_tanh(x)?;
                let inner = x.sqr()?.affine(3.0 * CUBIC * SQRT_2_OVER_PI, SQRT_2_OVER_PI)?;
                let slope = ((t.sqr()?.affine(-0.5, 0.5)? * x)? * inner)?;
                t.affine(0.5, 0.5)? + slope
            }
            Self::Tanh => x.tanh()?.sqr()?.affine(-1.0, 1.0),
            Self::Sigmoid => {
                let y = sigmoid(x)?;
                &y * y.affine(-1.0, 1.0)?
            }
            Self::Silu => {
                // s (1 + x (1 - s))
                let s = sigmoid(x)?;
                &s * (x * s.affine(-1.0, 1.0)?)?.affine(1.0, 1.0)?
            }
            Self::QuickGelu => {
                // s (1 + 1.702 x (1 - s)), where s = sigmoid(1.702 x)
                let s = sigmoid(&x.affine(QUICK, 0.0)?)?;
                &s * (x * s.affine(-QUICK, QUICK)?)?.affine(1.0, 1.0)?
            }
            Self::Relu => x.gt(0.0)?.to_dtype(x.dtype()),
            Self::Relu6 => between(x, 0.0, 6.0),
            Self::HardSigmoid => between(x, -3.0, 3.0)?.affine(1.0 / 6.0, 0.0),
            Self::HardSwish => hard_sigmoid(x)? + (x * between(x, -3.0, 3.0)?.affine(1.0 / 6.0, 0.0)?)?,
            Self::Identity => x.ones_like(),
        }
    }
}

/// Half floats are computed in `f32` and rounded once.
fn in_float(x: &Tensor, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match x.dtype() {
        DType::F32 | DType::F64 => f(x),
        half => f(&x.to_dtype(DType::F32)?)?.to_dtype(half),
    }
}

fn normal_cdf(x: &Tensor) -> Result<Tensor> {
    x.affine(std::f64::consts::FRAC_1_SQRT_2, 0.0)?.erf()?.affine(0.5, 0.5)
}

/// tanh(sqrt(2 / pi) (x + 0.044715 x^3))
fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    (x * x.sqr()?.affine(CUBIC * SQRT_2_OVER_PI, SQRT_2_OVER_PI)?)?.tanh()
}

fn hard_sigmoid(x: &Tensor) -> Result<Tensor> {
    x.affine(1.0, 3.0)?.clamp(0.0, 6.0)?.affine(1.0 / 6.0, 0.0)
}

/// 1 where x lies between the two, neither included, else 0.
fn between(x: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    x.gt(low)?.to_dtype(x.dtype())? * x.lt(high)?.to_dtype(x.dtype())?
}

/// By the tanh, which overflows nowhere.
fn sigmoid(x: &Tensor) -> Result<Tensor> {
    x.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)
}

impl Tape {
    /// Applies `activation` to each element.
    pub fn activation(&self, x: &Value, activation: Activation) -> Result<Value> {
        if activation == Activation::Identity {
            return Ok(x.clone());
        }
        let output = activation.forward(x.tensor())?;
        let saved = x.tensor().clone();
        Ok(self.record(output, &[x], move |gradient, vjp| vjp.give(0, activation.backward(&saved, &gradient)?)))
    }

    /// [`Activation::Relu`].
    pub fn relu(&self, x: &Value) -> Result<Value> {
        self.activation(x, Activation::Relu)
    }

    /// [`Activation::Gelu`].
    pub fn gelu(&self, x: &Value) -> Result<Value> {
        self.activation(x, Activation::Gelu)
    }

    /// [`Activation::GeluTanh`].
    pub fn gelu_tanh(&self, x: &Value) -> Result<Value> {
        self.activation(x, Activation::GeluTanh)
    }

    /// [`Activation::Tanh`].
    pub fn tanh(&self, x: &Value) -> Result<Value> {
        self.activation(x, Activation::Tanh)
    }

    /// [`Activation::Sigmoid`].
    pub fn sigmoid(&self, x: &Value) -> Result<Value> {
        self.activation(x, Activation::Sigmoid)
    }

    /// [`Activation::Relu6`].
    pub fn relu6(&self, x: &Value) -> Result<Value> {
        self.activation(x, Activation::Relu6)
    }

    /// [`Activation::HardSigmoid`].
    pub fn hard_sigmoid(&self, x: &Value) -> Result<Value> {
        self.activation(x, Activation::HardSigmoid)
    }

    /// [`Activation::HardSwish`].
    pub fn hard_swish(&self, x: &Value) -> Result<Value> {
        self.activation(x, Activation::HardSwish)
    }

    /// [`Activation::Silu`].
    pub fn silu(&self, x: &Value) -> Result<Value> {
        self.activation(x, Activation::Silu)
    }
}
