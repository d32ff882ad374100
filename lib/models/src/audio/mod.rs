//! Layers and encoders of audio that networks share.

pub mod conv;
pub mod encoder;
