//! The one error of the suite: a kind for machines, a subject and a message for people, and a hint.

use std::fmt::{self, Write};
use std::{error, io, path::Path};

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, with what, and what to do about it.
///
/// Printed as `subject: message`; the hint stands on a line of its own and is the printer's to show.
/// Both may quote what a file says, so control characters, which a terminal would obey, are replaced.
#[derive(Debug)]
pub struct Error {
    /// The class of the failure.
    pub kind: Kind,
    /// The model, file or option concerned; may be empty.
    pub subject: String,
    /// What is wrong, in a line without a full stop.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// The candidates of an ambiguous name, or the revisions there are.
    pub matches: Vec<String>,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

/// The classes of failure: the original's error types under one spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the documentation, and `name` spells them
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
    /// The name that JSON output carries.
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
    /// An error of `kind` about `subject`.
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

    /// A failed system call on `path`; a refusal of access keeps its kind.
    pub fn io(path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
            _ => Kind::Execution,
        };
        Error::new(kind, path.display().to_string(), source.to_string()).caused_by(source)
    }

    /// What the system said, if it was the system that failed.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        self.source.as_ref()?.downcast_ref().map(io::Error::kind)
    }

    /// The same error about another subject.
    pub fn about(self, subject: impl Into<String>) -> Self {
        Error { subject: subject.into(), ..self }
    }

    /// The same error with advice.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Error { hint: Some(hint.into()), ..self }
    }

    /// The same error with the candidates that the user can choose from.
    pub fn matches(self, matches: Vec<String>) -> Self {
        Error { matches, ..self }
    }

    /// The same error with its cause.
    pub fn caused_by(self, source: impl error::Error + Send + Sync + 'static) -> Self {
        Error { source: Some(Box::new(source)), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [self.subject.as_str(), &self.message];
        let parts = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        for c in parts.join(": ").chars() {
            f.write_char(if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })?;
        }
        Ok(())
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_does_not_reach_the_terminal() {
        let error = Error::new(Kind::InvalidModel, "a\nb", "bad key \u{1b}[31mx");
        assert_eq!(error.to_string(), "a\u{fffd}b: bad key \u{fffd}[31mx");
        assert_eq!(Error::new(Kind::Internal, "", "why").to_string(), "why");
    }
}
