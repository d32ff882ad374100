//! Models on disk: their names, places and files, their health, and whether they can run.
//!
//! Data flows one way, and each stage takes the value of the stage before it:
//! `spec` → `resolve` → `probe` → `health`, `policy` → `describe`; `inspect` runs the middle three.
//! Nothing here reads the environment, prints, or exits.

pub mod architecture;
pub mod describe;
pub mod digest;
pub mod dtype;
pub mod error;
pub mod fnmatch;
pub mod generation_config;
pub mod health;
pub mod inspect;
pub mod json;
pub mod list;
pub mod policy;
pub mod printable;
pub mod probe;
pub mod progress;
pub mod quantization;
pub mod record;
pub mod regular_file;
pub mod remote;
pub mod resolve;
pub mod spec;
pub mod store;
pub mod tensors;
pub mod verify;
pub mod workspace;

pub use architecture::{Architecture, NetworkKind};
pub use dtype::Float;
pub use error::{Error, Kind, Result};
pub use health::Health;
pub use inspect::{Inspected, inspect};
pub use policy::{Plan, Task};
pub use printable::printable;
pub use probe::Facts;
pub use progress::Progress;
pub use record::Record;
pub use remote::Remote;
pub use spec::{Spec, Target};
pub use store::{Found, Origin, Places};
