//! NEON, the SIMD instruction set of 64-bit ARM.

use std::arch::aarch64::*;
use std::array;

use super::{BYTES, Kernel, LANES, Simd, WINDOW, half, places, shifts};

/// NEON, which every 64-bit ARM machine supports.
#[derive(Clone, Copy, Debug)]
pub struct Neon;

// SAFETY of all that follows: every machine has the simd, and what is read from or written to memory
// are arrays of the registers' sizes.

impl Simd for Neon {
    type Floats = [float32x4_t; 4];
    type Codes = [uint32x4_t; 4];
    type Bytes = [uint8x16_t; 4];
    type Sums = [int16x8_t; 8];
    const ROWS: usize = 4;
    const INT_ROWS: usize = 1;
    const INT_LIMITS: [usize; 2] = [32, 32];

    #[inline(always)]
    fn splat(self, x: f32) -> [float32x4_t; 4] {
        unsafe { [vdupq_n_f32(x); 4] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> [float32x4_t; 4] {
        array::from_fn(|n| unsafe { vld1q_f32(x.as_ptr().add(4 * n)) })
    }

    #[inline(always)]
    fn store(self, x: [float32x4_t; 4], to: &mut [f32; LANES]) {
        for (n, x) in x.into_iter().enumerate() {
            unsafe { vst1q_f32(to.as_mut_ptr().add(4 * n), x) };
        }
    }

    #[inline(always)]
    fn add(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        array::from_fn(|n| unsafe { vaddq_f32(a[n], b[n]) })
    }

    #[inline(always)]
    fn mul_add(
        self,
        a: [float32x4_t; 4],
        b: [float32x4_t; 4],
        c: [float32x4_t; 4],
    ) -> [float32x4_t; 4] {
        array::from_fn(|n| unsafe { vfmaq_f32(c[n], a[n], b[n]) })
    }

    #[inline(always)]
    fn reduce_add(self, x: [float32x4_t; 4]) -> f32 {
        unsafe { vaddvq_f32(vaddq_f32(vaddq_f32(x[0], x[1]), vaddq_f32(x[2], x[3]))) }
    }

    #[inline(always)]
    fn reduce_max(self, x: [float32x4_t; 4]) -> f32 {
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(x[0], x[1]), vmaxq_f32(x[2], x[3]))) }
    }

    #[inline(always)]
    fn max(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        array::from_fn(|n| unsafe { vmaxnmq_f32(a[n], b[n]) })
    }

    #[inline(always)]
    fn unpack<const BITS: usize>(self, stream: &[u8; WINDOW]) -> [uint32x4_t; 4] {
        let (places, shifts) = const { (&places(BITS), &shifts(BITS)) };
        array::from_fn(|n| unsafe {
            let stream = vld1q_u8(stream.as_ptr());
            let pairs = vqtbl1q_u8(stream, vld1q_u8(places.as_ptr().add(16 * n)));
            let right = vnegq_s32(vreinterpretq_s32_u32(vld1q_u32(shifts.as_ptr().add(4 * n))));
            let codes = vshlq_u32(vreinterpretq_u32_u8(pairs), right);
            vandq_u32(codes, vdupq_n_u32((1 << BITS) - 1))
        })
    }

    #[inline(always)]
    fn widen_u16(self, words: &[u8; 2 * LANES]) -> [uint32x4_t; 4] {
        array::from_fn(|n| unsafe {
            vmovl_u16(vreinterpret_u16_u8(vld1_u8(words.as_ptr().add(8 * n))))
        })
    }

    #[inline(always)]
    fn mask_shl(self, codes: [uint32x4_t; 4], mask: u32, left: u32) -> [uint32x4_t; 4] {
        codes.map(|codes| unsafe {
            vshlq_u32(vandq_u32(codes, vdupq_n_u32(mask)), vdupq_n_s32(left as i32))
        })
    }

    #[inline(always)]
    fn or(self, a: [uint32x4_t; 4], b: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
        array::from_fn(|n| unsafe { vorrq_u32(a[n], b[n]) })
    }

    #[inline(always)]
    fn to_floats(self, codes: [uint32x4_t; 4]) -> [float32x4_t; 4] {
        codes.map(|codes| unsafe { vcvtq_f32_s32(vreinterpretq_s32_u32(codes)) })
    }

    #[inline(always)]
    fn f32_from_bits(self, codes: [uint32x4_t; 4]) -> [float32x4_t; 4] {
        codes.map(|codes| unsafe { vreinterpretq_f32_u32(codes) })
    }

    #[inline(always)]
    fn f32_from_f16_bits(self, codes: [uint32x4_t; 4]) -> [float32x4_t; 4] {
        let mut bits = [0; LANES];
        for (n, codes) in codes.into_iter().enumerate() {
            unsafe { vst1q_u32(bits.as_mut_ptr().add(4 * n), codes) };
        }
        self.load(&bits.map(half))
    }

    #[inline(always)]
    fn lookup(self, table: &[f32; 16], codes: [uint32x4_t; 4]) -> [float32x4_t; 4] {
        let doubled: [i8; 16] = table.map(|x| (2.0 * x) as i8);
        codes.map(|codes| unsafe {
            // The upper bytes of each integer are zero, and find a zero.
            let found = vqtbl1q_s8(vld1q_s8(doubled.as_ptr()), vreinterpretq_u8_u32(codes));
            let high = vshlq_n_s32::<24>(vreinterpretq_s32_s8(found));
            vmulq_n_f32(vcvtq_f32_s32(vshrq_n_s32::<24>(high)), 0.5)
        })
    }

    // There is no stable intrinsic for it.
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; BYTES]) -> [uint8x16_t; 4] {
        array::from_fn(|n| unsafe { vld1q_u8(bytes.as_ptr().add(16 * n)) })
    }

    #[inline(always)]
    fn store_bytes(self, x: [uint8x16_t; 4], to: &mut [u8; BYTES]) {
        for (n, x) in x.into_iter().enumerate() {
            unsafe { vst1q_u8(to.as_mut_ptr().add(16 * n), x) };
        }
    }

    #[inline(always)]
    fn repeat(self, bytes: &[u8; 4]) -> [uint8x16_t; 4] {
        unsafe { [vreinterpretq_u8_u32(vdupq_n_u32(u32::from_ne_bytes(*bytes))); 4] }
    }

    #[inline(always)]
    fn columns(self, rows: [&[u8; 16]; LANES]) -> [[uint8x16_t; 4]; 4] {
        // Four rows at a time are transposed.
        let quarters: [[uint32x4_t; 4]; 4] = array::from_fn(|n| unsafe {
            let row = |m: usize| vreinterpretq_u32_u8(vld1q_u8(rows[4 * n + m].as_ptr()));
            let (even, odd) = (vzipq_u32(row(0), row(2)), vzipq_u32(row(1), row(3)));
            let (left, right) = (vzipq_u32(even.0, odd.0), vzipq_u32(even.1, odd.1));
            [left.0, left.1, right.0, right.1]
        });
        array::from_fn(|column| {
            array::from_fn(|n| unsafe { vreinterpretq_u8_u32(quarters[n][column]) })
        })
    }

    #[inline(always)]
    fn nibbles(self, bytes: [uint8x16_t; 4]) -> [[uint8x16_t; 4]; 2] {
        let low = bytes.map(|bytes| unsafe { vandq_u8(bytes, vdupq_n_u8(15)) });
        [low, bytes.map(|bytes| unsafe { vshrq_n_u8::<4>(bytes) })]
    }

    #[inline(always)]
    fn dot4(
        self,
        a: [uint8x16_t; 4],
        b: [uint8x16_t; 4],
        sums: [uint32x4_t; 4],
    ) -> [uint32x4_t; 4] {
        array::from_fn(|n| unsafe {
            let (a, b) = (a[n], vreinterpretq_s8_u8(b[n]));
            let product = |a: uint8x8_t, b: int8x8_t| {
                vmulq_s16(vreinterpretq_s16_u16(vmovl_u8(a)), vmovl_s8(b))
            };
            let low = vpaddlq_s16(product(vget_low_u8(a), vget_low_s8(b)));
            let high = vpaddlq_s16(product(vget_high_u8(a), vget_high_s8(b)));
            vaddq_u32(sums[n], vreinterpretq_u32_s32(vpaddq_s32(low, high)))
        })
    }

    #[inline(always)]
    fn no_sums(self) -> [int16x8_t; 8] {
        unsafe { [vdupq_n_s16(0); 8] }
    }

    // A product is at most 15 * 64, so that 34 of them fit 16 bits.
    #[inline(always)]
    fn dot4_narrow(
        self,
        a: [uint8x16_t; 4],
        b: [uint8x16_t; 4],
        sums: [int16x8_t; 8],
    ) -> [int16x8_t; 8] {
        array::from_fn(|n| unsafe {
            let (a, b) = (vreinterpretq_s8_u8(a[n / 2]), vreinterpretq_s8_u8(b[n / 2]));
            match n % 2 {
                0 => vmlal_s8(sums[n], vget_low_s8(a), vget_low_s8(b)),
                _ => vmlal_high_s8(sums[n], a, b),
            }
        })
    }

    #[inline(always)]
    fn widen_sums(self, sums: [int16x8_t; 8]) -> [uint32x4_t; 4] {
        array::from_fn(|n| unsafe {
            let (low, high) = (vpaddlq_s16(sums[2 * n]), vpaddlq_s16(sums[2 * n + 1]));
            vreinterpretq_u32_s32(vpaddq_s32(low, high))
        })
    }

    #[inline(always)]
    fn shl7_add(self, high: [uint32x4_t; 4], low: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
        array::from_fn(|n| unsafe { vaddq_u32(vshlq_n_u32::<7>(high[n]), low[n]) })
    }

    #[inline(always)]
    fn broadcast(self, x: &[f32; LANES], power: u32) -> [float32x4_t; 4] {
        self.load(&array::from_fn(|lane| x[lane >> power]))
    }

    fn run(self, kernel: impl Kernel) {
        kernel.run(self);
    }
}
