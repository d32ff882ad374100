//! The product of a few rows of activations with weights, which are read once and taken apart in
//! registers.

use super::codec::Coding;
use super::simd::{LANES, Task, Unit};
use super::weight_rows::{Hand, Row, Rows};
use super::{Shared, in_pieces};

/// `out = x W.T`, with `x` [rows, ins] and `out` [rows, outs].
pub fn product<C: Coding, U: Unit>(unit: U, x: &[f32], w: &Rows<C>, rows: usize, out: &mut [f32]) {
    let (ins, outs) = (x.len() / rows, w.count());
    let packs: Vec<Pack> = x.chunks(U::ROWS * ins).map(|x| Pack::new(x, ins)).collect();
    let out = Shared(out.as_mut_ptr());
    in_pieces(outs, rows * ins, &|first, count| {
        // SAFETY: `out` is [rows, outs], and these columns are no other piece's.
        unit.run(Piece { w, first, count, packs: &packs, out: &out, step: U::ROWS });
    });
}

/// Some rows of activations: block by block of [`LANES`] the same block of each row, with zeros
/// beyond the end of a row and for rows that are not there. With it goes how many rows are.
enum Pack {
    One(Vec<[[f32; LANES]; 1]>),
    Four(Vec<[[f32; LANES]; 4]>, usize),
    Eight(Vec<[[f32; LANES]; 8]>, usize),
}

impl Pack {
    fn new(x: &[f32], ins: usize) -> Pack {
        match x.len() / ins {
            1 => Pack::One(blocks(x, ins)),
            rows @ ..=4 => Pack::Four(blocks(x, ins), rows),
            rows => Pack::Eight(blocks(x, ins), rows),
        }
    }
}

fn blocks<const R: usize>(x: &[f32], ins: usize) -> Vec<[[f32; LANES]; R]> {
    let mut blocks = vec![[[0.0; LANES]; R]; ins.div_ceil(LANES)];
    for (row, x) in x.chunks_exact(ins).enumerate() {
        for (block, x) in blocks.iter_mut().zip(x.chunks(LANES)) {
            block[row][..x.len()].copy_from_slice(x);
        }
    }
    blocks
}

/// The products with some rows of weights, columns of `out`.
struct Piece<'a, C> {
    w: &'a Rows<'a, C>,
    first: usize,
    count: usize,
    packs: &'a [Pack],
    out: &'a Shared,
    /// Rows of activations from one pack to the next.
    step: usize,
}

impl<C: Coding> Task for Piece<'_, C> {
    #[inline(always)]
    fn run<U: Unit>(self, unit: U) {
        let mut hand = Hand::default();
        let outs = self.w.count();
        for n in self.first..self.first + self.count {
            let row = self.w.row(unit, n, &mut hand);
            for (pack, x) in self.packs.iter().enumerate() {
                let out = self.out.from(pack * self.step * outs + n);
                // SAFETY: as whoever made the piece says.
                unsafe {
                    match x {
                        Pack::One(x) => put(one(unit, &row, x), 1, out, outs),
                        Pack::Four(x, rows) => put(four(unit, &row, x), *rows, out, outs),
                        Pack::Eight(x, rows) => put(eight(unit, &row, x), *rows, out, outs),
                    }
                }
            }
        }
    }
}

/// Writes the first of `sums` to elements `step` apart.
///
/// # Safety
/// They must be there, and nobody else may use them.
#[inline(always)]
unsafe fn put<const R: usize>(sums: [f32; R], count: usize, out: *mut f32, step: usize) {
    for (n, sum) in sums.into_iter().take(count).enumerate() {
        // SAFETY: as the caller promises.
        unsafe { out.add(n * step).write(sum) };
    }
}

/// The product of a row of weights with one row of activations, in two sums so that none waits for
/// the one before.
#[inline(always)]
fn one<C: Coding, U: Unit>(unit: U, w: &Row<C>, x: &[[[f32; LANES]; 1]]) -> [f32; 1] {
    let (mut even, mut odd) = (unit.splat(0.0), unit.splat(0.0));
    let (pairs, last) = x.as_chunks::<2>();
    for (n, [[a], [b]]) in pairs.iter().enumerate() {
        even = unit.add_product(w.block(unit, 2 * n), unit.load(a), even);
        odd = unit.add_product(w.block(unit, 2 * n + 1), unit.load(b), odd);
    }
    if let [[x]] = last {
        even = unit.add_product(w.block(unit, 2 * pairs.len()), unit.load(x), even);
    }
    [unit.sum(unit.add(even, odd))]
}

/// The same with several rows, whose sums have names since an array of them would be in memory.
macro_rules! several {
    ($name:ident, $rows:literal, $($sum:ident $n:literal),*) => {
        #[inline(always)]
        fn $name<C: Coding, U: Unit>(
            unit: U,
            w: &Row<C>,
            x: &[[[f32; LANES]; $rows]],
        ) -> [f32; $rows] {
            $(let mut $sum = unit.splat(0.0);)*
            for (n, x) in x.iter().enumerate() {
                let weights = w.block(unit, n);
                $($sum = unit.add_product(weights, unit.load(&x[$n]), $sum);)*
            }
            [$(unit.sum($sum)),*]
        }
    };
}

several!(four, 4, a 0, b 1, c 2, d 3);
several!(eight, 8, a 0, b 1, c 2, d 3, e 4, f 5, g 6, h 7);
