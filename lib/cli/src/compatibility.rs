//! The ways of mlx-knife under its names: `mlxk`, `mlxk2`, `mlxk-json` and `mlx-run`.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::Path;

use mlxk_core::{Error, Kind};

/// The version of mlx-knife whose commands and envelopes these are.
pub const VERSION: &str = "2.0.8";

/// The names under which scripts call mlx-knife.
pub const NAMES: [&str; 4] = ["mlxk", "mlxk2", "mlxk-json", "mlx-run"];

/// The name under which this program was called. `mlxk` passes its own name on to the program that it
/// becomes.
pub fn called_as() -> String {
    let path = env::args_os().next().unwrap_or_default();
    let name = Path::new(&path).file_name().unwrap_or(OsStr::new("mlxk"));
    name.to_string_lossy().into_owned()
}

/// True if this program was called by a name of mlx-knife.
pub fn is_called() -> bool {
    NAMES.contains(&called_as().as_str())
}

/// The `type` that `command` of mlx-knife gives the error.
pub fn error_type(command: &str, error: &Error) -> &'static str {
    use Kind::*;
    let absent = error.io_kind() == Some(io::ErrorKind::NotFound);
    match (command, error.kind) {
        ("convert", Command | Validation) => "InvalidArgumentError",
        (_, Command) => "CommandError",
        (_, Internal) => "InternalError",

        ("show", ModelNotFound | HashNotFound | AmbiguousMatch) => error.kind.name(),
        ("show", _) => "show_operation_failed",

        ("health", AmbiguousMatch) => error.kind.name(),
        ("health", _) => "health_check_failed",

        ("pull" | "push", Validation) => "ValidationError",
        ("pull", AmbiguousMatch | DownloadFailed) => error.kind.name(),
        ("pull", AccessDenied | RepoNotFound | HashNotFound | Auth) => "access_denied",
        ("pull", _) => "pull_operation_failed",

        ("push", AmbiguousMatch) => "ambiguous_workspace",
        ("push", InvalidTarget) => "workspace_not_found",
        ("push", Auth | WorkspaceNotFound | RepoNotFound | UploadFailed) => error.kind.name(),
        ("push", _) => "push_operation_failed",

        ("clone", InvalidTarget) => "InvalidTargetError",
        ("clone", CacheNotFound | ModelNotFound) => "CacheNotFoundError",
        ("clone", AccessDenied | RepoNotFound | DownloadFailed) => "PullFailedError",
        ("clone", Auth | HashNotFound | Validation | AmbiguousMatch) => "PullFailedError",
        ("clone", PermissionDenied) => "CloneFailedError",
        ("clone", _) => "CloneOperationError",

        ("convert", Unhealthy) => "HealthCheckFailed",
        ("convert", NotImplemented | RuntimeIncompatible) => "not_implemented",
        ("convert", CapabilityNotSupported) => "unsupported_multimodal",
        ("convert", Execution) if !absent => "OSError",
        ("convert", PermissionDenied) => "OSError",
        ("convert", _) => "ValueError",

        ("run", ContextLengthExceeded) => error.kind.name(),
        ("run", _) => "execution_error",

        ("embed", AmbiguousMatch) => "AmbiguousMatch",
        ("embed", ModelNotFound | HashNotFound) => "ModelNotFound",
        ("embed", NotImplemented) => "NotImplemented",
        ("embed", CapabilityNotSupported | RuntimeIncompatible) => "NotAnEmbedder",
        ("embed", Validation) => "ValidationError",
        ("embed", _) => "EmbeddingError",

        (_, Validation) => "ValidationError",
        _ => error.kind.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_type_that_scripts_know() {
        for (command, kind, expected) in [
            ("", Kind::Command, "CommandError"),
            ("convert", Kind::Validation, "InvalidArgumentError"),
            ("convert", Kind::InvalidTarget, "ValueError"),
            ("clone", Kind::RepoNotFound, "PullFailedError"),
            ("clone", Kind::DownloadFailed, "PullFailedError"),
            ("show", Kind::ModelNotFound, "model_not_found"),
            ("rm", Kind::LocksPresent, "locks_present"),
        ] {
            assert_eq!(error_type(command, &Error::new(kind, "", "")), expected);
        }
        let missing = io::Error::from(io::ErrorKind::NotFound);
        let missing = Error::io(Path::new("x"), missing);
        assert_eq!(error_type("convert", &missing), "ValueError");
    }
}
