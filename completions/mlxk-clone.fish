complete --keep-order --exclusive --command mlxk-clone --arguments "(COMPLETE=fish mlxk-clone -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
