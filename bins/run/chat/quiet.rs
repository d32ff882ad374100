//! Terminal without echo: text typed during an answer is kept for the next line and does not appear
//! within the answer.

use std::io;

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

/// Terminal without echo; dropping it restores the former modes.
pub struct Quiet {
    former: Option<Termios>,
}

impl Quiet {
    /// Turns echo off if standard input is a terminal.
    pub fn begin() -> Quiet {
        // If the modes cannot be read, the terminal is left unchanged.
        let former = termios::tcgetattr(io::stdin()).ok();
        if let Some(former) = &former {
            let mut quiet = former.clone();
            // Ctrl-C remains a signal; all other input is kept as typed, including Ctrl-D.
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

/// Sets the terminal modes. Errors are ignored: a failure does not end the conversation.
fn set(modes: &Termios) {
    let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, modes);
}
