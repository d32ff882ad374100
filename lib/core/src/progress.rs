//! Progress of work that reads or copies a known number of bytes.

/// A step of the work, in bytes.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// Bytes that are due in addition to those announced before.
    Due(u64),
    /// Bytes that were read since the last report.
    Read(u64),
}
