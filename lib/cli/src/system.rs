//! The machine, as far as listings speak of it.

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
