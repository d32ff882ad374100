//! AVX-512, a SIMD instruction set of x86-64.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Avx2, BYTES, Kernel, LANES, Simd, WINDOW, places, shifts};

/// AVX-512 with byte operations (BW, VL, DQ) and integer dot products (VNNI).
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// Detects AVX-512; `None` if the machine lacks one of its features.
    pub fn here() -> Option<Avx512> {
        let here = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni")
            && Avx2::here().is_some();
        here.then_some(Avx512(()))
    }
}

// SAFETY of all that follows: the value proves that the machine has the simd, and what is read from
// or written to memory are arrays of the registers' sizes.

impl Simd for Avx512 {
    type Floats = __m512;
    type Codes = __m512i;
    type Bytes = __m512i;
    type Sums = __m512i;
    const ROWS: usize = 8;
    const INT_ROWS: usize = 4;
    const INT_LIMITS: [usize; 2] = [usize::MAX, usize::MAX];

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, x: __m512, to: &mut [f32; LANES]) {
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn reduce_add(self, x: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(x) }
    }

    #[inline(always)]
    fn reduce_max(self, x: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(x) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn unpack<const BITS: usize>(self, stream: &[u8; WINDOW]) -> __m512i {
        unsafe {
            // Constants tell the compiler that no shift exceeds the width.
            let places: __m512i = const { transmute(places(BITS)) };
            let shifts: __m512i = const { transmute(shifts(BITS)) };
            let stream = _mm512_broadcast_i32x4(_mm_loadu_si128(stream.as_ptr().cast()));
            let codes = _mm512_srlv_epi32(_mm512_shuffle_epi8(stream, places), shifts);
            _mm512_and_si512(codes, _mm512_set1_epi32((1 << BITS) - 1))
        }
    }

    #[inline(always)]
    fn widen_u16(self, words: &[u8; 2 * LANES]) -> __m512i {
        unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(words.as_ptr().cast())) }
    }

    #[inline(always)]
    fn mask_shl(self, codes: __m512i, mask: u32, left: u32) -> __m512i {
        unsafe {
            let part = _mm512_and_si512(codes, _mm512_set1_epi32(mask as i32));
            _mm512_sll_epi32(part, _mm_cvtsi32_si128(left as i32))
        }
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn to_floats(self, codes: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(codes) }
    }

    #[inline(always)]
    fn f32_from_bits(self, codes: __m512i) -> __m512 {
        unsafe { _mm512_castsi512_ps(codes) }
    }

    #[inline(always)]
    fn f32_from_f16_bits(self, codes: __m512i) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(codes)) }
    }

    #[inline(always)]
    fn lookup(self, table: &[f32; 16], codes: __m512i) -> __m512 {
        unsafe { _mm512_permutexvar_ps(codes, _mm512_loadu_ps(table.as_ptr())) }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // Nothing is read, so any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; BYTES]) -> __m512i {
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_bytes(self, x: __m512i, to: &mut [u8; BYTES]) {
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
    }

    #[inline(always)]
    fn repeat(self, bytes: &[u8; 4]) -> __m512i {
        unsafe { _mm512_set1_epi32(i32::from_ne_bytes(*bytes)) }
    }

    #[inline(always)]
    fn columns(self, rows: [&[u8; 16]; LANES]) -> [__m512i; 4] {
        unsafe {
            // Every fourth row in a vector, whose quarters are then transposed.
            let row = |n: usize| _mm_loadu_si128(rows[n].as_ptr().cast());
            let fourth = |n: usize| {
                let one = _mm512_castsi128_si512(row(n));
                let two = _mm512_inserti32x4(one, row(n + 4), 1);
                let three = _mm512_inserti32x4(two, row(n + 8), 2);
                _mm512_inserti32x4(three, row(n + 12), 3)
            };
            let (a, b, c, d) = (fourth(0), fourth(1), fourth(2), fourth(3));
            let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
            let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab, cd),
                _mm512_unpackhi_epi64(ab, cd),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }

    #[inline(always)]
    fn nibbles(self, bytes: __m512i) -> [__m512i; 2] {
        unsafe {
            let low = _mm512_set1_epi8(15);
            let upper = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
            [_mm512_and_si512(bytes, low), upper]
        }
    }

    #[inline(always)]
    fn dot4(self, a: __m512i, b: __m512i, sums: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, a, b) }
    }

    #[inline(always)]
    fn no_sums(self) -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn dot4_narrow(self, a: __m512i, b: __m512i, sums: __m512i) -> __m512i {
        self.dot4(a, b, sums)
    }

    #[inline(always)]
    fn widen_sums(self, sums: __m512i) -> __m512i {
        sums
    }

    #[inline(always)]
    fn shl7_add(self, high: __m512i, low: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(_mm512_slli_epi32(high, 7), low) }
    }

    #[inline(always)]
    fn broadcast(self, x: &[f32; LANES], power: u32) -> __m512 {
        unsafe {
            let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            let places = _mm512_srl_epi32(lanes, _mm_cvtsi32_si128(power as i32));
            _mm512_permutexvar_ps(places, self.load(x))
        }
    }

    fn run(self, kernel: impl Kernel) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
        fn run(simd: Avx512, kernel: impl Kernel) {
            kernel.run(simd);
        }
        unsafe { run(self, kernel) }
    }
}
