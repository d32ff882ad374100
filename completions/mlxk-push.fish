complete --keep-order --exclusive --command mlxk-push --arguments "(COMPLETE=fish mlxk-push -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
