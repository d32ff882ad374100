//! Terminal without echo: what is typed during an answer waits for the next line instead of standing
//! in the middle of it.

use std::io;

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

/// Terminal without echo; when this is dropped, the terminal is as before.
pub struct Quiet {
    former: Option<Termios>,
}

impl Quiet {
    /// Turns echo off, unless standard input is no terminal.
    pub fn begin() -> Quiet {
        // Without its modes a terminal works as it did.
        let former = termios::tcgetattr(io::stdin()).ok();
        if let Some(former) = &former {
            let mut quiet = former.clone();
            // Ctrl-C stays a signal, all else is kept as it is typed, Ctrl-D too.
            quiet.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON);
            set(&quiet);
        }
        Quiet { former }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(former) = &self.former {
            set(former);
        }
    }
}

/// A terminal that refuses is gone, or shows what is typed: neither ends a conversation.
fn set(modes: &Termios) {
    let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, modes);
}
