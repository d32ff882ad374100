//! Similarities of two vectors, as sentence-transformers computes them.

use serde::Deserialize;

/// Similarity of two vectors: the larger, the more alike they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// Cosine of the angle between them.
    #[default]
    Cosine,
    /// Dot product.
    #[serde(alias = "dot_product")]
    Dot,
    /// Negative Euclidean distance.
    Euclidean,
    /// Negative Manhattan distance.
    Manhattan,
}

impl Similarity {
    /// Similarity of `a` and `b`, which have the same length. The cosine of a zero vector is 0.
    pub fn score(self, a: &[f32], b: &[f32]) -> f32 {
        let sum = |term: fn(f64, f64) -> f64, a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(&a, &b)| term(a.into(), b.into())).sum()
        };
        let product = |a, b| sum(|a, b| a * b, a, b);
        let score = match self {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_sentence_transformers() {
        let (a, b) = ([3.0, 4.0], [4.0, 3.0]);
        let score = |similarity: Similarity| similarity.score(&a, &b);
        assert_eq!(score(Similarity::Cosine), 0.96);
        assert_eq!(score(Similarity::Dot), 24.0);
        assert_eq!(score(Similarity::Euclidean), -2f32.sqrt());
        assert_eq!(score(Similarity::Manhattan), -2.0);
        assert_eq!(Similarity::Cosine.score(&a, &[0.0, 0.0]), 0.0);
    }
}
