//! Ctrl-C for programs that must tidy up first: the signal is noted, and they die of it later.

use std::sync::atomic::{AtomicI32, Ordering};
use std::{mem, process, ptr};

use libc::{SA_RESETHAND, SA_RESTART, SIGHUP, SIGINT, SIGTERM, c_int};

/// The signal that came. A handler can reach nothing but a static.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// From now on the first of INT, TERM and HUP is only noted; the next of its kind kills.
pub fn watch() {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // SAFETY: an all-zero sigaction is a valid one with an empty mask, and the handler does
        // nothing but store a number, which is safe at any moment.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(c_int) as usize;
            action.sa_flags = SA_RESETHAND | SA_RESTART;
            libc::sigaction(signal, &action, ptr::null_mut());
        }
    }
}

extern "C" fn note(signal: c_int) {
    CAUGHT.store(signal, Ordering::Relaxed);
}

/// Whether a signal came.
pub fn caught() -> bool {
    CAUGHT.load(Ordering::Relaxed) != 0
}

/// Dies of the signal that came, so that a shell sees it; returns if none did.
pub fn die() {
    let signal = CAUGHT.load(Ordering::Relaxed);
    if signal != 0 {
        // SAFETY: the default action runs no code of this process.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
        process::exit(128 + signal); // not reached: the signal kills
    }
}
