complete --keep-order --exclusive --command mlxk2 --arguments "(COMPLETE=fish mlxk2 -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
