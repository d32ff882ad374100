//! Adapters in mlx-lm's format: low-rank additions (LoRA, arXiv 2106.09685; DoRA, arXiv 2402.09353)
//! to linear layers, or full tensors that replace those of the model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use mlxk_core::tensors::Header;
use mlxk_core::{Error, Kind, regular_file};
use serde_json::Value;

use super::file::{map, place};
use super::tensor::Tensor;

/// Message for an adapter that does not fit the model.
pub const OTHER: &str = "the adapter is for another model";

/// Tensors and scale of an adapter.
pub struct Adapter {
    /// Tensors, by their names in the model.
    pub tensors: Vec<(String, Tensor)>,
    /// Factor of the additions; `None` if the tensors replace those of the model.
    pub scale: Option<f32>,
}

impl Adapter {
    /// Reads `adapter_config.json` and `adapters.safetensors` of a folder.
    ///
    /// # Errors
    /// If a file is absent or invalid.
    pub fn read(folder: &Path) -> mlxk_core::Result<Adapter> {
        let scale = scale(&folder.join("adapter_config.json"))?;
        let path = folder.join("adapters.safetensors");
        let mut file = regular_file::open(&path).map_err(|e| Error::io(&path, e))?;
        let size = file.metadata().map_err(|e| Error::io(&path, e))?.len();
        let header = Header::read(&mut file, size)
            .map_err(|e| Error::new(Kind::InvalidModel, path.display().to_string(), e))?;
        let bytes = Arc::new(map(&path)?);
        let tensors = header
            .tensors
            .iter()
            .map(|tensor| place(tensor, &bytes, &path).map(|placed| (tensor.name.clone(), placed)));
        Ok(Adapter { tensors: tensors.collect::<mlxk_core::Result<_>>()?, scale })
    }

    /// Takes out the additions to experts and embeddings, whose layers do not compute additions.
    pub fn sums(&mut self, tensors: &BTreeMap<String, Tensor>) -> Adapter {
        let of_layer = |name: &String| {
            let module = name.rsplit_once('.').map_or("", |(module, _)| module);
            let weight = tensors.get(&format!("{module}.weight"));
            weight.is_some_and(|weight| weight.shape.len() == 3 || is_embedding(module))
        };
        let all = std::mem::take(&mut self.tensors);
        let added = self.scale.is_some();
        let (sums, rest) = all.into_iter().partition(|(name, _)| added && of_layer(name));
        self.tensors = rest;
        Adapter { tensors: sums, scale: self.scale }
    }
}

/// Maximum size of `adapter_config.json` in bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// Scale in `adapter_config.json`; `None` for full tensors.
fn scale(path: &Path) -> mlxk_core::Result<Option<f32>> {
    let invalid = |why: String| Error::new(Kind::InvalidModel, path.display().to_string(), why);
    let text = regular_file::read_small(path, MAX_CONFIG).map_err(|e| Error::io(path, e))?;
    let config: Value = serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))?;
    match config.get("fine_tune_type").map_or(Some("lora"), Value::as_str) {
        Some("full") => Ok(None),
        Some("lora" | "dora") => {
            let scale = config["lora_parameters"]["scale"].as_f64();
            let missing = || invalid("`lora_parameters` has no `scale` that is a number".into());
            scale.map(|scale| Some(scale as f32)).ok_or_else(missing)
        }
        _ => Err(invalid("`fine_tune_type` is not lora, dora or full".into())),
    }
}

/// True if the layer `module` is an embedding, by its name in any architecture.
pub fn is_embedding(module: &str) -> bool {
    let last = module.rsplit('.').next().unwrap_or(module);
    last.starts_with("embed") && last != "embed_out"
        || ["wte", "wpe", "tok_embeddings"].contains(&last)
}
