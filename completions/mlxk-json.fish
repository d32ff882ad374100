complete --keep-order --exclusive --command mlxk-json --arguments "(COMPLETE=fish mlxk-json -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
