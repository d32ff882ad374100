//! Panels of a few rows of activations as digits, in the order in which integer tiles take them.

use super::digits::{DIGITS, LARGEST, digits};
use super::simd::{Kernel, LANES, Simd};

/// Rows of activations, 1, 2 or 4, of which the last ones may be absent.
pub enum Panel {
    One(Rows<1>),
    Two(Rows<2>),
    Four(Rows<4>),
}

/// `R` rows of activations.
pub struct Rows<const R: usize> {
    /// Digits of each [`LANES`] activations of each row.
    pub digits: Vec<[Digits; R]>,
    /// For each block and each row the value of the lowest digit and the sum of the activations.
    pub blocks: Vec<[Block; R]>,
}

/// Digits of [`LANES`] activations: by place, the lowest first, then by the 32-bit columns of a tile.
pub type Digits = [[[u8; 4]; 4]; DIGITS];

/// Activations of a row that share the value of their digits.
#[derive(Clone, Copy, Default)]
pub struct Block {
    /// Value of the lowest digit.
    pub step: f32,
    /// Sum of the activations.
    pub sum: f32,
}

impl Panel {
    /// Panel of `x` [rows, ins], at most 4 rows, in blocks of `block` activations, for weights with
    /// `per_byte` codes in a byte.
    pub fn new<S: Simd>(simd: S, x: &[f32], ins: usize, block: usize, per_byte: usize) -> Panel {
        match x.len() / ins {
            1 => Panel::One(Rows::new(simd, x, ins, block, per_byte)),
            2 => Panel::Two(Rows::new(simd, x, ins, block, per_byte)),
            _ => Panel::Four(Rows::new(simd, x, ins, block, per_byte)),
        }
    }
}

impl<const R: usize> Rows<R> {
    fn new<S: Simd>(simd: S, x: &[f32], ins: usize, block: usize, per_byte: usize) -> Rows<R> {
        let mut rows = Rows {
            digits: vec![[[[[0; 4]; 4]; DIGITS]; R]; ins / LANES],
            blocks: vec![[Block::default(); R]; ins / block],
        };
        for (row, x) in x.chunks_exact(ins).enumerate() {
            simd.run(Encode { x, row, block, per_byte, to: &mut rows });
        }
        rows
    }
}

/// Kernel that writes a row of a panel.
struct Encode<'a, const R: usize> {
    x: &'a [f32],
    row: usize,
    block: usize,
    per_byte: usize,
    to: &'a mut Rows<R>,
}

impl<const R: usize> Kernel for Encode<'_, R> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Encode { x, row, block, per_byte, to } = self;
        let digits = to.digits.chunks_exact_mut(block / LANES);
        for ((x, digits), own) in x.chunks_exact(block).zip(digits).zip(&mut to.blocks) {
            let (most, sum) = most_and_sum(simd, x);
            own[row] = Block { step: most / LARGEST, sum };
            let factor = LARGEST / most;
            for (x, to) in x.as_chunks().0.iter().zip(digits) {
                to[row] = if per_byte == 1 {
                    encode(x, factor)
                } else {
                    // Codes of even weights are the lower halves of bytes.
                    let at = |n: usize| x[n / 8 * 8 + n % 4 * 2 + n / 4 % 2];
                    encode(&std::array::from_fn(at), factor)
                };
            }
        }
    }
}

/// Largest absolute value of the elements of a block, and their sum.
#[inline(always)]
fn most_and_sum<S: Simd>(simd: S, x: &[f32]) -> (f32, f32) {
    let (mut most, mut sums) = (simd.splat(0.0), simd.splat(0.0));
    for x in x.as_chunks().0 {
        sums = simd.add(sums, simd.load(x));
        most = simd.max(simd.load(&x.map(f32::abs)), most);
    }
    (simd.reduce_max(most), simd.reduce_add(sums))
}

/// Digits of the elements of `x` times `factor`.
#[inline(always)]
fn encode(x: &[f32; LANES], factor: f32) -> Digits {
    let mut places = [[0; LANES]; DIGITS];
    for n in 0..LANES {
        let own = digits(x[n] * factor);
        places[0][n] = own[0];
        places[1][n] = own[1];
        places[2][n] = own[2];
    }
    let columns = |place: [u8; LANES]| -> [[u8; 4]; 4] {
        std::array::from_fn(|n| std::array::from_fn(|byte| place[4 * n + byte]))
    };
    places.map(columns)
}
