//! Processors of recently used models, independent of whether the models are in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use mlxk_core::{Found, Result};

/// Maximum number of processors that are kept besides those of models in memory.
const MODELS: usize = 4;

/// Processors of recently used models of a task.
pub struct Processors<P>(Mutex<VecDeque<(Found, ProcessorSlot<P>)>>);

/// Processor of a model, once it is read.
type ProcessorSlot<P> = Arc<Mutex<Option<Arc<P>>>>;

impl<P> Default for Processors<P> {
    fn default() -> Processors<P> {
        Processors(Mutex::default())
    }
}

impl<P> Processors<P> {
    /// Processor of a model, which `read` reads if it is not read yet. Concurrent calls for the same
    /// model wait for the first one.
    ///
    /// # Errors
    /// If the model cannot run, or its processor cannot be read.
    pub fn find(&self, found: &Found, read: impl FnOnce(&Found) -> Result<P>) -> Result<Arc<P>> {
        let slot = self.slot(found);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(processor) = &*slot {
            return Ok(Arc::clone(processor));
        }
        Ok(Arc::clone(slot.insert(Arc::new(read(found)?))))
    }

    fn slot(&self, found: &Found) -> ProcessorSlot<P> {
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = models.iter().position(|(known, _)| known == found);
        let known = place.and_then(|place| models.remove(place));
        let (found, slot) = known.unwrap_or_else(|| (found.clone(), ProcessorSlot::default()));
        models.push_back((found, Arc::clone(&slot)));
        if models.len() > MODELS {
            models.pop_front();
        }
        slot
    }
}
