//! Lookup and inspection of a model, and the comparison of a workspace with its content hash.

use mlxk_core::workspace::clean::{self, State};
use mlxk_core::{Found, Inspected, Origin, Places, Record, Result};
use mlxk_core::{describe, inspect, resolve};

use crate::page;

/// An inspected model, and the state of a managed workspace.
#[derive(Debug)]
pub struct Examined {
    /// The model's files, health and plan.
    pub model: Inspected,
    /// The comparison of a managed workspace with its content hash.
    pub state: Option<State>,
}

/// Finds the model that a record names, by the URL of its page on the Hub too.
pub fn find(record: &Record, places: &Places) -> Result<Found> {
    resolve::resolve(&page::named(record.spec()?)?, places)
}

/// Inspects a model.
pub fn examine(found: &Found) -> Result<Examined> {
    let model = inspect(found)?;
    let state = match found.origin {
        Origin::Workspace => clean::check(&found.path),
        Origin::Cache { .. } => None,
    };
    Ok(Examined { model, state })
}

impl Examined {
    /// The model's record.
    pub fn record(&self) -> Record {
        describe::model(&self.model, self.state.as_ref())
    }
}
