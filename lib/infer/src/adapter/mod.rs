//! Adapters as mlx-lm trains and stores them: low-rank additions to the matrices of a model (LoRA,
//! arXiv 2106.09685), which DoRA (arXiv 2402.09353) brings to stored lengths, or matrices in whole.

mod merge;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_core::tensors::Header;
use mlxk_core::{Error, Kind};
use serde_json::Value;

use crate::adapt::Checkpoint;
use crate::load::{map, place};
use crate::matrix::Matrix;
use crate::mlx;
use crate::weights::{Cursor, Tensor};

pub use merge::merge;

/// What is wrong with an adapter that does not fit.
pub const OTHER: &str = "the adapter is for another model";

/// What an adapter's files hold.
pub struct Adapter {
    /// By their names in the model.
    pub tensors: Vec<(String, Tensor)>,
    /// What additions are multiplied with; none if the tensors take the place of the model's.
    pub scale: Option<f32>,
}

impl Adapter {
    /// Reads `adapter_config.json` and `adapters.safetensors` of a folder.
    ///
    /// # Errors
    /// If they are not there, or not what they should be.
    pub fn read(folder: &Path) -> mlxk_core::Result<Adapter> {
        let scale = scale(&folder.join("adapter_config.json"))?;
        let path = folder.join("adapters.safetensors");
        let mut file = File::open(&path).map_err(|e| Error::io(&path, e))?;
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
}

impl Adapter {
    /// Takes out what is added to experts and to embeddings, whose layers know of no additions.
    pub fn sums(&mut self, model: &Checkpoint) -> Adapter {
        let of_layer = |name: &String| {
            let module = name.rsplit_once('.').map_or("", |(module, _)| module);
            let weight = model.tensors.get(&format!("{module}.weight"));
            weight.is_some_and(|weight| weight.shape.len() == 3 || merge::is_embedding(module))
        };
        let all = std::mem::take(&mut self.tensors);
        let added = self.scale.is_some();
        let (sums, rest) = all.into_iter().partition(|(name, _)| added && of_layer(name));
        self.tensors = rest;
        Adapter { tensors: sums, scale: self.scale }
    }
}

fn scale(path: &Path) -> mlxk_core::Result<Option<f32>> {
    let invalid = |why: String| Error::new(Kind::InvalidModel, path.display().to_string(), why);
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
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

/// An addition to a matrix [outs, ins], in two factors.
pub struct Lora {
    /// [ins, rank].
    a: Array,
    /// [rank, outs].
    b: Array,
    scale: f32,
    /// What the products are multiplied with, [outs], if lengths are stored.
    stretch: Option<Array>,
}

impl Lora {
    /// The addition at `w` to the matrix there, if there is one.
    pub fn load(
        w: &mut Cursor,
        matrix: &Matrix,
        outs: usize,
        ins: usize,
    ) -> mlxk_core::Result<Option<Lora>> {
        let Some(scale) = w.adapter_scale().filter(|_| w.has("lora_a")) else { return Ok(None) };
        let (shape, _) = w.form("lora_a")?;
        let rank = shape.last().copied().unwrap_or_default();
        let a = w.floats("lora_a", &[ins, rank])?;
        let b = w.floats("lora_b", &[rank, outs])?;
        let lengths = w.has("m").then(|| w.floats("m", &[outs])).transpose()?;
        let stretch = lengths.map(|lengths| stretch(matrix, &a, &b, scale, &lengths, outs));
        let stretch = stretch.transpose().map_err(mlx::failed)?;
        Ok(Some(Lora { a, b, scale, stretch }))
    }

    /// What the products `y` [.., outs] of the matrix with `x` [.., ins] become.
    pub fn add(&self, x: &Array, y: &Array) -> Result<Array> {
        let z = x.matmul(&self.a)?.matmul(&self.b)?.multiply(Array::from_f32(self.scale))?;
        let y = y.add(z.as_dtype(x.dtype())?)?;
        match &self.stretch {
            Some(stretch) => y.multiply(stretch)?.as_dtype(x.dtype()),
            None => Ok(y),
        }
    }
}

/// The stored lengths over those of the rows of the sum.
fn stretch(
    matrix: &Matrix,
    a: &Array,
    b: &Array,
    scale: f32,
    lengths: &Array,
    outs: usize,
) -> Result<Array> {
    let rows: Vec<u32> = (0..outs as u32).collect();
    let weight = matrix.rows(&Array::from_slice(&rows, &[outs as i32]))?;
    let sum = weight.add(a.matmul(b)?.transpose()?.multiply(Array::from_f32(scale))?)?;
    lengths.divide(sum.square()?.sum_axis(-1, false)?.sqrt()?)
}
