//! AVX2, a SIMD instruction set of x86-64.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{BYTES, Kernel, LANES, Simd, WINDOW, places, shifts};

/// AVX2 with fused multiply-add (FMA) and half-precision conversion (F16C).
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// Detects AVX2; `None` if the machine lacks one of its features.
    pub fn here() -> Option<Avx2> {
        let here = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        here.then_some(Avx2(()))
    }
}

// SAFETY of all that follows: the value proves that the machine has the simd, and what is read from
// or written to memory are arrays of the registers' sizes.

impl Simd for Avx2 {
    type Floats = [__m256; 2];
    type Codes = [__m256i; 2];
    type Bytes = [__m256i; 2];
    type Sums = [__m256i; 2];
    const ROWS: usize = 4;
    const INT_ROWS: usize = 1;
    const INT_LIMITS: [usize; 2] = [40, 96];

    #[inline(always)]
    fn splat(self, x: f32) -> [__m256; 2] {
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> [__m256; 2] {
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn store(self, x: [__m256; 2], to: &mut [f32; LANES]) {
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), x[1]);
        }
    }

    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul_add(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn reduce_add(self, x: [__m256; 2]) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(x[0], x[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn reduce_max(self, x: [__m256; 2]) -> f32 {
        unsafe {
            let eight = _mm256_max_ps(x[0], x[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn max(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn unpack<const BITS: usize>(self, stream: &[u8; WINDOW]) -> [__m256i; 2] {
        unsafe {
            let places: [__m256i; 2] = const { transmute(places(BITS)) };
            let shifts: [__m256i; 2] = const { transmute(shifts(BITS)) };
            let stream = _mm256_broadcastsi128_si256(_mm_loadu_si128(stream.as_ptr().cast()));
            let mask = _mm256_set1_epi32((1 << BITS) - 1);
            let half = |n: usize| {
                let pairs = _mm256_shuffle_epi8(stream, places[n]);
                _mm256_and_si256(_mm256_srlv_epi32(pairs, shifts[n]), mask)
            };
            [half(0), half(1)]
        }
    }

    #[inline(always)]
    fn widen_u16(self, words: &[u8; 2 * LANES]) -> [__m256i; 2] {
        unsafe {
            let half = |n: usize| _mm_loadu_si128(words[16 * n..].as_ptr().cast());
            [_mm256_cvtepu16_epi32(half(0)), _mm256_cvtepu16_epi32(half(1))]
        }
    }

    #[inline(always)]
    fn mask_shl(self, codes: [__m256i; 2], mask: u32, left: u32) -> [__m256i; 2] {
        unsafe {
            let (mask, left) = (_mm256_set1_epi32(mask as i32), _mm_cvtsi32_si128(left as i32));
            let half = |n: usize| _mm256_sll_epi32(_mm256_and_si256(codes[n], mask), left);
            [half(0), half(1)]
        }
    }

    #[inline(always)]
    fn or(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
    }

    #[inline(always)]
    fn to_floats(self, codes: [__m256i; 2]) -> [__m256; 2] {
        unsafe { [_mm256_cvtepi32_ps(codes[0]), _mm256_cvtepi32_ps(codes[1])] }
    }

    #[inline(always)]
    fn f32_from_bits(self, codes: [__m256i; 2]) -> [__m256; 2] {
        unsafe { [_mm256_castsi256_ps(codes[0]), _mm256_castsi256_ps(codes[1])] }
    }

    #[inline(always)]
    fn f32_from_f16_bits(self, codes: [__m256i; 2]) -> [__m256; 2] {
        unsafe {
            // Packing works within each half of a register, so the quarters are put in order after it.
            let packed = _mm256_packus_epi32(codes[0], codes[1]);
            let words = _mm256_permute4x64_epi64(packed, 0b11_01_10_00);
            let upper = _mm256_extracti128_si256(words, 1);
            [_mm256_cvtph_ps(_mm256_castsi256_si128(words)), _mm256_cvtph_ps(upper)]
        }
    }

    #[inline(always)]
    fn lookup(self, table: &[f32; 16], codes: [__m256i; 2]) -> [__m256; 2] {
        unsafe {
            let (lower, sign) = (_mm256_loadu_ps(table.as_ptr()), _mm256_set1_epi32(i32::MIN));
            let half = |n: usize| {
                // Only the lowest three bits of an index count; the fourth is the sign.
                let found = _mm256_permutevar8x32_ps(lower, codes[n]);
                let sign = _mm256_and_si256(_mm256_slli_epi32(codes[n], 28), sign);
                _mm256_xor_ps(found, _mm256_castsi256_ps(sign))
            };
            [half(0), half(1)]
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // Nothing is read, so any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; BYTES]) -> [__m256i; 2] {
        unsafe {
            let half = |n: usize| _mm256_loadu_si256(bytes[32 * n..].as_ptr().cast());
            [half(0), half(1)]
        }
    }

    #[inline(always)]
    fn store_bytes(self, x: [__m256i; 2], to: &mut [u8; BYTES]) {
        unsafe {
            _mm256_storeu_si256(to.as_mut_ptr().cast(), x[0]);
            _mm256_storeu_si256(to.as_mut_ptr().add(32).cast(), x[1]);
        }
    }

    #[inline(always)]
    fn repeat(self, bytes: &[u8; 4]) -> [__m256i; 2] {
        unsafe { [_mm256_set1_epi32(i32::from_ne_bytes(*bytes)); 2] }
    }

    #[inline(always)]
    fn columns(self, rows: [&[u8; 16]; LANES]) -> [[__m256i; 2]; 4] {
        let (lower, upper) = rows.split_at(LANES / 2);
        let ([a, b, c, d], [e, f, g, h]) = unsafe { (columns(lower), columns(upper)) };
        [[a, e], [b, f], [c, g], [d, h]]
    }

    #[inline(always)]
    fn nibbles(self, bytes: [__m256i; 2]) -> [[__m256i; 2]; 2] {
        unsafe {
            let low = _mm256_set1_epi8(15);
            let upper = |n: usize| _mm256_and_si256(_mm256_srli_epi16(bytes[n], 4), low);
            let lower = |n: usize| _mm256_and_si256(bytes[n], low);
            [[lower(0), lower(1)], [upper(0), upper(1)]]
        }
    }

    #[inline(always)]
    fn dot4(self, a: [__m256i; 2], b: [__m256i; 2], sums: [__m256i; 2]) -> [__m256i; 2] {
        unsafe {
            let half = |n: usize| {
                let pairs = _mm256_maddubs_epi16(a[n], b[n]);
                _mm256_add_epi32(sums[n], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            };
            [half(0), half(1)]
        }
    }

    #[inline(always)]
    fn no_sums(self) -> [__m256i; 2] {
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    // A product of two pairs is at most 2 * 15 * 64, so that 17 of them fit 16 bits.
    #[inline(always)]
    fn dot4_narrow(self, a: [__m256i; 2], b: [__m256i; 2], sums: [__m256i; 2]) -> [__m256i; 2] {
        unsafe {
            let half = |n: usize| _mm256_add_epi16(sums[n], _mm256_maddubs_epi16(a[n], b[n]));
            [half(0), half(1)]
        }
    }

    #[inline(always)]
    fn widen_sums(self, sums: [__m256i; 2]) -> [__m256i; 2] {
        unsafe {
            let half = |n: usize| _mm256_madd_epi16(sums[n], _mm256_set1_epi16(1));
            [half(0), half(1)]
        }
    }

    #[inline(always)]
    fn shl7_add(self, high: [__m256i; 2], low: [__m256i; 2]) -> [__m256i; 2] {
        unsafe {
            let half = |n: usize| _mm256_add_epi32(_mm256_slli_epi32(high[n], 7), low[n]);
            [half(0), half(1)]
        }
    }

    #[inline(always)]
    fn broadcast(self, x: &[f32; LANES], power: u32) -> [__m256; 2] {
        unsafe {
            // As `power` is not 0, all are among the first eight.
            let some = _mm256_loadu_ps(x.as_ptr());
            let power = _mm_cvtsi32_si128(power as i32);
            let half = |first: i32| {
                let lanes = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
                let lanes = _mm256_add_epi32(lanes, _mm256_set1_epi32(first));
                _mm256_permutevar8x32_ps(some, _mm256_srl_epi32(lanes, power))
            };
            [half(0), half(8)]
        }
    }

    fn run(self, kernel: impl Kernel) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(simd: Avx2, kernel: impl Kernel) {
            kernel.run(simd);
        }
        unsafe { run(self, kernel) }
    }
}

/// Columns of 32 bits of a matrix with 8 rows.
///
/// # Safety
/// The machine must have AVX2.
#[inline(always)]
unsafe fn columns(rows: &[&[u8; 16]]) -> [__m256i; 4] {
    unsafe {
        // Every fourth row in a vector, whose halves are then transposed.
        let row = |n: usize| _mm_loadu_si128(rows[n].as_ptr().cast());
        let (a, b) = (_mm256_set_m128i(row(4), row(0)), _mm256_set_m128i(row(5), row(1)));
        let (c, d) = (_mm256_set_m128i(row(6), row(2)), _mm256_set_m128i(row(7), row(3)));
        let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
        [
            _mm256_unpacklo_epi64(ab, cd),
            _mm256_unpackhi_epi64(ab, cd),
            _mm256_unpacklo_epi64(ab_high, cd_high),
            _mm256_unpackhi_epi64(ab_high, cd_high),
        ]
    }
}
