//! Parameters of norms, heads and attention.

use std::ops::Range;

use mlx_rs::Array;

use super::rope::Rope;
use crate::positions::Positions;

/// Parameters of a norm over the last axis: RMS norm, or layer norm if `centred`.
pub struct NormParams {
    /// Weight of each element, `[size]`, or of each element of each head, [heads, size].
    pub weight: Option<Array>,
    /// Bias of each element, `[size]`.
    pub bias: Option<Array>,
    /// Epsilon, added to the mean square.
    pub eps: f32,
    /// True if the mean is subtracted first (layer norm).
    pub centred: bool,
}

/// Parameters of the split of queries or keys into heads.
pub struct HeadsParams<'a> {
    /// Elements of a head.
    pub size: i32,
    /// Norm of each head.
    pub norm: Option<&'a NormParams>,
    /// True if heads are rotated before they are normed.
    pub rotated_first: bool,
    /// Rotary position embedding of each head, and the positions of the rows.
    pub rope: Option<(&'a Rope, Positions<'a>)>,
}

/// Parameters of attention beside its mask.
pub struct AttentionParams {
    /// Factor of the products of queries and keys.
    pub scale: f32,
    /// Bound of the scores: `cap * tanh(product / cap)`.
    pub softcap: Option<f32>,
    /// Scores of the attention sinks, `[heads]`: each takes part in the softmax of its head and has
    /// no value (arXiv 2309.17453).
    pub sinks: Option<Array>,
    /// Additions to scores by the distance from query to key; `None` if scores are bounded.
    pub bias: Option<DistanceBias>,
}

/// Additions to the scores of a head by the distance of a key from its query, both of which have
/// the same place among queries and keys.
pub struct DistanceBias {
    /// Additions [heads, 2 * farthest + 1] for the distances from `-farthest` to `farthest`, which
    /// also stand for all distances beyond.
    pub by_distance: Array,
    /// Largest distance with an addition of its own.
    pub farthest: usize,
}

impl DistanceBias {
    /// Column of the addition for the key `key` of the query `query`, if `farthest` is the largest
    /// distance with an addition of its own.
    pub fn column(farthest: usize, query: usize, key: usize) -> usize {
        if key < query {
            farthest - (query - key).min(farthest)
        } else {
            farthest + (key - query).min(farthest)
        }
    }
}

/// Mask of attention without a cache: the keys that are visible to each query.
#[derive(Clone, Debug, PartialEq)]
pub enum Mask {
    /// Every key is visible to every query.
    All,
    /// Keys up to the query's own are visible; the last query's own key is the last.
    Causal,
    /// The keys of range `i` are visible to query `i`.
    Ranges(Vec<Range<usize>>),
    /// Block-diagonal mask: the keys of a query's own block are visible. Blocks are adjacent; their
    /// lengths sum up to the number of queries, which is that of keys.
    Blocks(Vec<usize>),
    /// The keys of a query's own block that are fewer than `near` places away from it; blocks as in
    /// [`Mask::Blocks`].
    Windows {
        /// Lengths of the blocks.
        lengths: Vec<usize>,
        /// Distance of the first key on either side that is not visible.
        near: usize,
    },
}

impl Mask {
    /// Mask of sequences of `lengths` rows that are packed one after another: every query attends
    /// to all keys of its own sequence.
    pub fn packed(lengths: &[usize]) -> Mask {
        match lengths {
            [_] => Mask::All,
            lengths => Mask::Blocks(lengths.to_vec()),
        }
    }

    /// Mask of packed sequences as in [`Mask::packed`], of whose keys only those fewer than `near`
    /// tokens away are visible.
    pub fn windows(lengths: &[usize], near: usize) -> Mask {
        match lengths.iter().all(|&length| length <= near) {
            true => Mask::packed(lengths),
            false => Mask::Windows { lengths: lengths.to_vec(), near },
        }
    }

    /// Range of the `keys` keys that is visible to each of `queries` queries.
    pub fn ranges(&self, queries: usize, keys: usize) -> Vec<Range<usize>> {
        match self {
            Mask::All => vec![0..keys; queries],
            Mask::Causal => (0..queries).map(|i| 0..keys + i + 1 - queries).collect(),
            Mask::Ranges(ranges) => ranges.clone(),
            Mask::Blocks(lengths) => blocks(lengths)
                .flat_map(|block| std::iter::repeat_n(block.clone(), block.len()))
                .collect(),
            Mask::Windows { lengths, near } => blocks(lengths)
                .flat_map(|block| {
                    let visible = |query: usize| {
                        block.start.max((query + 1).saturating_sub(*near))
                            ..block.end.min(query.saturating_add(*near))
                    };
                    block.clone().map(visible).collect::<Vec<_>>()
                })
                .collect(),
        }
    }
}

/// Ranges of adjacent blocks of `lengths`.
fn blocks(lengths: &[usize]) -> impl Iterator<Item = Range<usize>> {
    lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end - length..*end)
    })
}
