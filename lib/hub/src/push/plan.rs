//! What differs between a workspace and the Hub, by size and digest.

use std::collections::{BTreeMap, BTreeSet};

use mlxk_core::Result;
use mlxk_core::digest::Digest;
use rayon::prelude::*;

use super::Wish;
use super::local::{Local, LocalFile};
use crate::client::Hub;
use crate::event::Listener;
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
        let compared: Vec<(&LocalFile, bool)> = known
            .into_par_iter()
            .map(|file| Ok((file, same(file, there[&*file.path], hub)?)))
            .collect::<Result<_>>()?;
        let modified = compared.into_iter().filter(|(_, same)| !same).map(|(file, _)| file);
        let modified = modified.collect();
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

fn same(file: &LocalFile, there: &RemoteFile, hub: &Hub) -> Result<bool> {
    match there.etag().parse::<Digest>() {
        Ok(known) if file.size == there.size => {
            Ok(file.digest(known.hasher(file.size), hub)? == known)
        }
        _ => Ok(false),
    }
}
