//! Dequantization of the types of 1 to 3 bits, whose codes are indices of points of a grid.
//!
//! Layouts and grids: `ggml-common.h`. All arithmetic is in f32 and in the order of ggml's
//! reference code. `grids.bin` has a u16 for each point: eight coordinates of 2 bits or four of 3
//! bits, the first in the lowest bits; a coordinate is an index into the grid's values.

use crate::half::read_f16;

/// Points of all grids, one grid after another.
const POINTS: &[u8; 9216] = include_bytes!("grids.bin");

/// Grid of points with `size` coordinates each, from point `first` on.
struct Grid {
    first: usize,
    size: usize,
    values: &'static [i8],
}

const TWO: &[i8] = &[0x08, 0x19, 0x2b];
const IQ2_XXS: Grid = Grid { first: 0, size: 8, values: TWO };
const IQ2_XS: Grid = Grid { first: 256, size: 8, values: TWO };
const IQ2_S: Grid = Grid { first: 768, size: 8, values: TWO };
const IQ3_XXS: Grid =
    Grid { first: 1792, size: 4, values: &[0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3e] };
const IQ3_S: Grid = Grid { first: 2048, size: 4, values: &[1, 3, 5, 7, 9, 11, 13, 15] };
const IQ1: Grid = Grid { first: 2560, size: 8, values: &[-1, 0, 1] };

impl Grid {
    /// Coordinates of point `number`.
    fn point(&self, number: usize) -> impl Iterator<Item = f32> + '_ {
        let at = (self.first + number) * 2;
        let codes = u16::from_le_bytes([POINTS[at], POINTS[at + 1]]);
        let bits = 16 / self.size.max(5);
        let code = move |i: usize| usize::from(codes >> (i * bits)) & ((1 << bits) - 1);
        (0..self.size).map(move |i| f32::from(self.values[code(i).min(self.values.len() - 1)]))
    }

    /// Writes the coordinates of points times `scale`; a set bit of `signs` negates its coordinate.
    fn write(&self, numbers: &[usize], scale: f32, signs: u8, out: &mut [f32]) {
        let coordinates = numbers.iter().flat_map(|number| self.point(*number));
        for ((i, out), x) in out.iter_mut().enumerate().zip(coordinates) {
            let x = scale * x;
            *out = if signs >> i & 1 == 1 { -x } else { x };
        }
    }
}

/// Eight sign bits from seven: the last makes the number of set bits even.
fn signs(seven: u32) -> u8 {
    let seven = (seven & 127) as u8;
    seven | (seven.count_ones() as u8 & 1) << 7
}

fn u16_at(bytes: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])
}

fn u32_at(bytes: &[u8], i: usize) -> u32 {
    u32::from(u16_at(bytes, 2 * i)) | u32::from(u16_at(bytes, 2 * i + 1)) << 16
}

/// 4-bit number `i` of `bytes`.
fn nibble(bytes: &[u8], i: usize) -> f32 {
    f32::from(bytes[i / 2] >> (i % 2 * 4) & 15)
}

/// `d: f16`, then for each group of 32: four points, four times 7 signs, and a 4-bit scale.
pub fn iq2_xxs(block: &[u8], out: &mut [f32]) {
    let d = read_f16(block);
    for (i, out) in out.chunks_exact_mut(32).enumerate() {
        let own = &block[2 + 8 * i..][..8];
        let word = u32_at(own, 1);
        let scale = d * (0.5 + (word >> 28) as f32) * 0.25;
        for (j, out) in out.chunks_exact_mut(8).enumerate() {
            IQ2_XXS.write(&[own[j].into()], scale, signs(word >> (7 * j)), out);
        }
    }
}

/// `d: f16, points and signs: [(u9, u7); 32], scales: [u4; 16]`
pub fn iq2_xs(block: &[u8], out: &mut [f32]) {
    let d = read_f16(block);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let word = u16_at(&block[2..], i);
        let scale = d * (0.5 + nibble(&block[66..], i / 2)) * 0.25;
        IQ2_XS.write(&[usize::from(word & 511)], scale, signs(u32::from(word >> 9)), out);
    }
}

/// `d: f16, points: [u8; 32], signs: [u8; 32], high bits of points: [u2; 32], scales: [u4; 16]`
pub fn iq2_s(block: &[u8], out: &mut [f32]) {
    let d = read_f16(block);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let high = usize::from(block[66 + i / 4] >> (i % 4 * 2) & 3);
        let scale = d * (0.5 + nibble(&block[74..], i / 2)) * 0.25;
        IQ2_S.write(&[usize::from(block[2 + i]) | high << 8], scale, block[34 + i], out);
    }
}

/// `d: f16, points: [u8; 64]`, then for each group of 32: four times 7 signs, and a 4-bit scale.
pub fn iq3_xxs(block: &[u8], out: &mut [f32]) {
    let d = read_f16(block);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let word = u32_at(&block[66..], i / 4);
        let scale = d * (0.5 + (word >> 28) as f32) * 0.5;
        let points = [block[2 + 2 * i].into(), block[3 + 2 * i].into()];
        IQ3_XXS.write(&points, scale, signs(word >> (i % 4 * 7)), out);
    }
}

/// `d: f16, points: [u8; 64], high bits of points: [u1; 64], signs: [u8; 32], scales: [u4; 8]`
pub fn iq3_s(block: &[u8], out: &mut [f32]) {
    let d = read_f16(block);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let scale = d * (1.0 + 2.0 * nibble(&block[106..], i / 4));
        let point = |j: usize| {
            let high = usize::from(block[66 + j / 8] >> (j % 8) & 1);
            usize::from(block[2 + j]) | high << 8
        };
        IQ3_S.write(&[point(2 * i), point(2 * i + 1)], scale, block[74 + i], out);
    }
}

/// Offset of all coordinates of a group, up or down.
const SHIFT: f32 = 0.125;

/// Writes a point of IQ1 with its offset, times `scale`.
fn write_shifted(number: usize, scale: f32, down: bool, out: &mut [f32]) {
    let shift = if down { -SHIFT } else { SHIFT };
    for (out, x) in out.iter_mut().zip(IQ1.point(number)) {
        *out = scale * (x + shift);
    }
}

/// `d: f16, points: [u8; 32]`, then for each group of 32: high bits of points, a 3-bit scale, and
/// the direction of the offset.
pub fn iq1_s(block: &[u8], out: &mut [f32]) {
    let d = read_f16(block);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let word = u16_at(&block[34..], i / 4);
        let scale = d * f32::from(2 * (word >> 12 & 7) + 1);
        let high = usize::from(word >> (i % 4 * 3) & 7);
        write_shifted(usize::from(block[2 + i]) | high << 8, scale, word & 0x8000 != 0, out);
    }
}

/// `points: [u8; 32], high bits and offset direction: [(u3, u1); 32], scales: [[u3; 4]; 4]`; the
/// four bits above each four scales make up `d: f16`.
pub fn iq1_m(block: &[u8], out: &mut [f32]) {
    let scales = &block[48..];
    let parts: Vec<u8> = (0..4).map(|i| (u16_at(scales, i) >> 12) as u8).collect();
    let d = read_f16(&[parts[0] | parts[1] << 4, parts[2] | parts[3] << 4]);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let scale = u16_at(scales, i / 8) >> (i / 2 % 4 * 3) & 7;
        let own = block[32 + i / 2] >> (i % 2 * 4);
        let point = usize::from(block[i]) | usize::from(own & 7) << 8;
        write_shifted(point, d * f32::from(2 * scale + 1), own & 8 != 0, out);
    }
}

/// 48 bytes of five ternary digits, 4 bytes of four, then `d: f16`.
pub fn tq1_0(block: &[u8], out: &mut [f32]) {
    let d = read_f16(&block[52..]);
    let digit = |byte: u8, power: u32| {
        let shifted = byte.wrapping_mul(3u8.wrapping_pow(power));
        f32::from(((u16::from(shifted) * 3) >> 8) as u8) - 1.0
    };
    let runs = [(0..32, 5), (32..48, 5), (48..52, 4)];
    let places = runs.into_iter().flat_map(|(bytes, digits)| {
        (0..digits).flat_map(move |power| bytes.clone().map(move |at| (at, power)))
    });
    for (out, (at, power)) in out.iter_mut().zip(places) {
        *out = d * digit(block[at], power);
    }
}

/// `codes: [u2; 256], d: f16`
pub fn tq2_0(block: &[u8], out: &mut [f32]) {
    let d = read_f16(&block[64..]);
    for (i, out) in out.iter_mut().enumerate() {
        let q = block[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        *out = d * (f32::from(q) - 1.0);
    }
}
