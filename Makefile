# mlxk: small programs that manage and run MLX models

MLX = cpu

.PHONY: mlx

# macOS needs no preparation: mlx-sys builds MLX itself.
mlx:
	@[ "$$(uname -s)" != Linux ] || lib/infer/linux/prepare $(MLX)
