//! The bar on standard error, if that is a terminal, while many bytes are worked through.

use indicatif::{ProgressBar, ProgressStyle};
use mlxk_core::Progress;

/// Bytes done, of bytes there are, as far as is known. It vanishes when it is dropped.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar of nothing as yet.
    pub fn new() -> Bar {
        let style =
            "{wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}, {eta}";
        let style = ProgressStyle::with_template(style);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Bar(ProgressBar::new(0).with_style(style))
    }

    /// Shows how far it is.
    pub fn heed(&self, progress: Progress) {
        match progress {
            Progress::Due(bytes) => self.0.inc_length(bytes),
            Progress::Read(bytes) => self.0.inc(bytes),
        }
    }

    /// Steps aside while something else is written to the terminal.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }
}

impl Default for Bar {
    fn default() -> Bar {
        Bar::new()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
