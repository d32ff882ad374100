//! The table of `mlxk-ls` in text output.

use std::time::SystemTime;

use mlxk_core::Record;
use serde_json::Value;

use crate::{human, table};

/// Selection of the table's columns.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// True to add the state of a workspace and the framework.
    pub wide: bool,
    /// True to add the health column.
    pub health: bool,
    /// True for full names, the columns of `wide`, and health in three columns.
    pub verbose: bool,
}

/// Widths in characters to which reasons are cut and wrapped.
const REASON: (usize, usize) = (60, 26);

/// The table as text.
pub fn human(models: &[Record], columns: Columns, now: SystemTime) -> String {
    let wide = columns.wide || columns.verbose;
    let mut header = vec!["Name", "Hash", "Size", "Modified", "Src"];
    header.extend(if wide { &["Clean", "Framework", "Type"][..] } else { &["Type"] });
    header.extend(match (columns.health, columns.verbose) {
        (false, _) => &[][..],
        (true, false) => &["Health"],
        (true, true) => &["Integrity", "Runtime", "Reason"],
    });
    let rows: Vec<_> = models.iter().flat_map(|model| rows(model, columns, wide, now)).collect();
    table::render(&header, &rows)
}

fn rows(model: &Record, columns: Columns, wide: bool, now: SystemTime) -> Vec<Vec<String>> {
    let modified = model.str("last_modified").and_then(human::time);
    let mut row = vec![
        name(model, columns.verbose),
        hash(model),
        human::size(model.get("size_bytes").and_then(Value::as_u64).unwrap_or_default()),
        modified.map_or_else(|| "-".into(), |time| human::ago(time, now)),
        source(model).to_owned(),
    ];
    if wide {
        row.push(clean(model).to_owned());
        row.push(model.str("framework").unwrap_or("-").to_owned());
    }
    row.push(kind(model));
    match (columns.health, columns.verbose) {
        (false, _) => vec![row],
        (true, false) => {
            row.push(health(model).to_owned());
            vec![row]
        }
        (true, true) => {
            row.extend(verdict(model));
            with_reason(row, model.str("reason").unwrap_or_default())
        }
    }
}

/// The row with the reason as its last cell, which may go on in rows of its own.
fn with_reason(row: Vec<String>, reason: &str) -> Vec<Vec<String>> {
    let (length, width) = REASON;
    let cut = match reason.chars().count() > length {
        true => reason.chars().take(length - 3).collect::<String>() + "...",
        false => reason.to_owned(),
    };
    // As wide as the reason would be in one line, up to the limit.
    let padded = cut.chars().count().min(width);
    let blank = vec![String::new(); row.len()];
    let firsts = std::iter::once(row).chain(std::iter::repeat(blank));
    firsts
        .zip(table::wrap(&cut, width))
        .map(|(mut row, line)| {
            row.push(format!("{line:<padded$}"));
            row
        })
        .collect()
}

fn name(model: &Record, verbose: bool) -> String {
    let name = model.str("display_name").or(model.str("name")).unwrap_or_default();
    match name.strip_prefix("mlx-community/") {
        Some(short) if !verbose => short.to_owned(),
        _ => name.to_owned(),
    }
}

fn hash(model: &Record) -> String {
    let hash = model.str("hash").or(model.str("content_hash")).unwrap_or("-");
    hash.trim_start_matches("sha256:").chars().take(7).collect()
}

fn source(model: &Record) -> &'static str {
    match (is_cached(model), model.get("clean")) {
        (true, _) => "cache",
        (false, Some(Value::Bool(true))) => "ws",
        (false, Some(Value::Bool(false))) => "ws*",
        (false, _) => "ws?",
    }
}

fn clean(model: &Record) -> &'static str {
    match model.get("clean") {
        Some(Value::Bool(true)) => "✓",
        Some(Value::Bool(false)) => "✗",
        _ => "—",
    }
}

/// `chat`, `chat+vision`, `audio`.
fn kind(model: &Record) -> String {
    let can = |what: &str| {
        model
            .get("capabilities")
            .and_then(Value::as_array)
            .is_some_and(|all| all.iter().any(|c| c == what))
    };
    let kind = model.str("model_type").unwrap_or("-");
    let mut text = kind.to_owned();
    if can("vision") {
        text += "+vision";
    }
    if can("audio") && kind != "audio" {
        text += "+audio";
    }
    text
}

fn health(model: &Record) -> &'static str {
    match (model.str("health"), is_runnable(model)) {
        (Some("healthy"), true) => "healthy",
        (Some("healthy"), false) => "healthy*",
        (Some(_), _) => "unhealthy",
        (None, _) => "-",
    }
}

fn verdict(model: &Record) -> [String; 2] {
    let runtime = match (model.str("health"), is_runnable(model)) {
        (Some("healthy"), true) => "yes",
        (Some("healthy"), false) => "no",
        _ => "-",
    };
    [model.str("health").unwrap_or("-").to_owned(), runtime.to_owned()]
}

fn is_runnable(model: &Record) -> bool {
    model.get("runtime_compatible") == Some(&Value::Bool(true))
}

fn is_cached(model: &Record) -> bool {
    model.get("cached") == Some(&Value::Bool(true))
}
