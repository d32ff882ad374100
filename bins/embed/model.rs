//! The embedding model of a run: found, loaded, with its options.

use mlxk_cli::examine::find;
use mlxk_cli::{Output, compatibility};
use mlxk_core::probe::sentence::Pooling;
use mlxk_core::{Inspected, Places, Record, Result, inspect};
use mlxk_engine::{EmbedForm, EmbedOptions, Embedder};
use mlxk_processor::engine::EmbedPrompt;
use serde_json::{Value, json};

/// Options of a model, all of them as on the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// Text to put before each text.
    pub prompt: EmbedPrompt,
    /// Way to pool, instead of the model's own.
    pub pooling: Option<Pooling>,
    /// True if texts that are too long are cut instead of refused.
    pub truncate: bool,
    /// Number of elements to keep of a vector.
    pub dimensions: Option<usize>,
    /// True if vectors are normalised, false if not; the model decides if `None`.
    pub normalize: Option<bool>,
}

/// Loaded model and the options of the run.
pub struct Model {
    /// The model.
    pub embedder: Embedder,
    /// Options of the model, overridden by those of the run.
    pub options: EmbedOptions,
    /// Full name of the model.
    pub name: String,
    /// What records of mlx-knife say of the model, if they are asked for.
    pub metadata: Option<Value>,
}

impl Model {
    /// Loads `model`, as typed.
    ///
    /// # Errors
    /// If the model cannot be found or loaded, or does not support `options`.
    pub fn load(model: &str, options: &Options, places: &Places, out: &Output) -> Result<Model> {
        let found = find(&Record::default().with("name", model), places)?;
        let Inspected { facts, health, plan } = inspect(&found)?;
        let Options { prompt, pooling, truncate, dimensions, normalize } = options;
        if let Some(warning) =
            mlxk_engine::admit_embedder(&facts, &health, &plan, pooling.is_some())?
        {
            out.remark(&warning, "a smaller model needs less");
        }
        let form = EmbedForm { pooling: *pooling, ..EmbedForm::of(&facts, prompt)? };
        let embedder = Embedder::load(&facts, &plan, form)?;
        let defaults = embedder.options(prompt, &found.name)?;
        let options = EmbedOptions {
            truncate: *truncate,
            dimensions: dimensions.or(defaults.dimensions),
            normalize: *normalize,
            ..defaults
        };
        embedder.check(&options)?;
        let device = if mlxk_tensor::mlx::on_cpu()? { "cpu" } else { "gpu" };
        let metadata = compatibility::is_called().then(|| {
            let hash = facts.sentinel.str("content_hash").or_else(|| found.revision.clone());
            json!({"model": found.name, "dimensions": 0, "content_hash": hash, "device": device})
        });
        Ok(Model { embedder, options, name: found.name, metadata })
    }

    /// Number of elements of a vector.
    pub fn dimensions(&self) -> usize {
        self.options.dimensions.unwrap_or_else(|| self.embedder.dimensions())
    }
}
