//! Linear layers in every format, shape and instruction set, held against products with decoded
//! weights.

use super::*;

/// Pseudo-random numbers from -1 to 1.
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

/// Little-endian bit stream of `codes`, as MLX writes it.
fn pack(codes: &[u32], bits: usize) -> Vec<u32> {
    let mut packed = vec![0u32; codes.len() * bits / 32];
    for (n, code) in codes.iter().enumerate() {
        for bit in 0..bits {
            let at = n * bits + bit;
            packed[at / 32] |= (code >> bit & 1) << (at % 32);
        }
    }
    packed
}

/// Pseudo-random codes of `bits` bits.
fn codes(count: usize, bits: usize) -> Vec<u32> {
    let code = |n: &f32| ((n + 1.0) * 0.5 * ((1 << bits) - 1) as f32) as u32;
    noise(count, 1).iter().map(code).collect()
}

/// Instruction sets that this machine supports.
fn isas() -> Vec<Isa> {
    let isas = [Isa::Portable(Portable), Isa::best()].into_iter();
    #[cfg(target_arch = "x86_64")]
    let isas = isas.chain(Avx2::here().map(Isa::Avx2));
    isas.collect()
}

/// Asserts that the linear layer of `x` [rows, ins] with `w` equals that with `plain` [outs, ins].
#[track_caller]
fn alike(x: &[f32], w: &WeightView, plain: &[f64], rows: usize) {
    let ins = x.len() / rows;
    let outs = plain.len() / ins;
    let largest = plain.iter().fold(0.0, |most: f64, n| most.max(n.abs()));
    for isa in isas() {
        let mut out = vec![f32::NAN; rows * outs];
        isa.run_matrix(w, ins, outs, Linear { x, rows, out: &mut out });
        for (n, out) in out.iter().enumerate() {
            let (x, plain) = (&x[n / outs * ins..][..ins], &plain[n % outs * ins..][..ins]);
            let expected: f64 = x.iter().zip(plain).map(|(x, w)| f64::from(*x) * w).sum();
            let off = (f64::from(*out) - expected).abs() / (largest * (ins as f64).sqrt());
            assert!(off < 1e-5, "{rows}x{ins}x{outs} [{n}] {isa:?}: {out} {expected}");
        }
    }
}

/// Rows of activations: one, a few, more than registers hold, many. Rows of weights that fill
/// registers, cores and tiles, and that do not; some longer than what is unpacked at a time.
const SHAPES: [[usize; 3]; 7] = [
    [1, 128, 1],
    [1, 384, 200],
    [2, 2176, 20],
    [3, 640, 117],
    [5, 2176, 33],
    [13, 256, 300],
    [45, 128, 130],
];

#[test]
fn plain_floats_may_be_of_16_bits_and_rows_of_any_length() {
    for [rows, ins, outs] in [[1, 5, 3], [1, 200, 300], [4, 33, 70], [7, 47, 20], [34, 65, 130]] {
        let x = noise(rows * ins, 4);
        // Numbers that every type holds exactly, subnormal halves among them.
        let short = |n: f32, few: f32| f32::from_bits((n * few).to_bits() & 0xffff_0000);
        let plain: Vec<f32> = noise(outs * ins, 5).iter().map(|&n| short(n, 1.0)).collect();
        let small: Vec<f32> =
            noise(outs * ins, 5).iter().map(|&n| (n * 50.0).trunc() * 2f32.powi(-24)).collect();
        let halves = |n: &Vec<f32>| -> Vec<u16> {
            n.iter().map(|&n| half::f16::from_f32(n).to_bits()).collect()
        };
        let wide = |n: &Vec<u16>| -> Vec<f64> {
            n.iter().map(|&n| half::f16::from_bits(n).to_f64()).collect()
        };
        let upper: Vec<u16> = plain.iter().map(|n| (n.to_bits() >> 16) as u16).collect();
        let exact: Vec<f64> = plain.iter().map(|&n| f64::from(n)).collect();
        alike(&x, &WeightView::Dense(FloatSlice::F32(&plain)), &exact, rows);
        alike(&x, &WeightView::Dense(FloatSlice::Bf16(&upper)), &exact, rows);
        for halves in [halves(&plain), halves(&small)] {
            alike(&x, &WeightView::Dense(FloatSlice::F16(&halves)), &wide(&halves), rows);
        }
    }
}

#[test]
fn half_precision_is_that_of_its_definition() {
    for bits in 0..=u16::MAX {
        let (ours, theirs) = (simd::half(bits.into()), half::f16::from_bits(bits).to_f32());
        assert!(ours == theirs || (ours.is_nan() && theirs.is_nan()), "{bits:x}: {ours} {theirs}");
    }
}

#[test]
fn integers_have_a_scale_and_a_bias() {
    for bits in [2, 3, 4, 5, 6, 8] {
        for group_size in [32, 64, 128] {
            for [rows, ins, outs] in SHAPES {
                let codes = codes(outs * ins, bits);
                let groups = outs * ins / group_size;
                let (scales, biases) = (noise(groups, 2), noise(groups, 3));
                let weight = pack(&codes, bits);
                let scaled = Scales::Affine(FloatSlice::F32(&scales), FloatSlice::F32(&biases));
                let packed = QuantizedView { weight: &weight, scales: scaled, group_size, bits };
                let w = WeightView::Quantized(packed);
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

/// Value of a float with `exponent` bits of exponent and `mantissa` bits of mantissa, by its
/// definition.
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
        let matrix = |weight, scales, group_size, bits| {
            WeightView::Quantized(QuantizedView { weight, scales, group_size, bits })
        };
        alike(&x, &matrix(&four_packed, Scales::Mxfp4(&s), 32, 4), &plain, rows);

        let plain = scaled(&eight, 32, [4, 3], &|group| power(s[group]));
        alike(&x, &matrix(&eight_packed, Scales::Mxfp8(&s), 32, 8), &plain, rows);

        let s = scales(16);
        let plain = scaled(&four, 16, [2, 1], &|group| small(u32::from(s[group]), 4, 3));
        alike(&x, &matrix(&four_packed, Scales::Nvfp4(&s), 16, 4), &plain, rows);
    }
}
