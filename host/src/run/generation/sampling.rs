//! Which token comes next: the most probable one, or one by chance, as Transformers defines the ways to draw it.

use crate::report::metrics::probabilities::most_probable;
use crate::{Error, Result};

/// How the next token is chosen of the logits. In Transformers' order: the penalty, then the temperature, then the most probable `top_k`, then
/// those that make up `top_p`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by; 0 takes the most probable token.
    temperature: f64,
    /// How many of the most probable tokens may come.
    top_k: Option<usize>,
    /// The probability that the tokens make up which may come, the most probable ones first.
    top_p: Option<f64>,
    /// What the logit of a token that was there already is divided by, or multiplied by where it is below 0.
    penalty: f64,
}

/// The most probable token, whatever was there already.
impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: None, top_p: None, penalty: 1.0 }
    }
}

impl Sampling {
    /// What is not said: no penalty, and the most probable token, or where `top_k` or `top_p` are said, a temperature of 1.
    ///
    /// # Errors
    /// Where a value is none of its kind, or does nothing beside the others.
    pub fn new(
        temperature: Option<f64>,
        top_k: Option<usize>,
        top_p: Option<f64>,
        penalty: Option<f64>,
    ) -> Result<Self> {
        let wrong = |name: &str, value: f64, due: &str| {
            Err(Error::usage(format!("--{name} is {value}, and must be {due}")).with_help(format!("change --{name}")))
        };
        match (temperature, top_p, penalty) {
            (Some(value), ..) if !(value.is_finite() && value >= 0.0) => {
                return wrong("temperature", value, "0 or above: 0 takes the most probable token");
            }
            (_, Some(value), _) if !(value > 0.0 && value <= 1.0) => {
                return wrong("top-p", value, "a probability above 0, 1 at most");
            }
            (.., Some(value)) if !(value.is_finite() && value > 0.0) => {
                return wrong("repetition-penalty", value, "above 0: 1 is none");
            }
            _ => {}
        }
        if top_k == Some(0) {
            return wrong("top-k", 0.0, "1 or above");
        }
        let limited = top_k.is_some() || top_p.is_some();
        if limited && temperature == Some(0.0) {
            return Err(Error::usage(
                "--top-k and --top-p do nothing at a temperature of 0, which takes the most probable token",
            )
            .with_help("leave them out, or raise --temperature"));
        }
        let temperature = temperature.unwrap_or(if limited { 1.0 } else { 0.0 });
        Ok(Self { temperature, top_k, top_p, penalty: penalty.unwrap_or(1.0) })
    }

    /// The next token by its logits, `[vocabulary]`, after the tokens `seen`. `random` is uniform in [0, 1).
    pub(super) fn choose(&self, logits: &mut [f32], seen: &[u32], random: impl FnOnce() -> f64) -> u32 {
        self.penalise(logits, seen);
        if self.temperature == 0.0 {
            return most_probable(logits);
        }
        let chances = self.chances(logits);
        let mut left = random() * chances.iter().map(|(_, chance)| chance).sum::<f64>();
        let drawn = chances.iter().find(|(_, chance)| {
            left -= chance;
            left < 0.0
        });
        // Rounding may leave a little at the end.
        drawn.or(chances.last()).map_or(0, |(token, _)| *token)
    }

    fn penalise(&self, logits: &mut [f32], seen: &[u32]) {
        if self.penalty == 1.0 {
            return;
        }
        let penalty = self.penalty as f32;
        let mut seen = seen.to_vec();
        seen.sort_unstable();
        seen.dedup(); // each token once, however often it was there
        for token in seen {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
            }
        }
    }

    /// The tokens that may come, and in what proportion.
    fn chances(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let lowest = match self.top_k {
            Some(k) if k < logits.len() => {
                let mut all = logits.to_vec();
                *all.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
            }
            _ => f32::NEG_INFINITY,
        };
        let kept = (0..).zip(logits).filter(|(_, logit)| **logit >= lowest);
        let chance = |logit: f32| (f64::from(logit - top) / self.temperature).exp();
        let mut chances: Vec<(u32, f64)> = kept.map(|(token, logit)| (token, chance(*logit))).collect();
        if let Some(p) = self.top_p.filter(|p| *p < 1.0) {
            chances.sort_by(|(_, a), (_, b)| b.total_cmp(a));
            let all: f64 = chances.iter().map(|(_, chance)| chance).sum();
            let mut before = 0.0;
            // The token that makes the sum reach p is among them.
            let kept = chances.iter().take_while(|(_, chance)| {
                let among = before < p * all;
                before += chance;
                among
            });
            let kept = kept.count().max(1);
            chances.truncate(kept);
        }
        chances
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const LOGITS: [f32; 6] = [1.5, -0.5, 2.0, 0.25, -2.0, 1.0];

    fn sampling(temperature: f64, top_k: Option<usize>, top_p: Option<f64>, penalty: f64) -> Sampling {
        Sampling::new(Some(temperature), top_k, top_p, Some(penalty)).unwrap()
    }

    /// The softmax of what Transformers' RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper and TopPLogitsWarper leave
    /// of the logits, one after the other, after tokens 2, 4 and 2 again.
    #[test]
    fn chances_are_those_of_transformers() {
        let check = |sampling: Sampling, expected: [f64; 6]| {
            let mut logits = LOGITS;
            sampling.penalise(&mut logits, &[2, 4, 2]);
            let mut found = [0.0; 6];
            for (token, chance) in sampling.chances(&logits) {
                found[token as usize] = chance;
            }
            let all: f64 = found.iter().sum();
            for (found, expected) in found.iter().zip(expected) {
                assert!((found / all - expected).abs() < 1e-6, "{sampling:?}: {found:?}, {expected:?}");
            }
        };
        check(sampling(1.0, None, None, 1.0), [0.2697389, 0.0365052, 0.4447242, 0.0772815, 0.0081454, 0.1636049]);
        check(sampling(0.7, None, None, 1.0), [0.2656665, 0.0152579, 0.5426843, 0.0445462, 0.0017900, 0.1300548]);
        check(sampling(1.0, Some(3), None, 1.0), [0.3071959, 0.0, 0.5064804, 0.0, 0.0, 0.1863237]);
        check(sampling(1.0, None, Some(0.8), 1.0), [0.3071959, 0.0, 0.5064804, 0.0, 0.0, 0.1863237]);
        check(sampling(0.5, None, Some(0.9), 1.3), [0.4085237, 0.0, 0.4411889, 0.0, 0.0, 0.1502875]);
        check(sampling(1.5, Some(4), Some(0.7), 1.5), [0.3829407, 0.0, 0.3426704, 0.0, 0.0, 0.2743890]);
        check(sampling(1.0, None, Some(0.1), 1.0), [0.0, 0.0, 1.0000000, 0.0, 0.0, 0.0]);
        check(
            sampling(2.0, Some(10), Some(1.0), 0.8),
            [0.2201232, 0.0809788, 0.3629218, 0.1178234, 0.0467207, 0.1714321],
        );
    }

    #[test]
    fn draws_follow_the_chances() {
        let sampling = sampling(1.0, Some(3), None, 1.0);
        let mut counts = [0u32; 6];
        for i in 0..10_000 {
            let random = || (f64::from(i) + 0.5) / 10_000.0;
            counts[sampling.choose(&mut LOGITS.clone(), &[], random) as usize] += 1;
        }
        // exp of 1.5, 2 and 1, in proportion.
        let expected = [3072, 0, 5065, 0, 0, 1863];
        assert!(counts.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) <= 2), "{counts:?}");
    }

    #[test]
    fn the_most_probable_token_needs_no_chance() {
        let greedy = Sampling::new(None, None, None, None).unwrap();
        let never = || -> f64 { unreachable!("no number is drawn") };
        assert_eq!(greedy.choose(&mut LOGITS.clone(), &[2], never), 2);
        assert_eq!(sampling(0.0, None, None, 2.0).choose(&mut LOGITS.clone(), &[2], never), 0);
        assert_eq!(greedy.choose(&mut [0.0, 3.0, 3.0], &[], never), 1);
        assert_eq!(greedy, Sampling::default());
    }

    #[test]
    fn wrong_values_are_named() {
        let error = |temperature, top_k, top_p, penalty| {
            Sampling::new(temperature, top_k, top_p, penalty).unwrap_err().to_string()
        };
        assert!(error(Some(-1.0), None, None, None).contains("--temperature is -1"));
        assert!(error(Some(f64::NAN), None, None, None).contains("--temperature is NaN"));
        assert!(error(None, Some(0), None, None).contains("--top-k is 0"));
        assert!(error(None, None, Some(1.5), None).contains("--top-p is 1.5"));
        assert!(error(None, None, None, Some(0.0)).contains("--repetition-penalty is 0"));
        assert!(error(Some(0.0), Some(3), None, None).contains("do nothing at a temperature of 0"));
    }
}
