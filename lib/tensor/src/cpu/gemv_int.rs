//! Linear layer of one row of activations by integer codes, without converting codes to floats.
//!
//! Activations are written as fixed-point numbers (see `digits`).

use super::codec::Codec;
use super::digits::{LARGEST, digits};
use super::simd::{BYTES, Kernel, LANES, Simd};
use super::weight_rows::{Row, Scratch, WeightRows};
use super::{SharedPtr, attend, in_chunks};

/// Linear layer `out = x W.T`, with `x` `[ins]` and `out` `[outs]`, for a codec with `H` codes in a
/// byte.
pub fn linear<C: Codec, S: Simd, const H: usize>(
    simd: S,
    x: &[f32],
    w: &WeightRows<C>,
    out: &mut [f32],
) {
    let mut digits = Digits::<H>::default();
    simd.run(Encode { x, group_size: w.group_size(), to: &mut digits });
    let out = SharedPtr(out.as_mut_ptr());
    in_chunks(w.count(), w.len(), &|first, count| {
        simd.run(Chunk { w, first, count, x: &digits, out: &out });
    });
}

/// Row of activations in fixed-point digits.
#[derive(Default)]
struct Digits<const H: usize> {
    blocks: Vec<Block<H>>,
    /// Sums of the activations of each group of weights, padded with zeros to a multiple of
    /// [`LANES`].
    sums: Vec<[f32; LANES]>,
}

/// Activations that meet [`BYTES`] bytes of codes, padded with zeros.
#[repr(align(64))]
struct Block<const H: usize> {
    /// Signed digits, by the place of the code in its byte, then the lowest digit first.
    digits: [[[u8; BYTES]; 3]; H],
    /// Value of the lowest digit, for each lane.
    steps: [f32; LANES],
}

/// Kernel that makes the digits of a row.
struct Encode<'a, const H: usize> {
    x: &'a [f32],
    group_size: usize,
    to: &'a mut Digits<H>,
}

impl<const H: usize> Kernel for Encode<'_, H> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Encode { x, group_size, to } = self;
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

/// Kernel that multiplies the rows `first..first + count` of the weights.
struct Chunk<'a, C, const H: usize> {
    w: &'a WeightRows<'a, C>,
    first: usize,
    count: usize,
    x: &'a Digits<H>,
    out: &'a SharedPtr,
}

impl<C: Codec, const H: usize> Kernel for Chunk<'_, C, H> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut scratch = Scratch::default();
        // A lane holds 4 bytes of codes.
        let power = (self.w.group_size() / (4 * H)).trailing_zeros();
        for n in self.first..self.first + self.count {
            let row = self.w.row(simd, n, &mut scratch);
            let sum = dot(simd, &row, self.x, power);
            // SAFETY: `out` has as many elements as there are rows, and this is no other chunk's.
            unsafe { self.out.at(n).write(sum) };
        }
    }
}

/// Dot product of `x` with a row of weights, of which 2^`power` lanes share a scale.
#[inline(always)]
fn dot<C: Codec, S: Simd, const H: usize>(simd: S, w: &Row<C>, x: &Digits<H>, power: u32) -> f32 {
    let none = simd.widen_u16(&[0; 2 * LANES]);
    let zero = simd.splat(0.0);
    let mut sum = zero;
    for ((n, block), bytes) in x.blocks.iter().enumerate().zip(w.bytes.as_chunks().0) {
        let bytes = simd.load_bytes(bytes);
        let codes = if H == 1 { [bytes; 2] } else { simd.nibbles(bytes) };
        let mut places = [none; 3];
        for (codes, digits) in codes.into_iter().zip(&block.digits) {
            for (sum, digits) in places.iter_mut().zip(digits) {
                *sum = simd.dot4(codes, simd.load_bytes(digits), *sum);
            }
        }
        let whole = simd.shl7_add(simd.shl7_add(places[2], places[1]), places[0]);
        let counted = simd.mul_add(simd.to_floats(whole), simd.load(&block.steps), zero);
        let scales = w.scales[(n * LANES) >> power..].first_chunk().unwrap_or(&[0.0; LANES]);
        sum = simd.mul_add(counted, simd.broadcast(scales, power), sum);
    }
    for (n, sums) in x.sums.iter().enumerate() {
        let biases = w.biases[n * LANES..].first_chunk().unwrap_or(&[0.0; LANES]);
        sum = simd.mul_add(simd.load(biases), simd.load(sums), sum);
    }
    simd.reduce_add(sum)
}
