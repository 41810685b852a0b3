//! Who attends to whom.

/// How heads attend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of the keys and values, a divisor of `heads`: each serves `heads / kv_heads` heads of the queries, one after the other.
    pub kv_heads: usize,
    /// What scores are multiplied by; 1 / sqrt(width of a head) where nothing is said.
    pub scale: Option<f64>,
    /// Which keys a query sees.
    pub sees: Sees,
    /// Probability with which probabilities are dropped, where the tape's options say so.
    pub dropout: f64,
}

/// Which keys a query sees, the prefix counted among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// All of its sequence.
    All,
    /// Itself and those before it. The queries of a sequence stand at its last keys.
    Past {
        /// How many, itself counted; all where nothing is said.
        window: Option<usize>,
    },
}

impl Attention {
    /// Every query sees all keys of its sequence, and every head has its own.
    pub fn full(heads: usize, dropout: f64) -> Self {
        Self { heads, kv_heads: heads, scale: None, sees: Sees::All, dropout }
    }
}
