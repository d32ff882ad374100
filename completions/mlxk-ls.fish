complete --keep-order --exclusive --command mlxk-ls --arguments "(COMPLETE=fish mlxk-ls -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
