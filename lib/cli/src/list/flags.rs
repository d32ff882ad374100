//! The flags of `mlxk-ls`, and what they select.

use clap::Args;
use mlxk_core::store::Revisions;

use super::{Columns, Query, Style};
use crate::output::{Form, FormFlags, terminal_width};
use crate::select::{Filter, Sort};

/// Which models to list, and how.
#[derive(Args, Clone, Debug)]
pub struct ListFlags {
    /// Part of a name in any case, name@revision, or a path; any of several
    #[arg(value_name = "PATTERN", add = crate::completion::models())]
    patterns: Vec<String>,
    /// Also list what is unhealthy or cannot run
    #[arg(short, long)]
    all: bool,
    /// Every cached revision, not only the current one
    #[arg(long)]
    revisions: bool,
    /// Only models that fulfil a condition, see below; may be repeated
    #[arg(short, long = "filter", value_name = "CONDITION")]
    filters: Vec<Filter>,
    /// Order by accessed, modified, name or size; newest and biggest first
    #[arg(long, value_name = "KEY[:asc|desc]", add = crate::completion::words(&SORTS))]
    sort: Option<Sort>,
    /// List at most N models
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Names only
    #[arg(short, long)]
    quiet: bool,
    /// Add the health to the table
    #[arg(long)]
    health: bool,
    /// Whole names and more columns in the table; with --health, the reasons
    #[arg(short, long)]
    verbose: bool,
    /// Show the paths of workspaces, and whole names, in the table
    #[arg(long)]
    full_paths: bool,
    /// Add the model that a workspace was made from to the table
    #[arg(long)]
    origin: bool,
    /// Do not fit the table to the terminal: cut no cells, leave out no columns
    #[arg(long)]
    no_truncate: bool,
    #[command(flatten)]
    output: FormFlags,
}

/// The orders that shells offer.
const SORTS: [&str; 8] = [
    "accessed",
    "accessed:asc",
    "modified",
    "modified:asc",
    "name",
    "name:desc",
    "size",
    "size:asc",
];

impl ListFlags {
    /// The form of the output.
    pub fn form(&self) -> Form {
        self.output.form()
    }

    /// The query that the flags select. In the envelope, unhealthy models and those that cannot run
    /// are always included.
    pub fn query(&self, form: Form) -> Query {
        Query {
            patterns: self.patterns.clone(),
            revisions: if self.revisions { Revisions::All } else { Revisions::Current },
            filters: self.filters.clone(),
            sort: self.sort,
            limit: self.limit,
            all: self.all || form == Form::Json,
        }
    }

    /// The style of the listing that the flags select.
    pub fn style(&self) -> Style {
        match self.quiet {
            true => Style::Names,
            false => Style::Form(Columns {
                wide: self.all,
                health: self.health,
                verbose: self.verbose,
                full_paths: self.full_paths,
                origin: self.origin,
                encoders: self.verbose,
                width: if self.no_truncate { None } else { terminal_width() },
            }),
        }
    }
}
