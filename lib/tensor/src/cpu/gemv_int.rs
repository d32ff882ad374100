//! The product of one row of activations with weights whose codes are integers, which stay integers.
//!
//! Activations are written as three digits of 7 bits, whose products with codes, and the sums of
//! these, are exact. What is lost to the digits is less than 2^-20 of the largest of a few
//! neighbours: as much as a sum of floats loses.

use super::codec::Coding;
use super::simd::{BYTES, LANES, Task, Unit};
use super::weight_rows::{Hand, Row, Rows};
use super::{Shared, attend, in_pieces};

/// `out = x W.T`, with `x` [ins] and `out` [outs], for a coding of `H` codes in a byte.
pub fn product<C: Coding, U: Unit, const H: usize>(
    unit: U,
    x: &[f32],
    w: &Rows<C>,
    out: &mut [f32],
) {
    let mut digits = Digits::<H>::default();
    unit.run(Writing { x, group_size: w.group_size(), to: &mut digits });
    let out = Shared(out.as_mut_ptr());
    in_pieces(w.count(), w.len(), &|first, count| {
        unit.run(Piece { w, first, count, x: &digits, out: &out });
    });
}

/// A row of activations.
#[derive(Default)]
struct Digits<const H: usize> {
    blocks: Vec<Block<H>>,
    /// Sums of the activations that meet the same scale, with zeros after the last.
    sums: Vec<[f32; LANES]>,
}

/// The activations that meet [`BYTES`] bytes of codes, with zeros after the last.
#[repr(align(64))]
struct Block<const H: usize> {
    /// By their place in the byte of their code; the lowest digit first. They have a sign.
    digits: [[[u8; BYTES]; 3]; H],
    /// What the lowest digits of each lane count.
    steps: [f32; LANES],
}

/// Makes digits.
struct Writing<'a, const H: usize> {
    x: &'a [f32],
    group_size: usize,
    to: &'a mut Digits<H>,
}

impl<const H: usize> Task for Writing<'_, H> {
    #[inline(always)]
    fn run<U: Unit>(self, _: U) {
        let Writing { x, group_size, to } = self;
        to.blocks.reserve_exact(x.len().div_ceil(H * BYTES));
        for x in x.chunks(H * BYTES) {
            to.blocks.push(Block::new(x));
        }
        let groups = x.len() / group_size;
        to.sums = vec![[0.0; LANES]; groups.div_ceil(LANES)];
        let sums = to.sums.as_flattened_mut().iter_mut();
        for (sum, group) in sums.zip(x.chunks_exact(group_size)) {
            *sum = attend::sum(group);
        }
    }
}

impl<const H: usize> Block<H> {
    #[inline(always)]
    fn new(x: &[f32]) -> Block<H> {
        let mut block = Block { digits: [[[0; BYTES]; 3]; H], steps: [0.0; LANES] };
        for (lane, x) in x.chunks(4 * H).enumerate() {
            let mut most = 0.0f32;
            for x in x {
                most = most.max(x.abs());
            }
            block.steps[lane] = most / LARGEST;
            let factor = LARGEST / most;
            for (n, x) in x.iter().enumerate() {
                let digits = digits(x * factor);
                for (place, digit) in digits.into_iter().enumerate() {
                    block.digits[n % H][place][4 * lane + n / H] = digit;
                }
            }
        }
        block
    }
}

/// The largest number of three digits, each from -64 to 63.
const LARGEST: f32 = 1_040_319.0;

/// A number, rounded, as digits.
#[inline(always)]
fn digits(x: f32) -> [u8; 3] {
    /// Adding it leaves a whole number in the lowest bits.
    const WHOLE: f32 = 12_582_912.0;
    let all = (x + WHOLE).to_bits().wrapping_sub(WHOLE.to_bits()).cast_signed();
    let lowest = (all << 25) >> 25;
    let upper = (all - lowest) >> 7;
    let middle = (upper << 25) >> 25;
    [lowest as u8, middle as u8, ((upper - middle) >> 7) as u8]
}

/// The products with some rows of weights.
struct Piece<'a, C, const H: usize> {
    w: &'a Rows<'a, C>,
    first: usize,
    count: usize,
    x: &'a Digits<H>,
    out: &'a Shared,
}

impl<C: Coding, const H: usize> Task for Piece<'_, C, H> {
    #[inline(always)]
    fn run<U: Unit>(self, unit: U) {
        let mut hand = Hand::default();
        // In each lane 4 bytes of codes.
        let power = (self.w.group_size() / (4 * H)).trailing_zeros();
        for n in self.first..self.first + self.count {
            let row = self.w.row(unit, n, &mut hand);
            let sum = dot(unit, &row, self.x, power);
            // SAFETY: `out` has as many elements as there are rows, and this is no other piece's.
            unsafe { self.out.from(n).write(sum) };
        }
    }
}

/// The product with a row of weights, of which 2^`power` lanes share a scale.
#[inline(always)]
fn dot<C: Coding, U: Unit, const H: usize>(unit: U, w: &Row<C>, x: &Digits<H>, power: u32) -> f32 {
    let none = unit.words(&[0; 2 * LANES]);
    let zero = unit.splat(0.0);
    let mut sum = zero;
    for ((n, block), bytes) in x.blocks.iter().enumerate().zip(w.bytes.as_chunks().0) {
        let bytes = unit.bytes(bytes);
        let codes = if H == 1 { [bytes; 2] } else { unit.nibbles(bytes) };
        let mut places = [none; 3];
        for (codes, digits) in codes.into_iter().zip(&block.digits) {
            for (sum, digits) in places.iter_mut().zip(digits) {
                *sum = unit.add_dots(codes, unit.bytes(digits), *sum);
            }
        }
        let whole = unit.carry(unit.carry(places[2], places[1]), places[0]);
        let counted = unit.add_product(unit.numbers(whole), unit.load(&block.steps), zero);
        let scales = w.scales[(n * LANES) >> power..].first_chunk().unwrap_or(&[0.0; LANES]);
        sum = unit.add_product(counted, unit.spread(scales, power), sum);
    }
    for (n, sums) in x.sums.iter().enumerate() {
        let biases = w.biases[n * LANES..].first_chunk().unwrap_or(&[0.0; LANES]);
        sum = unit.add_product(unit.load(biases), unit.load(sums), sum);
    }
    unit.sum(sum)
}
