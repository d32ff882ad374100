complete --keep-order --exclusive --command mlxk-pull --arguments "(COMPLETE=fish mlxk-pull -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
