//! Memory of the host, and whether a model has room in it.

use mlxk_core::{Error, Kind, Result};

use crate::cost::Cost;

/// Longest sequence whose cache is counted, in tokens.
const MAX_TOKENS: u64 = 32_768;

/// Memory that this process may take, in bytes.
#[derive(Clone, Copy, Debug)]
struct Memory {
    /// Bytes that are free, or given up by others at once.
    free: u64,
    /// Bytes that a model can surely not exceed.
    limit: u64,
}

/// Bytes of memory that are free, or given up by others at once; `None` if the system does not tell.
pub fn free() -> Option<u64> {
    memory().map(|memory| memory.free)
}

/// Warning if memory may be short for a model of this cost with a sequence as long as its context.
///
/// # Errors
/// [`Kind::InsufficientMemory`] if the weights alone do not fit.
pub fn check(cost: &Cost, context_length: Option<u64>) -> Result<Option<String>> {
    // A system that does not tell how much memory is free is no reason to refuse.
    let Some(memory) = memory() else {
        return Ok(None);
    };
    let tokens = context_length.unwrap_or(MAX_TOKENS).min(MAX_TOKENS);
    judge(memory, cost.weights, cost.tower + cost.sequence(tokens))
}

/// Refuses a speech model whose weights take more than 70 % of the memory: windows of audio need the
/// rest.
///
/// # Errors
/// [`Kind::InsufficientMemory`].
pub fn check_speech(cost: &Cost) -> Result<()> {
    memory().map_or(Ok(()), |memory| judge_speech(memory, cost.weights))
}

fn judge_speech(memory: Memory, weights: u64) -> Result<()> {
    let most = memory.limit / 10 * 7;
    match weights <= most {
        true => Ok(()),
        false => {
            let needed =
                format!("the weights need {}, of a speech model {} may", gib(weights), gib(most));
            Err(Error::new(Kind::InsufficientMemory, "", needed)
                .hint("a speech model may take 70 % of the free memory"))
        }
    }
}

fn judge(memory: Memory, weights: u64, sequence: u64) -> Result<Option<String>> {
    if weights > memory.limit {
        let needed = format!("the weights need {}, {} are free", gib(weights), gib(memory.limit));
        return Err(Error::new(Kind::InsufficientMemory, "", needed)
            .hint("a smaller model, or one with fewer bits a weight"));
    }
    let tight = weights.saturating_add(sequence) > memory.free;
    Ok(tight.then(|| {
        let (weights, context, free) = (gib(weights), gib(sequence), gib(memory.free));
        format!(
            "memory may be short: {weights} of weights and up to {context} of context, {free} are free"
        )
    }))
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

#[cfg(target_os = "linux")]
fn memory() -> Option<Memory> {
    let free = linux(std::path::Path::new("/"))?;
    Some(Memory { free, limit: free })
}

/// Free bytes of Linux, whose file system begins at `root`: those of the host, or of a control group
/// that has fewer.
#[cfg(any(target_os = "linux", test))]
fn linux(root: &std::path::Path) -> Option<u64> {
    let host = std::fs::read_to_string(root.join("proc/meminfo")).ok();
    let host = host.and_then(|text| mem_available(&text));
    [host, crate::cgroup::free(root)].into_iter().flatten().min()
}

/// Memory of macOS. It counts little as free that it would not give up at once, so only a model larger
/// than the whole memory surely does not fit.
#[cfg(target_os = "macos")]
fn memory() -> Option<Memory> {
    let output = |command: &str, arguments: &[&str]| {
        let output = std::process::Command::new(command).args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let free = vm_stat(&output("/usr/bin/vm_stat", &[])?)?;
    let limit = output("/usr/sbin/sysctl", &["-n", "hw.memsize"])?.trim().parse().ok()?;
    Some(Memory { free, limit })
}

/// `MemAvailable` of Linux's /proc/meminfo, in bytes.
#[cfg(any(target_os = "linux", test))]
fn mem_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Free and speculative pages of macOS's vm_stat, in bytes.
#[cfg(any(target_os = "macos", test))]
fn vm_stat(text: &str) -> Option<u64> {
    let size: u64 = text.split("page size of ").nth(1)?.split(' ').next()?.parse().ok()?;
    let pages = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches('.').parse().ok()
    };
    pages("Pages free:")?.checked_add(pages("Pages speculative:")?)?.checked_mul(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_surely_does_not_fit_is_refused_and_what_may_not_is_told() {
        let memory = Memory { free: 4 << 30, limit: 8 << 30 };
        assert_eq!(judge(memory, 3 << 30, 1 << 30).unwrap(), None);
        let told = judge(memory, 3 << 30, 2 << 30).unwrap().unwrap();
        assert!(
            told.contains("3.0 GiB of weights and up to 2.0 GiB of context, 4.0 GiB"),
            "{told}"
        );
        let e = judge(memory, 9 << 30, 0).unwrap_err();
        assert_eq!(e.kind, Kind::InsufficientMemory);
        assert_eq!(e.message, "the weights need 9.0 GiB, 8.0 GiB are free");
    }

    #[test]
    fn a_speech_model_takes_at_most_seven_tenths_of_the_memory() {
        let memory = Memory { free: 8 << 30, limit: 10 << 30 };
        assert!(judge_speech(memory, 7 << 30).is_ok());
        let e = judge_speech(memory, (7 << 30) + (1 << 20)).unwrap_err();
        assert_eq!(e.kind, Kind::InsufficientMemory);
        assert!(e.message.contains("7.0 GiB"), "{e}");
    }

    #[test]
    fn the_systems_are_understood() {
        let linux = "MemTotal:  100 kB\nMemFree:   5 kB\nMemAvailable:    7168 kB\n";
        assert_eq!(mem_available(linux), Some(7168 * 1024));
        let macos = "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n\
            Pages free:                               10.\nPages active:       99.\n\
            Pages speculative:                         5.\n";
        assert_eq!(vm_stat(macos), Some(15 * 16384));
    }

    #[test]
    fn of_the_host_and_its_control_groups_the_one_with_least_memory_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = root.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        assert_eq!(linux(root.path()), None);
        write("proc/meminfo", "MemAvailable:    7168 kB\n");
        assert_eq!(linux(root.path()), Some(7168 << 10));
        write("proc/self/cgroup", "0::/user.slice/run.scope\n");
        let slice = "sys/fs/cgroup/user.slice";
        write(&format!("{slice}/run.scope/memory.max"), "max\n");
        write(&format!("{slice}/run.scope/memory.current"), "4096\n");
        assert_eq!(linux(root.path()), Some(7168 << 10));
        write(&format!("{slice}/memory.max"), "3145728\n");
        write(&format!("{slice}/memory.current"), "2097152\n");
        write(&format!("{slice}/memory.stat"), "anon 7\ninactive_file 1048576\n");
        assert_eq!(linux(root.path()), Some(2 << 20));
        write(&format!("{slice}/run.scope/memory.high"), "8192\n");
        assert_eq!(linux(root.path()), Some(4096));
        // Within a container the group of version 1 is mounted alone, and its path is the host's.
        write("proc/self/cgroup", "4:memory:/docker/1\n0::/\n");
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9000\n");
        write("sys/fs/cgroup/memory/memory.usage_in_bytes", "2000\n");
        assert_eq!(linux(root.path()), Some(7000));
    }
}
