//! Sinusoidal embeddings of positions (arXiv 1706.03762), sines before cosines as Whisper has them.

use mlx_rs::Array;

/// Embeddings [1, positions, hidden]: sines of frequencies from 1 to 1/10000 in a geometric series,
/// then their cosines.
pub fn sinusoids(positions: usize, hidden: usize) -> Array {
    let half = hidden / 2;
    let step = 10_000_f64.ln() / (half.max(2) - 1) as f64;
    let angle = |position: usize, i: usize| position as f64 * (-step * i as f64).exp();
    let row = |position| {
        let sines = (0..half).map(move |i| angle(position, i).sin() as f32);
        sines.chain((0..half).map(move |i| angle(position, i).cos() as f32))
    };
    let all: Vec<f32> = (0..positions).flat_map(row).collect();
    Array::from_slice(&all, &[1, positions as i32, 2 * half as i32])
}
