//! Memory that a model will take, known before it is loaded.

use mlxk_core::{Facts, Found, Health, Inspected, Plan, Result, inspect};
use mlxk_tensor::mlx;

use crate::admission;
use crate::estimate::estimate;

/// What a model will take, told before it is loaded.
pub struct Weighed {
    /// What is known of it.
    pub facts: Facts,
    /// How it runs.
    pub plan: Plan,
    /// Bytes of its weights.
    pub weights: u64,
    /// Bytes of the keys and values of a token.
    pub token: u64,
}

/// Reads what a model is, without loading it.
///
/// # Errors
/// If it cannot run.
pub fn weigh(found: &Found) -> Result<Weighed> {
    read(found, |facts, health, plan| admission::admit(facts, health, plan).map(|_| ()))
}

/// The same for a model of which a part will be loaded here.
///
/// # Errors
/// If it cannot run.
pub fn weigh_part(found: &Found) -> Result<Weighed> {
    read(found, admission::admit_part)
}

fn read(found: &Found, admit: fn(&Facts, &Health, &Plan) -> Result<()>) -> Result<Weighed> {
    const MANY: u64 = 1024;
    let Inspected { facts, health, plan } = inspect(found)?;
    admit(&facts, &health, &plan)?;
    let on_cpu = mlx::on_cpu()?;
    let weights = estimate(&facts, 0, on_cpu)?;
    let token = (estimate(&facts, MANY, on_cpu)? - weights) / MANY;
    Ok(Weighed { facts, plan, weights, token })
}
