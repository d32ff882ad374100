//! File of a socket, which is removed when its server ends, even if the server is killed.
//!
//! A killed process cannot clean up. So a small child process waits at the read end of a pipe: when
//! the server ends, the pipe is closed, and the child removes the file and exits. The child is
//! forked before the socket is made, as it would otherwise hold the socket open; the identity of
//! the file to remove is sent to it afterwards.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf, absolute};

use mlxk_core::{Error, Result};

/// File of a socket. Dropping it removes the file if this process made it.
pub struct SocketFile {
    path: PathBuf,
    /// Identity of the file that this process made.
    own: Option<Identity>,
    /// Write end of the pipe; the child waits at the read end.
    pipe: PipeWriter,
    child: libc::pid_t,
}

/// Identity of a file: device, inode, and time of its last modification, as inode numbers are
/// reused.
#[derive(Clone, Copy, PartialEq)]
struct Identity([u64; 4]);

impl Identity {
    const BYTES: usize = 32;

    fn at(path: &Path) -> io::Result<Identity> {
        let file = fs::symlink_metadata(path)?;
        let (seconds, nanoseconds) = (file.mtime() as u64, file.mtime_nsec() as u64);
        Ok(Identity([file.dev(), file.ino(), seconds, nanoseconds]))
    }

    fn bytes(self) -> Vec<u8> {
        self.0.iter().flat_map(|part| part.to_ne_bytes()).collect()
    }
}

impl SocketFile {
    /// Forks the child that removes `path`. No other thread may run yet.
    ///
    /// # Errors
    /// If the child cannot be made.
    pub fn new(path: &Path) -> Result<SocketFile> {
        let io = |e| Error::io(path, e);
        let path = absolute(path).map_err(io)?;
        let (reader, pipe) = pipe().map_err(io)?;
        // SAFETY: there is no other thread, so that nothing is locked in the child.
        match unsafe { libc::fork() } {
            -1 => Err(io(io::Error::last_os_error())),
            0 => {
                drop(pipe);
                wait(reader, &path)
            }
            child => Ok(SocketFile { path, own: None, pipe, child }),
        }
    }

    /// Marks the existing file as the one to remove.
    ///
    /// # Errors
    /// If the file does not exist, or the child has ended.
    pub fn arm(&mut self) -> Result<()> {
        let io = |e| Error::io(&self.path, e);
        let own = Identity::at(&self.path).map_err(io)?;
        self.own = Some(own);
        self.pipe.write_all(&own.bytes()).map_err(io)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(own) = self.own {
            remove(&self.path, &own.bytes());
        }
        // SAFETY: the child is one of ours that nobody waited for, and has nothing left to do.
        unsafe {
            libc::kill(self.child, libc::SIGKILL);
            libc::waitpid(self.child, std::ptr::null_mut(), 0);
        }
    }
}

/// Body of the child process, which ignores the signals that end its parent. It reads the identity
/// of the parent's file; the pipe is closed when the parent has ended.
fn wait(mut pipe: PipeReader, path: &Path) -> ! {
    // SAFETY: nothing else uses these, or changes what signals do.
    unsafe {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::signal(signal, libc::SIG_IGN);
        }
        for standard in 0..3 {
            libc::close(standard);
        }
    }
    let mut own = [0; Identity::BYTES];
    // If the pipe closes before the identity arrives, there is nothing to remove.
    if pipe.read_exact(&mut own).is_ok() && pipe.read_to_end(&mut Vec::new()).is_ok() {
        remove(path, &own);
    }
    // SAFETY: what the parent has to tidy up at its end is the parent's.
    unsafe { libc::_exit(0) }
}

/// Removes the file whose identity has the bytes `own`; another file of that name stays.
fn remove(path: &Path, own: &[u8]) {
    if Identity::at(path).is_ok_and(|there| there.bytes() == own) {
        // Nobody is left to hear that it cannot be.
        let _ = fs::remove_file(path);
    }
}
