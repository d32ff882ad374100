//! Vision: from the patches of images to features and positions for a language model.
//!
//! A tower is data over one vision transformer, as a language model is data over one decoder.

mod load;
pub mod mrope;
mod patch_embed;
pub mod qwen_vl;
mod tower;
mod vit;

pub use load::{load, tensors};
pub use tower::{Features, Load, Tower};
