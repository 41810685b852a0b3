//! What is compared, with its direction.

/// A metric that runs have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compared<'a> {
    /// Its name.
    pub(super) metric: &'a str,
    /// Whether more of it is better.
    pub(super) higher_is_better: bool,
}

impl<'a> Compared<'a> {
    /// A metric of the host's, of which the name says it.
    #[cfg(test)]
    pub(super) fn of(metric: &'a str) -> Self {
        Self { metric, higher_is_better: crate::report::metrics::higher_is_better(metric) }
    }
}
