//! The product of a few rows of activations with packed weights, which are read once and taken
//! apart in registers.

use std::array;

use rayon::prelude::*;

use super::coding::{self, Coding};
use super::unit::{Any, LANES, Unit};
#[cfg(target_arch = "x86_64")]
use super::unit::{Avx2, Avx512};
use super::{Coded, Shared};

/// Weights below which a second core costs more than it brings.
const ALONE: usize = 1 << 16;
/// Bytes of packed weights that stay in a core's cache from one row of activations to the next.
const NEAR: usize = 1 << 18;

/// `out = x W.T`, with `x` [rows, ins] and `out` [rows, outs].
pub fn product<C: Coding>(x: &[f32], w: &Coded<C>, rows: usize, out: &mut [f32]) {
    let (ins, outs) = (x.len() / rows, out.len() / rows);
    let x: Vec<Activations> = x.chunks_exact(ins).map(|x| Activations::new(x, w)).collect();
    let out = Shared(out.as_mut_ptr());
    let piece = |first: usize, count: usize| {
        for (row, x) in x.iter().enumerate() {
            // SAFETY: row `row` of `out` [rows, outs] has these columns, and no other piece them.
            let out =
                unsafe { std::slice::from_raw_parts_mut(out.from(row * outs + first), count) };
            x.times(w, first, out);
        }
    };
    let cores = rayon::current_num_threads();
    let near = if rows == 1 { outs } else { (NEAR * 8 / (ins * C::BITS)).max(1) };
    if outs * ins < ALONE || cores == 1 {
        return (0..outs).step_by(near).for_each(|first| piece(first, near.min(outs - first)));
    }
    // Pieces finer than the cores, for cores that are busy elsewhere.
    let size = outs.div_ceil(4 * cores).min(near);
    let pieces = (0..outs.div_ceil(size)).into_par_iter().map(|n| n * size);
    pieces.for_each(|first| piece(first, size.min(outs - first)));
}

/// One row of activations, in the order in which the packed weights come apart.
struct Activations {
    /// If codes do not cross integers: block by block of `LANES` packed integers, in it the
    /// activations for the first weight of every integer, those for the second, and so on, zeros
    /// beyond the end. Else as they come.
    blocks: Vec<[f32; LANES]>,
    /// The sum of each group, which the bias is multiplied with.
    sums: Vec<f32>,
    /// How many there are.
    ins: usize,
}

impl Activations {
    fn new<C: Coding>(x: &[f32], w: &Coded<C>) -> Activations {
        let ins = x.len();
        let sums = x.chunks_exact(w.group_size).map(|group| group.iter().sum()).collect();
        if 32 % C::BITS != 0 {
            return Activations { blocks: x.as_chunks().0.to_vec(), sums, ins };
        }
        let fields = 32 / C::BITS;
        let mut blocks = vec![[0.0; LANES]; ins.div_ceil(LANES * fields) * fields];
        for (word, x) in x.chunks_exact(fields).enumerate() {
            let block = &mut blocks[word / LANES * fields..][..fields];
            for (field, x) in block.iter_mut().zip(x) {
                field[word % LANES] = *x;
            }
        }
        Activations { blocks, sums, ins }
    }

    /// The products with the rows of `w` from `first` on, by the best vector unit there is.
    fn times<C: Coding>(&self, w: &Coded<C>, first: usize, out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(unit) = Avx512::here() {
                // SAFETY: the machine has what the function is compiled for.
                return unsafe { self.times_avx512(unit, w, first, out) };
            }
            if let Some(unit) = Avx2::here() {
                // SAFETY: as above.
                return unsafe { self.times_avx2(unit, w, first, out) };
            }
        }
        self.times_with(Any, w, first, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
    fn times_avx512<C: Coding>(&self, unit: Avx512, w: &Coded<C>, first: usize, out: &mut [f32]) {
        self.times_with(unit, w, first, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn times_avx2<C: Coding>(&self, unit: Avx2, w: &Coded<C>, first: usize, out: &mut [f32]) {
        self.times_with(unit, w, first, out);
    }

    #[inline(always)]
    fn times_with<C: Coding, U: Unit>(&self, unit: U, w: &Coded<C>, first: usize, out: &mut [f32]) {
        for (row, out) in (first..).zip(out) {
            let row = w.row(row, self.ins);
            let sum = match (32 % C::BITS, row.group_size) {
                (0, 16) => self.dot::<C, U, 16>(unit, &row),
                (0, 32) => self.dot::<C, U, 32>(unit, &row),
                (0, 64) => self.dot::<C, U, 64>(unit, &row),
                (0, _) => self.dot::<C, U, 128>(unit, &row),
                _ => self.dot_crossing(unit, &row),
            };
            let biases = row.biases.iter().zip(&self.sums).map(|(bias, sum)| bias * sum);
            *out = sum + biases.sum::<f32>();
        }
    }

    /// The product with one row of weights without biases, whose codes do not cross integers.
    ///
    /// A block of packed integers gives `LANES` sums, each of which belongs to one group and is
    /// scaled by it.
    #[inline(always)]
    fn dot<C: Coding, U: Unit, const GROUP: usize>(&self, unit: U, row: &Coded<C>) -> f32 {
        let (whole, rest) = row.weight.as_chunks::<LANES>();
        let mut total = [0.0; LANES];
        let mut blocks = self.blocks.chunks_exact(32 / C::BITS);
        let group = |n: usize, lane: usize| (n * LANES + lane) * (32 / C::BITS) / GROUP;
        for (n, (packed, x)) in whole.iter().zip(&mut blocks).enumerate() {
            let sums = lanes::<C, U>(unit, packed, x);
            let scales: [f32; LANES] = array::from_fn(|l| C::scale(row.scales[group(n, l)]));
            total = array::from_fn(|l| unit.add_product(sums[l], scales[l], total[l]));
        }
        if let Some(x) = blocks.next() {
            let packed = array::from_fn(|lane| rest.get(lane).copied().unwrap_or_default());
            let sums = lanes::<C, U>(unit, &packed, x);
            for lane in 0..rest.len() {
                total[lane] += sums[lane] * C::scale(row.scales[group(whole.len(), lane)]);
            }
        }
        total.iter().sum()
    }

    /// The product with one row of weights without biases, whose codes cross integers: 32 of them,
    /// which share a scale, are as many integers as a code has bits.
    #[inline(always)]
    fn dot_crossing<C: Coding, U: Unit>(&self, unit: U, row: &Coded<C>) -> f32 {
        let mut total = [0.0; LANES];
        let blocks = self.blocks.chunks_exact(32 / LANES);
        for (n, (packed, x)) in row.weight.chunks_exact(C::BITS).zip(blocks).enumerate() {
            let values: [f32; 32] = array::from_fn(|i| C::value(coding::code::<C>(packed, i)));
            let mut sums = [0.0; LANES];
            for (values, x) in values.as_chunks::<LANES>().0.iter().zip(x) {
                sums = array::from_fn(|l| unit.add_product(values[l], x[l], sums[l]));
            }
            let scale = C::scale(row.scales[n * 32 / row.group_size]);
            total = array::from_fn(|l| unit.add_product(sums[l], scale, total[l]));
        }
        total.iter().sum()
    }
}

/// For each of the packed integers the products of its weights with their activations, added up.
#[inline(always)]
fn lanes<C: Coding, U: Unit>(unit: U, packed: &[u32; LANES], x: &[[f32; LANES]]) -> [f32; LANES] {
    let mut sums = [0.0; LANES];
    for (n, x) in x.iter().enumerate() {
        let values = C::values(unit, packed, n);
        sums = array::from_fn(|l| unit.add_product(values[l], x[l], sums[l]));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::coding::{Coding, Integer, Mxfp4, Mxfp8};
    use super::super::tests::{codes, noise, pack};
    use super::*;

    /// The same with and without the vector units of this machine.
    fn agree<C: Coding>(scales: &[C::Scale], biases: &[f32]) {
        const INS: usize = 320;
        let weight = pack(&codes(50 * INS, C::BITS), C::BITS);
        let w = Coded::<C> { weight: &weight, scales, biases, group_size: 32 };
        let x = Activations::new(&noise(INS, 4), &w);
        let [mut plain, mut fast] = [[0.0; 50]; 2];
        x.times_with(Any, &w, 0, &mut plain);
        let compare = |x: &Activations, fast: &[f32; 50]| {
            let most = plain.iter().fold(0.0, |most: f32, n| most.max(n.abs()));
            let apart = plain.iter().zip(fast).map(|(a, b)| (a - b).abs());
            assert!(apart.fold(0.0, f32::max) < 1e-5 * most, "{} {}", C::BITS, x.ins);
        };
        x.times(&w, 0, &mut fast);
        compare(&x, &fast);
        #[cfg(target_arch = "x86_64")]
        if let Some(unit) = Avx2::here() {
            // SAFETY: the machine has it.
            unsafe { x.times_avx2(unit, &w, 0, &mut fast) };
            compare(&x, &fast);
        }
    }

    #[test]
    fn all_vector_units_give_the_same() {
        let (scales, biases) = (noise(500, 2), noise(500, 3));
        let powers: Vec<u8> = scales.iter().map(|n| (n * 9.0 + 125.0) as u8).collect();
        agree::<Integer<4>>(&scales, &biases);
        agree::<Integer<5>>(&scales, &biases);
        agree::<Mxfp4>(&powers, &[]);
        agree::<Mxfp8>(&powers, &[]);
    }
}
