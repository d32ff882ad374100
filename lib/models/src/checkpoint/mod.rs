//! Checkpoints: the weights of a model on disk, each taken exactly once.

pub mod adapter;
pub mod config_error;
pub mod cursor;
pub mod file;
pub mod formats;
pub mod part;
pub mod quantization;
pub mod reshape;
pub mod tensor;
pub mod text_part;
pub mod weights;
