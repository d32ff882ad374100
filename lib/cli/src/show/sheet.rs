//! The text output of `mlxk-show`.

use std::time::SystemTime;

use mlxk_core::policy::encoder::EncoderPlan;
use mlxk_core::{Inspected, Record, describe, printable};
use serde_json::{Map, Value};

use super::speech::Speech;
use super::{Part, Wish, file_entry, metadata, sentinel, whole};
use crate::examine::Examined;
use crate::human;

/// Number of characters of a content hash that are shown.
const HASH: usize = 23;

/// The sheet of one model.
pub fn render(examined: &Examined, wish: Wish) -> String {
    let mut text = head(examined);
    text += &match wish.part {
        Part::Metadata => section("Metadata", &metadata(&examined.model)),
        Part::Config => section("Config", &whole(&examined.model.facts.config)),
        Part::Files => files(&examined.model),
    };
    if let Some(Value::Object(sentinel)) = sentinel(&examined.model.facts)
        && sentinel.contains_key("source_repo")
    {
        text += &workspace(&examined.record(), &sentinel);
    }
    if wish.rehash {
        text += "\nHashed anew: the workspace as it is now counts as unmodified\n";
    }
    text
}

fn head(examined: &Examined) -> String {
    let record = examined.record();
    let Inspected { facts, plan, .. } = &examined.model;
    let revision = record.str("hash").map(|hash| format!("@{}", &hash[..7])).unwrap_or_default();
    let mut lines = vec![
        ("Model", facts.found.name.clone() + &revision),
        ("Framework", plan.framework.name().to_owned()),
        ("Type", plan.model_type.to_owned()),
        ("Capabilities", plan.capabilities.join(", ")),
        ("Quantization", quantization(&examined.model)),
    ];
    lines.extend(plan.encoder.iter().flat_map(encoder));
    lines.extend([
        ("Size", human::size(facts.size())),
        ("Modified", human::ago(facts.modified, SystemTime::now())),
        ("Health", health(&examined.model).to_owned()),
    ]);
    if let Some(speech) = Speech::of(&examined.model) {
        lines.push(("Speech", speech_line(&speech)));
    }
    if let Some(reason) = record.str("reason") {
        lines.push(("Reason", reason.to_owned()));
    }
    lines.iter().map(|(key, value)| format!("{key}: {}\n", printable(value))).collect()
}

/// Lines of an embedding model or of a reranker.
fn encoder(encoder: &EncoderPlan) -> Vec<(&'static str, String)> {
    let normalized = if encoder.normalized { ", normalized" } else { "" };
    let prompt = |name: &String| match encoder.default_prompt.as_ref() == Some(name) {
        true => format!("{name} (default)"),
        false => name.clone(),
    };
    let prompts: Vec<String> = encoder.prompts.iter().map(prompt).collect();
    let length = encoder.max_length.map(|length| format!("{length} tokens"));
    let lines = [
        ("Dimensions", encoder.dimensions.map(|count| count.to_string())),
        ("Pooling", (!encoder.pooling.is_empty()).then(|| encoder.pooled() + normalized)),
        ("Similarity", encoder.similarity.map(|similarity| similarity.name().to_owned())),
        ("Maximum length", Some(length.unwrap_or_else(|| "any".to_owned()))),
        (
            "Prompts",
            encoder.similarity.map(|_| match prompts.is_empty() {
                true => "none".to_owned(),
                false => prompts.join(", "),
            }),
        ),
    ];
    lines.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// `transcription of 99 languages, translation to English, 80 mel bands`.
fn speech_line(speech: &Speech) -> String {
    let languages = match speech.languages {
        Some(1) => " of English".to_owned(),
        Some(count) => format!(" of {count} languages"),
        None => String::new(),
    };
    let translation = if speech.translates { ", translation to English" } else { "" };
    let mels = speech.mels.map(|mels| format!(", {mels} mel bands")).unwrap_or_default();
    format!("transcription{languages}{translation}{mels}")
}

fn health(model: &Inspected) -> &'static str {
    match (model.health.healthy, &model.plan.runnable) {
        (true, Ok(())) => "healthy",
        (true, Err(_)) => "healthy (files OK, runtime incompatible)",
        (false, _) => "unhealthy",
    }
}

/// `4-bit (group_size=64)`, followed by the requested quantization if the weights differ from it.
fn quantization(model: &Inspected) -> String {
    let Some(stated) = describe::quantization(&model.facts) else {
        return "-".into();
    };
    let number = |object: &Value, key: &str| object[key].as_u64();
    let (bits, group) = (number(&stated, "bits"), number(&stated, "group_size"));
    let text = match (bits, group) {
        (Some(bits), Some(group)) => format!("{bits}-bit (group_size={group})"),
        (Some(bits), None) => format!("{bits}-bit"),
        (None, _) => "-".into(),
    };
    let asked = model.facts.sentinel.get("quantization").unwrap_or_default();
    match (number(&asked, "bits"), number(&asked, "group_size")) {
        (Some(b), Some(g)) if (Some(b), Some(g)) != (bits, group) => {
            format!("{text} (requested: {b}-bit, group_size={g})")
        }
        _ => text,
    }
}

/// An object as one line per field; empty if `value` is not an object.
fn section(title: &str, value: &Value) -> String {
    let Value::Object(fields) = value else {
        return String::new();
    };
    let line = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("  {}: {}\n", printable(key), printable(text)),
        value => format!("  {}: {value}\n", printable(key)),
    };
    format!("\n{title}:\n{}", fields.iter().map(line).collect::<String>())
}

fn files(model: &Inspected) -> String {
    let line = |entry: Value| {
        let field = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let name = field("name");
        format!("  - {} ({}, {})\n", printable(&name), field("type"), field("size"))
    };
    let lines: String = super::files(&model.facts).map(file_entry).map(line).collect();
    format!("\nFiles:\n{lines}")
}

fn workspace(record: &Record, sentinel: &Map<String, Value>) -> String {
    let field = |key: &str| sentinel.get(key).and_then(Value::as_str);
    let clean = match record.get("clean") {
        Some(Value::Bool(true)) => "✓",
        Some(Value::Bool(false)) => "✗ (workspace modified since clone)",
        _ => "— (--recalc-hash settles it)",
    };
    let hash = record.str("content_hash");
    let hash = hash.map(|hash| hash.chars().take(HASH).collect::<String>() + "...");
    let lines = [
        ("Source", field("source_repo").map(str::to_owned)),
        ("Operation", field("operation").map(str::to_owned)),
        ("Created", field("created_at").map(str::to_owned)),
        ("Clean", Some(clean.to_owned())),
        ("Content Hash", hash),
        ("Hash Modified", record.str("hash_modified").map(str::to_owned)),
    ];
    let stated = lines.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
    let lines: String =
        stated.map(|(key, value)| format!("  {key}: {}\n", printable(value))).collect();
    format!("\nWorkspace:\n{lines}")
}
