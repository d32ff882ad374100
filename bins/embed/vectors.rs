//! The vectors of texts, written as records.

use mlxk_cli::examine::find;
use mlxk_cli::output::to_terminal;
use mlxk_cli::{Counter, Form, Output};
use mlxk_core::{Error, Inspected, Kind, Places, Record, Result, inspect};
use mlxk_engine::{EmbedOptions, Embedder, Side};
use serde_json::{Value, json};

use super::encoding::Encoding;
use super::input::{self, Content, Item, Source};

/// Options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Texts to embed.
    pub source: Source,
    /// Text to put before each text.
    pub prompt: Prompt,
    /// True if texts that are too long are cut instead of refused.
    pub truncate: bool,
    /// Number of elements to keep of a vector.
    pub dimensions: Option<usize>,
    /// True if vectors are normalised, false if not; the model decides if `None`.
    pub normalize: Option<bool>,
    /// Encoding of vectors.
    pub encoding: Encoding,
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

/// Loads `model`, as typed, and writes the vectors of all texts to `out`. A text that fails is
/// reported there, and the next one is embedded.
///
/// # Errors
/// If the model cannot be found or loaded, does not support `options`, or `out` cannot be written.
pub fn embed(model: &str, options: &Options, places: &Places, out: &mut Output) -> Result<()> {
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
    let chosen = chosen(&embedder, options, &found.name)?;
    let mut run = Run { options: chosen, embedder, name: &found.name, encoding: options.encoding };
    let counter = Counter::new("texts", out.form == Form::Ndjson && !to_terminal());
    let mut all = Vec::new();
    for group in input::groups(options.source.clone()) {
        let results = run.embed(group);
        counter.add(results.len());
        for result in results {
            match (result, out.form) {
                (Ok(record), Form::Ndjson) => out.lines([&record])?,
                (Ok(record), Form::Human) => out.text(&line(&record))?,
                (Ok(record), Form::Json) => all.push(Value::from(record)),
                (Err(e), _) => counter.aside(|| out.error(&e))?,
            }
        }
    }
    match out.form {
        Form::Json => out.envelope(json!({"records": all})),
        Form::Human | Form::Ndjson => Ok(()),
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

/// A loaded model and the options of the run.
struct Run<'a> {
    embedder: Embedder,
    options: EmbedOptions,
    /// Full name of the model.
    name: &'a str,
    encoding: Encoding,
}

impl Run<'_> {
    /// Records of a group of texts, in order.
    fn embed(&mut self, group: Vec<Result<Item>>) -> Vec<Result<Record>> {
        let (embedder, options) = (&self.embedder, &self.options);
        let tokens = |item: Result<Item>| {
            let item = item?;
            let input = match &item.content {
                Content::Text(text) => embedder.input(text, options),
                Content::Tokens(ids) => embedder.given(ids.clone(), options),
            };
            Ok((input.map_err(|e| about(e, &item.place))?, item))
        };
        let items: Vec<Result<_>> = group.into_iter().map(tokens).collect();
        let inputs: Vec<_> = items.iter().flatten().map(|(input, _)| input.clone()).collect();
        let mut vectors = embedder.embed(&inputs, options).into_iter();
        let record = |item: Result<(mlxk_engine::Input, Item)>| {
            let (input, item) = item?;
            let vector = vectors.next().unwrap_or_else(|| Ok(Vec::new()));
            let vector = vector.map_err(|e| e.about(&item.place))?;
            let record = item
                .record
                .with("model", self.name)
                .with("tokens", input.ids.len())
                .with("truncated", input.truncated)
                .with("dimensions", vector.len());
            Ok(self.encoding.write(record, vector))
        };
        items.into_iter().map(record).collect()
    }
}

/// The error of the text at `place`, with the flag that lets a text that is too long pass.
fn about(error: Error, place: &str) -> Error {
    let error = error.about(place);
    match error.kind {
        Kind::ContextLengthExceeded => error.hint("--truncate cuts it"),
        _ => error,
    }
}

/// A line of text output: the sizes of a vector, its first elements and the text.
fn line(record: &Record) -> String {
    let first = record.get("embedding").and_then(Value::as_array).into_iter().flatten().take(4);
    let first = first.filter_map(Value::as_f64).map(|x| format!("{x:8.4}")).collect::<String>();
    let number = |key| record.get(key).and_then(Value::as_u64).unwrap_or_default();
    let (dimensions, tokens) = (number("dimensions"), number("tokens"));
    let cut = if record.get("truncated") == Some(&Value::Bool(true)) { ", cut" } else { "" };
    let text: String = record.str("text").unwrap_or_default().chars().take(60).collect();
    let text = text.replace(|c: char| c.is_control(), " ");
    format!("[{first} ...] {dimensions} dimensions, {tokens} tokens{cut}: {text}\n")
}
