//! What there is to push: the files of a workspace, less what is not meant for others.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use mlxk_core::digest::{self, Digest, Hasher};
use mlxk_core::store::atomic_write::TEMP_PREFIX;
use mlxk_core::workspace::sentinel;
use mlxk_core::{Error, Kind, Result};

use crate::client::Hub;
use crate::event::{Event, Listener};
use crate::names;

/// The file with more patterns of what to leave out, as in `.gitignore`.
const OWN_RULES: &str = ".hfignore";

/// What is left out unless the workspace's own patterns take it in again.
const RULES: [&str; 9] = [
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

/// The files of a workspace.
#[derive(Debug)]
pub struct Local {
    /// The directory, links resolved.
    pub dir: PathBuf,
    /// Its files, sorted by path.
    pub files: Vec<LocalFile>,
    rules: Gitignore,
}

/// A file to push.
#[derive(Clone, Debug)]
pub struct LocalFile {
    /// Its name on the Hub: relative to the workspace, with `/`.
    pub path: String,
    /// Where it lies.
    pub disk: PathBuf,
    /// Bytes.
    pub size: u64,
    /// When it was last written, and what it was then.
    stamp: (i64, i64, u64),
}

impl Local {
    /// The files of the directory `dir`, which must be some.
    ///
    /// # Errors
    /// If a link leads out of it or to no file, a name cannot be on the Hub, a pattern is none, or
    /// something cannot be read; with the file.
    pub fn read(dir: &Path) -> Result<Local> {
        let dir = dir.canonicalize().map_err(|e| Error::io(dir, e))?;
        let rules = rules(&dir)?;
        let mut local = Local { dir: dir.clone(), files: Vec::new(), rules };
        local.walk(&dir, "")?;
        local.files.sort_by(|a, b| a.path.cmp(&b.path));
        match local.files.is_empty() {
            true => Err(refused(&dir, "there is no file in it to push")),
            false => Ok(local),
        }
    }

    /// True if the file `path`, wherever it is, is not one to push.
    pub fn ignores(&self, path: &str) -> bool {
        is_private(path) || self.rules.matched_path_or_any_parents(path, false).is_ignore()
    }

    fn walk(&mut self, directory: &Path, prefix: &str) -> Result<()> {
        let at = |e| Error::io(directory, e);
        for entry in fs::read_dir(directory).map_err(at)? {
            let disk = entry.map_err(at)?.path();
            let data = fs::symlink_metadata(&disk).map_err(|e| Error::io(&disk, e))?;
            let name = disk.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| refused(&disk, "the name is not UTF-8"))?;
            let path = format!("{prefix}{name}");
            if is_private(&path) || self.rules.matched(&path, data.is_dir()).is_ignore() {
                continue;
            }
            if data.is_dir() {
                self.walk(&disk, &format!("{path}/"))?;
            } else {
                self.files.push(self.file(path, disk, &data)?);
            }
        }
        Ok(())
    }

    fn file(&self, path: String, disk: PathBuf, data: &Metadata) -> Result<LocalFile> {
        if let Some(why) = names::path_problem(&path) {
            return Err(refused(&disk, &format!("no name for a file on the Hub: {why}")));
        }
        let data = match data.is_symlink() {
            true => self.follow(&disk)?,
            false => data.clone(),
        };
        match data.is_file() {
            true => Ok(LocalFile { path, disk, size: data.len(), stamp: stamp(&data) }),
            false if data.is_dir() => Err(refused(&disk, "a link to a directory")),
            false => Err(refused(&disk, "neither a file nor a directory")),
        }
    }

    /// What a link shows, if that is a file of the workspace that may be pushed.
    fn follow(&self, link: &Path) -> Result<Metadata> {
        let target = link.canonicalize().map_err(|e| Error::io(link, e))?;
        let inside = target.strip_prefix(&self.dir).ok().and_then(Path::to_str);
        match inside {
            None => Err(refused(link, "a link that leads out of the workspace")),
            Some(inside) if is_private(inside) => {
                Err(refused(link, "a link to what is never pushed"))
            }
            Some(_) => fs::metadata(&target).map_err(|e| Error::io(link, e)),
        }
    }
}

impl LocalFile {
    /// Hashes the content, unless the user of `hub` has had enough meanwhile.
    pub fn digest(&self, hasher: Hasher, hub: &Hub, told: Listener) -> Result<Digest> {
        let digest = digest::file(&self.disk, hasher, |bytes| {
            told(Event::Checked { bytes });
            hub.check()
        })?;
        self.unchanged()?;
        Ok(digest)
    }

    /// An error if the file is not as it was when the push began.
    pub fn unchanged(&self) -> Result<()> {
        let data = fs::metadata(&self.disk).map_err(|e| Error::io(&self.disk, e))?;
        match data.len() == self.size && stamp(&data) == self.stamp {
            true => Ok(()),
            false => Err(Error::new(
                Kind::UploadFailed,
                self.disk.display().to_string(),
                "changed while it was pushed",
            )
            .hint("nothing was committed: push again when it is finished")),
        }
    }
}

/// The rules that everybody has, and those of the workspace.
fn rules(dir: &Path) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new(dir);
    let own = dir.join(OWN_RULES);
    let text = match fs::read_to_string(&own) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::io(&own, e)),
    };
    let text = text.trim_start_matches('\u{feff}');
    for line in RULES.into_iter().chain(text.lines()) {
        builder.add_line(None, line.trim()).map_err(|e| refused(&own, &e.to_string()))?;
    }
    builder.build().map_err(|e| refused(&own, &e.to_string()))
}

/// True for what tells of this machine or was not finished there, and is pushed by no rule.
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

fn refused(path: &Path, message: &str) -> Error {
    Error::new(Kind::Validation, path.display().to_string(), message)
}
