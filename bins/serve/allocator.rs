//! Settings of the allocator, so that the memory of large requests goes back to the system. Only the
//! GNU C library keeps it.

/// Free memory at the end of a heap from which it goes back to the system, in bytes; prompts would be
/// read more slowly if each step took it back.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIM: i32 = 64 << 20;

/// Size of a block from which it is mapped by itself, in bytes, above those of a step: such a block
/// goes back when it is freed. By default the limit grows with the blocks that are freed, up to 32 MiB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED: i32 = 12 << 20;

/// Number of heaps. Free memory at the end of a heap other than the first goes back only when a block
/// of that heap is freed, so that of large requests would stay in the heaps of their threads.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS: i32 = 1;

/// Makes the allocator give back free memory at the end of its heaps, and large blocks. Called
/// before other threads start.
pub fn configure() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the parameters are known, and any value of them is valid.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
    }
}

/// Gives all free memory back to the system.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: any thread may call it at any time; no memory in use changes.
    unsafe {
        libc::malloc_trim(0);
    }
}
