//! Arithmetic that recurrent operations share. States are float32 in every backend.

use mlx_rs::error::Result;
use mlx_rs::ops::{cumsum, logaddexp, tril};
use mlx_rs::{Array, Dtype};

use crate::array::elements;

/// `log(1 + exp(x))`.
pub fn softplus(x: &Array) -> Result<Array> {
    logaddexp(x, Array::from_f32(0.0))
}

/// The same of a number.
pub fn softplus_of(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `x` as float32.
pub fn wide(x: &Array) -> Result<Array> {
    x.as_dtype(Dtype::Float32)
}

/// What each step [.., length] of a decay makes of every earlier one: row i of [.., length, length]
/// holds `exp` of the sum of steps j + 1 to i in column j, and nothing that means anything after i.
pub fn decays(steps: &Array) -> Result<Array> {
    let length = steps.dim(-1);
    let columns = Array::repeat_axis::<f32>(steps.expand_dims(-1)?, length, -1)?;
    cumsum(tril(columns, -1)?, -2, None, None)?.exp()
}

/// The elements of a state before the first token or after some.
pub fn remembered(state: &Option<Array>, size: usize) -> Result<Vec<f32>> {
    match state {
        Some(state) => Ok(elements(state)?.to_vec()),
        None => Ok(vec![0.0; size]),
    }
}

/// The sum of products, in lanes that a CPU adds at once.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// [parts, length, size] as [length, parts * size].
pub fn side_by_side(x: &[f32], length: usize, size: usize) -> Vec<f32> {
    let parts = x.len() / (length * size);
    let mut y = vec![0.0; x.len()];
    for (row, x) in x.chunks_exact(size).enumerate() {
        let (part, position) = (row / length, row % length);
        y[(position * parts + part) * size..][..size].copy_from_slice(x);
    }
    y
}

/// Comparison of an operation's MLX backend with its CPU backend, for the tests of operations.
#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use mlx_rs::Array;

    /// Pseudo-random numbers around zero; the same `seed` gives the same numbers.
    pub fn some(shape: &[i32], seed: u64) -> Array {
        crate::mlx::noise(shape, seed)
    }

    /// Lengths of stretches of one text: a token, a few, and more than is done at once.
    pub const STRETCHES: [i32; 5] = [1, 7, 300, 1, 2];

    /// Runs `lazy` and `eager` over the same stretches, each remembering its own, and the first also
    /// token by token: all see the same.
    #[track_caller]
    pub fn agree(
        inputs: &[Array],
        lazy: impl Fn(&[Array], &mut Option<Array>) -> Array,
        eager: impl Fn(&[Array], &mut Option<Array>) -> Array,
    ) {
        let mut states = [None, None, None];
        let mut first = 0;
        for length in STRETCHES {
            let rows = |range: std::ops::Range<i32>| -> Vec<Array> {
                let part = |x: &Array| {
                    let part = crate::mlx::columns(x, range.clone()).unwrap();
                    part.contiguous().unwrap()
                };
                inputs.iter().map(part).collect()
            };
            let own = rows(first..first + length);
            let ours = eager(&own, &mut states[0]);
            alike(&ours, &lazy(&own, &mut states[1]));
            let single = |i| lazy(&rows(i..i + 1), &mut states[2]);
            let singles: Vec<Array> = (first..first + length).map(single).collect();
            alike(&ours, &mlx_rs::ops::concatenate(&singles, 1).unwrap());
            first += length;
        }
        let [Some(a), Some(b), Some(c)] = &states else { panic!("nothing is remembered") };
        alike(a, b);
        alike(a, c);
    }

    /// Asserts that shapes and types are equal, and elements within 2e-5 of the largest of `b`.
    #[track_caller]
    pub fn alike(a: &Array, b: &Array) {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let apart = a.subtract(b).unwrap().abs().unwrap().max(None).unwrap().item_exact::<f32>();
        let largest = b.abs().unwrap().max(None).unwrap().item_exact::<f32>();
        assert!(apart <= 2e-5 * largest, "{apart} apart, {largest} large");
    }
}
