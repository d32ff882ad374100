//! Vision tower of a model, loaded at the first picture.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;

use mlx_rs::Array;
use mlx_rs::transforms::eval;
use mlxk_core::{Error, Result};
use mlxk_models::checkpoint::tensor::Tensor;
use mlxk_models::checkpoint::weights::LoadOptions;
use mlxk_models::vision::mrope::MropePositions;
use mlxk_models::vision::{self, Features, Picture, Tower};
use mlxk_processor::Media;
use mlxk_tensor::mlx;
use serde_json::Value;

use crate::feature_cache::FeatureCache;

/// Vision tower that is loaded at its first use.
pub struct LazyTower {
    load: vision::Load,
    config: Value,
    tensors: BTreeMap<String, Tensor>,
    options: LoadOptions,
    tower: OnceCell<Box<dyn Tower>>,
    features: RefCell<FeatureCache>,
    passes: Cell<u64>,
}

impl LazyTower {
    /// A tower that `load` will load by `config` from those of the `tensors` that are its own.
    pub fn new(
        load: vision::Load,
        config: Value,
        tensors: BTreeMap<String, Tensor>,
        options: LoadOptions,
    ) -> LazyTower {
        LazyTower {
            load,
            config,
            tensors,
            options,
            tower: OnceCell::new(),
            features: RefCell::default(),
            passes: Cell::new(0),
        }
    }

    /// Features of a picture, which are computed once while those of all pictures take `bytes` at most.
    ///
    /// # Errors
    /// If the tower cannot be loaded, or fails.
    pub fn features(&self, media: &Media, bytes: u64) -> Result<Features> {
        let pixels = &media.pixels;
        if let Some(features) = self.features.borrow_mut().get(&pixels.hash) {
            return Ok(features);
        }
        let shape = [pixels.rows as i32, pixels.columns as i32];
        let picture = Picture {
            pixels: &Array::from_slice(&pixels.values, &shape),
            grid: grid(media),
            tiles: pixels.tiles.map(|n| n as i32),
            kept: pixels.kept.map(|n| n as i32),
        };
        self.passes.set(self.passes.get() + 1);
        let features = self.tower()?.encode(&picture).map_err(mlx::failed)?;
        let (rows, tokens) = (features.rows.dim(0) as usize, pixels.tokens);
        if rows != tokens {
            let message = format!("a picture has {rows} features for {tokens} tokens");
            return Err(Error::execution(message));
        }
        eval([&features.rows].into_iter().chain(&features.deep)).map_err(mlx::failed)?;
        self.features.borrow_mut().put(pixels.hash, features.clone(), bytes);
        Ok(features)
    }

    /// Number of pictures that the tower has seen; those whose features were held do not count.
    pub fn passes(&self) -> u64 {
        self.passes.get()
    }

    /// Bytes of the features that are held.
    pub fn bytes(&self) -> u64 {
        self.features.borrow().bytes()
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
