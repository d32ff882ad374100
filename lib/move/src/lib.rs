//! What mlxk-pull, mlxk-clone and mlxk-push do besides their arguments: records in, transfers, records out.
