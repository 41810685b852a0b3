//! Which vector instructions the kernels use.

use std::fmt;
use std::sync::OnceLock;

use crate::Precision;

/// The vector instructions that kernels are written for, each with all that stand before it. A result's last bits depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instructions {
    /// What the compiler makes of plain loops for the target.
    Portable,
    /// 8 lanes with fused multiply-add (avx2, fma).
    Avx2,
    /// 16 lanes (avx512f, bw, dq, vl).
    Avx512,
    /// Products of pairs of bf16 (avx512bf16).
    Avx512Bf16,
}

static CHOSEN: OnceLock<Instructions> = OnceLock::new();

impl Instructions {
    /// All, the best last.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

    /// The best that this processor has. It has all that stand before them too.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match (fma, wide) {
                (true, true) if is_x86_feature_detected!("avx512bf16") => Self::Avx512Bf16,
                (true, true) => Self::Avx512,
                (true, false) => Self::Avx2,
                _ => Self::Portable,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Self::Portable
    }

    /// Those that kernels use: the processor's best, unless others have been chosen.
    pub fn in_use() -> Self {
        *CHOSEN.get_or_init(Self::best)
    }

    /// Has all kernels of this process use these. `false` where this processor lacks them, or kernels use others already.
    pub fn choose(self) -> bool {
        self <= Self::best() && *CHOSEN.get_or_init(|| self) == self
    }

    /// Of these, what products of this precision depend on.
    pub fn of(self, precision: Precision) -> Self {
        if precision == Precision::Bf16 { self } else { self.min(Self::Avx512) }
    }

    /// Their name, as [`ALL`](Self::ALL) lists them.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
        }
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
