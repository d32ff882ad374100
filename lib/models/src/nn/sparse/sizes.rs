//! Sizes of sparse attention that its weights do not show.

use mlxk_tensor::ops::rope::Rope;

use crate::nn::norm::NormArch;

/// Parameters of a sparse attention layer that its weights do not show.
#[derive(Clone)]
pub struct SparseSizes {
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Heads of queries; keys and values have one head.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements of the low-rank queries (`q_lora_rank`).
    pub query_rank: usize,
    /// Groups of heads in the low-rank output projection (`o_groups`).
    pub groups: usize,
    /// Elements that a group is projected to before groups are joined (`o_lora_rank`).
    pub out_rank: usize,
    /// Tokens of the sliding window, with the query's own.
    pub window: i32,
    /// Norm of queries, keys and compressed rows.
    pub norm: NormArch,
    /// Rotary position embedding of the last elements of heads.
    pub rope: Rope,
    /// Last elements of a head that are rotated.
    pub rotated: usize,
    /// Cache slot of the sliding window.
    pub near: usize,
    /// Cache slot of the compressed rows that are attended to, if any.
    pub far: Option<usize>,
    /// Compressor of the layer, if it has one.
    pub compress: Option<CompressSizes>,
    /// Indexer of the layer, if it has one.
    pub index: Option<IndexSizes>,
}

/// Sizes of the compressor, which makes rows of tokens.
#[derive(Clone, Copy, Debug)]
pub struct CompressSizes {
    /// Tokens that make one row.
    pub ratio: usize,
    /// Cache slot of the tokens of the incomplete row; `None` if `ratio` is 1.
    pub open: Option<usize>,
    /// Cache slot of the rows.
    pub rows: usize,
    /// Elements of a row's index key; `None` if no indexer compares these rows.
    pub key: Option<usize>,
}

/// Sizes of the indexer, which chooses the rows that a query attends to.
#[derive(Clone, Copy, Debug)]
pub struct IndexSizes {
    /// Heads of index queries; index keys have one head.
    pub heads: usize,
    /// Elements of an index query's head and of an index key.
    pub size: usize,
    /// Rows chosen for a query.
    pub chosen: usize,
    /// Tokens that make one row.
    pub ratio: usize,
    /// Cache slot of the rows with the index keys; `None` if there are no rows.
    pub keys: Option<usize>,
    /// Blocks that this layer chooses, and later layers choose rows from.
    pub candidates: Option<Candidates>,
}

/// Blocks of consecutive rows that limit the choice of later layers.
#[derive(Clone, Copy, Debug)]
pub struct Candidates {
    /// Blocks chosen for a query.
    pub blocks: usize,
    /// Rows of a block.
    pub size: usize,
}
