//! CPU kernels for matrices of dense and quantised weights, and for attention and logits.
//!
//! MLX multiplies with quantised weights on a CPU in scalar loops on one core; these kernels use SIMD
//! and all cores. They read weights in the format of the checkpoint: `codec` decodes a format,
//! `simd` abstracts the instruction set. The kernel depends on the rows of activations, because few
//! rows are bound by memory bandwidth and many by arithmetic. Integer codes of 4 and 8 bits are
//! multiplied without converting them to floats, by `gemv_int` with one row and by `gemm_int` with
//! several. In other formats `gemv_rows` decodes weights in registers for a few rows, and `gemm`
//! decodes tiles of weights to memory and multiplies them with a matrix product.

pub mod attend;
mod codec;
mod digits;
mod exp;
mod gelu;
mod gemm;
mod gemm_int;
mod gemv_int;
mod gemv_rows;
mod int_panel;
pub mod logits;
mod simd;
pub mod threads;
mod weight_rows;

use codec::{Bf16, Codec, E2m1, E4m3, F16, F32, Integer};
pub use exp::exp;
pub use gelu::gelu;
#[cfg(target_arch = "aarch64")]
use simd::Neon;
#[cfg(target_arch = "x86_64")]
use simd::{Avx2, Avx512};
use simd::{Kernel, Portable, Simd};
use weight_rows::WeightRows;

/// Weights [outs, ins] in memory.
#[derive(Clone, Copy, Debug)]
pub enum WeightView<'a> {
    /// Floating-point weights.
    Dense(FloatSlice<'a>),
    /// Quantised weights.
    Quantized(QuantizedView<'a>),
}

/// Floating-point numbers in memory; 16-bit formats are held by their bits.
#[derive(Clone, Copy, Debug)]
pub enum FloatSlice<'a> {
    /// IEEE 754 single precision.
    F32(&'a [f32]),
    /// Bits of IEEE 754 half precision.
    F16(&'a [u16]),
    /// Bits of bfloat16, the upper halves of single precision.
    Bf16(&'a [u16]),
}

/// Matrix of quantised weights in MLX's format: a row is a little-endian bit stream of codes, with a
/// scale for each group of consecutive weights.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedView<'a> {
    /// Codes as 32-bit words, [outs, ins * bits / 32].
    pub weight: &'a [u32],
    /// Scales of the groups, [outs, ins / group_size].
    pub scales: Scales<'a>,
    /// Consecutive weights of a row that share a scale: 16, 32, 64 or 128.
    pub group_size: usize,
    /// Bits of a code: 2, 3, 4, 5, 6 or 8.
    pub bits: usize,
}

/// Scales of the groups, one variant for each quantisation mode.
#[derive(Clone, Copy, Debug)]
pub enum Scales<'a> {
    /// Scales and biases of unsigned integer codes.
    Affine(FloatSlice<'a>, FloatSlice<'a>),
    /// e8m0 scales of e2m1 codes.
    Mxfp4(&'a [u8]),
    /// e4m3 scales of e2m1 codes.
    Nvfp4(&'a [u8]),
    /// e8m0 scales of e4m3 codes.
    Mxfp8(&'a [u8]),
}

/// Linear layer `out = x W.T`, with `x` [rows, ins] and `out` [rows, outs].
///
/// # Panics
/// If the lengths of the slices contradict each other.
pub fn linear(x: &[f32], w: &WeightView, rows: usize, out: &mut [f32]) {
    let (ins, outs) = (x.len() / rows, out.len() / rows);
    assert_eq!((x.len(), out.len()), (rows * ins, rows * outs));
    Isa::best().run_matrix(w, ins, outs, Linear { x, rows, out });
}

/// Decodes row `row` of `w` to `out` `[ins]`.
///
/// # Panics
/// If `w` has no such row, or is not a whole number of rows of that length.
pub fn decode_row(w: &WeightView, row: usize, out: &mut [f32]) {
    let ins = out.len();
    Isa::best().run_matrix(w, ins, w.len() / ins, DecodeRow { row, out });
}

impl<'a> WeightView<'a> {
    /// View of `count` rows of `ins` weights, from row `first` on.
    ///
    /// # Panics
    /// If there are fewer rows.
    pub fn rows(&self, first: usize, count: usize, ins: usize) -> WeightView<'a> {
        let range = first * ins..(first + count) * ins;
        match self {
            WeightView::Dense(floats) => WeightView::Dense(floats.part(range)),
            WeightView::Quantized(packed) => {
                let size = ins * packed.bits / 32;
                let groups = range.start / packed.group_size..range.end / packed.group_size;
                let weight = &packed.weight[first * size..][..count * size];
                WeightView::Quantized(QuantizedView {
                    weight,
                    scales: packed.scales.part(groups),
                    ..*packed
                })
            }
        }
    }

    /// Number of weights.
    fn len(&self) -> usize {
        match self {
            WeightView::Dense(floats) => floats.len(),
            WeightView::Quantized(packed) => packed.weight.len() * 32 / packed.bits,
        }
    }
}

impl<'a> FloatSlice<'a> {
    fn part(self, range: std::ops::Range<usize>) -> FloatSlice<'a> {
        match self {
            FloatSlice::F32(all) => FloatSlice::F32(&all[range]),
            FloatSlice::F16(all) => FloatSlice::F16(&all[range]),
            FloatSlice::Bf16(all) => FloatSlice::Bf16(&all[range]),
        }
    }

    fn len(&self) -> usize {
        match self {
            FloatSlice::F32(all) => all.len(),
            FloatSlice::F16(all) | FloatSlice::Bf16(all) => all.len(),
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

/// Kernel over a matrix, generic over the weight format and the instruction set.
trait MatrixKernel: Sized {
    fn run<C: Codec, S: Simd>(self, simd: S, w: &WeightRows<C>);
}

/// Kernel of [`linear`].
struct Linear<'a> {
    x: &'a [f32],
    rows: usize,
    out: &'a mut [f32],
}

impl MatrixKernel for Linear<'_> {
    fn run<C: Codec, S: Simd>(self, simd: S, w: &WeightRows<C>) {
        let Linear { x, rows, out } = self;
        match (rows, C::PER_BYTE) {
            (1, 1) => gemv_int::linear::<C, S, 1>(simd, x, w, out),
            (1, 2) => gemv_int::linear::<C, S, 2>(simd, x, w, out),
            (rows, 1) if rows < S::INT_LIMITS[0] && gemm_int::takes::<C, 1>(w) => {
                gemm_int::linear::<C, S, 1>(simd, x, w, out)
            }
            (rows, 2) if rows < S::INT_LIMITS[1] && gemm_int::takes::<C, 2>(w) => {
                gemm_int::linear::<C, S, 2>(simd, x, w, out)
            }
            (..gemm::ROWS, _) => gemv_rows::linear(simd, x, w, rows, out),
            _ => gemm::linear(simd, x, w, rows, out),
        }
    }
}

/// Kernel of [`decode_row`].
struct DecodeRow<'a> {
    row: usize,
    out: &'a mut [f32],
}

impl MatrixKernel for DecodeRow<'_> {
    fn run<C: Codec, S: Simd>(self, simd: S, w: &WeightRows<C>) {
        w.decode(simd, self.row, self.out);
    }
}

/// SIMD instruction set, detected when the program runs.
#[derive(Clone, Copy, Debug)]
enum Isa {
    #[cfg_attr(target_arch = "aarch64", allow(dead_code))] // 64-bit ARM always has NEON
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Isa {
    /// The widest instruction set of this machine.
    fn best() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let wide = || Avx512::here().map(Isa::Avx512);
            wide().or_else(|| Avx2::here().map(Isa::Avx2)).unwrap_or(Isa::Portable(Portable))
        }
        #[cfg(target_arch = "aarch64")]
        return Isa::Neon(Neon);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return Isa::Portable(Portable);
    }

    /// Runs a kernel over `w` [outs, ins], by its format.
    fn run_matrix(self, w: &WeightView, ins: usize, outs: usize, kernel: impl MatrixKernel) {
        match w {
            WeightView::Dense(floats) => match floats {
                FloatSlice::F32(_) => {
                    self.with::<F32>(WeightRows::dense(floats, ins, outs), kernel)
                }
                FloatSlice::F16(_) => {
                    self.with::<F16>(WeightRows::dense(floats, ins, outs), kernel)
                }
                FloatSlice::Bf16(_) => {
                    self.with::<Bf16>(WeightRows::dense(floats, ins, outs), kernel)
                }
            },
            WeightView::Quantized(q) => match (q.scales, q.bits) {
                (Scales::Affine(..), 2) => {
                    self.with::<Integer<2>>(WeightRows::quantized(q, ins, outs), kernel)
                }
                (Scales::Affine(..), 3) => {
                    self.with::<Integer<3>>(WeightRows::quantized(q, ins, outs), kernel)
                }
                (Scales::Affine(..), 4) => {
                    self.with::<Integer<4>>(WeightRows::quantized(q, ins, outs), kernel)
                }
                (Scales::Affine(..), 5) => {
                    self.with::<Integer<5>>(WeightRows::quantized(q, ins, outs), kernel)
                }
                (Scales::Affine(..), 6) => {
                    self.with::<Integer<6>>(WeightRows::quantized(q, ins, outs), kernel)
                }
                (Scales::Affine(..), _) => {
                    self.with::<Integer<8>>(WeightRows::quantized(q, ins, outs), kernel)
                }
                (Scales::Mxfp4(_) | Scales::Nvfp4(_), _) => {
                    self.with::<E2m1>(WeightRows::quantized(q, ins, outs), kernel)
                }
                (Scales::Mxfp8(_), _) => {
                    self.with::<E4m3>(WeightRows::quantized(q, ins, outs), kernel)
                }
            },
        }
    }

    /// Runs a kernel that needs no weights.
    fn run(self, kernel: impl Kernel) {
        match self {
            Isa::Portable(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(simd) => simd.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(simd) => simd.run(kernel),
        }
    }

    /// Runs a kernel over rows in one format.
    fn with<C: Codec>(self, w: WeightRows<C>, kernel: impl MatrixKernel) {
        match self {
            Isa::Portable(simd) => kernel.run(simd, &w),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(simd) => kernel.run(simd, &w),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(simd) => kernel.run(simd, &w),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(simd) => kernel.run(simd, &w),
        }
    }
}

/// Calls `chunk` with the first column and the count of each chunk of `outs` columns, on all cores;
/// a column takes `inner` multiplications.
fn in_chunks(outs: usize, inner: usize, chunk: &(dyn Fn(usize, usize) + Sync)) {
    /// Multiplications of a chunk below which another core costs more than it saves.
    const LEAST: usize = 1 << 15;
    // More chunks than cores balance the load where other programs use some cores.
    let most = 4 * threads::count();
    let count = (outs * inner / LEAST).clamp(1, most);
    let size = outs.div_ceil(count);
    let first = |n: usize| n * size;
    threads::parallel_for(outs.div_ceil(size), &|n| chunk(first(n), size.min(outs - first(n))));
}

/// Pointer to an output that several threads write to, each to elements of its own.
struct SharedPtr(*mut f32);

// SAFETY: each thread that writes through it keeps to elements of its own.
unsafe impl Sync for SharedPtr {}

impl SharedPtr {
    /// Pointer to element `offset`.
    fn at(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

#[cfg(test)]
mod tests;
