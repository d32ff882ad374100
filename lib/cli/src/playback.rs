//! Progress of work on audio: the position in it and the speed, on standard error if that is a
//! terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use mlxk_core::printable;

/// Bar of the position in an audio file. It vanishes when it is dropped.
#[derive(Debug)]
pub struct Playback {
    bar: ProgressBar,
    started: Instant,
    /// Length of the audio in seconds, if it is known.
    length: Option<f64>,
}

impl Playback {
    /// Bar of the audio `name` of `length` seconds, if the length is known.
    pub fn new(name: &str, length: Option<f64>) -> Playback {
        let length = length.filter(|length| length.is_finite() && *length > 0.0);
        let (bar, template) = match length {
            // Hidden where there is no terminal.
            Some(length) => (ProgressBar::new(milliseconds(length)), "{prefix} {wide_bar} {msg}"),
            None => (ProgressBar::no_length(), "{prefix} {msg}"),
        };
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bar.with_style(style).with_prefix(printable(name).into_owned());
        let playback = Playback { bar, started: Instant::now(), length };
        playback.set(0.0);
        playback
    }

    /// Shows that all audio before `seconds` is done.
    pub fn set(&self, seconds: f64) {
        self.bar.set_position(milliseconds(seconds));
        self.bar.set_message(position(seconds, self.length, self.started.elapsed()));
    }

    /// Calls `write` while the bar is out of the way of what that writes to the terminal.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

impl Drop for Playback {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// `1:05 of 12:00, 8.3x`: the position, the length, and the seconds of audio that a second of work
/// takes.
fn position(seconds: f64, length: Option<f64>, elapsed: Duration) -> String {
    let length = length.map(|length| format!(" of {}", clock(length))).unwrap_or_default();
    let speed = match seconds > 0.0 && !elapsed.is_zero() {
        true => format!(", {:.1}x", seconds / elapsed.as_secs_f64()),
        false => String::new(),
    };
    format!("{}{length}{speed}", clock(seconds))
}

/// A time as minutes and seconds, after hours if there are any.
fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

fn milliseconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_has_the_length_and_the_speed_if_they_are_known() {
        let second = Duration::from_secs(1);
        assert_eq!(position(65.4, Some(3725.0), 10 * second), "1:05 of 1:02:05, 6.5x");
        assert_eq!(position(0.0, None, second), "0:00");
        assert_eq!(position(9.0, None, Duration::ZERO), "0:09");
    }
}
