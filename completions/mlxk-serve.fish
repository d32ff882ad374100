complete --keep-order --exclusive --command mlxk-serve --arguments "(COMPLETE=fish mlxk-serve -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
