//! The frequencies of rotary positions, as Transformers' `modeling_rope_utils.py` makes them.

use std::f64::consts::PI;
use std::path::Path;

use serde_json::Value as Json;

use crate::LoadError;

/// How the frequencies of a kind of layers are made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rope {
    pub(crate) theta: f64,
    pub(crate) scaling: Scaling,
}

/// How frequencies are stretched beyond the length that a model was first trained on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scaling {
    None,
    /// All, by a factor.
    Linear {
        factor: f64,
    },
    /// Llama 3.1: slow ones by a factor, fast ones not, those between by a share.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// Each by a factor of its own, as llama.cpp's files have them, `[dim / 2]`.
    Factors(Vec<f32>),
}

impl Rope {
    /// From what config.json says in one place, `rope_parameters` or `rope_scaling`; `theta` is that of the file's other keys.
    pub(crate) fn parse(file: &Path, key: &'static str, said: &Json, theta: f64) -> Result<Self, LoadError> {
        let wrong = |why: String| LoadError::Setting { file: file.into(), key, value: said.to_string(), why };
        let number = |name: &str| {
            let value = said.get(name).and_then(Json::as_f64).filter(|value| value.is_finite() && *value > 0.0);
            value.ok_or_else(|| wrong(format!("has no {name} above 0")))
        };
        let theta = if said.get("rope_theta").is_some() { number("rope_theta")? } else { theta };
        let kind = ["rope_type", "type"].iter().find_map(|name| said.get(*name)).and_then(Json::as_str);
        let scaling = match kind.unwrap_or("default") {
            "default" => Scaling::None,
            "linear" => Scaling::Linear { factor: number("factor")? },
            "llama3" => Scaling::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original: number("original_max_position_embeddings")?,
            },
            "factors" => {
                let factors = said.get("factors").and_then(|factors| serde_json::from_value(factors.clone()).ok());
                let all: Vec<f32> = factors.ok_or_else(|| wrong("has no factors".into()))?;
                if all.iter().any(|factor| !(factor.is_finite() && *factor > 0.0)) {
                    return Err(wrong("has a factor that is not above 0".into()));
                }
                Scaling::Factors(all)
            }
            other => {
                return Err(wrong(format!(
                    "stretches positions by {other:?}, which is not computed here; known are default, linear and llama3"
                )));
            }
        };
        if let Scaling::Llama3 { low, high, .. } = scaling
            && low >= high
        {
            return Err(wrong("has a low_freq_factor that is not below its high_freq_factor".into()));
        }
        Ok(Self { theta, scaling })
    }

    /// One frequency for each pair of a head, `[dim / 2]`, rounded to `f32` as Transformers keeps them.
    pub(crate) fn frequencies(&self, dim: usize) -> Vec<f32> {
        let plain = (0..dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / dim as f32;
            1.0 / (self.theta as f32).powf(exponent)
        });
        plain.enumerate().map(|(i, frequency)| self.scaling.of(i, frequency)).collect()
    }
}

impl Scaling {
    /// The frequency of pair `i`.
    fn of(&self, i: usize, frequency: f32) -> f32 {
        match *self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor as f32,
            Self::Factors(ref factors) => frequency / factors.get(i).copied().unwrap_or(1.0),
            Self::Llama3 { factor, low, high, original } => {
                let wavelength = 2.0 * PI / f64::from(frequency);
                let slow = frequency / factor as f32;
                if wavelength > original / low {
                    slow
                } else if wavelength < original / high {
                    frequency
                } else {
                    let smooth = ((original / wavelength - low) / (high - low)) as f32;
                    (1.0 - smooth) * slow + smooth * frequency
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    fn parse(said: &Json) -> Result<Rope, String> {
        Rope::parse(Path::new("config.json"), "rope_scaling", said, 10_000.0).map_err(|error| error.to_string())
    }

    #[test]
    fn bands_of_llama3() {
        let said = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_theta": 500_000.0
        });
        let (scaled, plain) = (parse(&said).unwrap(), Rope { theta: 500_000.0, scaling: Scaling::None });
        let ratios: Vec<f32> =
            scaled.frequencies(128).iter().zip(plain.frequencies(128)).map(|(scaled, plain)| plain / scaled).collect();
        // Fast ones stay, slow ones are an eighth, and between them no jump.
        assert!(ratios[..29].iter().all(|ratio| *ratio == 1.0));
        assert!(ratios[36..].iter().all(|ratio| *ratio == 8.0));
        assert!(ratios[28..37].is_sorted());
    }

    #[test]
    fn older_and_newer_names() {
        let linear = Rope { theta: 10_000.0, scaling: Scaling::Linear { factor: 4.0 } };
        assert_eq!(parse(&json!({ "type": "linear", "factor": 4.0 })), Ok(linear));
        assert_eq!(parse(&json!({})), Ok(Rope { theta: 10_000.0, scaling: Scaling::None }));
    }

    #[test]
    fn what_is_not_computed_is_named() {
        let check = |said: Json, expected: &str| {
            let error = parse(&said).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(json!({ "rope_type": "yarn", "factor": 4.0 }), "by \"yarn\", which is not computed here");
        check(json!({ "rope_type": "linear" }), "has no factor above 0");
        let bands = json!({ "rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4, "original_max_position_embeddings": 64 });
        check(bands, "low_freq_factor that is not below");
    }
}
