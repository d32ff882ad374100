//! Processors of recently used models, independent of whether the models are in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use mlxk_core::{Found, Result};
use mlxk_processor::Processor;

use super::costed::Costed;

/// Maximum number of processors that are kept besides those of models in memory.
const MODELS: usize = 4;

/// Processors of recently used models.
#[derive(Default)]
pub struct Processors(Mutex<VecDeque<(Found, ProcessorSlot)>>);

/// Processor of a model, once it is read.
type ProcessorSlot = Arc<Mutex<Option<Arc<Processor>>>>;

impl Processors {
    /// Processor of a model, which `read` inspects if the processor is not read yet. Concurrent
    /// calls for the same model wait for the first one.
    ///
    /// # Errors
    /// If the model cannot run, or its processor cannot be read.
    pub fn find(
        &self,
        found: &Found,
        read: impl FnOnce(&Found) -> Result<Costed>,
    ) -> Result<Arc<Processor>> {
        let slot = self.slot(found);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(processor) = &*slot {
            return Ok(Arc::clone(processor));
        }
        let Costed { facts, plan, .. } = read(found)?;
        Ok(Arc::clone(slot.insert(Arc::new(Processor::read(&facts, &plan)?))))
    }

    fn slot(&self, found: &Found) -> ProcessorSlot {
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
