//! How a model runs: the only crate that links MLX.
