//! What stands between people and tensors.

pub mod image;
