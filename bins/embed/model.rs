//! The embedding model of a run: found, loaded, with its options.

use mlxk_cli::Output;
use mlxk_cli::examine::find;
use mlxk_core::{Inspected, Places, Record, Result, inspect};
use mlxk_engine::{EmbedOptions, Embedder, Side};

/// Options of a model, all of them as on the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// Text to put before each text.
    pub prompt: Prompt,
    /// True if texts that are too long are cut instead of refused.
    pub truncate: bool,
    /// Number of elements to keep of a vector.
    pub dimensions: Option<usize>,
    /// True if vectors are normalised, false if not; the model decides if `None`.
    pub normalize: Option<bool>,
}

/// Text to put before each text.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// The default prompt of the model, if it has one.
    Default,
    /// The prompt of the model of this name.
    Named(String),
    /// This text.
    Text(String),
    /// The prompt for texts on this side of a search.
    Side(Side),
}

impl Prompt {
    /// The one of `tasks` that has the name of the prompt.
    fn task<'t>(&self, tasks: &'t [String]) -> Option<&'t str> {
        let named = |name: &str| match self {
            Prompt::Named(own) => own == name,
            Prompt::Side(side) => side.names().contains(&name),
            Prompt::Default | Prompt::Text(_) => false,
        };
        tasks.iter().map(String::as_str).find(|name| named(name))
    }
}

/// Loaded model and the options of the run.
pub struct Model {
    /// The model.
    pub embedder: Embedder,
    /// Options of the model, overridden by those of the run.
    pub options: EmbedOptions,
    /// Full name of the model.
    pub name: String,
}

impl Model {
    /// Loads `model`, as typed.
    ///
    /// # Errors
    /// If the model cannot be found or loaded, or does not support `options`.
    pub fn load(model: &str, options: &Options, places: &Places, out: &Output) -> Result<Model> {
        let found = find(&Record::default().with("name", model), places)?;
        let Inspected { facts, health, plan } = inspect(&found)?;
        if let Some(warning) = mlxk_engine::admit_embedder(&facts, &health, &plan)? {
            out.remark(&warning, "a smaller model needs less");
        }
        let tasks = Embedder::tasks(&facts)?;
        let embedder = match options.prompt.task(&tasks) {
            Some(task) => Embedder::load_adapted(&facts, &plan, task)?,
            None => Embedder::load(&facts, &plan)?,
        };
        let options = chosen(&embedder, options, &found.name)?;
        Ok(Model { embedder, options, name: found.name })
    }

    /// Number of elements of a vector.
    pub fn dimensions(&self) -> usize {
        self.options.dimensions.unwrap_or_else(|| self.embedder.dimensions())
    }
}

/// Options of the model `name`, overridden by those of the run.
fn chosen(embedder: &Embedder, options: &Options, name: &str) -> Result<EmbedOptions> {
    let defaults = embedder.defaults();
    let prompt = match &options.prompt {
        Prompt::Default => defaults.prompt,
        Prompt::Named(name) => embedder.prompt(name)?.to_owned(),
        Prompt::Text(text) => text.clone(),
        Prompt::Side(side) => embedder.side(*side, name).to_owned(),
    };
    let dimensions = options.dimensions.or(defaults.dimensions);
    let (truncate, normalize) = (options.truncate, options.normalize);
    let chosen = EmbedOptions { prompt, truncate, dimensions, normalize };
    embedder.check(&chosen)?;
    Ok(chosen)
}
