//! Result of a push, and its record.

use mlxk_core::Record;
use serde_json::{Value, json};

use super::PushOptions;
use super::change::{self, Content};
use super::commit::Commit;
use super::diff::Diff;
use super::local::{LocalFile, LocalFiles};
use crate::client::Hub;

/// Most file names that a record lists per kind of change.
const MAX_NAMES: usize = 20;

/// Numbers of changed files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeCounts {
    /// Files that the Hub did not have.
    pub added: usize,
    /// Files that the Hub had with other content.
    pub modified: usize,
    /// Files deleted from the Hub; in a dry run, all files that only the Hub has.
    pub deleted: usize,
}

/// Result of a push or of its dry run.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Repository id, `org/name`.
    pub repo: String,
    /// Branch that was pushed to.
    pub branch: String,
    /// Commit that was created, if any.
    pub commit: Option<Commit>,
    /// True if the repository did not exist.
    pub repo_missing: bool,
    /// True if the branch did not exist.
    pub branch_missing: bool,
    /// True if no file differed.
    pub unchanged: bool,
    /// True for a dry run.
    pub dry_run: bool,
    /// Numbers of changed files; in a dry run, of files that would change.
    pub change: ChangeCounts,
    /// Number of files in the workspace.
    pub local_files: usize,
    /// Number of files sent.
    pub sent: usize,
    /// Paths of new files, up to a limit; only in a dry run.
    pub added: Vec<String>,
    /// Paths of files with other content, up to a limit; only in a dry run.
    pub modified: Vec<String>,
    /// Paths of files that only the Hub has, up to a limit; only in a dry run.
    pub only_remote: Vec<String>,
    /// Paths of files that the repository's `.gitignore` excludes.
    pub refused: Vec<String>,
    delete_missing: bool,
    url: String,
}

impl Pushed {
    pub(super) fn new(hub: &Hub, local: &LocalFiles, options: &PushOptions) -> Pushed {
        Pushed {
            repo: options.repo.clone(),
            branch: options.branch.clone(),
            commit: None,
            repo_missing: false,
            branch_missing: false,
            unchanged: false,
            dry_run: options.dry_run,
            change: ChangeCounts::default(),
            local_files: local.files.len(),
            sent: 0,
            added: Vec::new(),
            modified: Vec::new(),
            only_remote: Vec::new(),
            refused: Vec::new(),
            delete_missing: options.delete_missing,
            url: format!("{}/{}", hub.remote().endpoint, options.repo),
        }
    }

    /// Result of a dry run.
    pub(super) fn dry_run(mut self, diff: &Diff) -> Pushed {
        self.change = ChangeCounts {
            added: diff.added.len(),
            modified: diff.modified.len(),
            deleted: diff.only_remote.len(),
        };
        let first = |files: &[&LocalFile]| -> Vec<String> {
            files.iter().take(MAX_NAMES).map(|file| file.path.clone()).collect()
        };
        self.added = first(&diff.added);
        self.modified = first(&diff.modified);
        self.only_remote = diff.only_remote.iter().take(MAX_NAMES).cloned().collect();
        let deletes = self.delete_missing && self.change.deleted > 0;
        self.unchanged = self.change.added + self.change.modified == 0 && !deletes;
        self
    }

    /// Result of a push without changes.
    pub(super) fn unchanged(mut self) -> Pushed {
        self.unchanged = true;
        self
    }

    /// Result of a push that created `commit`.
    pub(super) fn done(
        mut self,
        diff: &Diff,
        changes: &[change::Change],
        commit: Commit,
    ) -> Pushed {
        let is_new = |path: &str| diff.added.iter().any(|file| file.path == path);
        for change in changes {
            match change.content {
                Content::Deleted => self.change.deleted += 1,
                _ if is_new(change.path) => self.change.added += 1,
                _ => self.change.modified += 1,
            }
        }
        self.sent = self.change.added + self.change.modified;
        self.commit = Some(commit);
        self
    }

    /// One-line summary of the result.
    pub fn message(&self) -> String {
        let ChangeCounts { added, modified, deleted } = self.change;
        let kept = if self.delete_missing || deleted == 0 { "" } else { ", kept on the Hub" };
        match &self.commit {
            Some(commit) => {
                let commit: String = commit.id.chars().take(7).collect();
                format!("commit {commit} (+{added} ~{modified} -{deleted})")
            }
            None if self.dry_run => format!("dry-run: +{added} ~{modified} -{deleted}{kept}"),
            None => "no changes".to_owned(),
        }
    }

    /// Record of the result; its `name` and `hash` identify the pushed revision.
    pub fn record(&self) -> Record {
        let commit = self.commit.as_ref().map(|commit| commit.id.as_str());
        let record = Record::default()
            .with("name", &*self.repo)
            .with("hash", commit)
            .with("repo_id", &*self.repo)
            .with("branch", &*self.branch)
            .with("commit_sha", commit)
            .with("commit_url", self.commit.as_ref().map(|commit| commit.url.as_str()))
            .with("repo_url", &*self.url)
            .with("uploaded_files_count", self.sent)
            .with("local_files_count", self.local_files)
            .with("refused_files", self.refused.as_slice())
            .with("no_changes", self.unchanged)
            .with("created_repo", self.repo_missing && !self.dry_run)
            .with("change_summary", counts_json(self.change))
            .with("message", self.message())
            .with("experimental", false)
            .with("hf_logs", json!([]))
            .with("dry_run", self.dry_run);
        if !self.dry_run {
            return record;
        }
        record
            .with("dry_run_summary", counts_json(self.change))
            .with("would_create_repo", self.repo_missing)
            .with("would_create_branch", self.branch_missing)
            .with("added_files", self.added.as_slice())
            .with("modified_files", self.modified.as_slice())
            .with("deleted_files", self.only_remote.as_slice())
    }
}

fn counts_json(change: ChangeCounts) -> Value {
    let ChangeCounts { added, modified, deleted } = change;
    json!({"added": added, "modified": modified, "deleted": deleted})
}
