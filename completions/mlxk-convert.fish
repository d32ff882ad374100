complete --keep-order --exclusive --command mlxk-convert --arguments "(COMPLETE=fish mlxk-convert -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
