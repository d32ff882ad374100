complete --keep-order --exclusive --command mlxk-show --arguments "(COMPLETE=fish mlxk-show -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
