//! The error type of the suite: a kind for programs; a subject, a message and a hint for users.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::{error, io};

use crate::printable::printable;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// A failure: its class, the thing concerned, what is wrong, and what the user can do about it.
///
/// `Display` prints `subject: message` without the hint, which programs show on a line of its own.
/// Both parts may quote text from files, so they are made [`printable`].
#[derive(Clone, Debug)]
pub struct Error {
    /// The class of the failure.
    pub kind: Kind,
    /// The model, file, tensor or option concerned; may be empty.
    pub subject: String,
    /// The problem, in one line without a full stop.
    pub message: String,
    /// The advice to the user.
    pub hint: Option<String>,
    /// The candidates to choose from: models of an ambiguous name, revisions, or locks.
    pub matches: Vec<String>,
    /// The error that caused this one.
    source: Option<Arc<dyn error::Error + Send + Sync>>,
}

/// The class of a failure; mlx-knife has the same classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // `name` spells each variant as JSON output does
pub enum Kind {
    Command,
    Validation,
    AmbiguousMatch,
    ModelNotFound,
    HashNotFound,
    CacheNotFound,
    WorkspaceModel,
    LocksPresent,
    PermissionDenied,
    AccessDenied,
    RepoNotFound,
    DownloadFailed,
    UploadFailed,
    Auth,
    WorkspaceNotFound,
    DeletionFailed,
    InvalidTarget,
    InvalidModel,
    Unhealthy,
    RuntimeIncompatible,
    CapabilityNotSupported,
    NotImplemented,
    ContextLengthExceeded,
    InsufficientMemory,
    QueueFull,
    ServerShutdown,
    Execution,
    Internal,
}

impl Kind {
    /// The name in JSON output.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Command => "command_error",
            Kind::Validation => "validation_error",
            Kind::AmbiguousMatch => "ambiguous_match",
            Kind::ModelNotFound => "model_not_found",
            Kind::HashNotFound => "hash_not_found",
            Kind::CacheNotFound => "cache_not_found",
            Kind::WorkspaceModel => "workspace_model",
            Kind::LocksPresent => "locks_present",
            Kind::PermissionDenied => "permission_denied",
            Kind::AccessDenied => "access_denied",
            Kind::RepoNotFound => "repo_not_found",
            Kind::DownloadFailed => "download_failed",
            Kind::UploadFailed => "upload_failed",
            Kind::Auth => "auth_error",
            Kind::WorkspaceNotFound => "workspace_not_found",
            Kind::DeletionFailed => "deletion_failed",
            Kind::InvalidTarget => "invalid_target",
            Kind::InvalidModel => "invalid_model",
            Kind::Unhealthy => "unhealthy",
            Kind::RuntimeIncompatible => "runtime_incompatible",
            Kind::CapabilityNotSupported => "capability_not_supported",
            Kind::NotImplemented => "not_implemented",
            Kind::ContextLengthExceeded => "context_length_exceeded",
            Kind::InsufficientMemory => "insufficient_memory",
            Kind::QueueFull => "queue_full",
            Kind::ServerShutdown => "server_shutdown",
            Kind::Execution => "execution_error",
            Kind::Internal => "internal_error",
        }
    }
}

impl Error {
    /// An error of the class `kind` about `subject`, which may be empty.
    pub fn new(kind: Kind, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Error {
            kind,
            subject: subject.into(),
            message: message.into(),
            hint: None,
            matches: Vec::new(),
            source: None,
        }
    }

    /// An error of the class `kind` about the file or directory `path`.
    pub fn at(kind: Kind, path: &Path, message: impl Into<String>) -> Self {
        Error::new(kind, path.display().to_string(), message)
    }

    /// An `InvalidModel` error about a model, a file or a tensor: the model's data is wrong.
    pub fn invalid_model(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Error::new(Kind::InvalidModel, subject, message)
    }

    /// A `Validation` error without a subject: a value in a request or a file is wrong.
    pub fn validation(message: impl Into<String>) -> Self {
        Error::new(Kind::Validation, "", message)
    }

    /// A `Command` error without a subject: the program was called wrongly.
    pub fn command(message: impl Into<String>) -> Self {
        Error::new(Kind::Command, "", message)
    }

    /// An `Execution` error without a subject: the system or another program failed.
    pub fn execution(message: impl Into<String>) -> Self {
        Error::new(Kind::Execution, "", message)
    }

    /// An `Internal` error without a subject: a bug in the suite.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(Kind::Internal, "", message)
    }

    /// A `CapabilityNotSupported` error without a subject: the model lacks a requested capability.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Error::new(Kind::CapabilityNotSupported, "", message)
    }

    /// A failed system call on `path`: `PermissionDenied` if access was denied, or `Execution`.
    pub fn io(path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
            _ => Kind::Execution,
        };
        Error::at(kind, path, source.to_string()).caused_by(source)
    }

    /// The kind of the I/O error that caused this error, if any.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        self.source.as_deref()?.downcast_ref().map(io::Error::kind)
    }

    /// True if the file or directory that the system was asked for does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self.io_kind(), Some(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }

    /// Replaces the subject.
    pub fn about(self, subject: impl Into<String>) -> Self {
        Error { subject: subject.into(), ..self }
    }

    /// Sets the advice to the user.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Error { hint: Some(hint.into()), ..self }
    }

    /// Sets the candidates that the user can choose from.
    pub fn matches(self, matches: Vec<String>) -> Self {
        Error { matches, ..self }
    }

    /// Sets the error that caused this one.
    pub fn caused_by(self, source: impl error::Error + Send + Sync + 'static) -> Self {
        Error { source: Some(Arc::new(source)), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [self.subject.as_str(), &self.message];
        let parts = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        f.write_str(&printable(&parts.join(": ")))
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_file_are_replaced() {
        let error = Error::new(Kind::InvalidModel, "a\nb", "bad key \u{1b}[31mx");
        assert_eq!(error.to_string(), "a\u{fffd}b: bad key \u{fffd}[31mx");
        assert_eq!(Error::internal("why").to_string(), "why");
    }

    #[test]
    fn a_clone_keeps_hint_candidates_and_cause() {
        let cause = io::Error::from(io::ErrorKind::NotFound);
        let error = Error::io(Path::new("/x"), cause).hint("do").matches(vec!["a".into()]);
        let clone = error.clone();
        assert_eq!((clone.hint.as_deref(), clone.matches.len()), (Some("do"), 1));
        assert_eq!(clone.io_kind(), Some(io::ErrorKind::NotFound));
        assert!(std::error::Error::source(&clone).is_some());
    }
}
