//! What mlxk-pull, mlxk-clone and mlxk-push do besides their arguments: records in, transfers, records out.

pub mod clone;
mod each;
pub mod flags;
pub mod name;
pub mod pull;
pub mod push;
