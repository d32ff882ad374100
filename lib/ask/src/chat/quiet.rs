//! A terminal that does not show what is typed: it waits there for the next line instead of standing
//! in the middle of an answer.

use std::io;

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

/// The time in which nothing typed is shown; when it is dropped, all is as before.
pub struct Quiet {
    former: Option<Termios>,
}

impl Quiet {
    /// From now on. Where standard input is no terminal there is nothing to do.
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
