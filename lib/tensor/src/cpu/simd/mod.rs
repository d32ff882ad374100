//! SIMD instruction sets behind one trait, with 16 lanes each, and a portable implementation.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(target_arch = "x86_64")]
pub use super::simd::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use super::simd::avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub use super::simd::neon::Neon;

/// Elements of a vector.
pub const LANES: usize = 16;

/// Bytes that hold `LANES` codes of at most 8 bits.
pub const WINDOW: usize = 16;

/// Bytes of a vector of integer codes: four for each of `LANES` 32-bit sums.
pub const BYTES: usize = 4 * LANES;

/// SIMD instruction set. A value is the proof that the machine supports it.
pub trait Simd: Copy + Sync {
    /// Vector of `LANES` single-precision floats.
    type Floats: Copy;
    /// Vector of `LANES` 32-bit integers.
    type Codes: Copy;
    /// Vector of `BYTES` 8-bit integers.
    type Bytes: Copy;
    /// Vector of `LANES` sums of products of 4-bit codes.
    type Sums: Copy;
    /// Rows of activations whose sums fit the registers.
    const ROWS: usize;
    /// Rows of activations whose sums of integer products, three for each, fit the registers: 1, 2
    /// or 4.
    const INT_ROWS: usize;
    /// Rows of activations from which a matrix product of floats is faster than integer products,
    /// for codes of 8 and of 4 bits, as measured.
    const INT_LIMITS: [usize; 2];

    /// Vector with `x` in every lane.
    fn splat(self, x: f32) -> Self::Floats;
    fn load(self, x: &[f32; LANES]) -> Self::Floats;
    fn store(self, x: Self::Floats, to: &mut [f32; LANES]);
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, fused where the instruction set can.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// Sum of the lanes.
    fn reduce_add(self, x: Self::Floats) -> f32;
    /// Largest of the lanes.
    fn reduce_max(self, x: Self::Floats) -> f32;
    /// Larger of each pair of lanes; that of `b` where `a` is NaN.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;

    /// First `LANES` codes of a little-endian stream of codes of `BITS` bits.
    fn unpack<const BITS: usize>(self, stream: &[u8; WINDOW]) -> Self::Codes;
    /// 16-bit little-endian integers, zero-extended.
    fn widen_u16(self, words: &[u8; 2 * LANES]) -> Self::Codes;
    /// `(codes & mask) << left`.
    fn mask_shl(self, codes: Self::Codes, mask: u32, left: u32) -> Self::Codes;
    fn or(self, a: Self::Codes, b: Self::Codes) -> Self::Codes;
    /// Signed integers of small magnitude, converted to floats.
    fn to_floats(self, codes: Self::Codes) -> Self::Floats;
    /// Single-precision floats with these bits.
    fn f32_from_bits(self, codes: Self::Codes) -> Self::Floats;
    /// Half-precision floats with these bits, converted to single precision.
    fn f32_from_f16_bits(self, codes: Self::Codes) -> Self::Floats;
    /// Elements of `table` at 4-bit codes. The upper half of the table must be the negated lower
    /// half, and its elements multiples of 0.5 below 64.
    fn lookup(self, table: &[f32; 16], codes: Self::Codes) -> Self::Floats;

    /// Asks for the cache line at `address`, whether it is there or not.
    fn prefetch(self, address: *const u8);
    /// Loads bytes in order.
    fn load_bytes(self, bytes: &[u8; BYTES]) -> Self::Bytes;
    fn store_bytes(self, x: Self::Bytes, to: &mut [u8; BYTES]);
    /// The same four bytes in every lane of 32 bits.
    fn repeat(self, bytes: &[u8; 4]) -> Self::Bytes;
    /// Columns of 32 bits of a matrix with `LANES` rows: lane n of a vector is from row n.
    fn columns(self, rows: [&[u8; 16]; LANES]) -> [Self::Bytes; 4];
    /// Lower and upper four bits of each byte.
    fn nibbles(self, bytes: Self::Bytes) -> [Self::Bytes; 2];
    /// Adds to each of `sums` the products of four unsigned bytes of `a` with four signed bytes of
    /// `b`; the sum of two products must fit 16 bits.
    fn dot4(self, a: Self::Bytes, b: Self::Bytes, sums: Self::Codes) -> Self::Codes;
    /// Sums of no products.
    fn no_sums(self) -> Self::Sums;
    /// [`Simd::dot4`] with codes of 4 bits and digits from -64 to 63, for at most 16 products in a
    /// row.
    fn dot4_narrow(self, a: Self::Bytes, b: Self::Bytes, sums: Self::Sums) -> Self::Sums;
    /// The sums as 32-bit integers.
    fn widen_sums(self, sums: Self::Sums) -> Self::Codes;
    /// `(high << 7) + low`.
    fn shl7_add(self, high: Self::Codes, low: Self::Codes) -> Self::Codes;
    /// Element `lane >> power` of `x` in each lane; `power` is not 0.
    fn broadcast(self, x: &[f32; LANES], power: u32) -> Self::Floats;

    /// Runs `kernel` in code that is compiled for the instruction set.
    fn run(self, kernel: impl Kernel);
}

/// Computation that is generic over the instruction set.
pub trait Kernel {
    /// Runs the kernel. Implementations must be `#[inline(always)]`, to be compiled for the
    /// instruction set of the caller.
    fn run<S: Simd>(self, simd: S);
}

/// Arrays and loops, which every machine supports.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

impl Simd for Portable {
    type Floats = [f32; LANES];
    type Codes = [u32; LANES];
    type Bytes = [u8; BYTES];
    type Sums = [u32; LANES];
    const ROWS: usize = 4;
    const INT_ROWS: usize = 1;
    const INT_LIMITS: [usize; 2] = [32, 32];

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; LANES] {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> [f32; LANES] {
        *x
    }

    #[inline(always)]
    fn store(self, x: [f32; LANES], to: &mut [f32; LANES]) {
        *to = x;
    }

    #[inline(always)]
    fn add(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    // Not fused: without hardware support that would be a library call.
    #[inline(always)]
    fn mul_add(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn reduce_add(self, x: [f32; LANES]) -> f32 {
        x.iter().sum()
    }

    #[inline(always)]
    fn reduce_max(self, x: [f32; LANES]) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn max(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn unpack<const BITS: usize>(self, stream: &[u8; WINDOW]) -> [u32; LANES] {
        let stream = u128::from_le_bytes(*stream);
        std::array::from_fn(|lane| (stream >> (lane * BITS)) as u32 & ((1 << BITS) - 1))
    }

    #[inline(always)]
    fn widen_u16(self, words: &[u8; 2 * LANES]) -> [u32; LANES] {
        std::array::from_fn(|lane| {
            u32::from(u16::from_le_bytes([words[2 * lane], words[2 * lane + 1]]))
        })
    }

    #[inline(always)]
    fn mask_shl(self, codes: [u32; LANES], mask: u32, left: u32) -> [u32; LANES] {
        codes.map(|code| (code & mask) << left)
    }

    #[inline(always)]
    fn or(self, a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        std::array::from_fn(|lane| a[lane] | b[lane])
    }

    #[inline(always)]
    fn to_floats(self, codes: [u32; LANES]) -> [f32; LANES] {
        codes.map(|code| code.cast_signed() as f32)
    }

    #[inline(always)]
    fn f32_from_bits(self, codes: [u32; LANES]) -> [f32; LANES] {
        codes.map(f32::from_bits)
    }

    #[inline(always)]
    fn f32_from_f16_bits(self, codes: [u32; LANES]) -> [f32; LANES] {
        codes.map(half)
    }

    #[inline(always)]
    fn lookup(self, table: &[f32; 16], codes: [u32; LANES]) -> [f32; LANES] {
        codes.map(|code| table[(code & 15) as usize])
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; BYTES]) -> [u8; BYTES] {
        *bytes
    }

    #[inline(always)]
    fn store_bytes(self, x: [u8; BYTES], to: &mut [u8; BYTES]) {
        *to = x;
    }

    #[inline(always)]
    fn repeat(self, bytes: &[u8; 4]) -> [u8; BYTES] {
        std::array::from_fn(|n| bytes[n % 4])
    }

    #[inline(always)]
    fn columns(self, rows: [&[u8; 16]; LANES]) -> [[u8; BYTES]; 4] {
        std::array::from_fn(|column| std::array::from_fn(|n| rows[n / 4][4 * column + n % 4]))
    }

    #[inline(always)]
    fn nibbles(self, bytes: [u8; BYTES]) -> [[u8; BYTES]; 2] {
        [bytes.map(|byte| byte & 15), bytes.map(|byte| byte >> 4)]
    }

    #[inline(always)]
    fn dot4(self, a: [u8; BYTES], b: [u8; BYTES], sums: [u32; LANES]) -> [u32; LANES] {
        std::array::from_fn(|lane| {
            let product = |n: usize| i32::from(a[n]) * i32::from(b[n].cast_signed());
            sums[lane].wrapping_add_signed((4 * lane..4 * lane + 4).map(product).sum())
        })
    }

    #[inline(always)]
    fn no_sums(self) -> [u32; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    fn dot4_narrow(self, a: [u8; BYTES], b: [u8; BYTES], sums: [u32; LANES]) -> [u32; LANES] {
        self.dot4(a, b, sums)
    }

    #[inline(always)]
    fn widen_sums(self, sums: [u32; LANES]) -> [u32; LANES] {
        sums
    }

    #[inline(always)]
    fn shl7_add(self, high: [u32; LANES], low: [u32; LANES]) -> [u32; LANES] {
        std::array::from_fn(|lane| (high[lane] << 7).wrapping_add(low[lane]))
    }

    #[inline(always)]
    fn broadcast(self, x: &[f32; LANES], power: u32) -> [f32; LANES] {
        std::array::from_fn(|lane| x[lane >> power])
    }

    fn run(self, kernel: impl Kernel) {
        kernel.run(self);
    }
}

/// Half-precision float with these bits: its exponent bias is 15, that of single precision 127.
/// Infinities and NaN keep the largest exponent.
#[inline(always)]
pub fn half(bits: u32) -> f32 {
    const REBASE: f32 = f32::from_bits((112 + 127) << 23);
    let size = f32::from_bits((bits & 0x7fff) << 13) * REBASE;
    let endless = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(size.to_bits() | endless | (bits & 0x8000) << 16)
}

/// Indices of the two bytes of the stream that hold each code of `bits` bits, followed by two
/// unused bytes.
const fn places(bits: usize) -> [u8; 4 * LANES] {
    let mut places = [0; 4 * LANES];
    let mut lane = 0;
    while lane < LANES {
        let byte = lane * bits / 8;
        places[4 * lane] = byte as u8;
        if byte + 1 < WINDOW {
            places[4 * lane + 1] = byte as u8 + 1;
        }
        lane += 1;
    }
    places
}

/// Offset of each code within its first byte, in bits.
const fn shifts(bits: usize) -> [u32; LANES] {
    let mut shifts = [0; LANES];
    let mut lane = 0;
    while lane < LANES {
        shifts[lane] = (lane * bits % 8) as u32;
        lane += 1;
    }
    shifts
}
