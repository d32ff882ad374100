//! Parameters of operations: norms, heads, attention.

use std::ops::Range;

use mlx_rs::Array;

use super::rope::Rope;
use crate::positions::Positions;

/// How the last axis is normalised: divided by the root of its mean square, then scaled.
pub struct NormParams {
    /// A factor for each element, [size], or for each of each head, [heads, size].
    pub weight: Option<Array>,
    /// A summand for each element.
    pub bias: Option<Array>,
    /// What is added to the mean square.
    pub eps: f32,
    /// Whether the mean is taken away first.
    pub centred: bool,
}

/// What happens to heads when they are taken apart.
pub struct HeadsParams<'a> {
    /// Elements of a head.
    pub size: i32,
    /// What each is normed by.
    pub norm: Option<&'a NormParams>,
    /// Whether it is rotated before it is normed.
    pub rotated_first: bool,
    /// Rotation of each head, and the positions of the rows.
    pub rope: Option<(&'a Rope, Positions<'a>)>,
}

/// How products of queries and keys become shares of attention.
pub struct AttentionParams {
    /// What they are multiplied by.
    pub scale: f32,
    /// What they never exceed: they become `cap * tanh(product / cap)`.
    pub softcap: Option<f32>,
    /// For each head a score that takes a share and gives nothing, [heads].
    pub sinks: Option<Array>,
}

/// Keys that queries see in attention without a cache.
#[derive(Clone, Debug, PartialEq)]
pub enum Mask {
    /// Every query sees every key.
    All,
    /// A query sees the keys up to its own; the last query's own key is the last.
    Causal,
    /// Query `i` sees the keys of range `i`.
    Ranges(Vec<Range<usize>>),
    /// A query sees the keys of its own block. Blocks lie one after another and have these lengths,
    /// which sum up to the number of queries and of keys.
    Blocks(Vec<usize>),
}

impl Mask {
    /// Mask of sequences of `lengths` rows that are packed one after another: a query sees every key
    /// of its own sequence.
    pub fn packed(lengths: &[usize]) -> Mask {
        match lengths {
            [_] => Mask::All,
            lengths => Mask::Blocks(lengths.to_vec()),
        }
    }

    /// Keys that each of `queries` queries sees, of `keys` keys.
    pub fn ranges(&self, queries: usize, keys: usize) -> Vec<Range<usize>> {
        match self {
            Mask::All => vec![0..keys; queries],
            Mask::Causal => (0..queries).map(|i| 0..keys + i + 1 - queries).collect(),
            Mask::Ranges(ranges) => ranges.clone(),
            Mask::Blocks(lengths) => {
                let mut end = 0;
                let block = |&length: &usize| {
                    end += length;
                    std::iter::repeat_n(end - length..end, length)
                };
                lengths.iter().flat_map(block).collect()
            }
        }
    }
}
