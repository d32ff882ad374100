//! The product with quantised weights on a CPU, where MLX's own is a scalar loop on one core.
//!
//! MLX packs a row of weights as a little-endian stream of codes of a few bits, with a scale for
//! each group of weights; [`coding`] says what codes and scales stand for.
//!
//! A few rows of activations are bound by reading the weights: they are taken apart in registers
//! and never written down. Many rows are bound by arithmetic: tiles of weights are written out as
//! floats and given to a matrix product.

mod coding;
mod few;
mod unit;

use gemm::Parallelism;
use rayon::prelude::*;

use coding::{Coding, Integer, Mxfp4, Mxfp8, Nvfp4};

/// Rows of activations from which writing the weights out pays.
const MANY: usize = 8;
/// Rows of weights written out at a time.
const TILE: usize = 128;

/// A matrix of quantised weights, [outs, ins], as MLX packs it.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// The codes, [outs, ins * bits / 32].
    pub weight: &'a [u32],
    /// [outs, ins / group_size].
    pub scales: Scales<'a>,
    /// Weights of a row that share a scale: 16, 32, 64 or 128.
    pub group_size: usize,
    /// Bits of a weight: 2, 3, 4, 5, 6 or 8.
    pub bits: usize,
}

/// What codes are multiplied with, and by that what they are.
#[derive(Clone, Copy, Debug)]
pub enum Scales<'a> {
    /// Scales and biases of unsigned integers.
    Affine(&'a [f32], &'a [f32]),
    /// Powers of two, for floats of 4 bits.
    Mxfp4(&'a [u8]),
    /// Floats of 8 bits, for floats of 4 bits.
    Nvfp4(&'a [u8]),
    /// Powers of two, for floats of 8 bits.
    Mxfp8(&'a [u8]),
}

/// `out = x W.T`, with `x` [rows, ins] and `out` [rows, outs].
///
/// # Panics
/// If the slices are not of the shapes that `rows`, `group_size` and `bits` make of each other.
pub fn product(x: &[f32], w: &Packed, rows: usize, out: &mut [f32]) {
    let (ins, outs) = (x.len() / rows, out.len() / rows);
    assert_eq!((x.len(), out.len()), (rows * ins, rows * outs));
    w.check(ins, outs);
    w.coded().product(x, rows, out);
}

/// Writes row `row` of `w` out.
///
/// # Panics
/// As [`product`] does, and if there is no such row.
pub fn unpack(w: &Packed, row: usize, out: &mut [f32]) {
    w.check(out.len(), w.weight.len() * 32 / w.bits / out.len());
    w.coded().unpack(row, out);
}

/// `out = x W.T`, with `x` [rows, ins], plain `w` [outs, ins] and `out` [rows, outs].
///
/// # Panics
/// If the slices are not of such shapes.
pub fn dense(x: &[f32], w: &[f32], rows: usize, out: &mut [f32]) {
    let (ins, outs) = (x.len() / rows, out.len() / rows);
    assert_eq!((x.len(), out.len(), w.len()), (rows * ins, rows * outs, outs * ins));
    let out = Shared(out.as_mut_ptr());
    w.par_chunks(TILE * ins).enumerate().for_each(|(n, tile)| {
        // SAFETY: `x` is [rows, ins], `tile` some rows of `ins`; these columns of `out` are its own.
        unsafe { multiply(x, tile, [rows, ins], out.from(n * TILE), outs) };
    });
}

impl<'a> Packed<'a> {
    /// So many rows of `ins` weights, from row `first` on.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn rows(&self, first: usize, count: usize, ins: usize) -> Packed<'a> {
        let packed = ins * self.bits / 32;
        let groups = first * ins / self.group_size..(first + count) * ins / self.group_size;
        let scales = match self.scales {
            Scales::Affine(scales, biases) => {
                Scales::Affine(&scales[groups.clone()], &biases[groups])
            }
            Scales::Mxfp4(scales) => Scales::Mxfp4(&scales[groups]),
            Scales::Nvfp4(scales) => Scales::Nvfp4(&scales[groups]),
            Scales::Mxfp8(scales) => Scales::Mxfp8(&scales[groups]),
        };
        Packed { weight: &self.weight[first * packed..][..count * packed], scales, ..*self }
    }

    fn check(&self, ins: usize, outs: usize) {
        let groups = match self.scales {
            Scales::Affine(scales, biases) => {
                assert_eq!(scales.len(), biases.len());
                scales.len()
            }
            Scales::Mxfp4(scales) | Scales::Nvfp4(scales) | Scales::Mxfp8(scales) => scales.len(),
        };
        assert_eq!(self.weight.len() * 32, outs * ins * self.bits);
        assert_eq!(groups * self.group_size, outs * ins);
    }

    fn coded(&self) -> Box<dyn Matrix + 'a> {
        match (self.scales, self.bits) {
            (Scales::Affine(scales, biases), 2) => self.with::<Integer<2>>(scales, biases),
            (Scales::Affine(scales, biases), 3) => self.with::<Integer<3>>(scales, biases),
            (Scales::Affine(scales, biases), 4) => self.with::<Integer<4>>(scales, biases),
            (Scales::Affine(scales, biases), 5) => self.with::<Integer<5>>(scales, biases),
            (Scales::Affine(scales, biases), 6) => self.with::<Integer<6>>(scales, biases),
            (Scales::Affine(scales, biases), _) => self.with::<Integer<8>>(scales, biases),
            (Scales::Mxfp4(scales), _) => self.with::<Mxfp4>(scales, &[]),
            (Scales::Nvfp4(scales), _) => self.with::<Nvfp4>(scales, &[]),
            (Scales::Mxfp8(scales), _) => self.with::<Mxfp8>(scales, &[]),
        }
    }

    fn with<C: Coding + 'a>(
        &self,
        scales: &'a [C::Scale],
        biases: &'a [f32],
    ) -> Box<dyn Matrix + 'a> {
        Box::new(Coded::<C> { weight: self.weight, scales, biases, group_size: self.group_size })
    }
}

/// A matrix whose coding is known to its functions.
trait Matrix {
    fn product(&self, x: &[f32], rows: usize, out: &mut [f32]);
    fn unpack(&self, row: usize, out: &mut [f32]);
}

/// Rows of weights, or one of them.
struct Coded<'a, C: Coding> {
    weight: &'a [u32],
    scales: &'a [C::Scale],
    /// Empty if the coding knows none.
    biases: &'a [f32],
    group_size: usize,
}

impl<C: Coding> Matrix for Coded<'_, C> {
    fn product(&self, x: &[f32], rows: usize, out: &mut [f32]) {
        if rows < MANY { few::product(x, self, rows, out) } else { many(x, self, rows, out) }
    }

    fn unpack(&self, row: usize, out: &mut [f32]) {
        self.row(row, out.len()).write(out);
    }
}

impl<C: Coding> Coded<'_, C> {
    fn row(&self, row: usize, ins: usize) -> Coded<'_, C> {
        let (packed, groups) = (ins * C::BITS / 32, ins / self.group_size);
        let biases = if self.biases.is_empty() { 0 } else { groups };
        Coded {
            weight: &self.weight[row * packed..][..packed],
            scales: &self.scales[row * groups..][..groups],
            biases: &self.biases[row * biases..][..biases],
            group_size: self.group_size,
        }
    }

    /// Writes a row out: 32 weights are as many integers as a weight has bits.
    fn write(&self, floats: &mut [f32]) {
        let (floats, _) = floats.as_chunks_mut::<32>();
        for (n, (packed, floats)) in self.weight.chunks_exact(C::BITS).zip(floats).enumerate() {
            for (half, floats) in floats.chunks_exact_mut(16).enumerate() {
                let group = (n * 32 + half * 16) / self.group_size;
                let scale = C::scale(self.scales[group]);
                let bias = self.biases.get(group).copied().unwrap_or_default();
                for (i, float) in floats.iter_mut().enumerate() {
                    *float = C::value(coding::code::<C>(packed, half * 16 + i)) * scale + bias;
                }
            }
        }
    }
}

/// The product of many rows: each core writes out tiles of weights and multiplies with them.
fn many<C: Coding>(x: &[f32], w: &Coded<C>, rows: usize, out: &mut [f32]) {
    let (ins, outs) = (x.len() / rows, out.len() / rows);
    let out = Shared(out.as_mut_ptr());
    let tile = |first: usize| {
        let count = TILE.min(outs - first);
        let mut floats = vec![0.0; count * ins];
        for (row, floats) in (first..).zip(floats.chunks_exact_mut(ins)) {
            w.row(row, ins).write(floats);
        }
        // SAFETY: `x` is [rows, ins] and `floats` [count, ins]; the columns from `first` to
        // `first + count` of `out` [rows, outs] belong to this tile alone.
        unsafe { multiply(x, &floats, [rows, ins], out.from(first), outs) };
    };
    (0..outs.div_ceil(TILE)).into_par_iter().for_each(|n| tile(n * TILE));
}

/// The product of `x` [rows, ins] with some rows of weights, written to so many columns of an array
/// whose rows are `outs` apart.
///
/// # Safety
/// `out` must be the first of as many columns, in `rows` rows, that nobody else uses.
unsafe fn multiply(
    x: &[f32],
    weights: &[f32],
    [rows, ins]: [usize; 2],
    out: *mut f32,
    outs: usize,
) {
    // SAFETY: both slices are row by row, and the caller promises the rest.
    unsafe {
        gemm::gemm(
            rows,
            weights.len() / ins,
            ins,
            out,
            1,
            outs as isize,
            false,
            x.as_ptr(),
            1,
            ins as isize,
            weights.as_ptr(),
            ins as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// A pointer that several cores write to, each in its own columns.
struct Shared(*mut f32);

// SAFETY: whoever writes through it keeps to elements of its own.
unsafe impl Sync for Shared {}

impl Shared {
    fn from(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

#[cfg(test)]
mod tests;
