//! Layers of models. Fields are named as the tensors of MLX checkpoints are.
//!
//! Loading a layer from its place in the checkpoint decides its form (dense or quantised, with bias
//! or without); running it decides nothing. Shapes are [1, rows, size] unless said otherwise, where
//! the rows are those of one sequence or of several, one after another.

pub mod altup;
pub mod attention;
pub mod embed_head;
pub mod grouped_linear;
pub mod hyper_connections;
pub mod linear;
pub mod lora;
pub mod matrix;
pub mod mixer;
pub mod mla;
pub mod mlp;
pub mod moe;
pub mod norm;
pub mod per_layer;
pub mod shard;
pub mod shared_kv;
pub mod sparse;
pub mod ssm;
