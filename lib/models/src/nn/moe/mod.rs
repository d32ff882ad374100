//! Mixtures of experts (MoE, arXiv 1701.06538): of many feed-forward layers each token runs through
//! a few.

mod arch;
mod experts;
mod layer;
mod router;

pub use arch::{MoeArch, SharedArch};
pub use experts::Experts;
pub use layer::Moe;
pub use router::Router;
