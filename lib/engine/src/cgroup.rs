//! Memory that Linux's control groups leave to this process: cgroups of version 2 and of version 1.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Files by which a version of cgroups tells of memory.
struct Version {
    /// Places where the hierarchy may be mounted.
    mounts: &'static [&'static str],
    /// Files of limits in bytes; other words than numbers mean no limit.
    limits: &'static [&'static str],
    /// File of the bytes in use.
    usage: &'static str,
    /// Fields of `memory.stat`: bytes of cached files, which are given up as the host's are that
    /// `MemAvailable` counts. A model that was read before would else not fit beside its own file.
    files: [&'static str; 2],
}

/// Documentation/admin-guide/cgroup-v2.rst of Linux.
const V2: Version = Version {
    mounts: &["sys/fs/cgroup", "sys/fs/cgroup/unified"],
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    files: ["active_file", "inactive_file"],
};

/// Documentation/admin-guide/cgroup-v1/memory.rst of Linux.
const V1: Version = Version {
    mounts: &["sys/fs/cgroup/memory"],
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    files: ["total_active_file", "total_inactive_file"],
};

/// Bytes that the control groups of this process leave free, the fewest of all levels; `None` if none
/// has a limit. The file system begins at `root`.
pub fn free(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let levels = groups.lines().filter_map(group).flat_map(|(version, path)| {
        let levels = version.mounts.iter().flat_map(|mount| up(root.join(mount), path));
        let read = |level: &Path, file: &str| fs::read_to_string(level.join(file)).ok();
        let free = |level: PathBuf| level_free(version, |file| read(&level, file));
        levels.filter_map(free).collect::<Vec<_>>()
    });
    levels.min()
}

/// Version and path of the group that a line `hierarchy:controllers:path` of /proc/self/cgroup names,
/// if the hierarchy may limit memory.
fn group(line: &str) -> Option<(&'static Version, &str)> {
    let mut parts = line.splitn(3, ':');
    let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    match (hierarchy, controllers) {
        ("0", "") => Some((&V2, path)),
        _ if controllers.split(',').any(|name| name == "memory") => Some((&V1, path)),
        _ => None,
    }
}

/// Directories of the group `path` and of those above it, up to `mount`. Within a container the path
/// may be the host's, and `mount` the group itself.
fn up(mount: PathBuf, path: &str) -> Vec<PathBuf> {
    let mut levels = vec![mount.clone()];
    let mut level = mount;
    for name in Path::new(path).components() {
        if let Component::Normal(name) = name {
            level.push(name);
            levels.push(level.clone());
        }
    }
    levels
}

/// Bytes that a group whose files are read by `read` leaves free, if it has a limit.
fn level_free(version: &Version, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    let limit = version.limits.iter().filter_map(|file| number(file)).min()?;
    let stat = read("memory.stat").unwrap_or_default();
    let files = version.files.iter().filter_map(|name| field(&stat, name));
    let used = number(version.usage)?.saturating_sub(files.sum());
    Some(limit.saturating_sub(used))
}

/// Value of the line `name value` of a `memory.stat`.
fn field(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_may_limit_memory_are_found() {
        let found = |line| group(line).map(|(version, path)| (version.usage, path));
        assert_eq!(found("0::/user.slice/a:b"), Some(("memory.current", "/user.slice/a:b")));
        assert_eq!(found("4:memory:/docker/1"), Some(("memory.usage_in_bytes", "/docker/1")));
        assert_eq!(found("7:cpuset,memory:/"), Some(("memory.usage_in_bytes", "/")));
        assert_eq!(found("5:cpu,cpuacct:/docker/1"), None);
        assert_eq!(found("1:name=systemd:/"), None);
        assert_eq!(found("broken"), None);
    }

    #[test]
    fn all_levels_of_a_group_count() {
        let levels = |path| -> Vec<String> {
            let levels = up("/m".into(), path).into_iter();
            levels.map(|level| level.display().to_string()).collect()
        };
        assert_eq!(levels("/"), ["/m"]);
        assert_eq!(levels("/a/b"), ["/m", "/m/a", "/m/a/b"]);
        assert_eq!(levels("/../a"), ["/m", "/m/a"]);
    }

    #[test]
    fn a_level_has_its_limit_less_what_it_uses_and_cannot_give_up() {
        let free = |version, files: &[(&str, &str)]| {
            level_free(version, |name| {
                let file = files.iter().find(|(file, _)| *file == name);
                file.map(|(_, text)| (*text).to_owned())
            })
        };
        let stat = "anon 1\ninactive_file_x 9\ninactive_file 250\nactive_file 50\n";
        let files = [("memory.max", "max\n"), ("memory.high", "max\n"), ("memory.current", "5\n")];
        assert_eq!(free(&V2, &files), None);
        let files = [("memory.max", "1000\n"), ("memory.current", "700\n"), ("memory.stat", stat)];
        assert_eq!(free(&V2, &files), Some(600));
        let files =
            [("memory.max", "1000\n"), ("memory.high", "800\n"), ("memory.current", "900\n")];
        assert_eq!(free(&V2, &files), Some(0));
        assert_eq!(free(&V2, &[("memory.max", "1000\n")]), None);
        let files = [
            ("memory.limit_in_bytes", "1000\n"),
            ("memory.usage_in_bytes", "700\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 200\ntotal_active_file 30\n"),
        ];
        assert_eq!(free(&V1, &files), Some(530));
    }
}
