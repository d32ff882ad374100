//! Vision: from the patches of images to features and positions for a language model.
//!
//! Vision towers share one vision transformer and differ in its hyperparameters.

mod load;
pub mod mrope;
mod patch_embed;
pub mod qwen_vl;
mod tower;
mod vit;

pub use load::{load, tensors};
pub use tower::{Features, Load, Tower};
