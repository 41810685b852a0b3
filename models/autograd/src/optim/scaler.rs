//! Dynamic loss scaling for `f16`, whose smallest gradients would vanish.

/// A power of two that losses are multiplied with before the backward pass and gradients are divided by after it. As torch's
/// `GradScaler`: it halves where gradients overflow, and that step is left out; it doubles after many steps without overflow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScaler {
    scale: f64,
    /// Steps since the last change.
    steady: u64,
}

impl Default for LossScaler {
    fn default() -> Self {
        Self { scale: 65536.0, steady: 0 }
    }
}

impl LossScaler {
    /// Steps without overflow after which the scale doubles.
    pub const GROWTH_INTERVAL: u64 = 2000;

    /// A scaler as it was saved: its scale and its steps since the last change.
    pub fn restore(scale: f64, steady: u64) -> Self {
        Self { scale, steady }
    }

    /// What losses are multiplied with.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Steps since the last change.
    pub fn steady(&self) -> u64 {
        self.steady
    }

    /// Hears whether a step's gradients were finite; those that were not must not be stepped by.
    pub fn update(&mut self, finite: bool) {
        if !finite {
            *self = Self { scale: self.scale / 2.0, steady: 0 };
            return;
        }
        self.steady += 1;
        if self.steady == Self::GROWTH_INTERVAL {
            *self = Self { scale: self.scale * 2.0, steady: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_halves_at_an_overflow_and_doubles_after_steady_steps() {
        let mut scaler = LossScaler::default();
        assert_eq!(scaler.scale(), 65536.0);
        scaler.update(false);
        assert_eq!((scaler.scale(), scaler.steady()), (32768.0, 0));
        (1..LossScaler::GROWTH_INTERVAL).for_each(|_| scaler.update(true));
        assert_eq!(scaler.scale(), 32768.0);
        let mut restored = LossScaler::restore(scaler.scale(), scaler.steady());
        restored.update(true);
        assert_eq!((restored.scale(), restored.steady()), (65536.0, 0));
    }
}
