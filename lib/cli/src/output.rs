//! Output of a program: records on stdout in one of three forms, errors and notes on stderr.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use mlxk_core::{Error, Kind, Places, Record, Result};
use serde_json::Value;

use crate::envelope;

/// The flags that choose the form of the output.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output (default: a table on a terminal, else NDJSON)")]
#[group(multiple = false)]
pub struct FormFlags {
    /// One document: {status, command, data, error}
    #[arg(long)]
    json: bool,
    /// One JSON object a line
    #[arg(long)]
    ndjson: bool,
    /// Text for people
    #[arg(long)]
    human: bool,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Tables and sentences for people.
    Human,
    /// NDJSON: one record per line.
    Ndjson,
    /// One JSON document, the envelope: `{status, command, data, error}`.
    Json,
}

/// True if stdout is a terminal.
pub fn to_terminal() -> bool {
    io::stdout().is_terminal()
}

/// True if stdout is a terminal that may be coloured: `NO_COLOR` is unset or empty (see
/// no-color.org), and `TERM` is not `dumb`.
pub fn colours() -> bool {
    let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    to_terminal() && unset("NO_COLOR") && !dumb
}

impl FormFlags {
    /// True if `--ndjson` is on the command line; false if NDJSON is only the default for a pipe.
    pub fn ndjson(self) -> bool {
        self.ndjson
    }

    /// The form that the flags select; without flags, text on a terminal and NDJSON in a pipe.
    pub fn form(self) -> Form {
        match self {
            FormFlags { json: true, .. } => Form::Json,
            FormFlags { ndjson: true, .. } => Form::Ndjson,
            FormFlags { human: true, .. } => Form::Human,
            _ if io::stdout().is_terminal() => Form::Human,
            _ => Form::Ndjson,
        }
    }
}

/// The output of one run of a program, and a record of whether the run failed.
#[derive(Debug)]
pub struct Output {
    /// The form in use.
    pub form: Form,
    program: String,
    command: &'static str,
    failed: bool,
    misused: bool,
    answered: bool,
}

impl Output {
    /// The output of `program` (as messages name it), which is `command` in an envelope.
    pub fn new(program: impl Into<String>, command: &'static str, form: Form) -> Self {
        let (failed, misused, answered) = (false, false, false);
        Output { form, program: program.into(), command, failed, misused, answered }
    }

    /// Writes `text` to stdout unchanged.
    pub fn text(&mut self, text: &str) -> Result<()> {
        self.answered = true;
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|e| Error::io(Path::new("standard output"), e))
    }

    /// Writes records as NDJSON, one per line.
    pub fn lines<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) -> Result<()> {
        let text: String = records.into_iter().map(|record| format!("{record}\n")).collect();
        self.text(&text)
    }

    /// Writes the envelope of a success with `data`.
    pub fn envelope(&mut self, data: impl Into<Value>) -> Result<()> {
        self.text(&envelope::success(self.command, data.into()))
    }

    /// Reports the error of one item: the run continues, and its exit status is a failure.
    pub fn error(&mut self, error: &Error) -> Result<()> {
        self.failed = true;
        match self.form {
            Form::Json => self.text(&envelope::failure(self.envelope_command(error), error)),
            Form::Human | Form::Ndjson => self.complain(error),
        }
    }

    /// Reports an error in the envelope, together with `data`.
    pub fn error_with(&mut self, error: &Error, data: Value) -> Result<()> {
        self.failed = true;
        self.text(&envelope::failure_with(self.command, data, error))
    }

    /// Reports an error on stderr alone in every form, when stdout already has its answer.
    pub fn complain(&mut self, error: &Error) -> Result<()> {
        self.failed = true;
        self.note(&error.to_string(), error.hint.as_deref())
    }

    /// Writes a note to stderr; the exit status stays the same.
    pub fn remark(&self, message: &str, hint: &str) {
        // A closed stderr must not make a successful run fail.
        let _ = self.note(message, Some(hint));
    }

    /// Says where no model was found at all.
    pub fn remark_empty(&self, places: &Places) {
        self.remark(
            &format!("no models in {}", places.hub.display()),
            "HF_HUB_CACHE, HF_HOME and MLXK_WORKSPACE_HOME name other places",
        );
    }

    /// Makes the exit status a failure without reporting an error: the answer is no.
    pub fn deny(&mut self) {
        self.failed = true;
    }

    /// Makes the exit status that of a wrong call, for an error that is reported like others.
    pub fn misuse(&mut self) {
        self.misused = true;
    }

    /// True if the program was called wrongly.
    pub fn misused(&self) -> bool {
        self.misused
    }

    /// True if something was written to stdout.
    pub fn answered(&self) -> bool {
        self.answered
    }

    /// True if an error was reported or the answer is no.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Errors of the command line belong to no command.
    fn envelope_command(&self, error: &Error) -> Option<&'static str> {
        (error.kind != Kind::Command).then_some(self.command)
    }

    fn note(&self, message: &str, hint: Option<&str>) -> Result<()> {
        let mut text = format!("{}: {message}\n", self.program);
        if let Some(hint) = hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
        let written = io::stderr().lock().write_all(text.as_bytes());
        written.map_err(|e| Error::io(Path::new("standard error"), e))
    }
}
