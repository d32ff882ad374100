//! Memory of the machine and of this process.

use serde_json::{Value, json};

/// `{memory_total_bytes}`, or null if the system does not report it.
pub fn describe() -> Value {
    // SAFETY: sysconf reads no memory of ours.
    let [pages, size] =
        unsafe { [libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)] };
    match (u64::try_from(pages), u64::try_from(size)) {
        (Ok(pages), Ok(size)) => json!({"memory_total_bytes": pages * size}),
        _ => Value::Null,
    }
}

/// Peak resident memory of this process, in bytes.
pub fn peak_memory() -> u64 {
    // SAFETY: a plain structure of numbers, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: it is valid to write to. Of this process the call always tells.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    // The unit is kilobytes on Linux and bytes on macOS.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    u64::try_from(usage.ru_maxrss).unwrap_or_default() * unit
}
