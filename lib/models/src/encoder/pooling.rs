//! Pooling: one embedding of a sequence from the hidden states of its tokens, in f32, after the
//! module `Pooling` of sentence-transformers.

use mlxk_core::probe::sentence::Pooling;

/// Vector of `size` elements pooled from `rows` [tokens, size], of which the first `skipped` do
/// not count, unless there are no others.
pub fn pool(way: Pooling, rows: &[f32], size: usize, skipped: usize) -> Vec<f32> {
    let count = rows.len() / size;
    let first = if skipped < count { skipped } else { 0 };
    let counted = &rows[first * size..];
    let weighted = |weight: &dyn Fn(usize) -> f32| {
        let mut sum = vec![0.0; size];
        for (place, row) in counted.chunks_exact(size).enumerate() {
            let weight = weight(first + place);
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
        }
        sum
    };
    let mean = |total: f32, weight: &dyn Fn(usize) -> f32| {
        let mut sum = weighted(weight);
        sum.iter_mut().for_each(|x| *x /= total.max(1e-9));
        sum
    };
    let number = (count - first) as f32;
    match way {
        Pooling::Cls => counted.iter().take(size).copied().collect(),
        Pooling::LastToken => rows[rows.len().saturating_sub(size)..].to_vec(),
        Pooling::Max => {
            let rows = counted.chunks_exact(size).map(<[f32]>::to_vec);
            let larger =
                |a: Vec<f32>, b: Vec<f32>| a.iter().zip(&b).map(|(a, b)| a.max(*b)).collect();
            rows.reduce(larger).unwrap_or_else(|| vec![0.0; size])
        }
        Pooling::Mean => mean(number, &|_| 1.0),
        Pooling::MeanSqrtLength => mean(number.sqrt(), &|_| 1.0),
        Pooling::WeightedMean => {
            let position = |place| (place + 1) as f32;
            mean((first..count).map(position).sum(), &position)
        }
    }
}

/// Divides `vector` by its length, which counts as 1e-12 at least.
pub fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|x| *x /= length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_pools_the_rows_that_count() {
        let rows = [1.0, 8.0, 4.0, -2.0, 7.0, 0.0];
        let cases = [
            (Pooling::Cls, [1.0, 8.0], [4.0, -2.0]),
            (Pooling::Max, [7.0, 8.0], [7.0, 0.0]),
            (Pooling::Mean, [4.0, 2.0], [5.5, -1.0]),
            (
                Pooling::MeanSqrtLength,
                [12.0 / 3f32.sqrt(), 6.0 / 3f32.sqrt()],
                [11.0 / 2f32.sqrt(), -2.0 / 2f32.sqrt()],
            ),
            (Pooling::WeightedMean, [5.0, 4.0 / 6.0], [29.0 / 5.0, -0.8]),
            (Pooling::LastToken, [7.0, 0.0], [7.0, 0.0]),
        ];
        for (pooling, all, later) in cases {
            for (skipped, expected) in [(0, all), (1, later), (3, all)] {
                let pooled = pool(pooling, &rows, 2, skipped);
                let near = pooled.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
                assert!(near && pooled.len() == 2, "{pooling:?}, {skipped}: {pooled:?}");
            }
        }
    }

    #[test]
    fn a_vector_of_zeros_stays_one() {
        let mut zeros = [0.0; 3];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
    }
}
