//! Operations that models are made of, each computed twice: lazily by MLX, in the form that suits a
//! GPU, and at once on a CPU. Tests hold both equal.

pub mod activation;
pub mod attention;
mod backend;
pub mod conv1d;
pub mod cpu;
pub mod expert_stack;
pub mod gated_delta;
pub mod gated_norm;
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
