//! Inverse square root decay of the learning rate after a linear warm-up (Vaswani et al. 2017,
//! arXiv:1706.03762).
//!
//! eta(t) = eta t / w for t < w, then eta sqrt(s / (t - w + s)), with w warm-up steps and the
//! timescale s. With s = w it is eta sqrt(w / t), as in the paper and in Transformers'
//! `get_inverse_sqrt_schedule`. At step 0 the rate is 0 with a warm-up and eta without.

use fthost_plugin_api::prelude::*;

#[cfg(test)]
mod tests;

/// The timescale where there is neither one nor a warm-up.
const TIMESCALE: f64 = 10_000.0;

/// Options of the schedule. The doc comments are their help, the defaults stand in `Default`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Linear rise from 0 at the start: below 1 a share of the run, from 1 on a number of steps.
    warmup: Warmup,
    /// How slowly it falls: three times so many steps after the warm-up the rate is half of what it
    /// was. Without it the length of the warm-up, or 10,000 where there is none.
    #[schemars(range(min = 1))]
    timescale: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            warmup: Warmup(0.1),
            timescale: None,
        }
    }
}

struct InverseSquareRoot(Config);

impl Scheduler for InverseSquareRoot {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        // The schema is checked before; what comes from elsewhere is checked here.
        config.warmup.check()?;
        if config
            .timescale
            .is_some_and(|steps| !(steps.is_finite() && steps >= 1.0))
        {
            return Err(Error::new(
                "timescale must be at least 1: it is a number of steps",
            ));
        }
        Ok(Self(config))
    }

    fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        let Config { warmup, timescale } = self.0;
        warmup.fits(progress)?;
        let rise = warmup.steps(progress.total_steps);
        if progress.step < rise {
            return Ok(group.scaled(progress.step as f64 / rise as f64));
        }
        let scale = timescale.unwrap_or(if rise > 0 { rise as f64 } else { TIMESCALE });
        let since = (progress.step - rise) as f64;
        Ok(group.scaled((scale / (since + scale)).sqrt()))
    }
}

register! {
    /// Falls with the inverse square root of the steps, after a warm-up.
    Scheduler "my-method" => InverseSquareRoot
}
export_plugin! { license = "MIT OR Apache-2.0" }
