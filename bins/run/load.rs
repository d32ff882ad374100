//! Loading of a model with its tokenizer, adapter, draft model and prompt cache.

use std::fs::{self, File};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use mlxk_cli::Output;
use mlxk_cli::examine::find;
use mlxk_core::{Error, Found, Inspected, Kind, Places, Record, Result, inspect, printable};
use mlxk_engine::{Model, Runner};
use mlxk_processor::{Processor, Tokenizer};

use super::options::ModelOptions;

/// Loads a model, and returns its runner.
///
/// # Errors
/// If the model, or what belongs to it, cannot be loaded, or there is not enough memory.
pub fn load(
    inspected: &Inspected,
    options: &ModelOptions,
    verbose: bool,
    places: &Places,
    out: &Output,
) -> Result<Runner<Model>> {
    let started = Instant::now();
    let Inspected { facts, plan, .. } = inspected;
    let (model, processor) = thread::scope(|scope| {
        let reading = scope.spawn(|| Processor::read(facts, plan));
        let model = model(inspected, options, places, out);
        (model, reading.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let runner = Runner::with(model?, Arc::new(processor?));
    if verbose {
        let name = printable(&facts.found.name);
        eprintln!("loaded {name} in {:.2} s", started.elapsed().as_secs_f64());
    }
    Ok(runner)
}

/// Model with its adapter, draft model and prompt cache.
///
/// # Errors
/// If one of them cannot be loaded, they do not fit, or there is not enough memory.
pub fn model(
    inspected: &Inspected,
    options: &ModelOptions,
    places: &Places,
    out: &Output,
) -> Result<Model> {
    let Inspected { facts, plan, .. } = inspected;
    let (known, new) = match &options.prompt_cache {
        Some(file) if file.exists() => (Some(file), None),
        file => (None, file.as_ref()),
    };
    new.map_or(Ok(()), |file| can_be_written(file))?;
    if let Some(own) = &options.workspace_cache {
        fs::create_dir_all(own).map_err(|e| Error::io(own, e))?;
    }
    let draft = options.draft.as_ref().map(|(name, tokens)| {
        let draft = companion(name, &facts.found, options.workspace_cache.as_deref(), places)?;
        Ok::<_, Error>((inspect(&draft)?, *tokens))
    });
    let draft = draft.transpose()?;
    admit(inspected, options, out)?;
    if let Some((draft, _)) = &draft {
        admit(draft, options, out)?;
        if !Tokenizer::read(facts)?.same_tokens(&Tokenizer::read(&draft.facts)?) {
            let message = format!("its tokenizer differs from that of {}", facts.found.name);
            return Err(Error::new(Kind::Validation, &draft.facts.found.name, message)
                .hint("a draft model comes from the same family"));
        }
    }
    let mut loaded = match &options.adapter {
        Some(adapter) => mlxk_engine::load_adapted(facts, plan, adapter)?,
        None => mlxk_engine::load(facts, plan)?,
    };
    loaded.forward.cache_options = options.cache.clone();
    if let Some((draft, tokens)) = draft {
        let guessing = mlxk_engine::load(&draft.facts, &draft.plan)?;
        loaded = loaded.guided_by(guessing, tokens)?;
    }
    if let Some(file) = known {
        loaded.restore(file, facts)?;
    }
    Ok(loaded)
}

/// The model `name` that belongs to the model `found`, from the cache `own`, or that of a workspace,
/// or else from wherever models are.
fn companion(name: &str, found: &Found, own: Option<&Path>, places: &Places) -> Result<Found> {
    let record = Record::default().with("name", name);
    let root = own.map_or_else(|| found.path.join(".hf_cache"), Path::to_owned);
    let own = Places { hub: root.join("hub"), root, workspaces: None };
    match find(&record, &own) {
        Err(e) if e.kind == Kind::ModelNotFound => find(&record, places),
        found => found,
    }
}

/// Writes the prompt cache if its file is named and does not exist.
///
/// # Errors
/// If the file cannot be written.
pub fn keep(model: &Inspected, options: &ModelOptions, runner: &Runner<Model>) -> Result<()> {
    match options.prompt_cache.as_ref().filter(|file| !file.exists()) {
        Some(file) => runner.source().save(file, &model.facts),
        None => Ok(()),
    }
}

/// Checks that a new file can be written, so that a failure is reported before the work.
fn can_be_written(file: &Path) -> Result<()> {
    let tried = File::create_new(file).and_then(|_| fs::remove_file(file));
    tried.map_err(|e| Error::io(file, e))
}

fn admit(model: &Inspected, options: &ModelOptions, out: &Output) -> Result<()> {
    let Inspected { facts, health, plan } = model;
    if let Some(warning) = mlxk_engine::admit(facts, health, plan, &options.cache)? {
        out.remark(&warning, "a shorter --max-tokens needs less");
    }
    Ok(())
}
