//! The product with quantised weights on a CPU, where MLX's own is a scalar loop on one core.
//!
//! A weight is `q * scale + bias`, with `q` an unsigned integer of `bits` bits and one scale and
//! bias for each group of weights along a row. MLX packs a row as a little-endian stream of bits.
//!
//! One row of activations is bound by reading the weights: they are taken apart in registers and
//! never written down. Many rows are bound by arithmetic: tiles of weights are written out as
//! floats and given to a matrix product.

use std::array;

use gemm::Parallelism;
use rayon::prelude::*;

/// Packed integers taken apart at a time: what AVX-512 holds, and a few of any smaller register.
const LANES: usize = 16;
/// Rows of activations from which writing the weights out pays.
const MANY: usize = 8;
/// Rows of weights written out at a time.
const TILE: usize = 128;
/// Weights below which a second core costs more than it brings.
const ALONE: usize = 1 << 16;

/// A matrix of affine-quantised weights, [outs, ins], as MLX packs it.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// The integers, [outs, ins * bits / 32].
    pub weight: &'a [u32],
    /// [outs, ins / group_size].
    pub scales: &'a [f32],
    /// [outs, ins / group_size].
    pub biases: &'a [f32],
    /// Weights of a row that share a scale and a bias.
    pub group_size: usize,
    /// Bits of a weight: 2, 3, 4, 5, 6 or 8.
    pub bits: usize,
}

/// `out = x W.T`, with `x` [rows, ins] and `out` [rows, outs].
///
/// # Panics
/// If the slices are not of the shapes that `rows`, `group_size` and `bits` make of each other.
pub fn product(x: &[f32], w: &Packed, rows: usize, out: &mut [f32]) {
    let (ins, outs) = (x.len() / rows, out.len() / rows);
    assert_eq!((x.len(), out.len()), (rows * ins, rows * outs));
    assert_eq!(w.weight.len() * 32, outs * ins * w.bits);
    assert_eq!(w.scales.len() * w.group_size, outs * ins);
    assert_eq!(w.scales.len(), w.biases.len());
    if rows >= MANY || 32 % w.bits != 0 {
        return tiles(x, w, rows, out);
    }
    for (x, out) in x.chunks_exact(ins).zip(out.chunks_exact_mut(outs)) {
        single(x, w, out);
    }
}

/// The product of many rows: each core writes out tiles of weights and multiplies with them.
fn tiles(x: &[f32], w: &Packed, rows: usize, out: &mut [f32]) {
    let (ins, outs) = (x.len() / rows, out.len() / rows);
    let out = Shared(out.as_mut_ptr());
    let tile = |first: usize| {
        let count = TILE.min(outs - first);
        let mut floats = vec![0.0; count * ins];
        for (row, floats) in (first..).zip(floats.chunks_exact_mut(ins)) {
            w.row(row, ins).unpack(floats);
        }
        // SAFETY: `x` is [rows, ins] and `floats` [count, ins], both row by row; the columns from
        // `first` to `first + count` of `out` [rows, outs] belong to this tile alone.
        unsafe {
            gemm::gemm(
                rows,
                count,
                ins,
                out.from(first),
                1,
                outs as isize,
                false,
                x.as_ptr(),
                1,
                ins as isize,
                floats.as_ptr(),
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
    };
    (0..outs.div_ceil(TILE)).into_par_iter().for_each(|n| tile(n * TILE));
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

/// The product of one row, with weights whose bits divide 32.
fn single(x: &[f32], w: &Packed, out: &mut [f32]) {
    let x = Activations::new(x, w);
    let ins = x.ins;
    let run = |first: usize, out: &mut [f32]| match w.bits {
        2 => x.times::<2>(w, first, out),
        4 => x.times::<4>(w, first, out),
        _ => x.times::<8>(w, first, out),
    };
    let cores = rayon::current_num_threads();
    if out.len() * ins < ALONE || cores == 1 {
        return run(0, out);
    }
    // Pieces finer than the cores, for cores that are busy elsewhere.
    let piece = out.len().div_ceil(4 * cores);
    out.par_chunks_mut(piece).enumerate().for_each(|(n, out)| run(n * piece, out));
}

/// One row of activations, in the order in which the packed weights come apart.
struct Activations {
    /// Block by block of `LANES` packed integers; in it, the activations for the first weight of
    /// every integer, those for the second, and so on; zeros beyond the end.
    blocks: Vec<[f32; LANES]>,
    /// The sum of each group, which the bias is multiplied with.
    sums: Vec<f32>,
    /// How many there are.
    ins: usize,
}

/// What one row of weights is made of.
struct Row<'a> {
    weight: &'a [u32],
    scales: &'a [f32],
    biases: &'a [f32],
    group_size: usize,
    bits: usize,
}

impl<'a> Packed<'a> {
    fn row(&self, row: usize, ins: usize) -> Row<'a> {
        let (packed, groups) = (ins * self.bits / 32, ins / self.group_size);
        Row {
            weight: &self.weight[row * packed..][..packed],
            scales: &self.scales[row * groups..][..groups],
            biases: &self.biases[row * groups..][..groups],
            group_size: self.group_size,
            bits: self.bits,
        }
    }
}

impl Row<'_> {
    /// Writes the weights out as floats.
    fn unpack(&self, floats: &mut [f32]) {
        match self.bits {
            2 => self.unpack_fields::<2>(floats),
            3 => self.unpack_fields::<3>(floats),
            4 => self.unpack_fields::<4>(floats),
            5 => self.unpack_fields::<5>(floats),
            6 => self.unpack_fields::<6>(floats),
            _ => self.unpack_fields::<8>(floats),
        }
    }

    /// 32 weights are as many integers as a weight has bits.
    fn unpack_fields<const BITS: usize>(&self, floats: &mut [f32]) {
        let (packed, _) = self.weight.as_chunks::<BITS>();
        let (floats, _) = floats.as_chunks_mut::<32>();
        for (n, (packed, floats)) in packed.iter().zip(floats).enumerate() {
            let group = n * 32 / self.group_size;
            let (scale, bias) = (self.scales[group], self.biases[group]);
            *floats = array::from_fn(|n| unpacked::<BITS>(packed, n) * scale + bias);
        }
    }
}

/// The `n`th of 32 weights, not scaled yet; it may begin in one integer and end in the next.
#[inline(always)]
fn unpacked<const BITS: usize>(packed: &[u32; BITS], n: usize) -> f32 {
    let (word, shift) = (n * BITS / 32, n * BITS % 32);
    let low = packed[word] >> shift;
    let high = if shift + BITS > 32 { packed[word + 1] << (32 - shift) } else { 0 };
    ((low | high) & ((1 << BITS) - 1)) as i32 as f32
}

/// The `n`th weight of a packed integer, not scaled yet.
#[inline(always)]
fn field<const BITS: usize>(packed: u32, n: usize) -> f32 {
    // Small enough for the signed conversion, which every vector unit has.
    ((packed >> (n * BITS)) & ((1 << BITS) - 1)) as i32 as f32
}

impl Activations {
    fn new(x: &[f32], w: &Packed) -> Activations {
        let fields = 32 / w.bits;
        let mut blocks = vec![[0.0; LANES]; x.len().div_ceil(LANES * fields) * fields];
        for (word, x) in x.chunks_exact(fields).enumerate() {
            let block = &mut blocks[word / LANES * fields..][..fields];
            for (field, x) in block.iter_mut().zip(x) {
                field[word % LANES] = *x;
            }
        }
        let sums = x.chunks_exact(w.group_size).map(|group| group.iter().sum()).collect();
        Activations { blocks, sums, ins: x.len() }
    }

    /// The products with the rows of `w` from `first` on, by the best vector unit there is.
    fn times<const BITS: usize>(&self, w: &Packed, first: usize, out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                // SAFETY: the machine has what the function is compiled for.
                return unsafe { self.times_avx512::<BITS>(w, first, out) };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: as above.
                return unsafe { self.times_avx2::<BITS>(w, first, out) };
            }
        }
        // On aarch64 the vector unit, with fused products, is always there.
        self.times_with::<BITS, { cfg!(target_arch = "aarch64") }>(w, first, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
    fn times_avx512<const BITS: usize>(&self, w: &Packed, first: usize, out: &mut [f32]) {
        self.times_with::<BITS, true>(w, first, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn times_avx2<const BITS: usize>(&self, w: &Packed, first: usize, out: &mut [f32]) {
        self.times_with::<BITS, true>(w, first, out);
    }

    #[inline(always)]
    fn times_with<const BITS: usize, const FUSED: bool>(
        &self,
        w: &Packed,
        first: usize,
        out: &mut [f32],
    ) {
        for (row, out) in (first..).zip(out) {
            let row = w.row(row, self.ins);
            *out = match row.group_size {
                32 => self.dot::<BITS, 32, FUSED>(&row),
                64 => self.dot::<BITS, 64, FUSED>(&row),
                _ => self.dot::<BITS, 128, FUSED>(&row),
            };
        }
    }

    /// The product with one row of weights.
    ///
    /// A block of packed integers gives `LANES` sums, each of which belongs to one group and is
    /// scaled by it; the biases come in by the sums of the activations.
    #[inline(always)]
    fn dot<const BITS: usize, const GROUP: usize, const FUSED: bool>(&self, row: &Row) -> f32 {
        let (whole, rest) = row.weight.as_chunks::<LANES>();
        let mut total = [0.0; LANES];
        let mut blocks = self.blocks.chunks_exact(32 / BITS);
        let scale = |n: usize, lane: usize| row.scales[(n * LANES + lane) * (32 / BITS) / GROUP];
        for (n, (packed, x)) in whole.iter().zip(&mut blocks).enumerate() {
            let sums = lanes::<BITS, FUSED>(packed, x);
            total = array::from_fn(|l| add_product::<FUSED>(sums[l], scale(n, l), total[l]));
        }
        if let Some(x) = blocks.next() {
            let packed = array::from_fn(|lane| rest.get(lane).copied().unwrap_or_default());
            let sums = lanes::<BITS, FUSED>(&packed, x);
            for lane in 0..rest.len() {
                total[lane] += sums[lane] * scale(whole.len(), lane);
            }
        }
        let biases = row.biases.iter().zip(&self.sums).map(|(bias, sum)| bias * sum);
        total.iter().sum::<f32>() + biases.sum::<f32>()
    }
}

/// For each of the packed integers the products of its weights with their activations, added up.
#[inline(always)]
fn lanes<const BITS: usize, const FUSED: bool>(
    packed: &[u32; LANES],
    x: &[[f32; LANES]],
) -> [f32; LANES] {
    let mut sums = [0.0; LANES];
    for (n, x) in x.iter().enumerate() {
        sums = array::from_fn(|l| add_product::<FUSED>(field::<BITS>(packed[l], n), x[l], sums[l]));
    }
    sums
}

/// `a * b + c`, in one step where the machine has one: elsewhere that would be a library call.
#[inline(always)]
fn add_product<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without a pattern, from -1 to 1.
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2654435761).max(1);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 * 2.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// The stream of bits that MLX writes for `quants`.
    fn pack(quants: &[u32], bits: usize) -> Vec<u32> {
        let mut packed = vec![0u32; quants.len() * bits / 32];
        for (n, quant) in quants.iter().enumerate() {
            for bit in 0..bits {
                let at = n * bits + bit;
                packed[at / 32] |= (quant >> bit & 1) << (at % 32);
            }
        }
        packed
    }

    #[test]
    fn products_are_those_of_the_weights_written_out() {
        for bits in [2, 3, 4, 5, 6, 8] {
            for group_size in [32, 64, 128] {
                for (rows, ins, outs) in [(1, 128, 1), (1, 384, 130), (3, 640, 7), (9, 256, 300)] {
                    let quants: Vec<u32> = noise(outs * ins, 1)
                        .iter()
                        .map(|n| ((n + 1.0) * 0.5 * ((1 << bits) - 1) as f32) as u32)
                        .collect();
                    let (scales, biases) =
                        (noise(outs * ins / group_size, 2), noise(outs * ins / group_size, 3));
                    let x = noise(rows * ins, 4);
                    let weight = pack(&quants, bits);
                    let w = Packed {
                        weight: &weight,
                        scales: &scales,
                        biases: &biases,
                        group_size,
                        bits,
                    };
                    let mut out = vec![f32::NAN; rows * outs];
                    product(&x, &w, rows, &mut out);
                    for (n, out) in out.iter().enumerate() {
                        let (row, column) = (n / outs, n % outs);
                        let expected: f64 = (0..ins)
                            .map(|k| {
                                let at = column * ins + k;
                                let group = at / group_size;
                                let weight = f64::from(quants[at]) * f64::from(scales[group])
                                    + f64::from(biases[group]);
                                weight * f64::from(x[row * ins + k])
                            })
                            .sum();
                        let scale = (ins as f64).sqrt() * f64::from(1 << bits);
                        let off = (f64::from(*out) - expected).abs() / scale;
                        assert!(
                            off < 1e-5,
                            "{bits} {group_size} {rows}x{ins}x{outs} [{n}]: {out} {expected}"
                        );
                    }
                }
            }
        }
    }
}
