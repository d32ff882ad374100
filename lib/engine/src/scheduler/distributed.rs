//! Scheduling of one model that is distributed over several processes.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use mlxk_core::{Places, Result};
use mlxk_models::checkpoint::part::{Part, Split};

use super::catalog::Catalogue;
use super::costed;
use super::local::Local;
use super::shared::{Bounds, stopped};
use super::worker::SchedulerCommand;
use crate::distributed::{self, Group, RankConfig, Watch};

/// Time between two checks of the connections to the other ranks.
const LOOK: Duration = Duration::from_millis(100);

impl Local {
    /// Starts an engine with one model, of which other processes hold parts; this process is rank 0.
    /// `said` receives a line for each rank that connects.
    ///
    /// # Errors
    /// If the ranks are incompatible, or one of them cannot load its part.
    pub fn lead(
        places: Places,
        bounds: Bounds,
        model: &str,
        (config, split): (&RankConfig, Option<Split>),
        said: &dyn Fn(String),
    ) -> Result<(Local, Watch)> {
        let mut catalogue = Catalogue::new(places).closed();
        let found = catalogue.preload(model)?;
        let costed = costed::read_part(&found)?;
        let known = (&costed.facts, &costed.plan);
        let group = Group::gather(config, known, bounds.memory, split, said)?;
        said(format!("rank 0 has {}", group.part().describe()));
        let watch = group.watch();
        let local = Local::begin(catalogue, bounds)?;
        local.shared.processors.find(&found, costed::processor_of_part)?;
        let (send, loaded) = channel();
        local.send(SchedulerCommand::Lead(Box::new((costed, group)), send))?;
        loop {
            match loaded.recv_timeout(LOOK) {
                Ok(loaded) => return loaded.map(|()| (local, watch)),
                Err(RecvTimeoutError::Disconnected) => return Err(stopped()),
                Err(RecvTimeoutError::Timeout) => watch.lost().map_or(Ok(()), Err)?,
            }
        }
    }
}

/// Runs the part of `model` that rank 0 assigns to this process, until rank 0 ends; `memory` is the
/// limit for the part, in bytes. `ready` receives the part once it is loaded.
///
/// # Errors
/// If rank 0 cannot be reached or has ended, or the part cannot be loaded.
pub fn follow(
    places: Places,
    memory: u64,
    model: &str,
    config: &RankConfig,
    ready: &mut dyn FnMut(Part) -> Result<()>,
) -> Result<()> {
    let found = Catalogue::new(places).preload(model)?;
    let costed::Costed { facts, plan, .. } = costed::read_part(&found)?;
    distributed::follow(config, facts, plan, memory, ready)
}
