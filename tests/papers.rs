//! Files that the papers for contributors name exist.

use std::fs;
use std::path::Path;

const FOLDERS: [&str; 4] = ["lib/", "bins/", "tests/", "man/"];

#[test]
fn every_path_in_the_papers_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for paper in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root.join(paper)).unwrap();
        let paths: Vec<&str> = text.lines().flat_map(quoted).filter(|word| is_path(word)).collect();
        assert!(!paths.is_empty(), "{paper}");
        let absent = paths.into_iter().filter(|path| !exists(root, path));
        missing.extend(absent.map(|path| format!("{paper}: {path}")));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Words in backticks on a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).flat_map(str::split_whitespace)
}

/// Whether a word is a path without a placeholder such as `NAME`.
fn is_path(word: &str) -> bool {
    let named = word.ends_with(".rs") || FOLDERS.iter().any(|folder| word.starts_with(folder));
    let placeholder = |part: &str| part.len() > 1 && part.chars().all(|c| c.is_ascii_uppercase());
    named && !word.split(|c: char| !c.is_ascii_alphanumeric()).any(placeholder)
}

/// A path is one from the root, one from a crate (`core/list.rs` is `lib/core/src/list.rs`), or the
/// bare name of a file somewhere in the folder of another path.
fn exists(root: &Path, path: &str) -> bool {
    let in_crate = |path: &str| {
        let (name, rest) = path.split_once('/')?;
        Some(root.join("lib").join(name).join("src").join(rest))
    };
    if path.contains('/') {
        return root.join(path).exists() || in_crate(path).is_some_and(|path| path.exists());
    }
    ["lib", "bins", "tests", "build.rs"].iter().any(|folder| holds(&root.join(folder), path))
}

/// Whether `path` is, or has below it, a file of this name.
fn holds(path: &Path, name: &str) -> bool {
    if path.file_name().is_some_and(|own| own == name) {
        return true;
    }
    let entries = fs::read_dir(path).into_iter().flatten();
    entries.filter_map(Result::ok).any(|entry| holds(&entry.path(), name))
}
