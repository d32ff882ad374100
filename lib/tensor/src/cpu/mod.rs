//! Products with weights on a CPU, where MLX's own are slow: those with quantised weights are scalar
//! loops on one core.
//!
//! Weights are read as they lie on disk, whatever they are written in: [`coding`] says what codes
//! stand for, [`unit`] how a vector unit makes floats of them. A few rows of activations are bound by
//! reading the weights: these are taken apart in registers and never written down; for one row even
//! that takes longer than to read them, so that the codes themselves are multiplied where they are
//! integers. Many rows are bound by arithmetic: tiles of weights are written out and given to a
//! matrix product.

pub mod attend;
mod codec;
mod exp;
mod gemm;
mod gemv_int;
mod gemv_rows;
pub mod logits;
mod simd;
pub mod threads;
mod weight_rows;

use codec::{Bf16, Coding, E2m1, E4m3, F16, F32, Integer};
pub use exp::exp;
#[cfg(target_arch = "aarch64")]
use simd::Neon;
use simd::{Any, Task, Unit};
#[cfg(target_arch = "x86_64")]
use simd::{Avx2, Avx512};
use weight_rows::Rows;

/// Weights, [outs, ins].
#[derive(Clone, Copy, Debug)]
pub enum Matrix<'a> {
    /// As they are.
    Plain(Floats<'a>),
    /// Quantised.
    Packed(Packed<'a>),
}

/// Floating-point numbers; those of 16 bits by their bits.
#[derive(Clone, Copy, Debug)]
pub enum Floats<'a> {
    /// Of single precision.
    F32(&'a [f32]),
    /// Of half precision.
    F16(&'a [u16]),
    /// The upper halves of single precision.
    Bf16(&'a [u16]),
}

/// A matrix of quantised weights as MLX packs it: a row is a little-endian stream of codes of a few
/// bits, with a scale for each group of weights.
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
    Affine(Floats<'a>, Floats<'a>),
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
/// If the slices are not of the shapes that `rows`, and the groups and bits of `w`, make of each
/// other.
pub fn product(x: &[f32], w: &Matrix, rows: usize, out: &mut [f32]) {
    let (ins, outs) = (x.len() / rows, out.len() / rows);
    assert_eq!((x.len(), out.len()), (rows * ins, rows * outs));
    Level::best().run(w, ins, outs, Product { x, rows, out });
}

/// Writes row `row` of `w` out.
///
/// # Panics
/// As [`product`] does, and if there is no such row.
pub fn unpack(w: &Matrix, row: usize, out: &mut [f32]) {
    let ins = out.len();
    Level::best().run(w, ins, w.len() / ins, Unpack { row, out });
}

impl<'a> Matrix<'a> {
    /// So many rows of `ins` weights, from row `first` on.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn rows(&self, first: usize, count: usize, ins: usize) -> Matrix<'a> {
        let range = first * ins..(first + count) * ins;
        match self {
            Matrix::Plain(floats) => Matrix::Plain(floats.part(range)),
            Matrix::Packed(packed) => {
                let size = ins * packed.bits / 32;
                let groups = range.start / packed.group_size..range.end / packed.group_size;
                let weight = &packed.weight[first * size..][..count * size];
                Matrix::Packed(Packed { weight, scales: packed.scales.part(groups), ..*packed })
            }
        }
    }

    /// How many weights there are.
    fn len(&self) -> usize {
        match self {
            Matrix::Plain(floats) => floats.len(),
            Matrix::Packed(packed) => packed.weight.len() * 32 / packed.bits,
        }
    }
}

impl<'a> Floats<'a> {
    fn part(self, range: std::ops::Range<usize>) -> Floats<'a> {
        match self {
            Floats::F32(all) => Floats::F32(&all[range]),
            Floats::F16(all) => Floats::F16(&all[range]),
            Floats::Bf16(all) => Floats::Bf16(&all[range]),
        }
    }

    fn len(&self) -> usize {
        match self {
            Floats::F32(all) => all.len(),
            Floats::F16(all) | Floats::Bf16(all) => all.len(),
        }
    }
}

impl<'a> Scales<'a> {
    fn part(self, range: std::ops::Range<usize>) -> Scales<'a> {
        match self {
            Scales::Affine(scales, biases) => {
                Scales::Affine(scales.part(range.clone()), biases.part(range))
            }
            Scales::Mxfp4(scales) => Scales::Mxfp4(&scales[range]),
            Scales::Nvfp4(scales) => Scales::Nvfp4(&scales[range]),
            Scales::Mxfp8(scales) => Scales::Mxfp8(&scales[range]),
        }
    }
}

/// What is done with weights, whatever they are written in and whatever the machine has.
trait Work: Sized {
    fn run<C: Coding, U: Unit>(self, unit: U, w: &Rows<C>);
}

struct Product<'a> {
    x: &'a [f32],
    rows: usize,
    out: &'a mut [f32],
}

impl Work for Product<'_> {
    fn run<C: Coding, U: Unit>(self, unit: U, w: &Rows<C>) {
        let Product { x, rows, out } = self;
        match (rows, C::IN_BYTE) {
            (1, 1) => gemv_int::product::<C, U, 1>(unit, x, w, out),
            (1, 2) => gemv_int::product::<C, U, 2>(unit, x, w, out),
            (..gemm::ROWS, _) => gemv_rows::product(unit, x, w, rows, out),
            _ => gemm::product(unit, x, w, rows, out),
        }
    }
}

struct Unpack<'a> {
    row: usize,
    out: &'a mut [f32],
}

impl Work for Unpack<'_> {
    fn run<C: Coding, U: Unit>(self, unit: U, w: &Rows<C>) {
        w.write(unit, self.row, self.out);
    }
}

/// A vector unit that the machine has.
#[derive(Clone, Copy, Debug)]
enum Level {
    #[cfg_attr(target_arch = "aarch64", allow(dead_code))] // which always has another
    Any(Any),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Level {
    /// The one that holds most.
    fn best() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            let wide = || Avx512::here().map(Level::Avx512);
            wide().or_else(|| Avx2::here().map(Level::Avx2)).unwrap_or(Level::Any(Any))
        }
        #[cfg(target_arch = "aarch64")]
        return Level::Neon(Neon);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return Level::Any(Any);
    }

    /// Does `work` with `w`, [outs, ins].
    fn run(self, w: &Matrix, ins: usize, outs: usize, work: impl Work) {
        match w {
            Matrix::Plain(floats) => match floats {
                Floats::F32(_) => self.with::<F32>(Rows::plain(floats, ins, outs), work),
                Floats::F16(_) => self.with::<F16>(Rows::plain(floats, ins, outs), work),
                Floats::Bf16(_) => self.with::<Bf16>(Rows::plain(floats, ins, outs), work),
            },
            Matrix::Packed(packed) => match (packed.scales, packed.bits) {
                (Scales::Affine(..), 2) => {
                    self.with::<Integer<2>>(Rows::packed(packed, ins, outs), work)
                }
                (Scales::Affine(..), 3) => {
                    self.with::<Integer<3>>(Rows::packed(packed, ins, outs), work)
                }
                (Scales::Affine(..), 4) => {
                    self.with::<Integer<4>>(Rows::packed(packed, ins, outs), work)
                }
                (Scales::Affine(..), 5) => {
                    self.with::<Integer<5>>(Rows::packed(packed, ins, outs), work)
                }
                (Scales::Affine(..), 6) => {
                    self.with::<Integer<6>>(Rows::packed(packed, ins, outs), work)
                }
                (Scales::Affine(..), _) => {
                    self.with::<Integer<8>>(Rows::packed(packed, ins, outs), work)
                }
                (Scales::Mxfp4(_) | Scales::Nvfp4(_), _) => {
                    self.with::<E2m1>(Rows::packed(packed, ins, outs), work)
                }
                (Scales::Mxfp8(_), _) => self.with::<E4m3>(Rows::packed(packed, ins, outs), work),
            },
        }
    }

    fn task(self, task: impl Task) {
        match self {
            Level::Any(unit) => unit.run(task),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(unit) => unit.run(task),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(unit) => unit.run(task),
            #[cfg(target_arch = "aarch64")]
            Level::Neon(unit) => unit.run(task),
        }
    }

    fn with<C: Coding>(self, w: Rows<C>, work: impl Work) {
        match self {
            Level::Any(unit) => work.run(unit, &w),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(unit) => work.run(unit, &w),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(unit) => work.run(unit, &w),
            #[cfg(target_arch = "aarch64")]
            Level::Neon(unit) => work.run(unit, &w),
        }
    }
}

/// Divides `outs` columns of a product, of which each takes `inner` products of numbers, into pieces
/// for all cores: calls `piece` with the first column and their count.
fn in_pieces(outs: usize, inner: usize, piece: &(dyn Fn(usize, usize) + Sync)) {
    /// Products of numbers that are worth the way to another core.
    const LEAST: usize = 1 << 15;
    // Finer than the cores, for cores that are busy elsewhere.
    let most = 4 * threads::size();
    let count = (outs * inner / LEAST).clamp(1, most);
    let size = outs.div_ceil(count);
    threads::share(outs.div_ceil(size), &|n| piece(n * size, size.min(outs - n * size)));
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
