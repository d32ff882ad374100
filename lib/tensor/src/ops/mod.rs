//! Operations that layers are made of, each with two backends held equal by tests: MLX, lazily and
//! in the form that suits a GPU, and CPU, computed when called.

pub mod activation;
pub mod attention;
mod backend;
pub mod conv1d;
pub mod cpu;
pub mod expert_stack;
pub mod gated_delta;
pub mod gated_norm;
mod lstm;
pub mod mlx;
pub mod moe_experts;
pub mod moe_route;
pub mod params;
pub mod rope;
pub mod scan;
pub mod selective_scan;
pub mod sinkhorn;
pub mod ssd;
mod weight_view;

pub use backend::Ops;
pub use cpu::CPU;
pub use mlx::MLX;
