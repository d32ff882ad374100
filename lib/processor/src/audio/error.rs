//! Errors about audio, each in one line; the caller replaces the subject by the file's name.

use std::io;

use mlxk_core::{Error, Kind};
use symphonia::core::errors::Error as Fault;

/// An error about the bytes.
pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::Validation, "audio", message)
}

/// An error of the system.
pub(super) fn failed(error: io::Error) -> Error {
    Error::new(Kind::Execution, "audio", error.to_string()).caused_by(error)
}

/// The error of a reader or a decoder.
pub(super) fn explain(fault: Fault) -> Error {
    match fault {
        Fault::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            invalid("file is cut short")
        }
        // Readers report wrong lengths as errors of their own in-memory readers.
        Fault::IoError(error) if error.raw_os_error().is_none() => {
            invalid(format!("data is damaged: {error}"))
        }
        Fault::IoError(error) => failed(error),
        Fault::Unsupported(what) if what.contains("missing moov") => {
            invalid("file is cut short: its index (moov) is missing")
        }
        Fault::Unsupported(what) => invalid(format!("data is not supported: {what}")),
        Fault::DecodeError(what) => invalid(format!("data is damaged: {what}")),
        other => invalid(format!("data is damaged: {other}")),
    }
}
