//! Vision tower of a model, loaded at the first picture.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use mlx_rs::Array;
use mlxk_core::{Error, Result};
use mlxk_models::checkpoint::tensor::Tensor;
use mlxk_models::checkpoint::weights::LoadOptions;
use mlxk_models::vision::mrope::MropePositions;
use mlxk_models::vision::{self, Tower};
use mlxk_processor::Media;
use mlxk_tensor::mlx;
use serde_json::Value;

/// Vision tower that is loaded at its first use.
pub struct LazyTower {
    load: vision::Load,
    config: Value,
    tensors: BTreeMap<String, Tensor>,
    options: LoadOptions,
    tower: OnceCell<Box<dyn Tower>>,
}

impl LazyTower {
    /// A tower that `load` will load by `config` from those of the `tensors` that are its own.
    pub fn new(
        load: vision::Load,
        config: Value,
        tensors: BTreeMap<String, Tensor>,
        options: LoadOptions,
    ) -> LazyTower {
        LazyTower { load, config, tensors, options, tower: OnceCell::new() }
    }

    /// Features of a picture, [tokens, hidden size of the language model].
    ///
    /// # Errors
    /// If the tower cannot be loaded, or fails.
    pub fn features(&self, media: &Media) -> Result<Array> {
        let pixels = &media.pixels;
        let shape = [pixels.rows as i32, pixels.columns as i32];
        let values = Array::from_slice(&pixels.values, &shape);
        let features = self.tower()?.encode(&values, &[grid(media)]).map_err(mlx::failed)?.rows;
        match features.dim(0) as usize == media.tokens.len() {
            true => Ok(features),
            false => {
                let message = format!(
                    "a picture has {} features for {} tokens",
                    features.dim(0),
                    media.tokens.len()
                );
                Err(Error::execution(message))
            }
        }
    }

    /// Positions of a prompt with pictures; `None` if they are consecutive.
    ///
    /// # Errors
    /// If the tower cannot be loaded.
    pub fn positions(&self, prompt: &[u32], media: &[Media]) -> Result<Option<MropePositions>> {
        let Some(first) = media.first() else { return Ok(None) };
        let grids: Vec<[i32; 3]> = media.iter().map(grid).collect();
        self.tower()?.positions(prompt, prompt[first.tokens.start], &grids)
    }

    fn tower(&self) -> Result<&dyn Tower> {
        if let Some(tower) = self.tower.get() {
            return Ok(&**tower);
        }
        let loaded = vision::load(self.load, &self.config, &self.tensors, self.options)?;
        let (tower, _) =
            loaded.ok_or_else(|| Error::unsupported("the checkpoint has no vision tower"))?;
        Ok(&**self.tower.get_or_init(|| tower))
    }
}

fn grid(media: &Media) -> [i32; 3] {
    media.pixels.grid.map(|n| n as i32)
}
