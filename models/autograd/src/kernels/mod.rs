//! Loops for `f32` on the CPU: the fast forms of the ops, each tested against its composite of candle ops.
//!
//! Kernels run on the calling thread unless an argument says otherwise: batch-parallel training gives each thread its own
//! micro-batch. What the processor offers is found at run time; a result's bits depend on the processor, never on how work
//! was split. `unsafe` code lives here and nowhere else in the crate.
#![allow(unsafe_code)]

pub(crate) mod attention;
pub(crate) mod elementwise;
pub(crate) mod gemm;
pub(crate) mod linear;
pub(crate) mod math;
pub(crate) mod norm;
pub(crate) mod philox;
mod scratch;

/// The vector instructions that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) enum Isa {
    /// 16 lanes (avx512f, bw, dq, vl).
    Avx512,
    /// 8 lanes with fused multiply-add (avx2, fma).
    Avx2,
    /// What the compiler makes of plain loops for the target.
    Portable,
}

/// The best that this processor has.
#[inline]
pub(crate) fn isa() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        use std::sync::OnceLock;
        static ISA: OnceLock<Isa> = OnceLock::new();
        *ISA.get_or_init(|| {
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match (fma, wide) {
                (true, true) => Isa::Avx512,
                (true, false) => Isa::Avx2,
                _ => Isa::Portable,
            }
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    Isa::Portable
}

/// Whether plain loops have a fused multiply-add on this target.
pub(crate) const NATIVE_FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// Compiles a plain loop `body<const FMA: bool, ..>`, which must be `#[inline(always)]`, once for each [`Isa`], and picks at
/// run time: the compiler vectorises each for its lanes.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$generic:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?)
        $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        $vis fn $name $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512 $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    $body::<true $(, $generic)?>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    $body::<true $(, $generic)?>($($arg),*)
                }
                match $crate::kernels::isa() {
                    // SAFETY: `isa` names only what was detected on this processor.
                    $crate::kernels::Isa::Avx512 => return unsafe { avx512 $(::<$generic>)? ($($arg),*) },
                    // SAFETY: as above.
                    $crate::kernels::Isa::Avx2 => return unsafe { avx2 $(::<$generic>)? ($($arg),*) },
                    $crate::kernels::Isa::Portable => {}
                }
            }
            $body::<{ $crate::kernels::NATIVE_FMA } $(, $generic)?>($($arg),*)
        }
    };
}
pub(crate) use multiversion;
