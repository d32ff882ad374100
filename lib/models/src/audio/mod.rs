//! Layers and encoders of audio that networks share.

pub mod conformer;
pub mod relative_attention;
pub mod strided_conv;
pub mod subsampling;
