//! Sizes and times as people read them.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// `102B`, `1.2KB`, `3.4GB`: decimal units.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    if value < 1000.0 {
        return format!("{bytes}B");
    }
    for unit in ["KB", "MB", "GB", "TB"] {
        value /= 1000.0;
        if value < 1000.0 {
            return format!("{value:.1}{unit}");
        }
    }
    format!("{:.1}PB", value / 1000.0)
}

/// `1 file`, `3 files`.
pub fn count(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// `1 file, 102B`, `3 files, 1.2GB`.
pub fn files(number: usize, bytes: u64) -> String {
    format!("{}, {}", count(number, "file"), size(bytes))
}

/// `just now`, `5m ago`, `3h ago`, `2d ago`, and after a month the date.
pub fn ago(then: SystemTime, now: SystemTime) -> String {
    // A clock that was ahead makes a file new, not old.
    let age = now.duration_since(then).unwrap_or(Duration::ZERO).as_secs_f64();
    let (minutes, hours, days) = (age / 60.0, age / 3600.0, age / 86400.0);
    match age {
        _ if age < 45.0 => "just now".into(),
        _ if age < 90.0 => "1m ago".into(),
        _ if minutes < 45.0 => format!("{}m ago", minutes as u64),
        _ if minutes < 90.0 => "1h ago".into(),
        _ if hours < 24.0 => format!("{}h ago", hours as u64),
        _ if hours < 36.0 => "1d ago".into(),
        _ if days < 30.0 => format!("{}d ago", days as u64),
        _ => {
            Timestamp::try_from(then).map_or_else(|_| "-".into(), |t| t.strftime("%F").to_string())
        }
    }
}

/// The time that a record states, `YYYY-MM-DDTHH:MM:SSZ`.
pub fn time(text: &str) -> Option<SystemTime> {
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_a_decimal_unit() {
        let sizes = [0, 999, 1000, 1234, 3_400_000_000, 2_000_000_000_000_000];
        let expected = ["0B", "999B", "1.0KB", "1.2KB", "3.4GB", "2.0PB"];
        assert_eq!(sizes.map(size), expected);
    }

    #[test]
    fn ages_grow_from_seconds_to_dates() {
        let now = time("2026-03-01T12:00:00Z").unwrap();
        let ago = |seconds| ago(now - Duration::from_secs(seconds), now);
        assert_eq!([44, 45, 89, 90].map(ago), ["just now", "1m ago", "1m ago", "1m ago"]);
        assert_eq!([2699, 2700, 5399].map(ago), ["44m ago", "1h ago", "1h ago"]);
        assert_eq!([5400, 7200, 86399].map(ago), ["1h ago", "2h ago", "23h ago"]);
        assert_eq!([86400, 129599, 172800].map(ago), ["1d ago", "1d ago", "2d ago"]);
        assert_eq!([30 * 86400].map(ago), ["2026-01-30"]);
    }
}
