//! Import of GGUF files into MLX workspaces.
