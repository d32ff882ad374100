//! Sparse attention: each token attends to a few tokens or compressed rows that an indexer chooses.

mod attention;
mod chosen;
mod compress;
mod fake_quant;
mod indexer;
mod partial_rope;
mod sizes;
mod topk;

pub use attention::Sparse;
pub use indexer::Selection;
pub use sizes::{Candidates, CompressSizes, IndexSizes, SparseSizes};
pub use topk::{TopK, TopKSizes};
