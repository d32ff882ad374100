//! Progress of transfers, under the names that this crate has for it.

pub use mlxk_core::progress::{Listener, Progress as Event};
