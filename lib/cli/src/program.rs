//! Entry point of every program: signals, completion, arguments, the run, the exit status.

use std::env;
use std::ffi::OsString;
use std::iter;
use std::process::ExitCode;

use clap::Parser;
use mlxk_core::{Error, Kind, Result};
use serde_json::Value;

use crate::completion;
use crate::exit::Exit;
use crate::output::{Form, Output};

/// A program: its arguments, and its work.
pub trait Tool: Parser {
    /// The name of the command in the envelope of `--json`.
    const COMMAND: &'static str;

    /// The form of the output.
    fn form(&self) -> Form;

    /// The `data` of the envelope of an error that ends the run before it has any; null if there is none.
    fn data(&self, error: &Error) -> Value {
        let _ = error;
        Value::Null
    }

    /// Does the work. The error of one item is reported to `out`, and the run continues; a returned
    /// error ends the run.
    fn run(&self, out: &mut Output) -> Result<()>;
}

/// Runs the tool with the arguments of the command line; the body of `main`.
pub fn main<T: Tool>() -> ExitCode {
    main_with::<T>(env::args_os())
}

/// Runs the tool with `words` in place of the command line.
pub fn main_with<T: Tool>(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    restore_sigpipe();
    completion::answer(T::command);
    let program = T::command().get_name().to_owned();
    // Under a name of mlx-knife, too, the usage is that of the program.
    let words = iter::once(OsString::from(&program)).chain(words.into_iter().skip(1));
    match T::try_parse_from(words) {
        Ok(tool) => run(&tool, program),
        Err(e) => explain(&program, &e),
    }
    .into()
}

/// Restores the default action of SIGPIPE: a closed pipe (`| head -1`) ends the program silently.
pub fn restore_sigpipe() {
    // SAFETY: no other thread exists yet, and the default action runs no code of this process.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Ignores SIGPIPE, so that a client that disconnects does not end a server.
pub fn ignore_sigpipe() {
    // SAFETY: ignoring runs no code of this process.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// True if `--json` is anywhere on the command line: errors are then JSON too.
pub fn json_wanted() -> bool {
    env::args_os().any(|arg| arg == "--json")
}

fn run<T: Tool>(tool: &T, program: String) -> Exit {
    let mut out = Output::new(program, T::COMMAND, tool.form());
    let (exit, reported) = match tool.run(&mut out) {
        Ok(()) if out.failed() => (Exit::Failed, Ok(())),
        Ok(()) => (Exit::Done, Ok(())),
        Err(e) => {
            let exit = if out.misused() { Exit::Usage } else { Exit::from(&e) };
            (exit, out.error_with(&e, tool.data(&e)))
        }
    };
    // If stdout is closed, only the exit status reports the error.
    reported.and_then(|()| out.finish()).map_or(Exit::Failed, |()| exit)
}

/// Answers `--help` and `--version`, and reports errors of the command line.
fn explain(program: &str, error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => Exit::Done,
            Err(_) => Exit::Failed,
        };
    }
    let form = if json_wanted() { Form::Json } else { Form::Human };
    let mut out = Output::new(program, "", form);
    let reported = out.error(&usage_error(program, error)).and_then(|()| out.finish());
    reported.map_or(Exit::Failed, |()| Exit::Usage)
}

/// An error of one line and a hint, from the paragraphs of clap's message.
fn usage_error(program: &str, error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let mut lines = text.lines().take_while(|line| !line.starts_with("Usage:"));
    let first = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let (tips, rest): (Vec<_>, Vec<_>) = lines
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .partition(|line| line.starts_with("tip: "));
    let message = rest.into_iter().fold(first, |message, line| message + " " + line);
    let hint = match tips.first() {
        Some(tip) => tip.trim_start_matches("tip: ").to_owned(),
        None => format!("{program} --help"),
    };
    Error::new(Kind::Command, "", message).hint(hint)
}
