//! Mixtures of experts (MoE, arXiv 1701.06538): each token is routed to a few of many feed-forward
//! layers.

mod arch;
mod experts;
mod layer;
mod router;

pub use arch::{MoeArch, SharedArch};
pub use experts::Experts;
pub use layer::Moe;
pub use router::Router;
