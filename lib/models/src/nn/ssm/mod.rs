//! Layers with a recurrent state of fixed size instead of cached keys and values.

pub mod conv1d;
pub mod delta_net;
pub mod delta_rule;
pub mod gated_norm;
pub mod kimi_delta;
pub mod mamba;
pub mod mamba2;
pub mod short_conv;
pub mod state_space;
