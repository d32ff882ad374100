//! Reading of regular files only: a FIFO would block its reader, and a device may have no end.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::OFlags;
use rustix::io::{read, retry_on_intr};

/// The flags of `open` under which a special file that took the place of a regular one neither blocks
/// nor becomes the terminal of the process.
pub const FLAGS: i32 = OFlags::NONBLOCK.union(OFlags::NOCTTY).bits() as i32;

/// Opens the file `path` for reading, with links followed. Special files are not opened.
///
/// # Errors
/// `InvalidInput` for a special file, `IsADirectory`, and errors of the system.
pub fn open(path: &Path) -> io::Result<File> {
    opened(path).map(|(file, _)| file)
}

/// The content of the file `path`, at most `limit` bytes.
///
/// # Errors
/// `FileTooLarge` for more bytes; otherwise as [`open`].
pub fn read_small(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let (file, size) = opened(path)?;
    let size = size.min(limit);
    // A byte more than the size lets the second read find the end.
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    while content.len() as u64 <= limit {
        content.reserve(1);
        if retry_on_intr(|| read(&file, spare_capacity(&mut content)))? == 0 {
            break;
        }
    }
    match content.len() as u64 <= limit {
        true => Ok(content),
        false => {
            let message = format!("it is over the limit of {limit} bytes");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, message))
        }
    }
}

/// The file `path`, opened, and its size in bytes.
fn opened(path: &Path) -> io::Result<(File, u64)> {
    check(&fs::metadata(path)?)?;
    let file = File::options().read(true).custom_flags(FLAGS).open(path)?;
    let metadata = file.metadata()?;
    check(&metadata)?;
    Ok((file, metadata.len()))
}

/// Checks that the file is a regular one.
///
/// # Errors
/// As [`open`].
pub fn check(file: &Metadata) -> io::Result<()> {
    match () {
        () if file.is_file() => Ok(()),
        () if file.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        () => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// True if the error says that `path` is no regular file of the expected size.
pub fn is_unfit(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, InvalidInput, IsADirectory};
    matches!(error.kind(), FileTooLarge | InvalidInput | IsADirectory)
}
