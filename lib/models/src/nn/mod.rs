//! Layers of models. Fields are named as the tensors of MLX checkpoints are.
//!
//! A layer's form (dense or quantised, with or without bias) is fixed when it is loaded from the
//! checkpoint. Shapes are [1, rows, size] unless stated otherwise, where the rows are those of one
//! sequence or of several, one after another.

pub mod altup;
pub mod attention;
pub mod cross_attention;
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
