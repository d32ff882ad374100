//! Terminal of a conversation: its modes, and its input as UTF-8.
//!
//! The line editor gives up at a byte that is not UTF-8, so it reads a pseudoterminal in place of
//! the terminal; a thread copies the input there, with replacement characters for such bytes.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;
use std::{env, io, thread};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd, read, write};
use rustix::process::{Signal, getpid, kill_current_process_group, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::stdio::dup2_stdin;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

/// Bytes of input that are read at a time.
const BUFFER: usize = 1024;

/// Time in which a signal stops all threads.
const STOPPING: Duration = Duration::from_millis(50);

/// Byte of the key that stops a program.
const CTRL_Z: u8 = 0x1a;

/// Kinds of terminals without cursor movement, which edit lines themselves, by the value of `TERM`;
/// those that the line editor knows.
const SIMPLE: [&str; 3] = ["cons25", "dumb", "emacs"];

/// Terminal of a conversation; dropping it restores the former modes.
pub struct Terminal {
    modes: Option<Modes>,
}

/// Modes of the terminal `input`.
struct Modes {
    input: OwnedFd,
    former: Termios,
    editing: Termios,
    answering: Termios,
}

/// Time of an answer, in which Ctrl-C is a signal; dropping it ends the time.
pub struct Answering<'a> {
    terminal: &'a Terminal,
}

impl Terminal {
    /// Takes over standard input, if that is a terminal.
    pub fn take() -> Terminal {
        // Without a pseudoterminal the editor reads the terminal itself.
        let modes = Modes::of_stdin().ok();
        let terminal = Terminal { modes };
        terminal.edit();
        terminal
    }

    /// Sets the modes for the line editor. They are set before every line, since another program
    /// may have changed them while this one was stopped.
    pub fn edit(&self) {
        self.set(|modes| &modes.editing);
    }

    /// Begins an answer: until its end, input is kept for the next lines and does not appear within
    /// the answer.
    pub fn answer(&self) -> Answering<'_> {
        self.set(|modes| &modes.answering);
        Answering { terminal: self }
    }

    fn set(&self, which: impl Fn(&Modes) -> &Termios) {
        if let Some(modes) = &self.modes {
            modes.set(which(modes));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.set(|modes| &modes.former);
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.terminal.edit();
    }
}

impl Modes {
    fn of_stdin() -> io::Result<Modes> {
        let former = tcgetattr(io::stdin())?;
        let input = fcntl_dupfd_cloexec(io::stdin(), 3)?;
        let mut answering = former.clone();
        answering.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON);
        answering.special_codes[SpecialCodeIndex::VMIN] = 1;
        answering.special_codes[SpecialCodeIndex::VTIME] = 0;
        let kind = env::var("TERM").unwrap_or_default().to_lowercase();
        if SIMPLE.contains(&&*kind) {
            return Ok(Modes { input, editing: former.clone(), former, answering });
        }
        answering.local_modes &= !LocalModes::IEXTEN;
        answering.input_modes &= !(InputModes::ICRNL | InputModes::IXON | InputModes::ISTRIP);
        let mut editing = answering.clone();
        editing.local_modes &= !LocalModes::ISIG;
        let modes = Modes { input, former, editing, answering };
        substitute(modes.try_clone()?)?;
        Ok(modes)
    }

    fn try_clone(&self) -> io::Result<Modes> {
        Ok(Modes {
            input: fcntl_dupfd_cloexec(&self.input, 3)?,
            former: self.former.clone(),
            editing: self.editing.clone(),
            answering: self.answering.clone(),
        })
    }

    /// Sets one of the modes. A failure does not end the conversation.
    fn set(&self, modes: &Termios) {
        let _ = tcsetattr(&self.input, OptionalActions::Now, modes);
    }

    /// Stops this program, as the terminal would for Ctrl-Z, until it is continued.
    fn stop(&self) {
        self.set(&self.former);
        // If it cannot be stopped, it goes on. The signal may reach another thread first, which
        // stops this one a little later.
        let _ = kill_current_process_group(Signal::TSTP);
        thread::sleep(STOPPING);
        self.set(&self.editing);
        // The editor draws its line anew when the size of the window changes.
        let _ = kill_process(getpid(), Signal::WINCH);
    }
}

/// Puts a pseudoterminal in the place of standard input, and begins to copy the terminal's input
/// there.
fn substitute(terminal: Modes) -> io::Result<()> {
    let to = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    fcntl_setfd(&to, FdFlags::CLOEXEC)?;
    grantpt(&to)?;
    unlockpt(&to)?;
    let name = ptsname(&to, Vec::new())?;
    let path = Path::new(OsStr::from_bytes(name.to_bytes()));
    let editor = open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let mut raw = tcgetattr(&editor)?;
    raw.make_raw();
    tcsetattr(&editor, OptionalActions::Now, &raw)?;
    dup2_stdin(&editor)?;
    // The thread ends with the process; it has nothing to give back.
    let copying = thread::Builder::new().name("terminal".into());
    copying.spawn(move || copy(&terminal, &to)).map(|_| ())
}

/// Copies the input of `terminal` until its end, which ends `to` as well.
fn copy(terminal: &Modes, to: &OwnedFd) {
    let mut buffer = [0; BUFFER];
    let mut pending = Vec::new();
    loop {
        match read(&terminal.input, &mut buffer) {
            Ok(0) => return,
            Ok(1) if buffer[0] == CTRL_Z => {
                terminal.stop();
                continue;
            }
            Ok(count) => pending.extend(&buffer[..count]),
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        let text = take_text(&mut pending);
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match write(to, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// Takes the text at the beginning of `bytes`, with replacement characters for what is not UTF-8; a
/// character that is not complete stays.
fn take_text(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    loop {
        let (valid, skipped) = match str::from_utf8(bytes) {
            Ok(_) => (bytes.len(), Some(0)),
            Err(e) => (e.valid_up_to(), e.error_len()),
        };
        text += &String::from_utf8_lossy(&bytes[..valid]);
        bytes.drain(..valid + skipped.unwrap_or(0));
        match skipped {
            Some(0) | None => return text,
            Some(_) => text.push(char::REPLACEMENT_CHARACTER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_utf8_is_replaced_and_what_is_incomplete_waits() {
        let mut bytes = b"caf\xe9\r\xff\xc3\xa9\xe2\x82".to_vec();
        assert_eq!(take_text(&mut bytes), "caf\u{fffd}\r\u{fffd}é");
        bytes.extend(b"\xac!");
        assert_eq!(take_text(&mut bytes), "€!");
        assert_eq!(bytes, b"");
    }
}
