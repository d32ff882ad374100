//! The vector units that weights are taken apart with, and what compilers do not find for them.

use std::array;

/// Packed integers taken apart at a time: what AVX-512 holds, and a few of any smaller register.
pub const LANES: usize = 16;

/// Proof that the machine has a vector unit.
pub trait Unit: Copy {
    /// Whether it multiplies and adds in one step; elsewhere that would be a library call.
    const FUSED: bool;

    /// For each of the packed integers what `table` says of its `n`th four bits. The upper half of
    /// the table is the lower with the sign turned.
    fn look_up(self, table: &[f32; 16], packed: &[u32; LANES], n: usize) -> [f32; LANES];

    /// `a * b + c`.
    #[inline(always)]
    fn add_product(self, a: f32, b: f32, c: f32) -> f32 {
        if Self::FUSED { a.mul_add(b, c) } else { a * b + c }
    }
}

/// What every machine has.
#[derive(Clone, Copy)]
pub struct Any;

impl Unit for Any {
    // On aarch64 the vector unit, with fused products, is always there.
    const FUSED: bool = cfg!(target_arch = "aarch64");

    #[inline(always)]
    fn look_up(self, table: &[f32; 16], packed: &[u32; LANES], n: usize) -> [f32; LANES] {
        array::from_fn(|lane| table[(packed[lane] >> (4 * n) & 15) as usize])
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, _mm_cvtsi32_si128, _mm256_and_si256, _mm256_castps_si256, _mm256_castsi256_ps,
        _mm256_loadu_ps, _mm256_loadu_si256, _mm256_permutevar8x32_ps, _mm256_set1_epi32,
        _mm256_slli_epi32, _mm256_srl_epi32, _mm256_storeu_ps, _mm256_xor_si256, _mm512_loadu_ps,
        _mm512_loadu_si512, _mm512_permutexvar_ps, _mm512_srl_epi32, _mm512_storeu_ps,
    };

    use super::{LANES, Unit};

    /// AVX-512 with byte operations.
    #[derive(Clone, Copy)]
    pub struct Avx512(());

    impl Avx512 {
        pub fn here() -> Option<Avx512> {
            let here = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && Avx2::here().is_some();
            here.then_some(Avx512(()))
        }
    }

    impl Unit for Avx512 {
        const FUSED: bool = true;

        #[inline(always)]
        fn look_up(self, table: &[f32; 16], packed: &[u32; LANES], n: usize) -> [f32; LANES] {
            let mut out = [0.0; LANES];
            // SAFETY: the machine has the unit; all three arrays are as long as a register.
            unsafe {
                let packed = _mm512_loadu_si512(packed.as_ptr().cast());
                // Only the lowest four bits of an index count.
                let index = _mm512_srl_epi32(packed, _mm_cvtsi32_si128(4 * n as i32));
                let found = _mm512_permutexvar_ps(index, _mm512_loadu_ps(table.as_ptr()));
                _mm512_storeu_ps(out.as_mut_ptr(), found);
            }
            out
        }
    }

    /// AVX2 with fused products.
    #[derive(Clone, Copy)]
    pub struct Avx2(());

    impl Avx2 {
        pub fn here() -> Option<Avx2> {
            let here = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            here.then_some(Avx2(()))
        }
    }

    impl Unit for Avx2 {
        const FUSED: bool = true;

        #[inline(always)]
        fn look_up(self, table: &[f32; 16], packed: &[u32; LANES], n: usize) -> [f32; LANES] {
            let mut out = [0.0; LANES];
            for (packed, out) in packed.chunks_exact(8).zip(out.chunks_exact_mut(8)) {
                // SAFETY: the machine has the unit; the slices are as long as a register, the
                // table is longer.
                unsafe {
                    let packed = _mm256_loadu_si256(packed.as_ptr().cast::<__m256i>());
                    // Only the lowest three bits of an index count; the fourth is the sign.
                    let index = _mm256_srl_epi32(packed, _mm_cvtsi32_si128(4 * n as i32));
                    let lower = _mm256_loadu_ps(table.as_ptr());
                    let found = _mm256_castps_si256(_mm256_permutevar8x32_ps(lower, index));
                    let sign = _mm256_set1_epi32(i32::MIN);
                    let sign = _mm256_and_si256(_mm256_slli_epi32(index, 28), sign);
                    let signed = _mm256_castsi256_ps(_mm256_xor_si256(found, sign));
                    _mm256_storeu_ps(out.as_mut_ptr(), signed);
                }
            }
            out
        }
    }
}
