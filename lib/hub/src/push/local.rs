//! Files of a workspace that a push sends, after ignore rules.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use mlxk_core::digest::{self, Digest, Hasher};
use mlxk_core::store::atomic_write::TEMP_PREFIX;
use mlxk_core::workspace::sentinel;
use mlxk_core::{Error, Kind, Result};

use crate::client::Hub;
use crate::safe_path;
use mlxk_core::progress::{Listener, Progress};

/// Ignore file of a workspace, with patterns as in `.gitignore`.
const IGNORE_FILE: &str = ".hfignore";

/// Default ignore patterns, which patterns of the workspace can negate.
const DEFAULT_RULES: [&str; 9] = [
    ".git",
    ".DS_Store",
    ".hfignore",
    ".gitignore",
    "__pycache__/",
    ".venv/",
    "venv/",
    "*.pyc",
    ".cache/huggingface/",
];

/// Files of a workspace that are not ignored.
#[derive(Debug)]
pub struct LocalFiles {
    /// Directory with symbolic links resolved.
    pub dir: PathBuf,
    /// Files sorted by path.
    pub files: Vec<LocalFile>,
    rules: Gitignore,
}

/// File to push.
#[derive(Clone, Debug)]
pub struct LocalFile {
    /// Path in the repository: relative to the workspace, with `/` as separator.
    pub path: String,
    /// Path on disk.
    pub disk_path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// Modification time (seconds, nanoseconds) and inode when the push began.
    stamp: (i64, i64, u64),
}

impl LocalFiles {
    /// Lists the files of the directory `dir`.
    ///
    /// # Errors
    /// `Validation` if there is no file, a link leads out of the directory or to no file, a name is
    /// not allowed on the Hub, or a pattern is invalid; an I/O error names its file.
    pub fn read(dir: &Path) -> Result<LocalFiles> {
        let dir = dir.canonicalize().map_err(|e| Error::io(dir, e))?;
        let rules = rules(&dir)?;
        let mut local = LocalFiles { dir: dir.clone(), files: Vec::new(), rules };
        local.walk(&dir, "")?;
        local.files.sort_by(|a, b| a.path.cmp(&b.path));
        match local.files.is_empty() {
            true => Err(invalid(&dir, "there is no file in it to push")),
            false => Ok(local),
        }
    }

    /// True if a push ignores the path, whether the file exists or not.
    pub fn ignores(&self, path: &str) -> bool {
        is_private(path) || self.rules.matched_path_or_any_parents(path, false).is_ignore()
    }

    fn walk(&mut self, directory: &Path, prefix: &str) -> Result<()> {
        let at = |e| Error::io(directory, e);
        for entry in fs::read_dir(directory).map_err(at)? {
            let disk_path = entry.map_err(at)?.path();
            let data = fs::symlink_metadata(&disk_path).map_err(|e| Error::io(&disk_path, e))?;
            let name = disk_path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| invalid(&disk_path, "the name is not UTF-8"))?;
            let path = format!("{prefix}{name}");
            if is_private(&path) || self.rules.matched(&path, data.is_dir()).is_ignore() {
                continue;
            }
            if data.is_dir() {
                self.walk(&disk_path, &format!("{path}/"))?;
            } else {
                self.files.push(self.file(path, disk_path, &data)?);
            }
        }
        Ok(())
    }

    fn file(&self, path: String, disk_path: PathBuf, data: &Metadata) -> Result<LocalFile> {
        if let Some(why) = safe_path::path_problem(&path) {
            return Err(invalid(&disk_path, &format!("no name for a file on the Hub: {why}")));
        }
        let data = match data.is_symlink() {
            true => self.follow(&disk_path)?,
            false => data.clone(),
        };
        match data.is_file() {
            true => Ok(LocalFile { path, disk_path, size: data.len(), stamp: stamp(&data) }),
            false if data.is_dir() => Err(invalid(&disk_path, "a link to a directory")),
            false => Err(invalid(&disk_path, "neither a file nor a directory")),
        }
    }

    /// Metadata of a link's target, which must be a file of the workspace that may be pushed.
    fn follow(&self, link: &Path) -> Result<Metadata> {
        let target = link.canonicalize().map_err(|e| Error::io(link, e))?;
        let inside = target.strip_prefix(&self.dir).ok().and_then(Path::to_str);
        match inside {
            None => Err(invalid(link, "a link that leads out of the workspace")),
            Some(inside) if is_private(inside) => {
                Err(invalid(link, "a link to what is never pushed"))
            }
            Some(_) => fs::metadata(&target).map_err(|e| Error::io(link, e)),
        }
    }
}

impl LocalFile {
    /// Hashes the content; fails if the user cancels or the file has changed since the push began.
    pub fn digest(&self, hasher: Hasher, hub: &Hub, progress: Listener) -> Result<Digest> {
        let digest = digest::file(&self.disk_path, hasher, |bytes| {
            progress(Progress::Checked { bytes });
            hub.check()
        })?;
        self.unchanged()?;
        Ok(digest)
    }

    /// Checks that the file has not changed since the push began.
    ///
    /// # Errors
    /// `UploadFailed` if it has.
    pub fn unchanged(&self) -> Result<()> {
        let data = fs::metadata(&self.disk_path).map_err(|e| Error::io(&self.disk_path, e))?;
        match data.len() == self.size && stamp(&data) == self.stamp {
            true => Ok(()),
            false => Err(Error::new(
                Kind::UploadFailed,
                self.disk_path.display().to_string(),
                "changed while it was pushed",
            )
            .hint("nothing was committed: push again when it is finished")),
        }
    }
}

/// Default ignore rules, followed by those of the workspace.
fn rules(dir: &Path) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new(dir);
    let own = dir.join(IGNORE_FILE);
    // A named pipe would be read for ever.
    let text = match fs::metadata(&own) {
        Ok(data) if !data.is_file() => return Err(invalid(&own, "not a regular file")),
        _ => fs::read_to_string(&own),
    };
    let text = match text {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::io(&own, e)),
    };
    let text = text.trim_start_matches('\u{feff}');
    for line in DEFAULT_RULES.into_iter().chain(text.lines()) {
        builder.add_line(None, line.trim()).map_err(|e| invalid(&own, &e.to_string()))?;
    }
    builder.build().map_err(|e| invalid(&own, &e.to_string()))
}

/// True for files that describe this machine or are temporary; no rule can include them.
fn is_private(path: &str) -> bool {
    let beginnings = [sentinel::NAME, TEMP_PREFIX];
    let is_private = |part: &str| {
        part == ".hf_cache" || beginnings.iter().any(|beginning| part.starts_with(beginning))
    };
    path.split('/').any(is_private)
}

fn stamp(data: &Metadata) -> (i64, i64, u64) {
    (data.mtime(), data.mtime_nsec(), data.ino())
}

fn invalid(path: &Path, message: &str) -> Error {
    Error::new(Kind::Validation, path.display().to_string(), message)
}
