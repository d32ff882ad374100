//! A model that a program names: found, inspected, and compared with its content hash.

use mlxk_core::workspace::clean::{self, State};
use mlxk_core::{Found, Inspected, Origin, Places, Record, Result};
use mlxk_core::{describe, inspect, resolve};

/// A model that was inspected, and the state of a workspace.
#[derive(Debug)]
pub struct Examined {
    /// The model's files, health and plan.
    pub model: Inspected,
    /// The comparison of a managed workspace with its content hash.
    pub state: Option<State>,
}

/// Finds the model that a record or a typed name means.
pub fn find(record: &Record, places: &Places) -> Result<Found> {
    resolve::resolve(&record.spec()?, places)
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
