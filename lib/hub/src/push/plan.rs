//! What differs between a workspace and the Hub, by size and digest.

use std::collections::{BTreeMap, BTreeSet};

use mlxk_core::Result;
use mlxk_core::digest::Digest;
use rayon::prelude::*;

use super::Wish;
use super::local::{Local, LocalFile};
use crate::client::Hub;
use crate::event::{Event, Listener};
use crate::listing::{self, RemoteFile};

/// What a push has to do; each list is sorted by path.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Files that the Hub has not.
    pub added: Vec<&'a LocalFile>,
    /// Files that it has with other content.
    pub modified: Vec<&'a LocalFile>,
    /// Files that only the Hub has, those left aside that no push would touch.
    pub only_there: Vec<String>,
}

impl<'a> Plan<'a> {
    /// What differs from `commit`.
    pub fn against(
        hub: &Hub,
        local: &'a Local,
        wish: &Wish,
        commit: &str,
        told: Listener,
    ) -> Result<Plan<'a>> {
        let remote = listing::files(hub, &wish.repo, commit, told)?.files;
        let there: BTreeMap<&str, &RemoteFile> =
            remote.iter().map(|file| (&*file.path, file)).collect();
        let (known, added): (Vec<_>, Vec<_>) =
            local.files.iter().partition(|file| there.contains_key(&*file.path));
        let modified = differing(known, &there, hub, told)?;
        let here: BTreeSet<&str> = local.files.iter().map(|file| &*file.path).collect();
        let only_there = there.into_keys().filter(|path| {
            // The Hub writes it by itself, and its large files are not found without it.
            !here.contains(path) && *path != ".gitattributes" && !local.ignores(path)
        });
        let only_there = only_there.map(str::to_owned).collect();
        Ok(Plan { added, modified, only_there })
    }

    /// What a repository lacks that is not there at all.
    pub fn of_new(local: &'a Local) -> Plan<'a> {
        let added = local.files.iter().collect();
        Plan { added, modified: Vec::new(), only_there: Vec::new() }
    }

    /// The files to send.
    pub fn files(&self) -> impl Iterator<Item = &'a LocalFile> {
        self.added.iter().chain(&self.modified).copied()
    }
}

/// Those of `files` whose content is not what is `there` under their path.
fn differing<'a>(
    files: Vec<&'a LocalFile>,
    there: &BTreeMap<&str, &RemoteFile>,
    hub: &Hub,
    told: Listener,
) -> Result<Vec<&'a LocalFile>> {
    let known = |file: &LocalFile| {
        let there = there[&*file.path];
        there.etag().parse::<Digest>().ok().filter(|_| file.size == there.size)
    };
    let bytes = files.iter().filter(|file| known(file).is_some()).map(|file| file.size).sum();
    told(Event::Check { bytes });
    let differs = |file: &LocalFile| match known(file) {
        Some(known) => Ok(file.digest(known.hasher(file.size), hub, told)? != known),
        None => Ok(true),
    };
    let compared = files.into_par_iter().map(|file| Ok(differs(file)?.then_some(file)));
    let compared: Vec<Option<&LocalFile>> = compared.collect::<Result<_>>()?;
    Ok(compared.into_iter().flatten().collect())
}
