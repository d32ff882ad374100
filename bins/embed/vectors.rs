//! The vectors of texts, written as records or as the rows of a matrix.

use std::path::Path;

use mlxk_cli::output::to_terminal;
use mlxk_cli::{Counter, Form, Output, interrupt};
use mlxk_core::{Record, Result};
use serde_json::{Value, json};

use super::encoding::Encoding;
use super::input::{self, Content, Item, Source, about};
use super::matrix::{self, Format};
use super::model::Model;

/// Writes a record with its vector for each text of `source`. A text that fails is reported, and the
/// next one is embedded.
///
/// # Errors
/// If `out` cannot be written.
pub fn embed(model: &Model, source: Source, encoding: Encoding, out: &mut Output) -> Result<()> {
    let counter = Counter::new("texts", out.form == Form::Ndjson && !to_terminal());
    let mut all = Vec::new();
    for group in input::texts(source) {
        let results = embedded(model, group);
        counter.add(results.len());
        let mut records = Vec::new();
        for result in results {
            match result {
                Ok((record, vector)) => records.push(encoding.write(record, vector)),
                Err(e) => counter.aside(|| out.error(&e))?,
            }
        }
        match out.form {
            Form::Ndjson => out.lines(&records)?,
            Form::Human => out.text(&records.iter().map(line).collect::<String>())?,
            Form::Json => all.extend(records.into_iter().map(Value::from)),
        }
    }
    match out.form {
        Form::Json => out.envelope(json!({"records": all})),
        Form::Human | Form::Ndjson => Ok(()),
    }
}

/// Writes the vectors of the texts of `source` as the rows of the matrix in the file `path`, and how
/// many they are to `out`. A text that fails is reported and has no row. The file appears when it is
/// complete: not if a signal ends the run.
///
/// # Errors
/// If the file or `out` cannot be written.
pub fn save(
    model: &Model,
    source: Source,
    path: &Path,
    format: Format,
    out: &mut Output,
) -> Result<()> {
    let dimensions = model.dimensions();
    // Outlives the temporary file, so that a signal ends the process after the file is removed.
    let watch = interrupt::watch();
    let rows = matrix::write(path, format, dimensions, |matrix| {
        let counter = Counter::new("texts", true);
        for group in input::texts(source) {
            watch.check()?;
            let results = embedded(model, group);
            counter.add(results.len());
            for result in results {
                match result {
                    Ok((_, vector)) => matrix.push(&vector)?,
                    Err(e) => counter.aside(|| out.error(&e))?,
                }
            }
        }
        watch.check()
    })?;
    let path = path.display().to_string();
    let record = json!({"output": path, "rows": rows, "dimensions": dimensions});
    match out.form {
        Form::Json => out.envelope(record),
        Form::Ndjson => out.text(&format!("{record}\n")),
        Form::Human => out.prose(&format!("{path}: {rows} vectors of {dimensions} dimensions\n")),
    }
}

/// Records of a group of texts and their vectors, in order.
fn embedded(model: &Model, group: Vec<Result<Item>>) -> Vec<Result<(Record, Vec<f32>)>> {
    let Model { embedder, options, name, .. } = model;
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
            .with("model", name.as_str())
            .with("tokens", input.ids.len())
            .with("truncated", input.truncated)
            .with("dimensions", vector.len());
        let record = match &model.metadata {
            Some(metadata) => {
                let mut metadata = metadata.clone();
                metadata["dimensions"] = vector.len().into();
                record.with("metadata", metadata)
            }
            None => record,
        };
        Ok((record, vector))
    };
    items.into_iter().map(record).collect()
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
