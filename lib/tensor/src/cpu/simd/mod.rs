//! The vector units that weights are written out with, each chosen where the machine has it.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub use super::simd::neon::Neon;
#[cfg(target_arch = "x86_64")]
pub use super::simd::x86::{Avx2, Avx512};

/// Weights, or activations, that are worked on at a time.
pub const LANES: usize = 16;

/// Bytes that are read to find `LANES` codes of at most 8 bits.
pub const WINDOW: usize = 16;

/// Codes that are multiplied as integers at a time, in bytes: four in each of `LANES` integers.
pub const BYTES: usize = 4 * LANES;

/// Proof that the machine has a vector unit, and what it does with `LANES` elements.
pub trait Unit: Copy + Sync {
    /// Single-precision numbers.
    type Floats: Copy;
    /// Integers of 32 bits.
    type Codes: Copy;
    /// Integers of 8 bits.
    type Bytes: Copy;
    /// Rows of activations whose sums its registers hold.
    const ROWS: usize;

    /// The same number everywhere.
    fn splat(self, x: f32) -> Self::Floats;
    fn load(self, x: &[f32; LANES]) -> Self::Floats;
    fn store(self, x: Self::Floats, to: &mut [f32; LANES]);
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`.
    fn add_product(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    fn sum(self, x: Self::Floats) -> f32;
    /// The larger ones, those of `b` where `a` is no number.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;

    /// The first codes of a little-endian stream of codes of `BITS` bits.
    fn codes<const BITS: usize>(self, stream: &[u8; WINDOW]) -> Self::Codes;
    /// Integers of 16 bits, widened.
    fn words(self, words: &[u8; 2 * LANES]) -> Self::Codes;
    /// `(codes & mask) << left`.
    fn part(self, codes: Self::Codes, mask: u32, left: u32) -> Self::Codes;
    fn or(self, a: Self::Codes, b: Self::Codes) -> Self::Codes;
    /// The integers, which have a sign and are small, as numbers.
    fn numbers(self, codes: Self::Codes) -> Self::Floats;
    /// The numbers of single precision whose bits these are.
    fn singles(self, codes: Self::Codes) -> Self::Floats;
    /// The numbers of half precision whose bits these are.
    fn halves(self, codes: Self::Codes) -> Self::Floats;
    /// What a table says of the codes, which are of 4 bits. The upper half of the table is the lower
    /// with the sign turned; what it says is a multiple of a half, below 64.
    fn look_up(self, table: &[f32; 16], codes: Self::Codes) -> Self::Floats;

    fn bytes(self, bytes: &[u8; BYTES]) -> Self::Bytes;
    /// The lower and the upper halves of bytes.
    fn nibbles(self, bytes: Self::Bytes) -> [Self::Bytes; 2];
    /// To each of `sums` the products of four bytes of `a`, which have no sign, with four of `b`,
    /// which have one; two products together have less than 16 bits.
    fn add_dots(self, a: Self::Bytes, b: Self::Bytes, sums: Self::Codes) -> Self::Codes;
    /// `(high << 7) + low`.
    fn carry(self, high: Self::Codes, low: Self::Codes) -> Self::Codes;
    /// Number `lane >> power` of `x` in each lane; `power` is not 0.
    fn spread(self, x: &[f32; LANES], power: u32) -> Self::Floats;

    /// Does `task` in code that is compiled for the unit.
    fn run(self, task: impl Task);
}

/// Work for a unit.
pub trait Task {
    /// Does it; always to be inlined.
    fn run<U: Unit>(self, unit: U);
}

/// What every machine has.
#[derive(Clone, Copy, Debug)]
pub struct Any;

impl Unit for Any {
    type Floats = [f32; LANES];
    type Codes = [u32; LANES];
    type Bytes = [u8; BYTES];
    const ROWS: usize = 4;

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

    // A fused product would be a call into a library.
    #[inline(always)]
    fn add_product(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn sum(self, x: [f32; LANES]) -> f32 {
        x.iter().sum()
    }

    #[inline(always)]
    fn max(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn codes<const BITS: usize>(self, stream: &[u8; WINDOW]) -> [u32; LANES] {
        let stream = u128::from_le_bytes(*stream);
        std::array::from_fn(|lane| (stream >> (lane * BITS)) as u32 & ((1 << BITS) - 1))
    }

    #[inline(always)]
    fn words(self, words: &[u8; 2 * LANES]) -> [u32; LANES] {
        std::array::from_fn(|lane| {
            u32::from(u16::from_le_bytes([words[2 * lane], words[2 * lane + 1]]))
        })
    }

    #[inline(always)]
    fn part(self, codes: [u32; LANES], mask: u32, left: u32) -> [u32; LANES] {
        codes.map(|code| (code & mask) << left)
    }

    #[inline(always)]
    fn or(self, a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        std::array::from_fn(|lane| a[lane] | b[lane])
    }

    #[inline(always)]
    fn numbers(self, codes: [u32; LANES]) -> [f32; LANES] {
        codes.map(|code| code.cast_signed() as f32)
    }

    #[inline(always)]
    fn singles(self, codes: [u32; LANES]) -> [f32; LANES] {
        codes.map(f32::from_bits)
    }

    #[inline(always)]
    fn halves(self, codes: [u32; LANES]) -> [f32; LANES] {
        codes.map(half)
    }

    #[inline(always)]
    fn look_up(self, table: &[f32; 16], codes: [u32; LANES]) -> [f32; LANES] {
        codes.map(|code| table[(code & 15) as usize])
    }

    #[inline(always)]
    fn bytes(self, bytes: &[u8; BYTES]) -> [u8; BYTES] {
        *bytes
    }

    #[inline(always)]
    fn nibbles(self, bytes: [u8; BYTES]) -> [[u8; BYTES]; 2] {
        [bytes.map(|byte| byte & 15), bytes.map(|byte| byte >> 4)]
    }

    #[inline(always)]
    fn add_dots(self, a: [u8; BYTES], b: [u8; BYTES], sums: [u32; LANES]) -> [u32; LANES] {
        std::array::from_fn(|lane| {
            let product = |n: usize| i32::from(a[n]) * i32::from(b[n].cast_signed());
            sums[lane].wrapping_add_signed((4 * lane..4 * lane + 4).map(product).sum())
        })
    }

    #[inline(always)]
    fn carry(self, high: [u32; LANES], low: [u32; LANES]) -> [u32; LANES] {
        std::array::from_fn(|lane| (high[lane] << 7).wrapping_add(low[lane]))
    }

    #[inline(always)]
    fn spread(self, x: &[f32; LANES], power: u32) -> [f32; LANES] {
        std::array::from_fn(|lane| x[lane >> power])
    }

    fn run(self, task: impl Task) {
        task.run(self);
    }
}

/// A number of half precision by its bits: its exponent counts from 2^-15, one of single precision
/// from 2^-127. Infinity and what is no number keep the largest exponent.
#[inline(always)]
pub fn half(bits: u32) -> f32 {
    const REBASE: f32 = f32::from_bits((112 + 127) << 23);
    let size = f32::from_bits((bits & 0x7fff) << 13) * REBASE;
    let endless = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(size.to_bits() | endless | (bits & 0x8000) << 16)
}

/// For each code of `bits` bits the two bytes of the stream in which it lies, followed by two that do
/// not count.
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

/// At which of these bits each code begins.
const fn shifts(bits: usize) -> [u32; LANES] {
    let mut shifts = [0; LANES];
    let mut lane = 0;
    while lane < LANES {
        shifts[lane] = (lane * bits % 8) as u32;
        lane += 1;
    }
    shifts
}
