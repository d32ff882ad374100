//! Affine quantisation of weights on the CPU, equal to MLX's `quantize` to the bit.
//!
//! A group of weights is `scale * code + bias`, with codes of 2 to 8 bits. The end of the group's
//! range that is further from zero is represented exactly, and zero nearly: the scale is chosen so
//! that zero is a whole number of steps away from that end.

use rayon::prelude::*;

/// Groups that a task of the thread pool handles.
const BLOCK: usize = 1 << 10;

/// Quantised groups: their codes, scales and biases.
#[derive(Debug, PartialEq)]
pub struct Packed {
    /// Codes of all groups in order, `bits` bits each, the first in the lowest bits of the first
    /// byte.
    pub codes: Vec<u8>,
    /// Scales, one for each group.
    pub scales: Vec<f32>,
    /// Biases, one for each group.
    pub biases: Vec<f32>,
}

/// Quantises `weights`, whole groups of `group_size` weights (a multiple of 8), to codes of `bits`
/// bits.
pub fn quantize(weights: &[f32], group_size: usize, bits: usize) -> Packed {
    let groups = weights.len() / group_size;
    let bytes = group_size * bits / 8;
    let mut codes = vec![0; groups * bytes];
    let [mut scales, mut biases] = [vec![0.0; groups], vec![0.0; groups]];
    let blocks = codes.par_chunks_mut(BLOCK * bytes).zip(weights.par_chunks(BLOCK * group_size));
    let scalings = scales.par_chunks_mut(BLOCK).zip(biases.par_chunks_mut(BLOCK));
    blocks.zip(scalings).for_each(|((codes, weights), (scales, biases))| {
        let groups = codes.chunks_exact_mut(bytes).zip(weights.chunks_exact(group_size));
        for (((codes, group), scale), bias) in groups.zip(scales).zip(biases) {
            [*scale, *bias] = range(group, bits);
            quantize_group(group, [*scale, *bias], bits, codes);
        }
    });
    Packed { codes, scales, biases }
}

/// Dequantises `codes` to `weights`, with the scales and biases of their groups.
pub fn dequantize(codes: &[u8], scales: &[f32], biases: &[f32], bits: usize, weights: &mut [f32]) {
    let group_size = weights.len() / scales.len();
    let bytes = group_size * bits / 8;
    let groups = codes.par_chunks_exact(bytes).zip(weights.par_chunks_exact_mut(group_size));
    let scalings = scales.par_iter().zip(biases);
    groups.zip(scalings).with_min_len(BLOCK).for_each(|((codes, weights), (scale, bias))| {
        for (codes, weights) in codes.chunks_exact(bits).zip(weights.chunks_exact_mut(8)) {
            let mut word = [0; 8];
            word[..bits].copy_from_slice(codes);
            let mut word = u64::from_le_bytes(word);
            for weight in weights {
                *weight = scale * (word & ((1 << bits) - 1)) as f32 + bias;
                word >>= bits;
            }
        }
    });
}

/// Scale and bias of a group.
fn range(group: &[f32], bits: usize) -> [f32; 2] {
    /// Least magnitude of a scale, which groups of equal weights get.
    const LEAST: f32 = 1e-7;
    let most = group.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let least = group.iter().fold(f32::INFINITY, |a, &b| a.min(b));
    let step = ((most - least) / largest(bits)).max(LEAST);
    let (step, end) = if least.abs() > most.abs() { (step, least) } else { (-step, most) };
    match (end / step).round_ties_even() {
        0.0 => [step, 0.0],
        steps => [end / steps, end],
    }
}

/// Codes of a group.
fn quantize_group(group: &[f32], [scale, bias]: [f32; 2], bits: usize, codes: &mut [u8]) {
    /// Constant that rounds to an integer when added and subtracted again, ties to even.
    const WHOLE: f32 = (1 << 23) as f32;
    let largest = largest(bits);
    for (weights, codes) in group.chunks_exact(8).zip(codes.chunks_exact_mut(bits)) {
        let mut word = 0;
        for (i, weight) in weights.iter().enumerate() {
            let code = ((weight - bias) / scale).clamp(0.0, largest) + WHOLE - WHOLE;
            word |= (code as u64) << (i * bits);
        }
        codes.copy_from_slice(&word.to_le_bytes()[..bits]);
    }
}

/// Largest code of `bits` bits.
fn largest(bits: usize) -> f32 {
    ((1u32 << bits) - 1) as f32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use mlx_rs::{Array, ops, random};

    use super::*;

    /// Rows of normal weights, and of special ones: all equal, none positive, tiny, huge.
    fn weights() -> Vec<f32> {
        let some = random::normal::<f32>(&[4096], None, None, &random::key(5).unwrap()).unwrap();
        let mut weights = some.to_vec_exact::<f32>().unwrap();
        weights[..128].fill(0.0);
        weights[128..256].fill(-0.75);
        weights[256..384].iter_mut().for_each(|x| *x = -x.abs());
        weights[384..512].iter_mut().for_each(|x| *x *= 1e-9);
        weights[512..640].iter_mut().for_each(|x| *x *= 1e9);
        weights[640..768].iter_mut().for_each(|x| *x = x.abs() + 3.0);
        weights
    }

    #[test]
    fn every_bit_is_that_of_mlx() {
        let weights = weights();
        for bits in [2, 3, 4, 5, 6, 8] {
            for group_size in [32, 64, 128] {
                let array = Array::from_slice(&weights, &[8, 512]);
                let (codes, scales, biases) =
                    ops::quantize(array, group_size as i32, bits as i32).unwrap();
                let codes = codes.to_vec_exact::<u32>().unwrap();
                let ours = quantize(&weights, group_size, bits);
                let theirs = Packed {
                    codes: codes.iter().flat_map(|code| code.to_le_bytes()).collect(),
                    scales: scales.to_vec_exact().unwrap(),
                    biases: biases.to_vec_exact().unwrap(),
                };
                assert!(ours == theirs, "{bits} bits in groups of {group_size}");
            }
        }
    }

    #[test]
    fn dequantised_weights_are_near_the_quantised_ones() {
        let weights = weights();
        for bits in [2, 3, 4, 5, 6, 8] {
            let Packed { codes, scales, biases } = quantize(&weights, 32, bits);
            let mut back = vec![0.0; weights.len()];
            dequantize(&codes, &scales, &biases, bits, &mut back);
            for (i, (a, b)) in weights.iter().zip(&back).enumerate() {
                // Half a step, plus the shift of the range to represent zero.
                let step = scales[i / 32].abs();
                assert!((a - b).abs() <= 1.1 * step, "{bits} bits: {a} became {b}");
            }
        }
    }
}
