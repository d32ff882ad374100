//! One model, from the place it was found at to all that is said of it.

use mlxk_core::clean::{self, State};
use mlxk_core::{Facts, Found, Health, Origin, Places, Plan, Record, Result};
use mlxk_core::{describe, health, policy, probe, resolve};

/// A model that was read and judged.
#[derive(Debug)]
pub struct Examined {
    /// What it holds.
    pub facts: Facts,
    /// Whether it is whole.
    pub health: Health,
    /// What can be done with it.
    pub plan: Plan,
    /// Whether a managed workspace is as it was made.
    pub state: Option<State>,
}

/// Finds the model that a record or a typed name means.
pub fn find(record: &Record, places: &Places) -> Result<Found> {
    resolve::resolve(&record.spec()?, places)
}

/// Reads and judges a model.
pub fn examine(found: &Found) -> Result<Examined> {
    let facts = probe::read(found)?;
    let health = health::check(&facts);
    let plan = policy::decide(&facts, &health);
    let state = match found.origin {
        Origin::Workspace => clean::check(&found.path),
        Origin::Cache { .. } => None,
    };
    Ok(Examined { facts, health, plan, state })
}

impl Examined {
    /// The model's record.
    pub fn record(&self) -> Record {
        describe::model(&self.facts, &self.health, &self.plan, self.state.as_ref())
    }
}
