//! Loops for `f32` on the CPU: the fast forms of the ops, each tested against its composite of candle ops.
//!
//! Kernels run on the calling thread unless an argument says otherwise: batch-parallel training gives each thread its own
//! micro-batch. What the processor offers is found at run time ([`Instructions`]); a result's bits depend on that, never on how work
//! was split. `unsafe` code lives here and nowhere else in the crate.
#![allow(unsafe_code)]

pub(crate) mod attention;
pub(crate) mod channels;
pub(crate) mod convolution;
mod depthwise;
pub(crate) mod elementwise;
pub(crate) mod gemm;
mod instructions;
pub(crate) mod joined;
pub(crate) mod linear;
pub(crate) mod math;
pub(crate) mod max_pool;
pub(crate) mod norm;
pub(crate) mod patches;
pub(crate) mod philox;
mod pieces;
pub(crate) mod resample;
mod scratch;
pub(crate) mod softmax;

pub use self::instructions::Instructions;

/// The vectors that plain loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// 16 lanes (avx512f, bw, dq, vl).
    Avx512,
    /// 8 lanes with fused multiply-add (avx2, fma).
    Avx2,
    /// What the compiler makes of plain loops for the target.
    Portable,
}

/// The vectors that kernels use in this process.
#[inline]
pub(crate) fn isa() -> Isa {
    match Instructions::in_use() {
        Instructions::Portable => Isa::Portable,
        Instructions::Avx2 => Isa::Avx2,
        Instructions::Avx512 | Instructions::Avx512Bf16 => Isa::Avx512,
    }
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
                    // SAFETY: `isa` names only what this processor has: nothing else can be chosen.
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
