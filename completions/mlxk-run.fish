complete --keep-order --exclusive --command mlxk-run --arguments "(COMPLETE=fish mlxk-run -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
