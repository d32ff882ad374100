//! Validation of ids, revisions and file names from outside that become paths or URLs: no
//! traversal.

use std::collections::BTreeMap;

use mlxk_core::{Error, Kind, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Longest path of a file, and longest name in it, in bytes (`PATH_MAX` and `NAME_MAX` of Linux).
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// Directories whose settings make a program run commands, once it is used in a directory above.
const CONTROLLING: [&str; 3] = [".git", "git~1", ".hg"];

/// Longest model id on the Hub, in bytes.
const MAX_ID: usize = 96;

/// Characters that are percent-encoded in a URL: all but letters, digits and `-_.~` (RFC 3986).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Checks that `id` is a model id of the Hub: `org/name`, or the bare `name` of a legacy model.
///
/// # Errors
/// `Validation` for anything else.
pub fn check_id(id: &str) -> Result<()> {
    let part = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let ends = part.starts_with(['-', '.']) || part.ends_with(['-', '.']);
        !part.is_empty() && part.chars().all(plain) && !ends
    };
    let parts: Vec<&str> = id.split('/').collect();
    let odd = id.contains("--") || id.contains("..") || id.ends_with(".git");
    match parts.len() <= 2 && parts.into_iter().all(part) && !odd && id.len() <= MAX_ID {
        true => Ok(()),
        false => Err(Error::new(Kind::Validation, id, "not the name of a model on the Hub")
            .hint("there a model is named org/name, of letters, digits and - _ . between them")),
    }
}

/// Checks that `revision` can be a branch, a tag or a commit.
///
/// # Errors
/// `Validation` for anything else.
pub fn check_revision(revision: &str) -> Result<()> {
    let odd = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    match path_problem(revision) {
        None if !revision.contains(odd) && !revision.starts_with('-') => Ok(()),
        _ => Err(Error::new(Kind::Validation, revision, "not the name of a revision")
            .hint("a branch, a tag, a commit, or refs/pr/1")),
    }
}

/// Checks that all files of a repository can be written below one directory.
///
/// # Errors
/// `Validation` if a path is unsafe, is listed twice, or is a file and a directory at once.
pub fn check_paths<'a>(paths: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
    let bad = |path: &str, why: &str| Error::new(Kind::Validation, path, why);
    let mut kinds = BTreeMap::new();
    for path in paths {
        if let Some(why) = path_problem(path) {
            return Err(bad(path, &format!("the Hub lists a file with an unsafe name: {why}")));
        }
        // On a case-insensitive file system, names that differ in case are one file.
        let key = |path: &str| {
            if cfg!(target_os = "macos") { path.to_lowercase() } else { path.to_owned() }
        };
        if kinds.insert(key(path), true).is_some() {
            return Err(bad(path, "the Hub lists two files of one name"));
        }
        for (slash, _) in path.match_indices('/') {
            if kinds.insert(key(&path[..slash]), false) == Some(true) {
                return Err(bad(&path[..slash], "the Hub lists a file that is a directory too"));
            }
        }
    }
    Ok(())
}

/// Percent-encodes one path segment of a URL, slashes included.
pub fn escape(segment: &str) -> String {
    utf8_percent_encode(segment, ESCAPED).to_string()
}

/// Percent-encodes a path for a URL, except for its slashes.
pub fn escape_path(path: &str) -> String {
    path.split('/').map(escape).collect::<Vec<_>>().join("/")
}

/// Reason why `path` may not stay below a directory it is joined to, on any operating system.
pub(crate) fn path_problem(path: &str) -> Option<&'static str> {
    let parts = || path.split('/');
    match path {
        _ if path.starts_with('/') => Some("it is absolute"),
        _ if parts().any(str::is_empty) => Some("a part of it is empty"),
        _ if parts().any(|part| part == ".." || part == ".") => Some("a part of it is . or .."),
        _ if path.contains('\\') => Some("there is a backslash in it"),
        _ if path.contains(char::is_control) => Some("there is a control character in it"),
        _ if parts().any(|part| part.as_bytes().get(1) == Some(&b':')) => Some("it names a drive"),
        _ if parts().any(is_controlling) => Some("a part of it is the directory of a repository"),
        _ if path.len() > MAX_PATH || parts().any(|part| part.len() > MAX_NAME) => {
            Some("it is too long")
        }
        _ => None,
    }
}

/// True for all names that some file system takes for one of [`CONTROLLING`]: in any case, with
/// characters that HFS+ ignores, and with what NTFS ignores at the end, as git's own check has it
/// (`is_hfs_dotgit` in utf8.c, `is_ntfs_dotgit` in path.c).
fn is_controlling(part: &str) -> bool {
    let ignored = |c: char| {
        matches!(c,
            '\u{200c}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{206a}'..='\u{206f}'
            | '\u{feff}')
    };
    let seen: String = part.chars().filter(|c| !ignored(*c)).collect();
    let name = seen.split(':').next().unwrap_or_default().trim_end_matches([' ', '.']);
    CONTROLLING.iter().any(|controlling| name.eq_ignore_ascii_case(controlling))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_hub_are_accepted_and_others_refused() {
        for good in ["gpt2", "mlx-community/Qwen3-0.6B-4bit", "a/b_c.d"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in
            ["", "a/b/c", "/a", "a/", "a//b", "../a", "a/..", "a b", "a/-b", "a--b", "x.git", "ä/b"]
        {
            assert!(check_id(bad).is_err(), "{bad}");
        }
        assert!(check_id(&"a".repeat(97)).is_err());
    }

    #[test]
    fn revisions_may_nest_but_not_traverse() {
        for good in ["main", "refs/pr/1", "v1.0", "0123abc", "feature/x"] {
            assert!(check_revision(good).is_ok(), "{good}");
        }
        for bad in ["", "../x", "a/../b", "/a", "a b", "a\\b", "-x", "a\nb"] {
            assert!(check_revision(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_that_traverse_or_collide_are_refused() {
        let check = |paths: &[&str]| check_paths(paths.iter().copied());
        assert!(check(&["a", "b/c", "b/d", ".gitattributes", "ä b.json", "x..y"]).is_ok());
        for bad in
            ["../../x", "a/../b", "/etc/x", "a\\b", "a//b", "./a", "", "a\0b", "C:/x", "a/D:b"]
        {
            assert!(check(&[bad]).is_err(), "{bad:?}");
        }
        assert!(check(&["a", "a"]).is_err());
        assert!(check(&["a", "a/b"]).is_err() && check(&["a/b", "a"]).is_err());
    }

    #[test]
    fn directories_of_git_are_refused_in_every_spelling() {
        for bad in [
            ".git/config",
            "a/.git",
            ".GIT/hooks/x",
            "git~1/config",
            "GIT~1",
            ".git./x",
            ".git . /x",
            ".git::$INDEX_ALLOCATION/x",
            ".g\u{200c}it/x",
            "\u{feff}.Git/x",
            ".hg/hgrc",
        ] {
            assert!(path_problem(bad).is_some(), "{bad:?}");
        }
        for good in [".gitattributes", ".gitignore", "git", "a.git", ".github/x", "git~2", ".git-x"]
        {
            assert_eq!(path_problem(good), None, "{good}");
        }
        assert!(path_problem(&"a".repeat(256)).is_some());
    }

    #[test]
    fn urls_are_percent_encoded() {
        assert_eq!(escape("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(escape_path("a b/c#?%.json"), "a%20b/c%23%3F%25.json");
    }
}
