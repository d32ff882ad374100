complete --keep-order --exclusive --command mlxk-rm --arguments "(COMPLETE=fish mlxk-rm -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
