complete --keep-order --exclusive --command mlxk-embed --arguments "(COMPLETE=fish mlxk-embed -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
