//! Code shared by the programs: environment, records on stdin, output forms, exit status.
//!
//! Only programs use this crate: it is the place that reads the environment, prints and exits.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

pub mod compatibility;
pub mod completion;
pub mod dispatch;
pub mod each;
pub mod envelope;
pub mod examine;
pub mod exit;
pub mod expand;
pub mod file_filter;
pub mod health;
pub mod hub_name;
pub mod human;
pub mod input;
pub mod interrupt;
pub mod list;
pub mod ordered;
pub mod output;
mod page;
pub mod places;
pub mod playback;
pub mod program;
pub mod progress;
pub mod prompt;
pub mod remote;
pub mod requests;
pub mod rm;
pub mod select;
pub mod show;
pub mod system;
pub mod table;

pub use each::each;
pub use file_filter::FileFlags;
pub use hub_name::HubName;
pub use input::Input;
pub use output::{Form, FormFlags, Output};
pub use places::places;
pub use playback::Playback;
pub use program::{Tool, main};
pub use progress::{Counter, Reporter};
pub use remote::remote;
