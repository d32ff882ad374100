//! The exit status of every program, and the one place where an error becomes one.

use std::process::ExitCode;

use mlxk_core::{Error, Kind};

/// Exit status of a program. The shell itself reports death by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything succeeded, and the answer is yes.
    Done = 0,
    /// Something failed, or the answer is no.
    Failed = 1,
    /// The command line was wrong; nothing was done.
    Usage = 2,
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        match error.kind {
            Kind::Command => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
