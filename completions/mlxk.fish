complete --keep-order --exclusive --command mlxk --arguments "(COMPLETE=fish mlxk -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
