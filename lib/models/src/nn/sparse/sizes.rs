//! Sizes of sparse attention that its weights do not show.

use mlxk_tensor::ops::rope::Rope;

use crate::nn::norm::NormArch;

/// What the weights of a layer do not show.
#[derive(Clone)]
pub struct SparseSizes {
    /// Elements of the model's vectors.
    pub hidden: usize,
    pub heads: usize,
    pub head_dim: usize,
    /// Elements of the vectors that queries are made of.
    pub query_rank: usize,
    /// Groups of heads, of each of which fewer elements are made before they come together.
    pub groups: usize,
    /// How many elements.
    pub out_rank: usize,
    /// Tokens that each looks at, with itself.
    pub window: i32,
    pub norm: NormArch,
    /// What the last elements of heads turn by.
    pub rope: Rope,
    pub rotated: usize,
    /// The slot of the window.
    pub near: usize,
    /// That of the rows it looks at besides, if there are any.
    pub far: Option<usize>,
    pub compress: Option<CompressSizes>,
    pub index: Option<IndexSizes>,
}

/// Sizes of the compression of tokens to rows.
#[derive(Clone, Copy, Debug)]
pub struct CompressSizes {
    /// Tokens of a row.
    pub ratio: usize,
    /// The slot of those that do not make a row yet, if a row is of more than one.
    pub open: Option<usize>,
    /// The slot of the rows.
    pub rows: usize,
    /// Elements of the keys by which rows are chosen, if they get keys here.
    pub key: Option<usize>,
}

/// Sizes of the choice of rows.
#[derive(Clone, Copy, Debug)]
pub struct IndexSizes {
    pub heads: usize,
    /// Elements of a head and of the keys.
    pub size: usize,
    /// Rows that are chosen.
    pub chosen: usize,
    /// Tokens of a row.
    pub ratio: usize,
    /// The slot of the rows whose keys are compared, if there is one.
    pub keys: Option<usize>,
    /// Whether this layer chooses blocks of rows too, from which the layers after it choose.
    pub candidates: Option<Candidates>,
}

/// Blocks of rows that layers choose from.
#[derive(Clone, Copy, Debug)]
pub struct Candidates {
    /// How many.
    pub blocks: usize,
    /// Rows of each.
    pub size: usize,
}
