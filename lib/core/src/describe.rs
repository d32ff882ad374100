//! The record of a model: the fields that listings print and other programs read.

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::Value;

use crate::inspect::Inspected;
use crate::policy::encoder::EncoderPlan;
use crate::probe::Facts;
use crate::record::Record;
use crate::store::Origin;
use crate::workspace::clean::State;

/// The record of a model; `state` is the comparison of a workspace with its content hash.
pub fn model(model: &Inspected, state: Option<&State>) -> Record {
    let Inspected { facts, health, plan } = model;
    let reason = if health.healthy { plan.runnable.as_ref().err() } else { Some(&health.reason) };
    let note = |key| facts.sentinel.str(key);
    let content_hash = match state {
        Some(state) => state.content_hash.clone(),
        None => note("content_hash"),
    };
    let record = Record::default()
        .with("name", facts.found.name.as_str())
        .with("hash", commit(facts))
        .with("size_bytes", facts.size())
        .with("last_modified", utc(facts.modified))
        .with("framework", plan.framework.name())
        .with("model_type", plan.model_type)
        .with("capabilities", plan.capabilities.as_slice())
        .with("context_length", plan.context_length)
        .with("health", if health.healthy { "healthy" } else { "unhealthy" })
        .with("runtime_compatible", plan.runnable.is_ok())
        .with("reason", reason.cloned())
        .with("cached", matches!(facts.found.origin, Origin::Cache { .. }))
        .with("source", source(&facts.found.origin))
        .with("origin", note("source_repo"))
        .with("content_hash", content_hash)
        .with("hash_modified", note("hash_modified"))
        .with("clean", state.map(|state| state.clean));
    plan.encoder
        .iter()
        .flat_map(encoder)
        .fold(record, |record, (key, value)| record.with(key, value))
}

/// Fields of an embedding model or of a reranker: what it states, by name.
pub fn encoder(plan: &EncoderPlan) -> Vec<(&'static str, Value)> {
    let length = ("max_length", plan.max_length.into());
    let Some(similarity) = plan.similarity else { return vec![length] };
    let pooling: Vec<&str> = plan.pooling.iter().map(|way| way.name()).collect();
    vec![
        ("dimensions", plan.dimensions.into()),
        ("pooling", pooling.into()),
        ("normalized", plan.normalized.into()),
        length,
        ("similarity", similarity.name().into()),
        ("prompts", plan.prompts.clone().into()),
        ("default_prompt", plan.default_prompt.clone().into()),
    ]
}

/// The `quantization` object of `config.json`, unchanged.
pub fn quantization(facts: &Facts) -> Option<Value> {
    facts.config.get("quantization").filter(Value::is_object)
}

/// The place where a model is, in words.
fn source(origin: &Origin) -> &'static str {
    match origin {
        Origin::Cache { .. } => "cache",
        Origin::Workspace => "workspace",
    }
}

/// The revision if it is a commit hash: 40 hexadecimal digits.
fn commit(facts: &Facts) -> Option<String> {
    let is_commit =
        |name: &&String| name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit());
    facts.found.revision.as_ref().filter(is_commit).cloned()
}

/// The time in UTC as `2026-01-02T03:04:05Z`; the epoch if it is outside the range of dates.
fn utc(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
