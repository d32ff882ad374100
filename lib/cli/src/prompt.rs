//! Prompt of `mlxk-run`: words, standard input, or both; and the rules for reading standard input.

use std::env;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use mlxk_core::{Error, Kind, Result};

use crate::Form;
use crate::input::stdin_holds_data;

/// Environment variable that enables or disables reading standard input.
const GATE: &str = "MLXK2_ENABLE_PIPES";

/// Source of the prompts.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// One prompt.
    Prompt(String),
    /// Requests on standard input, one record per line.
    Requests,
    /// An interactive conversation on the terminal.
    Anything,
}

/// Composes the prompt. `-` among `words` stands for standard input, which precedes the rest;
/// `flag` replaces the other words. With NDJSON, `-` alone means requests; with text output, no
/// prompt at all means a conversation if standard input and output are terminals.
///
/// Standard input is read for `-`, or when [`GATE`] is on and it holds data, and never when that
/// is off.
pub fn asked(words: &[String], flag: Option<&str>, form: Form) -> Result<Asked> {
    let records = form == Form::Ndjson;
    let people = || io::stdin().is_terminal() && io::stdout().is_terminal();
    let (dashes, words): (Vec<&str>, Vec<&str>) =
        words.iter().map(String::as_str).partition(|word| *word == "-");
    let typed = match (flag, words.as_slice()) {
        (Some(flag), []) => Some(flag.to_owned()),
        (Some(_), [word, ..]) => {
            let message = format!("both --prompt and other words: {word}");
            return Err(Error::new(Kind::Command, "", message));
        }
        (None, []) => None,
        (None, words) => Some(words.join(" ")),
    };
    let wanted = wants_stdin(!dashes.is_empty())?;
    match (wanted, records && !dashes.is_empty(), typed) {
        (true, true, None) => Ok(Asked::Requests),
        (true, true, Some(_)) => Err(Error::new(
            Kind::Command,
            "",
            "requests on standard input and a prompt on the command line",
        )
        .hint("with --ndjson, give only `-`")),
        (true, false, typed) => piped(&stdin()?, typed).map(Asked::Prompt),
        (false, _, Some(typed)) if typed.trim().is_empty() => Err(empty("the prompt is empty")),
        (false, _, Some(typed)) => Ok(Asked::Prompt(typed)),
        (false, _, None) if form == Form::Human && people() => Ok(Asked::Anything),
        (false, _, None) => Err(Error::new(Kind::Command, "", "no prompt")
            .hint("give a prompt after the model, or - for standard input")),
    }
}

/// True if standard input is to be read: for `-`, if that is given, or when [`GATE`] is on and it holds
/// data.
///
/// # Errors
/// If `-` is given, and [`GATE`] is off.
pub fn wants_stdin(dash: bool) -> Result<bool> {
    match (dash, gate(env::var(GATE).ok().as_deref())) {
        (true, Some(false)) => Err(closed()),
        (true, _) => Ok(true),
        (false, Some(true)) => stdin_holds_data(),
        (false, _) => Ok(false),
    }
}

/// True if `value` enables standard input, false if it disables it; `None` for any other value:
/// standard input is then read only for `-`.
fn gate(value: Option<&str>) -> Option<bool> {
    match value?.trim().to_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// The text from standard input without trailing line ends, then a blank line and the typed words.
fn piped(text: &str, typed: Option<String>) -> Result<String> {
    let text = text.trim_end_matches(['\n', '\r']);
    match (text.trim().is_empty(), typed) {
        (true, None) => Err(empty("standard input is empty, and there is no other prompt")),
        (true, Some(typed)) => Ok(typed),
        (false, None) => Ok(text.to_owned()),
        (false, Some(typed)) => Ok(format!("{text}\n\n{typed}")),
    }
}

fn stdin() -> Result<String> {
    let mut bytes = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|e| Error::io(Path::new("standard input"), e))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::Validation, "standard input", "not UTF-8 text"))
}

fn closed() -> Error {
    Error::new(Kind::Command, "", format!("standard input is disabled by {GATE}=0"))
        .hint(format!("{GATE}=1 enables it"))
}

fn empty(message: &str) -> Error {
    Error::new(Kind::Validation, "", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_comes_first_and_loses_its_last_line_ends() {
        assert_eq!(piped("a\n b\r\n\n", None).unwrap(), "a\n b");
        assert_eq!(piped("a\n", Some("b".into())).unwrap(), "a\n\nb");
        assert_eq!(piped(" \n", Some("b".into())).unwrap(), "b");
        assert_eq!(piped("\n", None).unwrap_err().kind, Kind::Validation);
    }

    #[test]
    fn only_plain_words_move_the_gate() {
        assert_eq!(["1", "TRUE", "yes"].map(|v| gate(Some(v))), [Some(true); 3]);
        assert_eq!(["0", "off", "No"].map(|v| gate(Some(v))), [Some(false); 3]);
        assert_eq!([None, Some(""), Some("2")].map(gate), [None; 3]);
    }
}
