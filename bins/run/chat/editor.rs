//! Line editor: completion, history, and texts of several lines.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use mlxk_core::{Error, Kind, Result};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Helper};

use super::command::HELP;

/// Maximum number of lines in the history.
const REMEMBERED: usize = 1000;

/// Mark that begins and ends a text of several lines.
const QUOTES: &str = "\"\"\"";

/// Input of the user.
#[derive(Debug, PartialEq)]
pub enum Line {
    /// Text that was typed.
    Text(String),
    /// Press of Ctrl-C.
    Interrupted,
    /// Press of Ctrl-D, or end of the terminal.
    End,
    /// Line that is not UTF-8, from a terminal that edits its lines itself.
    Unreadable,
}

/// Line editor with a history.
pub struct Editor {
    inner: rustyline::Editor<Typing, FileHistory>,
    history: Option<PathBuf>,
}

impl Editor {
    /// Editor with the history of the file `history`, to which lines are added.
    ///
    /// # Errors
    /// If the terminal cannot be used, or an existing history cannot be read.
    pub fn new(history: Option<PathBuf>) -> Result<Editor> {
        let config = Config::builder()
            .max_history_size(REMEMBERED)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(failed)?
            .history_ignore_space(true)
            .auto_add_history(true)
            .build();
        let mut inner = rustyline::Editor::with_config(config).map_err(failed)?;
        inner.set_helper(Some(Typing));
        if let Some(file) = history.as_ref().filter(|file| file.exists()) {
            let subject = file.display().to_string();
            let read = inner.load_history(file);
            read.map_err(|e| Error::new(Kind::Execution, subject, e.to_string()))?;
        }
        Ok(Editor { inner, history })
    }

    /// Reads the next text, without the quotes or backslashes that continue it over several lines.
    ///
    /// # Errors
    /// If the terminal cannot be read.
    pub fn read(&mut self) -> Result<Line> {
        match self.inner.readline("> ") {
            Ok(text) => {
                self.keep();
                Ok(Line::Text(unmarked(&text)))
            }
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(ReadlineError::Io(e)) if e.kind() == ErrorKind::InvalidData => Ok(Line::Unreadable),
            // The terminal is gone.
            Err(ReadlineError::Io(e)) if e.raw_os_error() == Some(libc::EIO) => Ok(Line::End),
            Err(e) => Err(failed(e)),
        }
    }

    /// Appends to the history file, in a directory that only this user may access. A failure is
    /// reported once, and disables the history file.
    fn keep(&mut self) {
        let Some(file) = &self.history else { return };
        let kept = match file.parent() {
            Some(directory) if !directory.exists() => {
                DirBuilder::new().recursive(true).mode(0o700).create(directory)
            }
            _ => Ok(()),
        };
        let kept = kept.map_err(ReadlineError::from);
        if let Err(e) = kept.and_then(|()| self.inner.append_history(file)) {
            eprintln!("{}: the history cannot be saved: {e}", file.display());
            self.history = None;
        }
    }
}

/// Text without the quotes around it, or the backslashes at the ends of its lines.
fn unmarked(text: &str) -> String {
    let inner = text.trim().strip_prefix(QUOTES).and_then(|text| text.strip_suffix(QUOTES));
    match inner {
        Some(inner) => inner.trim_matches('\n').to_owned(),
        None => text.replace("\\\n", "\n"),
    }
}

/// Help while the user types.
struct Typing;

impl Validator for Typing {
    fn validate(&self, typed: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        let text = typed.input();
        let quoted = text.trim_start().starts_with(QUOTES) && text.matches(QUOTES).count() < 2;
        Ok(match quoted || text.ends_with('\\') {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

impl Completer for Typing {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let names = HELP.iter().filter_map(|(command, _)| command.split(' ').next());
        let typed = line.get(..at).unwrap_or_default();
        let fitting = names.filter(|name| name.starts_with('/') && name.starts_with(typed));
        match typed.starts_with('/') {
            true => Ok((0, fitting.map(|name| format!("{name} ")).collect())),
            false => Ok((at, Vec::new())),
        }
    }
}

impl Hinter for Typing {
    type Hint = String;
}

impl Highlighter for Typing {}

impl Helper for Typing {}

fn failed(e: ReadlineError) -> Error {
    Error::new(Kind::Execution, "terminal", e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_several_lines_loses_its_marks() {
        assert_eq!(unmarked("\"\"\"a\nb\n\"\"\""), "a\nb");
        assert_eq!(unmarked("a\\\nb"), "a\nb");
        assert_eq!(unmarked("a \"\"\" b"), "a \"\"\" b");
    }
}
