//! What came of a push, and the record of it.

use mlxk_core::Record;
use serde_json::{Value, json};

use super::Wish;
use super::change::{self, Content};
use super::commit::Made;
use super::local::{Local, LocalFile};
use super::plan::Plan;
use crate::client::Hub;

/// Files named in a record at most.
const NAMED: usize = 20;

/// Counts of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// That the Hub had not.
    pub added: usize,
    /// That it had with other content.
    pub modified: usize,
    /// That it has no more; in a dry run, that only it has.
    pub deleted: usize,
}

/// What came of a push.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// `org/name`.
    pub repo: String,
    /// The branch.
    pub branch: String,
    /// The commit that was made, if one was.
    pub made: Option<Made>,
    /// True if there was no repository.
    pub no_repo: bool,
    /// True if there was no such branch.
    pub no_branch: bool,
    /// True if nothing was to be done, but what may have been made.
    pub unchanged: bool,
    /// True if nothing was done.
    pub dry_run: bool,
    /// What was changed, or would be.
    pub change: Change,
    /// Files of the workspace.
    pub local_files: usize,
    /// Files that were sent.
    pub sent: usize,
    /// The first of the files that are new.
    pub added: Vec<String>,
    /// The first of those with other content.
    pub modified: Vec<String>,
    /// The first of the files that only the Hub has.
    pub only_there: Vec<String>,
    /// Files of the workspace that the Hub does not take.
    pub refused: Vec<String>,
    delete_missing: bool,
    url: String,
}

impl Pushed {
    pub(super) fn new(hub: &Hub, local: &Local, wish: &Wish) -> Pushed {
        Pushed {
            repo: wish.repo.clone(),
            branch: wish.branch.clone(),
            made: None,
            no_repo: false,
            no_branch: false,
            unchanged: false,
            dry_run: wish.dry_run,
            change: Change::default(),
            local_files: local.files.len(),
            sent: 0,
            added: Vec::new(),
            modified: Vec::new(),
            only_there: Vec::new(),
            refused: Vec::new(),
            delete_missing: wish.delete_missing,
            url: format!("{}/{}", hub.remote().endpoint, wish.repo),
        }
    }

    /// The end of a dry run.
    pub(super) fn would(mut self, plan: &Plan) -> Pushed {
        self.change = Change {
            added: plan.added.len(),
            modified: plan.modified.len(),
            deleted: plan.only_there.len(),
        };
        let first = |files: &[&LocalFile]| -> Vec<String> {
            files.iter().take(NAMED).map(|file| file.path.clone()).collect()
        };
        self.added = first(&plan.added);
        self.modified = first(&plan.modified);
        self.only_there = plan.only_there.iter().take(NAMED).cloned().collect();
        let deletes = self.delete_missing && self.change.deleted > 0;
        self.unchanged = self.change.added + self.change.modified == 0 && !deletes;
        self
    }

    /// The end of a push that had nothing to do.
    pub(super) fn unchanged(mut self) -> Pushed {
        self.unchanged = true;
        self
    }

    /// The end of a push that made a commit.
    pub(super) fn done(mut self, plan: &Plan, changes: &[change::Change], made: Made) -> Pushed {
        let is_new = |path: &str| plan.added.iter().any(|file| file.path == path);
        for change in changes {
            match change.content {
                Content::Deleted => self.change.deleted += 1,
                _ if is_new(change.path) => self.change.added += 1,
                _ => self.change.modified += 1,
            }
        }
        self.sent = self.change.added + self.change.modified;
        self.made = Some(made);
        self
    }

    /// What happened, in a few words.
    pub fn message(&self) -> String {
        let Change { added, modified, deleted } = self.change;
        let kept = if self.delete_missing || deleted == 0 { "" } else { ", kept on the Hub" };
        match &self.made {
            Some(made) => {
                let commit: String = made.commit.chars().take(7).collect();
                format!("commit {commit} (+{added} ~{modified} -{deleted})")
            }
            None if self.dry_run => format!("dry-run: +{added} ~{modified} -{deleted}{kept}"),
            None => "no changes".to_owned(),
        }
    }

    /// The record, which names what was pushed to the next program.
    pub fn record(&self) -> Record {
        let commit = self.made.as_ref().map(|made| made.commit.as_str());
        let record = Record::default()
            .with("name", &*self.repo)
            .with("hash", commit)
            .with("repo_id", &*self.repo)
            .with("branch", &*self.branch)
            .with("commit_sha", commit)
            .with("commit_url", self.made.as_ref().map(|made| made.url.as_str()))
            .with("repo_url", &*self.url)
            .with("uploaded_files_count", self.sent)
            .with("local_files_count", self.local_files)
            .with("refused_files", self.refused.as_slice())
            .with("no_changes", self.unchanged)
            .with("created_repo", self.no_repo && !self.dry_run)
            .with("change_summary", counts(self.change))
            .with("message", self.message())
            .with("experimental", false)
            .with("hf_logs", json!([]))
            .with("dry_run", self.dry_run);
        if !self.dry_run {
            return record;
        }
        record
            .with("dry_run_summary", counts(self.change))
            .with("would_create_repo", self.no_repo)
            .with("would_create_branch", self.no_branch)
            .with("added_files", self.added.as_slice())
            .with("modified_files", self.modified.as_slice())
            .with("deleted_files", self.only_there.as_slice())
    }
}

fn counts(change: Change) -> Value {
    let Change { added, modified, deleted } = change;
    json!({"added": added, "modified": modified, "deleted": deleted})
}
