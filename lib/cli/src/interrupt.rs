//! Signal handling for work that needs cleanup: during a watch, Ctrl-C is recorded and does not
//! end the process.

use std::sync::atomic::{AtomicI32, Ordering};
use std::{mem, ptr};

use libc::{SA_RESETHAND, SA_RESTART, SIG_IGN, SIGHUP, SIGINT, SIGTERM, c_int, sigaction};
use mlxk_core::{Error, Kind, Result};

/// The signal received, 0 if none. A signal handler can only access a static.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// Period in which signals are recorded. Dropping it restores the former handlers and raises the
/// recorded signal again: by default it ends the program, which the shell can see.
#[derive(Debug)]
pub struct Watch {
    former: [(c_int, sigaction); 3],
}

/// Begins to record INT, TERM and HUP; a second signal of the same kind takes its default action.
/// Signals that are ignored (by `nohup`, in the background of a script) stay ignored. Only one
/// watch may exist at a time.
pub fn watch() -> Watch {
    begin(SA_RESETHAND)
}

/// Begins a watch that records INT any number of times, for interactive programs, where Ctrl-C may
/// be pressed repeatedly.
pub fn watch_patiently() -> Watch {
    begin(0)
}

/// Begins a watch with the `sigaction` flags `flags` for INT.
fn begin(flags: c_int) -> Watch {
    CAUGHT.store(0, Ordering::Relaxed);
    let former = [SIGINT, SIGTERM, SIGHUP].map(|signal| (signal, action(signal)));
    for (signal, former) in &former {
        if former.sa_sigaction != SIG_IGN {
            let mut noting = *former;
            noting.sa_sigaction = note as extern "C" fn(c_int) as usize;
            let again = if *signal == SIGINT { flags } else { SA_RESETHAND };
            noting.sa_flags = again | SA_RESTART;
            set(*signal, &noting);
        }
    }
    Watch { former }
}

impl Watch {
    /// True if a signal was received.
    pub fn caught(&self) -> bool {
        caught()
    }

    /// Ends the watch without raising a recorded INT again, as it has been handled.
    pub fn forgive(self) {
        // Any other signal stays recorded, and is raised.
        let _ = CAUGHT.compare_exchange(SIGINT, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// An `Execution` error if a signal was received.
    pub fn check(&self) -> Result<()> {
        match self.caught() {
            true => Err(Error::new(Kind::Execution, "", "interrupted")),
            false => Ok(()),
        }
    }
}

/// True if a signal was received since the last [`watch`] began; for threads without access to the
/// [`Watch`].
pub fn caught() -> bool {
    CAUGHT.load(Ordering::Relaxed) != 0
}

impl Drop for Watch {
    fn drop(&mut self) {
        for (signal, former) in &self.former {
            set(*signal, former);
        }
        let signal = CAUGHT.load(Ordering::Relaxed);
        if signal != 0 {
            // SAFETY: the former action was in place before and is so again.
            unsafe { libc::raise(signal) };
        }
    }
}

extern "C" fn note(signal: c_int) {
    CAUGHT.store(signal, Ordering::Relaxed);
}

/// The current action of `signal`.
fn action(signal: c_int) -> sigaction {
    // SAFETY: an all-zero sigaction is a valid one, and only this one is written.
    unsafe {
        let mut action = mem::zeroed();
        sigaction(signal, ptr::null(), &mut action);
        action
    }
}

fn set(signal: c_int, action: &sigaction) {
    // SAFETY: `action` is the former one, or does nothing but store a number, which is safe at any
    // moment.
    unsafe { sigaction(signal, action, ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use libc::SIG_DFL;

    use super::*;

    static TOLD: AtomicBool = AtomicBool::new(false);

    extern "C" fn tell(_: c_int) {
        TOLD.store(true, Ordering::Relaxed);
    }

    #[test]
    fn the_first_signal_is_given_back_at_the_end_and_the_second_kills() {
        let mut telling = action(SIGHUP);
        telling.sa_sigaction = tell as extern "C" fn(c_int) as usize;
        set(SIGHUP, &telling);
        let raise = |signal| assert_eq!(unsafe { libc::raise(signal) }, 0);
        let watch = watch();
        assert!(!watch.caught());
        raise(SIGHUP);
        assert!(watch.caught() && !TOLD.load(Ordering::Relaxed));
        assert_eq!(action(SIGHUP).sa_sigaction, SIG_DFL, "the next one kills");
        drop(watch);
        assert!(TOLD.load(Ordering::Relaxed));
        assert_eq!(action(SIGHUP).sa_sigaction, telling.sa_sigaction);
    }
}
