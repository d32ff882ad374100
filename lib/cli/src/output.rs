//! Output of a program: records on stdout in one of three forms, errors and notes on stderr.

use std::io::{self, IsTerminal, Write};
use std::mem;
use std::path::Path;

use mlxk_core::{Error, Kind, Places, Record, Result, printable};
use serde_json::Value;

use crate::{compatibility, envelope};

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

/// Number of columns of the terminal that stdout is; none if it is no terminal, or does not tell.
pub fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
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
    /// True if errors have the types of mlx-knife in the envelope.
    compatible: bool,
    failed: bool,
    misused: bool,
    answered: bool,
    /// The `data` of the envelope, which is written at the end.
    data: Vec<Value>,
    /// The error of the envelope.
    refusal: Option<Error>,
}

impl Output {
    /// The output of `program` (as messages name it), which is `command` in an envelope.
    pub fn new(program: impl Into<String>, command: &'static str, form: Form) -> Self {
        Output {
            form,
            program: program.into(),
            command,
            compatible: compatibility::is_called(),
            failed: false,
            misused: false,
            answered: false,
            data: Vec::new(),
            refusal: None,
        }
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

    /// Writes lines for people to stdout, made [`printable`].
    pub fn prose(&mut self, text: &str) -> Result<()> {
        let lines: String = text.split_inclusive('\n').map(printable_line).collect();
        self.text(&lines)
    }

    /// Writes records as NDJSON, one per line.
    pub fn lines<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) -> Result<()> {
        let text: String = records.into_iter().map(|record| format!("{record}\n")).collect();
        self.text(&text)
    }

    /// Adds `data` to the envelope, which [`Output::finish`] writes.
    pub fn envelope(&mut self, data: impl Into<Value>) -> Result<()> {
        self.data.push(data.into());
        Ok(())
    }

    /// Reports the error of one item: the run continues, and its exit status is a failure. The
    /// envelope, which has room for one error, has the first.
    pub fn error(&mut self, error: &Error) -> Result<()> {
        self.failed = true;
        match self.form {
            Form::Json if self.refusal.is_none() && !self.answered => {
                self.refusal = Some(error.clone());
                Ok(())
            }
            _ => self.complain(error),
        }
    }

    /// Reports an error in the envelope, together with `data`.
    pub fn error_with(&mut self, error: &Error, data: Value) -> Result<()> {
        self.data.extend(Some(data).filter(|data| !data.is_null()));
        self.error(error)
    }

    /// Writes the envelope, if it is the form in use and something was reported: one document, however
    /// many models the run was about.
    pub fn finish(&mut self) -> Result<()> {
        if self.form != Form::Json {
            return Ok(());
        }
        let data = envelope::joined(mem::take(&mut self.data));
        match self.refusal.take() {
            Some(error) => {
                let command = self.envelope_command(&error);
                let kind = match self.compatible {
                    true => compatibility::error_type(self.command, &error),
                    false => error.kind.name(),
                };
                self.text(&envelope::failure(command, data, &error, kind))
            }
            None if data.is_null() => Ok(()),
            None => self.text(&envelope::success(self.command, data)),
        }
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

    /// True if an error was reported or the answer is no.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Errors of the command line belong to no command, except for `convert` of mlx-knife.
    fn envelope_command(&self, error: &Error) -> Option<&'static str> {
        let named = self.compatible && self.command == "convert";
        (error.kind != Kind::Command || named).then_some(self.command)
    }

    fn note(&self, message: &str, hint: Option<&str>) -> Result<()> {
        let mut text = format!("{}: {}\n", self.program, printable(message));
        if let Some(hint) = hint {
            text.push_str(&format!("hint: {}\n", printable(hint)));
        }
        let written = io::stderr().lock().write_all(text.as_bytes());
        written.map_err(|e| Error::io(Path::new("standard error"), e))
    }
}

fn printable_line(line: &str) -> String {
    match line.strip_suffix('\n') {
        Some(line) => printable(line).into_owned() + "\n",
        None => printable(line).into_owned(),
    }
}
