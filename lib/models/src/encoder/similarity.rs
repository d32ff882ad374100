//! Similarities of two vectors, as sentence-transformers computes them.

use mlxk_core::probe::sentence::Similarity;

/// Similarity of `a` and `b`, which have the same length. The cosine of a zero vector is 0.
pub fn score(similarity: Similarity, a: &[f32], b: &[f32]) -> f32 {
    let sum = |term: fn(f64, f64) -> f64, a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| term(a.into(), b.into())).sum()
    };
    let product = |a, b| sum(|a, b| a * b, a, b);
    let score = match similarity {
        Similarity::Cosine => {
            let norms = (product(a, a) * product(b, b)).sqrt();
            if norms > 0.0 { product(a, b) / norms } else { 0.0 }
        }
        Similarity::Dot => product(a, b),
        Similarity::Euclidean => -sum(|a, b| (a - b).powi(2), a, b).sqrt(),
        Similarity::Manhattan => -sum(|a, b| (a - b).abs(), a, b),
    };
    score as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_sentence_transformers() {
        let (a, b) = ([3.0, 4.0], [4.0, 3.0]);
        let score_of = |similarity| score(similarity, &a, &b);
        assert_eq!(score_of(Similarity::Cosine), 0.96);
        assert_eq!(score_of(Similarity::Dot), 24.0);
        assert_eq!(score_of(Similarity::Euclidean), -2f32.sqrt());
        assert_eq!(score_of(Similarity::Manhattan), -2.0);
        assert_eq!(score(Similarity::Cosine, &a, &[0.0, 0.0]), 0.0);
    }
}
