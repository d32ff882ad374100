//! The machine, as far as programs speak of it.

use serde_json::{Value, json};

/// `{memory_total_bytes}`, or null where the system does not tell.
pub fn describe() -> Value {
    // SAFETY: sysconf reads no memory of ours.
    let [pages, size] =
        unsafe { [libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)] };
    match (u64::try_from(pages), u64::try_from(size)) {
        (Ok(pages), Ok(size)) => json!({"memory_total_bytes": pages * size}),
        _ => Value::Null,
    }
}

/// The most memory that this process has held at once, in bytes.
pub fn peak_memory() -> u64 {
    // SAFETY: a plain structure of numbers, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: it is valid to write to. Of this process the call always tells.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    // The unit is kilobytes on Linux and bytes on macOS.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    u64::try_from(usage.ru_maxrss).unwrap_or_default() * unit
}
