//! Chat on a terminal: a line in, an answer out, until the user leaves.

mod command;
mod conversation;
mod editor;
mod terminal;

use std::path::PathBuf;

use command::Command;
use conversation::Conversation;
use editor::{Editor, Line};
use mlxk_cli::Output;
use mlxk_core::{Error, Result};
use mlxk_engine::{Model, Runner};
use terminal::Terminal;

use super::options::RunOptions;

/// Chats until the user leaves. `history` is the file of typed lines.
///
/// # Errors
/// If the terminal cannot be read or written.
pub fn chat(
    name: &str,
    runner: Runner<Model>,
    options: &RunOptions,
    history: Option<PathBuf>,
    out: &mut Output,
) -> Result<()> {
    let mut conversation = Conversation::new(runner, options, Terminal::take());
    let mut editor = Editor::new(history)?;
    conversation.remark(&format!("{name}; /help lists the commands, Ctrl-D quits"), out)?;
    loop {
        conversation.edit();
        let done = match editor.read()? {
            Line::Unreadable => conversation.remark("not UTF-8: the line was deleted", out),
            Line::End => return Ok(()),
            Line::Interrupted => conversation.remark("Ctrl-D quits", out),
            Line::Text(text) => match Command::parse(&text) {
                Ok(Some(Command::Quit)) => return Ok(()),
                Ok(Some(command)) => conversation.obey(command, out),
                Ok(None) if text.trim().is_empty() => Ok(()),
                Ok(None) => conversation.say(text, out),
                Err(e) => Err(e),
            },
        };
        done.or_else(|e| complain(&e, out))?;
    }
}

/// Writes an error; the conversation continues unless the terminal is closed.
fn complain(e: &Error, out: &mut Output) -> Result<()> {
    out.text(&format!("{e}\n"))?;
    match &e.hint {
        Some(hint) => out.text(&format!("hint: {hint}\n")),
        None => Ok(()),
    }
}
