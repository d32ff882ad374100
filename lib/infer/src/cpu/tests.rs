//! Products against those of the weights written out.

use super::*;

/// Numbers without a pattern, from -1 to 1.
pub fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2654435761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The stream of bits that MLX writes for `codes`.
pub fn pack(codes: &[u32], bits: usize) -> Vec<u32> {
    let mut packed = vec![0u32; codes.len() * bits / 32];
    for (n, code) in codes.iter().enumerate() {
        for bit in 0..bits {
            let at = n * bits + bit;
            packed[at / 32] |= (code >> bit & 1) << (at % 32);
        }
    }
    packed
}

/// Codes of `bits` bits without a pattern.
pub fn codes(count: usize, bits: usize) -> Vec<u32> {
    let code = |n: &f32| ((n + 1.0) * 0.5 * ((1 << bits) - 1) as f32) as u32;
    noise(count, 1).iter().map(code).collect()
}

/// Compares the product of `x` [rows, ins] with `w` with that with `plain` [outs, ins].
#[track_caller]
fn alike(x: &[f32], w: &Packed, plain: &[f64], rows: usize) {
    let ins = x.len() / rows;
    let outs = plain.len() / ins;
    let mut out = vec![f32::NAN; rows * outs];
    product(x, w, rows, &mut out);
    let largest = plain.iter().fold(0.0, |most: f64, n| most.max(n.abs()));
    for (n, out) in out.iter().enumerate() {
        let (x, plain) = (&x[n / outs * ins..][..ins], &plain[n % outs * ins..][..ins]);
        let expected: f64 = x.iter().zip(plain).map(|(x, w)| f64::from(*x) * w).sum();
        let off = (f64::from(*out) - expected).abs() / (largest * (ins as f64).sqrt());
        let (bits, group) = (w.bits, w.group_size);
        assert!(off < 1e-5, "{bits} {group} {rows}x{ins}x{outs} [{n}]: {out} {expected}");
    }
}

/// One row, a few, many; rows of weights that fill registers, cores and tiles, and that do not.
const SHAPES: [[usize; 3]; 4] = [[1, 128, 1], [1, 384, 200], [3, 640, 117], [9, 256, 300]];

#[test]
fn integers_have_a_scale_and_a_bias() {
    for bits in [2, 3, 4, 5, 6, 8] {
        for group_size in [32, 64, 128] {
            for [rows, ins, outs] in SHAPES {
                let codes = codes(outs * ins, bits);
                let groups = outs * ins / group_size;
                let (scales, biases) = (noise(groups, 2), noise(groups, 3));
                let weight = pack(&codes, bits);
                let scaled = Scales::Affine(&scales, &biases);
                let w = Packed { weight: &weight, scales: scaled, group_size, bits };
                let plain = |(n, code): (usize, &u32)| {
                    let group = n / group_size;
                    f64::from(*code) * f64::from(scales[group]) + f64::from(biases[group])
                };
                let plain: Vec<f64> = codes.iter().enumerate().map(plain).collect();
                alike(&noise(rows * ins, 4), &w, &plain, rows);
            }
        }
    }
}

/// A float with `exponent` bits of exponent and `mantissa` bits of mantissa, by its definition.
fn small(code: u32, exponent: u32, mantissa: u32) -> f64 {
    let bias = (1 << (exponent - 1)) - 1;
    let part = f64::from(code & ((1 << mantissa) - 1)) / f64::from(1 << mantissa);
    let e = (code >> mantissa & ((1 << exponent) - 1)) as i32;
    let size = if e == 0 { part * 2f64.powi(1 - bias) } else { (1.0 + part) * 2f64.powi(e - bias) };
    if code >> (exponent + mantissa) == 1 { -size } else { size }
}

#[test]
fn small_floats_have_a_scale() {
    for [rows, ins, outs] in SHAPES {
        let x = noise(rows * ins, 4);
        let scales = |size: usize| -> Vec<u8> {
            noise(outs * ins / size, 2).iter().map(|n| (n * 20.0 + 100.0) as u8).collect()
        };
        let power = |scale: u8| 2f64.powi(i32::from(scale) - 127);

        let (four, eight) = (codes(outs * ins, 4), codes(outs * ins, 8));
        let (four_packed, eight_packed) = (pack(&four, 4), pack(&eight, 8));
        let scaled = |codes: &[u32], group: usize, form: [u32; 2], scale: &dyn Fn(usize) -> f64| {
            let value =
                |(n, code): (usize, &u32)| small(*code, form[0], form[1]) * scale(n / group);
            codes.iter().enumerate().map(value).collect::<Vec<f64>>()
        };

        let s = scales(32);
        let plain = scaled(&four, 32, [2, 1], &|group| power(s[group]));
        let packed =
            Packed { weight: &four_packed, scales: Scales::Mxfp4(&s), group_size: 32, bits: 4 };
        alike(&x, &packed, &plain, rows);

        let plain = scaled(&eight, 32, [4, 3], &|group| power(s[group]));
        let packed =
            Packed { weight: &eight_packed, scales: Scales::Mxfp8(&s), group_size: 32, bits: 8 };
        alike(&x, &packed, &plain, rows);

        let s = scales(16);
        let plain = scaled(&four, 16, [2, 1], &|group| small(u32::from(s[group]), 4, 3));
        let packed =
            Packed { weight: &four_packed, scales: Scales::Nvfp4(&s), group_size: 16, bits: 4 };
        alike(&x, &packed, &plain, rows);
    }
}
