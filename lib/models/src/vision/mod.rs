//! Vision: from the patches of images to features and positions for a language model.
//!
//! Vision towers share one vision transformer and differ in its hyperparameters.

pub mod gemma3;
pub mod gemma4;
pub mod idefics3;
pub mod internvl;
pub mod llava;
mod load;
mod merge;
pub mod mrope;
mod patch_embed;
pub mod pixtral;
mod projector;
pub mod qwen_vl;
mod siglip;
mod stated;
mod tower;
mod vit;

pub use load::{load, tensors};
pub use tower::{Features, Load, Picture, Tower};
