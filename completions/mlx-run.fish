complete --keep-order --exclusive --command mlx-run --arguments "(COMPLETE=fish mlx-run -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
