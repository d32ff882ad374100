//! The table of `mlxk-ls` in text output.

use std::time::SystemTime;

use mlxk_core::{Record, printable};
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use crate::human;
use crate::table::{self, Column};

/// Selection of the table's columns.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// True to add the state of a workspace and the framework.
    pub wide: bool,
    /// True to add the health column.
    pub health: bool,
    /// True for full names, the columns of `wide`, and health in three columns.
    pub verbose: bool,
    /// True for paths in place of the names of workspaces.
    pub full_paths: bool,
    /// True to add the model that a workspace was made from.
    pub origin: bool,
    /// True to add what embedding models and rerankers make of texts, if there are any.
    pub encoders: bool,
    /// Maximum width of the table.
    pub width: Option<usize>,
}

/// Widths to which reasons are cut and wrapped.
const REASON: (usize, usize) = (60, 26);

/// Least widths of columns whose cells may be cut.
const NAME: usize = 16;
const ORIGIN: usize = 12;
const TYPE: usize = 4;
const ENCODER: usize = 16;

/// The table as text.
pub fn human(models: &[Record], columns: Columns, now: SystemTime) -> String {
    let columns =
        Columns { encoders: columns.encoders && models.iter().any(is_encoder), ..columns };
    let rows: Vec<_> = models.iter().flat_map(|model| rows(model, columns, now)).collect();
    table::render(&header(columns), &rows, columns.width)
}

/// The columns, of which a narrow terminal gets those of a higher rank.
fn header(columns: Columns) -> Vec<Column> {
    let fixed = |title, rank| Column { title, least: None, rank: Some(rank) };
    let cut = |title, least, rank| Column { title, least: Some(least), rank };
    let mut header =
        vec![cut("Name", NAME, None), fixed("Hash", 3), fixed("Size", 5), fixed("Modified", 2)];
    header.push(fixed("Src", 4));
    if columns.origin {
        header.push(cut("Origin", ORIGIN, Some(7)));
    }
    if columns.is_wide() {
        header.extend([fixed("Clean", 0), fixed("Framework", 1)]);
    }
    header.push(cut("Type", TYPE, Some(6)));
    if columns.encoders {
        header.push(cut("Vectors", ENCODER, Some(6)));
    }
    match (columns.health, columns.verbose) {
        (false, _) => {}
        (true, false) => header.push(fixed("Health", 8)),
        (true, true) => {
            header.extend([fixed("Integrity", 9), fixed("Runtime", 8)]);
            header.push(cut("Reason", REASON.1, None));
        }
    }
    header
}

impl Columns {
    fn is_wide(self) -> bool {
        self.wide || self.verbose
    }
}

fn rows(model: &Record, columns: Columns, now: SystemTime) -> Vec<Vec<String>> {
    let modified = model.str("last_modified").and_then(human::time);
    let mut row = vec![
        name(model, columns),
        hash(model),
        human::size(model.get("size_bytes").and_then(Value::as_u64).unwrap_or_default()),
        modified.map_or_else(|| "-".into(), |time| human::ago(time, now)),
        source(model).to_owned(),
    ];
    if columns.origin {
        row.push(model.str("origin").unwrap_or("-").to_owned());
    }
    if columns.is_wide() {
        row.push(clean(model).to_owned());
        row.push(model.str("framework").unwrap_or("-").to_owned());
    }
    row.push(kind(model));
    if columns.encoders {
        row.push(encoder(model));
    }
    if columns.health {
        match columns.verbose {
            true => row.extend(verdict(model)),
            false => row.push(health(model).to_owned()),
        }
    }
    let row = row.iter().map(|cell| printable(cell).into_owned()).collect();
    match columns.health && columns.verbose {
        true => with_reason(row, &printable(model.str("reason").unwrap_or_default())),
        false => vec![row],
    }
}

/// The row with the reason as its last cell, which may go on in rows of its own.
fn with_reason(row: Vec<String>, reason: &str) -> Vec<Vec<String>> {
    let (length, width) = REASON;
    let cut = table::cut(reason, length);
    // As wide as the reason would be in one line, up to the limit.
    let padded = cut.width().min(width);
    let blank = vec![String::new(); row.len()];
    let firsts = std::iter::once(row).chain(std::iter::repeat(blank));
    let lines = table::wrap(&cut, width).into_iter();
    let lines = lines.map(|line| {
        let space = " ".repeat(padded.saturating_sub(line.width()));
        line + &space
    });
    firsts.zip(lines).map(|(row, line)| row.into_iter().chain([line]).collect()).collect()
}

fn name(model: &Record, columns: Columns) -> String {
    let full = model.str("name").unwrap_or_default();
    if columns.full_paths {
        return full.to_owned();
    }
    let name = model.str("display_name").unwrap_or(full);
    match name.strip_prefix("mlx-community/") {
        Some(short) if !columns.verbose => short.to_owned(),
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

fn is_encoder(model: &Record) -> bool {
    ["embedding", "rerank"].contains(&model.str("model_type").unwrap_or_default())
}

/// `384 mean cosine, 256 tokens, prompts query passage`; of a reranker the length alone.
fn encoder(model: &Record) -> String {
    let names = |key: &str| {
        let names = model.get(key).and_then(Value::as_array).into_iter().flatten();
        names.filter_map(Value::as_str).collect::<Vec<_>>()
    };
    let number = |key: &str| model.get(key).and_then(Value::as_u64);
    let dimensions = number("dimensions").map(|count| count.to_string());
    let pooling = Some(names("pooling").join("+")).filter(|names| !names.is_empty());
    let similarity = model.str("similarity").map(str::to_owned);
    let vector = [dimensions, pooling, similarity].into_iter().flatten().collect::<Vec<_>>();
    let length = number("max_length").map(|length| format!("{length} tokens"));
    let prompts = names("prompts").join(" ");
    let prompts = (!prompts.is_empty()).then(|| format!("prompts {prompts}"));
    let vector = (!vector.is_empty()).then(|| vector.join(" "));
    let all = [vector, length, prompts].into_iter().flatten().collect::<Vec<_>>();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
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
