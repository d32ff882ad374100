//! API keys from a file or from the environment.

use std::path::Path;
use std::{env, fs};

use mlxk_core::{Error, Kind, Result};
use mlxk_serve::Key;

/// Environment variable that holds a key. A flag would be visible in the list of processes.
const VARIABLE: &str = "MLXK_API_KEY";

/// API keys in `file`, one per line, or else in the environment; empty if there are none.
///
/// # Errors
/// If `file` cannot be read, or a key cannot be sent in a header.
pub fn keys(file: Option<&Path>) -> Result<Vec<Key>> {
    let (subject, text) = match (file, env::var(VARIABLE)) {
        (Some(file), _) => (file.display().to_string(), content(file)?),
        (None, Ok(text)) => (VARIABLE.to_owned(), text),
        (None, Err(env::VarError::NotPresent)) => return Ok(Vec::new()),
        (None, Err(e)) => return Err(Error::new(Kind::Command, VARIABLE, e.to_string())),
    };
    lines(&subject, &text)?.map(|line| sendable(&subject, line)).collect()
}

/// The first key in `file`, to send to another server.
///
/// # Errors
/// As [`keys`].
pub fn first(file: &Path) -> Result<String> {
    let (subject, text) = (file.display().to_string(), content(file)?);
    let line = lines(&subject, &text)?.next().unwrap_or_default();
    sendable(&subject, line)?;
    Ok(line.to_owned())
}

fn content(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|e| Error::io(file, e))
}

/// The lines with keys, at least one.
fn lines<'t>(subject: &str, text: &'t str) -> Result<impl Iterator<Item = &'t str>> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    match lines.peek() {
        Some(_) => Ok(lines),
        None => Err(Error::new(Kind::Command, subject, "contains no key")),
    }
}

fn sendable(subject: &str, line: &str) -> Result<Key> {
    Key::new(line).ok_or_else(|| {
        Error::new(Kind::Command, subject, "not a key that a client can send")
            .hint("a key has printable ASCII characters without spaces")
    })
}
