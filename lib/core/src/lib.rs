//! What a model is: how it is named, where it lives, what it holds, whether it is whole and can run.
//!
//! The data goes one way, each stage taking the value of the one before:
//! `spec` → `resolve` → `probe` → `health`, `policy` → `describe`.
//! Nothing here reads the environment, prints, or exits.

pub mod architecture;
pub mod clean;
pub mod describe;
pub mod detect;
pub mod digest;
pub mod error;
pub mod float;
pub mod fnmatch;
pub mod hash;
pub mod health;
pub mod json;
pub mod packing;
pub mod policy;
pub mod probe;
pub mod progress;
pub mod prune;
pub mod record;
pub mod reindex;
pub mod remote;
pub mod remove;
pub mod resolve;
pub mod spec;
pub mod store;
pub mod tensors;
pub mod verify;

pub use architecture::Architecture;
pub use error::{Error, Kind, Result};
pub use float::Float;
pub use health::Health;
pub use packing::Packing;
pub use policy::{Plan, Task};
pub use probe::Facts;
pub use progress::Progress;
pub use record::Record;
pub use remote::Remote;
pub use spec::{Spec, Target};
pub use store::{Found, Origin, Places};
