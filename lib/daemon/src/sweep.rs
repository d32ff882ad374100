//! The file of a socket, which goes away with its server, however that ends.
//!
//! A process that is killed can tidy up nothing. So a small child of it waits at the end of a pipe:
//! when the server is gone, the pipe is closed, and the child removes the file and ends.

use std::ffi::CString;
use std::fs;
use std::io::{self, PipeWriter, Write, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf, absolute};

use mlxk_core::{Error, Kind, Result};

/// The file of a socket. When it is dropped, the file is removed.
pub struct Swept {
    path: PathBuf,
    /// What the child listens to.
    pipe: PipeWriter,
    child: libc::pid_t,
}

impl Swept {
    /// Sees to it that `path` is removed. No other thread may run yet.
    pub fn new(path: &Path) -> Result<Swept> {
        let io = |e| Error::io(path, e);
        let path = absolute(path).map_err(io)?;
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| {
            Error::new(Kind::Command, path.display().to_string(), "no name of a file")
        })?;
        let (reader, pipe) = pipe().map_err(io)?;
        // SAFETY: there is no other thread, and the child calls nothing that allocates or locks.
        match unsafe { libc::fork() } {
            -1 => Err(io(io::Error::last_os_error())),
            0 => {
                // SAFETY: plain system calls, on what belongs to the child alone.
                unsafe {
                    libc::close(pipe.as_raw_fd());
                    wait(reader.as_raw_fd(), &name)
                }
            }
            child => Ok(Swept { path, pipe, child }),
        }
    }
}

impl Drop for Swept {
    fn drop(&mut self) {
        // What is gone need not be removed, and nobody is left to hear of the rest.
        let _ = fs::remove_file(&self.path);
        let _ = self.pipe.write_all(b".");
        // SAFETY: the child is one of ours, and ends at a byte.
        unsafe { libc::waitpid(self.child, std::ptr::null_mut(), 0) };
    }
}

/// The life of the child: it outlives the signals that end its parent. A byte tells that all is
/// well; the end of the pipe without one, that the parent was killed.
unsafe fn wait(pipe: libc::c_int, name: &CString) -> ! {
    let mut byte = 0u8;
    unsafe {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::signal(signal, libc::SIG_IGN);
        }
        for standard in 0..3 {
            libc::close(standard);
        }
        loop {
            match libc::read(pipe, (&raw mut byte).cast(), 1) {
                0 => {
                    libc::unlink(name.as_ptr());
                    libc::_exit(0)
                }
                1 => libc::_exit(0),
                _ => {}
            }
        }
    }
}
