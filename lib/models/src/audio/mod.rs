//! Layers and encoders of audio that networks share.

pub mod conformer;
pub mod conv;
pub mod encoder;
pub mod qwen_tower;
pub mod relative_attention;
pub mod strided_conv;
pub mod subsampling;
pub mod tower;
