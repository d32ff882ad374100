//! Linear layer of a few rows of activations: weights are read once and decoded in registers.

use super::codec::Codec;
use super::simd::{Kernel, LANES, Simd};
use super::weight_rows::{Row, Scratch, WeightRows};
use super::{SharedPtr, in_chunks};

/// Linear layer `out = x W.T`, with `x` [rows, ins] and `out` [rows, outs].
pub fn linear<C: Codec, S: Simd>(
    simd: S,
    x: &[f32],
    w: &WeightRows<C>,
    rows: usize,
    out: &mut [f32],
) {
    let (ins, outs) = (x.len() / rows, w.count());
    let panels: Vec<Panel> = x.chunks(S::ROWS * ins).map(|x| Panel::new(x, ins)).collect();
    let out = SharedPtr(out.as_mut_ptr());
    in_chunks(outs, rows * ins, &|first, count| {
        // SAFETY: `out` is [rows, outs], and these columns are no other chunk's.
        simd.run(Chunk { w, first, count, panels: &panels, out: &out, step: S::ROWS });
    });
}

/// Panel of up to 1, 4 or 8 rows of activations, with the number of rows: interleaved in blocks of
/// [`LANES`] elements, padded with zeros beyond the end of a row and for absent rows.
enum Panel {
    One(Vec<[[f32; LANES]; 1]>),
    Four(Vec<[[f32; LANES]; 4]>, usize),
    Eight(Vec<[[f32; LANES]; 8]>, usize),
}

impl Panel {
    fn new(x: &[f32], ins: usize) -> Panel {
        match x.len() / ins {
            1 => Panel::One(blocks(x, ins)),
            rows @ ..=4 => Panel::Four(blocks(x, ins), rows),
            rows => Panel::Eight(blocks(x, ins), rows),
        }
    }
}

/// Rows of `x` [.., ins] interleaved in blocks.
fn blocks<const R: usize>(x: &[f32], ins: usize) -> Vec<[[f32; LANES]; R]> {
    let mut blocks = vec![[[0.0; LANES]; R]; ins.div_ceil(LANES)];
    for (row, x) in x.chunks_exact(ins).enumerate() {
        for (block, x) in blocks.iter_mut().zip(x.chunks(LANES)) {
            block[row][..x.len()].copy_from_slice(x);
        }
    }
    blocks
}

/// Kernel that multiplies the rows `first..first + count` of the weights.
struct Chunk<'a, C> {
    w: &'a WeightRows<'a, C>,
    first: usize,
    count: usize,
    panels: &'a [Panel],
    out: &'a SharedPtr,
    /// Rows of activations of a panel.
    step: usize,
}

impl<C: Codec> Kernel for Chunk<'_, C> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut scratch = Scratch::default();
        let outs = self.w.count();
        for n in self.first..self.first + self.count {
            let row = self.w.row(simd, n, &mut scratch);
            for (panel, x) in self.panels.iter().enumerate() {
                let out = self.out.at(panel * self.step * outs + n);
                // SAFETY: as whoever made the chunk says.
                unsafe {
                    match x {
                        Panel::One(x) => write_strided(dot1(simd, &row, x), 1, out, outs),
                        Panel::Four(x, rows) => {
                            write_strided(dot4(simd, &row, x), *rows, out, outs)
                        }
                        Panel::Eight(x, rows) => {
                            write_strided(dot8(simd, &row, x), *rows, out, outs)
                        }
                    }
                }
            }
        }
    }
}

/// Writes the first `count` of `sums` to elements `step` apart.
///
/// # Safety
/// The elements must exist, and no other thread may use them.
#[inline(always)]
unsafe fn write_strided<const R: usize>(sums: [f32; R], count: usize, out: *mut f32, step: usize) {
    for (n, sum) in sums.into_iter().take(count).enumerate() {
        // SAFETY: as the caller promises.
        unsafe { out.add(n * step).write(sum) };
    }
}

/// Dot product of a row of weights with one row of activations, in two sums that do not wait for
/// each other.
#[inline(always)]
fn dot1<C: Codec, S: Simd>(simd: S, w: &Row<C>, x: &[[[f32; LANES]; 1]]) -> [f32; 1] {
    let (mut even, mut odd) = (simd.splat(0.0), simd.splat(0.0));
    let (pairs, last) = x.as_chunks::<2>();
    for (n, [[a], [b]]) in pairs.iter().enumerate() {
        even = simd.mul_add(w.block(simd, 2 * n), simd.load(a), even);
        odd = simd.mul_add(w.block(simd, 2 * n + 1), simd.load(b), odd);
    }
    if let [[x]] = last {
        even = simd.mul_add(w.block(simd, 2 * pairs.len()), simd.load(x), even);
    }
    [simd.reduce_add(simd.add(even, odd))]
}

/// Dot products of a row of weights with several rows of activations. The sums are named variables,
/// because an array of them would be kept in memory.
macro_rules! dot_products {
    ($name:ident, $rows:literal, $($sum:ident $n:literal),*) => {
        #[inline(always)]
        fn $name<C: Codec, S: Simd>(
            simd: S,
            w: &Row<C>,
            x: &[[[f32; LANES]; $rows]],
        ) -> [f32; $rows] {
            $(let mut $sum = simd.splat(0.0);)*
            for (n, x) in x.iter().enumerate() {
                let weights = w.block(simd, n);
                $($sum = simd.mul_add(weights, simd.load(&x[$n]), $sum);)*
            }
            [$(simd.reduce_add($sum)),*]
        }
    };
}

dot_products!(dot4, 4, a 0, b 1, c 2, d 3);
dot_products!(dot8, 8, a 0, b 1, c 2, d 3, e 4, f 5, g 6, h 7);
