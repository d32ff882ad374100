//! Comparison of a workspace with a revision on the Hub, by size and digest.

use std::collections::{BTreeMap, BTreeSet};

use mlxk_core::Result;
use mlxk_core::digest::Digest;
use rayon::prelude::*;

use super::PushOptions;
use super::local::{LocalFile, LocalFiles};
use crate::client::Hub;
use crate::listing::{self, RemoteFile};
use mlxk_core::progress::{Listener, Progress};

/// Differences between a workspace and a revision; each list is sorted by path.
#[derive(Debug)]
pub struct Diff<'a> {
    /// Files that the Hub does not have.
    pub added: Vec<&'a LocalFile>,
    /// Files that the Hub has with other content.
    pub modified: Vec<&'a LocalFile>,
    /// Paths that only the Hub has, without files that a push ignores.
    pub only_remote: Vec<String>,
}

impl<'a> Diff<'a> {
    /// Differences between the workspace and `commit`.
    pub fn against(
        hub: &Hub,
        local: &'a LocalFiles,
        options: &PushOptions,
        commit: &str,
        progress: Listener,
    ) -> Result<Diff<'a>> {
        let remote = listing::files(hub, &options.repo, commit, progress)?.files;
        let there: BTreeMap<&str, &RemoteFile> =
            remote.iter().map(|file| (&*file.path, file)).collect();
        let (known, added): (Vec<_>, Vec<_>) =
            local.files.iter().partition(|file| there.contains_key(&*file.path));
        let modified = with_other_content(known, &there, hub, progress)?;
        let here: BTreeSet<&str> = local.files.iter().map(|file| &*file.path).collect();
        let only_remote = there.into_keys().filter(|path| {
            // The Hub maintains .gitattributes itself, and needs it to find LFS files.
            !here.contains(path) && *path != ".gitattributes" && !local.ignores(path)
        });
        let only_remote = only_remote.map(str::to_owned).collect();
        Ok(Diff { added, modified, only_remote })
    }

    /// Differences to a repository that does not exist: all files are new.
    pub fn all_new(local: &'a LocalFiles) -> Diff<'a> {
        let added = local.files.iter().collect();
        Diff { added, modified: Vec::new(), only_remote: Vec::new() }
    }

    /// Files to send.
    pub fn files(&self) -> impl Iterator<Item = &'a LocalFile> {
        self.added.iter().chain(&self.modified).copied()
    }
}

/// Files of `files` whose content differs from the one in `there` under the same path.
fn with_other_content<'a>(
    files: Vec<&'a LocalFile>,
    there: &BTreeMap<&str, &RemoteFile>,
    hub: &Hub,
    progress: Listener,
) -> Result<Vec<&'a LocalFile>> {
    let known = |file: &LocalFile| {
        let there = there[&*file.path];
        there.etag().parse::<Digest>().ok().filter(|_| file.size == there.size)
    };
    let bytes = files.iter().filter(|file| known(file).is_some()).map(|file| file.size).sum();
    progress(Progress::Check { bytes });
    let differs = |file: &LocalFile| match known(file) {
        Some(known) => Ok(file.digest(known.hasher(file.size), hub, progress)? != known),
        None => Ok(true),
    };
    let compared = files.into_par_iter().map(|file| Ok(differs(file)?.then_some(file)));
    let compared: Vec<Option<&LocalFile>> = compared.collect::<Result<_>>()?;
    Ok(compared.into_iter().flatten().collect())
}
