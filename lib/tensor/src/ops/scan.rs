//! Arithmetic that recurrent operations share. States are float32 in both backends.

use mlx_rs::error::Result;
use mlx_rs::ops::{cumsum, logaddexp, tril};
use mlx_rs::{Array, Dtype};

use crate::array::elements;

/// Softplus of each element, `log(1 + exp(x))`, in MLX.
pub fn softplus(x: &Array) -> Result<Array> {
    logaddexp(x, Array::from_f32(0.0))
}

/// Softplus of one number, `log(1 + exp(x))`.
pub fn softplus_of(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Conversion to float32.
pub fn wide(x: &Array) -> Result<Array> {
    x.as_dtype(Dtype::Float32)
}

/// Cumulative decays between the tokens of a chunk, from their logarithms `steps` [.., length]:
/// element (i, j) of [.., length, length] is `exp` of the sum of steps j + 1 to i. Elements with j
/// > i are meaningless.
pub fn decays(steps: &Array) -> Result<Array> {
    let length = steps.dim(-1);
    let columns = Array::repeat_axis::<f32>(steps.expand_dims(-1)?, length, -1)?;
    cumsum(tril(columns, -1)?, -2, None, None)?.exp()
}

/// Elements of a state; `size` zeros before the first token.
pub fn state_or_zeros(state: &Option<Array>, size: usize) -> Result<Vec<f32>> {
    match state {
        Some(state) => Ok(elements(state)?.to_vec()),
        None => Ok(vec![0.0; size]),
    }
}

/// Dot product in 8 partial sums, which compilers vectorise.
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

/// Transposes [parts, length, size] to [length, parts * size].
pub fn transpose(x: &[f32], length: usize, size: usize) -> Vec<f32> {
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

    /// Lengths of successive calls for one sequence: a token, a few, and more than a chunk.
    pub const LENGTHS: [i32; 5] = [1, 7, 300, 1, 2];

    /// Asserts that both backends give equal outputs and states over successive calls, and the MLX
    /// backend also token by token.
    #[track_caller]
    pub fn agree(
        inputs: &[Array],
        mlx: impl Fn(&[Array], &mut Option<Array>) -> Array,
        cpu: impl Fn(&[Array], &mut Option<Array>) -> Array,
    ) {
        let mut states = [None, None, None];
        let mut first = 0;
        for length in LENGTHS {
            let rows = |range: std::ops::Range<i32>| -> Vec<Array> {
                let part = |x: &Array| {
                    let part = crate::mlx::columns(x, range.clone()).unwrap();
                    part.contiguous().unwrap()
                };
                inputs.iter().map(part).collect()
            };
            let own = rows(first..first + length);
            let ours = cpu(&own, &mut states[0]);
            alike(&ours, &mlx(&own, &mut states[1]));
            let single = |i| mlx(&rows(i..i + 1), &mut states[2]);
            let singles: Vec<Array> = (first..first + length).map(single).collect();
            alike(&ours, &mlx_rs::ops::concatenate(&singles, 1).unwrap());
            first += length;
        }
        let [Some(a), Some(b), Some(c)] = &states else { panic!("nothing is state_or_zeros") };
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
