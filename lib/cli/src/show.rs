//! The work of `mlxk-show`: the description of models.

mod sheet;
mod speech;

use mlxk_core::json::Document;
use mlxk_core::probe::File;
use mlxk_core::resolve::Resolver;
use mlxk_core::workspace::clean;
use mlxk_core::{Facts, Inspected, Origin, Places, Record, Result, describe};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use speech::Speech;

use crate::examine::{Examined, examine};
use crate::human;
use crate::input::Input;
use crate::output::{Form, Output};

/// Part of a model that is shown besides its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The architecture and its sizes.
    Metadata,
    /// The files.
    Files,
    /// `config.json`.
    Config,
}

/// Options of a description.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Part to show.
    pub part: Part,
    /// True if the content hash of a managed workspace is computed anew first.
    pub rehash: bool,
}

/// Shows the models that `input` names, in order.
pub fn show(input: Input, wish: Wish, places: &Places, out: &mut Output) -> Result<()> {
    let mut first = true;
    for batch in input.batches() {
        let resolver = Resolver::new(places);
        let read = |record: Result<Record>| {
            let record = record?;
            let found = resolver.resolve(&record.spec()?)?;
            if wish.rehash {
                clean::recalculate(&found.path).map_err(|e| e.about(&found.name))?;
            }
            Ok((examine(&found)?, record))
        };
        let results: Vec<Result<_>> = batch.into_par_iter().map(read).collect();
        for result in results {
            match result {
                Ok((examined, record)) => write(&examined, record, wish, first, out)?,
                Err(e) => out.error(&e)?,
            }
            first = false;
        }
    }
    Ok(())
}

fn write(
    examined: &Examined,
    record: Record,
    wish: Wish,
    first: bool,
    out: &mut Output,
) -> Result<()> {
    match out.form {
        Form::Human => {
            let gap = if first { "" } else { "\n" };
            out.prose(&format!("{gap}{}", sheet::render(examined, wish)))
        }
        Form::Ndjson => out.lines([&line(examined, record, wish.part)]),
        Form::Json => out.envelope(data(examined, wish)),
    }
}

/// The model's record, with the part as additional fields.
fn line(examined: &Examined, record: Record, part: Part) -> Record {
    let facts = &examined.model.facts;
    let mut record = record.merge(object(examined));
    if let Some(sentinel) = sentinel(facts) {
        record = record.with("workspace_metadata", sentinel);
    }
    match part {
        Part::Metadata => record.with("metadata", metadata(&examined.model)),
        Part::Config => record.with("config", whole(&facts.config)),
        Part::Files => record.with("files", files(facts).map(file_line).collect::<Value>()),
    }
}

/// The `data` of the envelope.
fn data(examined: &Examined, wish: Wish) -> Value {
    let facts = &examined.model.facts;
    let mut data = json!({
        "model": Value::from(object(examined)),
        "workspace_metadata": sentinel(facts),
    });
    match wish.part {
        Part::Metadata => {}
        Part::Files => data["files"] = files(facts).map(file_entry).collect(),
        // Scripts know it by both names.
        Part::Config => {
            data["config"] = whole(&facts.config);
            data["model_config"] = data["config"].clone();
        }
    }
    data["metadata"] = match wish.part {
        Part::Metadata => metadata(&examined.model),
        Part::Files | Part::Config => Value::Null,
    };
    if wish.rehash {
        data["hash_updated"] = json!(true);
    }
    data
}

fn object(examined: &Examined) -> Record {
    match describe::quantization(&examined.model.facts) {
        Some(quantization) => examined.record().with("quantization", quantization),
        None => examined.record(),
    }
}

/// Content of a workspace's sentinel, an empty object if it is not managed; `None` for a cached
/// model.
fn sentinel(facts: &Facts) -> Option<Value> {
    match (&facts.found.origin, whole(&facts.sentinel)) {
        (Origin::Cache { .. }, _) => None,
        (Origin::Workspace, Value::Null) => Some(json!({})),
        (Origin::Workspace, sentinel) => Some(sentinel),
    }
}

/// The document as one value; null if it is not an object.
fn whole(document: &Document) -> Value {
    let object = document.object().and_then(|object| object.read().ok());
    object.unwrap_or_default()
}

/// Summary of `config.json`; null if it has none of the fields.
fn metadata(model: &Inspected) -> Value {
    let config = &model.facts.config;
    let architecture = config.get("architectures").and_then(|all| all.get(0).cloned());
    let speech = Speech::of(model);
    let bits = config.get("quantization_config").and_then(|q| q["bits"].as_u64());
    let fields = [
        ("model_type", config.get("model_type")),
        ("architecture", architecture),
        ("quantization", bits.map(|bits| format!("{bits}bit").into())),
        ("context_length", model.plan.context_length.map(Value::from)),
        ("vocab_size", config.get("vocab_size")),
        ("hidden_size", config.get("hidden_size")),
        ("num_attention_heads", config.get("num_attention_heads")),
        ("num_hidden_layers", config.get("num_hidden_layers")),
        ("num_mel_bins", speech.as_ref().and_then(|speech| speech.mels).map(Value::from)),
        ("languages", speech.as_ref().and_then(|speech| speech.languages).map(Value::from)),
        ("translates", speech.as_ref().map(|speech| speech.translates.into())),
    ];
    let stated = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let stated: Map<String, Value> = stated.collect();
    if stated.is_empty() { Value::Null } else { stated.into() }
}

/// All files of the model's directory: those of the model, then those beside it.
fn files(facts: &Facts) -> impl Iterator<Item = &File> {
    facts.files.iter().chain(&facts.beside)
}

fn file_line(file: &File) -> Value {
    json!({"path": file.path.to_string_lossy(), "size_bytes": file.size, "type": kind(file)})
}

fn file_entry(file: &File) -> Value {
    json!({
        "name": file.path.to_string_lossy(),
        "size": human::size(file.size),
        "type": kind(file),
    })
}

fn kind(file: &File) -> &'static str {
    let name = file.path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    match () {
        () if ["safetensors", "bin", "gguf"].iter().any(|end| file.is(end)) => "weights",
        () if name.contains("tokenizer") => "tokenizer",
        () if name.ends_with(".json") => "config",
        () if name.starts_with("readme") => "readme",
        () => "other",
    }
}
