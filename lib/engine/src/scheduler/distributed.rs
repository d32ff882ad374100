//! A model that several processes hold together.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use mlxk_core::{Places, Result};
use mlxk_models::checkpoint::part::{Part, Split};

use super::catalog::Catalogue;
use super::local::Local;
use super::shared::{Bounds, stopped};
use super::weigh;
use super::worker::Order;
use crate::distributed::{self, Party, Place, Watch};

/// Time between two looks whether the other ranks are there.
const LOOK: Duration = Duration::from_millis(100);

impl Local {
    /// Starts the thread of the models with one alone, of which other processes have parts: this one
    /// is rank 0. `said` is told who is there.
    ///
    /// # Errors
    /// If the ranks do not fit together, or one of them cannot load its part.
    pub fn lead(
        places: Places,
        bounds: Bounds,
        model: &str,
        (place, wish): (&Place, Option<Split>),
        said: &dyn Fn(String),
    ) -> Result<(Local, Watch)> {
        let mut catalogue = Catalogue::new(places).closed();
        let found = catalogue.preload(model)?;
        let weighed = weigh::weigh_part(&found)?;
        let known = (&weighed.facts, &weighed.plan);
        let party = Party::gather(place, known, bounds.memory, wish, said)?;
        said(format!("rank 0 has {}", party.part().describe()));
        let watch = party.watch();
        let local = Local::begin(catalogue, bounds)?;
        local.shared.processors.find(&found, weigh::weigh_part)?;
        let (send, loaded) = channel();
        local.order(Order::Lead(Box::new((weighed, party)), send))?;
        loop {
            match loaded.recv_timeout(LOOK) {
                Ok(loaded) => return loaded.map(|()| (local, watch)),
                Err(RecvTimeoutError::Disconnected) => return Err(stopped()),
                Err(RecvTimeoutError::Timeout) => watch.lost().map_or(Ok(()), Err)?,
            }
        }
    }
}

/// Holds a part of `model` until rank 0 ends it; `ready` is told which when it is loaded.
///
/// # Errors
/// If rank 0 cannot be reached or has gone, or the part cannot be loaded.
pub fn follow(
    places: Places,
    memory: u64,
    model: &str,
    place: &Place,
    ready: &mut dyn FnMut(Part) -> Result<()>,
) -> Result<()> {
    let found = Catalogue::new(places).preload(model)?;
    let weigh::Weighed { facts, plan, .. } = weigh::weigh_part(&found)?;
    distributed::follow(place, facts, plan, memory, ready)
}
