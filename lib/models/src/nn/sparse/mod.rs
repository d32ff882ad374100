//! Sparse attention: each token attends to a few tokens or rows that are chosen for it.

mod attention;
mod chosen;
mod compress;
mod fake_quant;
mod indexer;
mod partial_rope;
mod sizes;
mod topk;

pub use attention::Sparse;
pub use indexer::Sight;
pub use sizes::{Candidates, CompressSizes, IndexSizes, SparseSizes};
pub use topk::{TopK, TopKSizes};
