//! Dequantization of GGUF blocks to f32.
//!
//! Layouts: `ggml-quants.h`. All arithmetic is in f32 and in the order of ggml's reference code, so
//! that results are equal to the bit.

use half::bf16;

use crate::dtype::Type;
use crate::grid;
use crate::half::read_f16;

/// Values of the 16 codes of IQ4_NL.
const IQ4_NL: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Doubled values of the 16 codes of 4-bit floats (E2M1).
const FP4: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Dequantizes whole blocks into `out`.
///
/// # Panics
/// If `blocks` are not whole, or `out` is not as long as they have weights.
pub fn dequantize(dtype: Type, blocks: &[u8], out: &mut [f32]) {
    assert_eq!(blocks.len() % dtype.bytes(), 0, "whole blocks");
    assert_eq!(blocks.len() / dtype.bytes() * dtype.block(), out.len(), "as many weights");
    let dequantize_block = block_function(dtype);
    for (block, out) in blocks.chunks_exact(dtype.bytes()).zip(out.chunks_exact_mut(dtype.block()))
    {
        dequantize_block(block, out);
    }
}

/// Function that dequantizes one block of a type.
fn block_function(dtype: Type) -> fn(&[u8], &mut [f32]) {
    match dtype {
        Type::F32 => |b, out| out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        Type::F16 => |b, out| out[0] = read_f16(b),
        Type::BF16 => |b, out| out[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        Type::Q4_0 => q4_0,
        Type::Q4_1 => q4_1,
        Type::Q5_0 => q5_0,
        Type::Q5_1 => q5_1,
        Type::Q8_0 => q8_0,
        Type::Q2_K => q2_k,
        Type::Q3_K => q3_k,
        Type::Q4_K => q4_k,
        Type::Q5_K => q5_k,
        Type::Q6_K => q6_k,
        Type::IQ4_NL => iq4_nl,
        Type::IQ4_XS => iq4_xs,
        Type::MXFP4 => mxfp4,
        Type::IQ2_XXS => grid::iq2_xxs,
        Type::IQ2_XS => grid::iq2_xs,
        Type::IQ2_S => grid::iq2_s,
        Type::IQ3_XXS => grid::iq3_xxs,
        Type::IQ3_S => grid::iq3_s,
        Type::IQ1_S => grid::iq1_s,
        Type::IQ1_M => grid::iq1_m,
        Type::TQ1_0 => grid::tq1_0,
        Type::TQ2_0 => grid::tq2_0,
    }
}

/// The 32 4-bit codes in 16 bytes: the low halves of all bytes first, then the high halves.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let low = bytes.iter().map(|byte| byte & 15);
    low.chain(bytes.iter().map(|byte| byte >> 4))
}

/// `d: f16, codes: [u4; 32]`
fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = read_f16(block);
    for (out, q) in out.iter_mut().zip(nibbles(&block[2..])) {
        *out = d * (f32::from(q) - 8.0);
    }
}

/// `d: f16, m: f16, codes: [u4; 32]`
fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (read_f16(block), read_f16(&block[2..]));
    for (out, q) in out.iter_mut().zip(nibbles(&block[4..])) {
        *out = d * f32::from(q) + m;
    }
}

/// The 32 5-bit codes in 20 bytes: a u32 of high bits, then the low bits as [`nibbles`].
fn five_bit_codes(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let low = nibbles(&bytes[4..]).enumerate();
    low.map(move |(i, q)| f32::from(q | ((high >> i & 1) as u8) << 4))
}

/// `d: f16, codes: [u5; 32]`
fn q5_0(block: &[u8], out: &mut [f32]) {
    let d = read_f16(block);
    for (out, q) in out.iter_mut().zip(five_bit_codes(&block[2..])) {
        *out = d * (q - 16.0);
    }
}

/// `d: f16, m: f16, codes: [u5; 32]`
fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (read_f16(block), read_f16(&block[2..]));
    for (out, q) in out.iter_mut().zip(five_bit_codes(&block[4..])) {
        *out = d * q + m;
    }
}

/// `d: f16, codes: [i8; 32]`
fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = read_f16(block);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(q as i8) * d;
    }
}

/// `d: f16, codes: [u4; 32]`, indices into [`IQ4_NL`].
fn iq4_nl(block: &[u8], out: &mut [f32]) {
    let d = read_f16(block);
    for (out, q) in out.iter_mut().zip(nibbles(&block[2..])) {
        *out = d * f32::from(IQ4_NL[usize::from(q)]);
    }
}

/// `d: f16, high: [u2; 8], low: [u4; 8], codes: [u4; 256]`: groups of 32 with a 6-bit scale each,
/// codes as in IQ4_NL.
fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let d = read_f16(block);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (i, out) in out.chunks_exact_mut(32).enumerate() {
        let low = block[4 + i / 2] >> (i % 2 * 4) & 15;
        let scale = u16::from(low) | (high >> (2 * i) & 3) << 4;
        let scale = d * (f32::from(scale) - 32.0);
        for (out, q) in out.iter_mut().zip(nibbles(&block[8 + 16 * i..][..16])) {
            *out = scale * f32::from(IQ4_NL[usize::from(q)]);
        }
    }
}

/// `e: u8, codes: [f4; 32]`: a shared exponent, and floats of 4 bits (OCP Microscaling).
fn mxfp4(block: &[u8], out: &mut [f32]) {
    // 2^(e - 128), since the values are doubled; for e < 2 it is subnormal.
    let bits = match u32::from(block[0]) {
        e @ 0..2 => 0x0020_0000 << e,
        e => (e - 1) << 23,
    };
    let d = f32::from_bits(bits);
    for (out, q) in out.iter_mut().zip(nibbles(&block[1..])) {
        *out = d * f32::from(FP4[usize::from(q)]);
    }
}

/// `scales: [(u4, u4); 16], codes: [u2; 256], d: f16, dmin: f16`
fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (d, dmin) = (read_f16(&block[80..]), read_f16(&block[82..]));
    for (i, out) in out.iter_mut().enumerate() {
        let scale = scales[i / 16];
        let q = codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        *out = d * f32::from(scale & 15) * f32::from(q) - dmin * f32::from(scale >> 4);
    }
}

/// `high: [u1; 256], codes: [u2; 256], scales: [u6; 16], d: f16`; a high bit of 0 subtracts 4.
fn q3_k(block: &[u8], out: &mut [f32]) {
    let (high, codes, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = read_f16(&block[108..]);
    for (i, out) in out.iter_mut().enumerate() {
        let group = i / 16;
        let low = scales[group % 8] >> (group / 8 * 4) & 15;
        let top = scales[8 + group % 4] >> (group / 4 * 2) & 3;
        let scale = d * (f32::from(low | top << 4) - 32.0);
        let q = codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        let off = if high[i % 32] >> (i / 32) & 1 == 1 { 0.0 } else { 4.0 };
        *out = scale * (f32::from(q) - off);
    }
}

/// Scale and minimum of group `i` of eight, 6 bits each, packed into 12 bytes.
fn scale_and_min(packed: &[u8], i: usize) -> (f32, f32) {
    let (scale, min) = match i {
        0..4 => (packed[i] & 63, packed[i + 4] & 63),
        _ => {
            (packed[i + 4] & 15 | packed[i - 4] >> 6 << 4, packed[i + 4] >> 4 | packed[i] >> 6 << 4)
        }
    };
    (f32::from(scale), f32::from(min))
}

/// `d: f16, dmin: f16, scales: [(u6, u6); 8], codes: [u4; 256]`
fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (read_f16(block), read_f16(&block[2..]));
    for (i, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], i);
        let codes = &block[16 + i / 2 * 32..][..32];
        for (out, byte) in out.iter_mut().zip(codes) {
            *out = d * scale * f32::from(byte >> (i % 2 * 4) & 15) - dmin * min;
        }
    }
}

/// `d: f16, dmin: f16, scales: [(u6, u6); 8], high: [u1; 256], codes: [u4; 256]`
fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (read_f16(block), read_f16(&block[2..]));
    for (i, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], i);
        let codes = &block[48 + i / 2 * 32..][..32];
        for ((out, byte), high) in out.iter_mut().zip(codes).zip(&block[16..48]) {
            let q = byte >> (i % 2 * 4) & 15 | (high >> i & 1) << 4;
            *out = d * scale * f32::from(q) - dmin * min;
        }
    }
}

/// `codes: [u4; 256], high: [u2; 256], scales: [i8; 16], d: f16`
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (codes, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = read_f16(&block[208..]);
    for (i, out) in out.iter_mut().enumerate() {
        let low = codes[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
        let top = high[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        let q = f32::from(low | top << 4) - 32.0;
        *out = d * f32::from(scales[i / 16] as i8) * q;
    }
}
