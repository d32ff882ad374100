complete --keep-order --exclusive --command mlxk-health --arguments "(COMPLETE=fish mlxk-health -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
