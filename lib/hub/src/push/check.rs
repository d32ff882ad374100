//! Health check of a workspace before a push; it makes no network requests.

use std::collections::BTreeSet;
use std::path::Path;

use mlxk_core::probe::{self, Facts, File};
use mlxk_core::{Found, Origin, Record, Result, health};
use serde_json::{Value, json};

use super::local::LocalFiles;
use super::secrets;

/// Health of the directory `dir` as a record: file counts, configuration, weights and anomalies.
///
/// # Errors
/// If the directory cannot be read, or one of its files cannot be pushed.
pub fn check(dir: &Path) -> Result<Record> {
    let local = LocalFiles::read(dir)?;
    let facts = probe::read(&Found {
        name: local.dir.display().to_string(),
        path: local.dir.clone(),
        revision: None,
        origin: Origin::Workspace,
    })?;
    let (weights, mut anomalies) = weights(&facts);
    anomalies.extend(secrets::find(&local)?.into_iter().map(|secret| {
        let message = format!("looks like a secret: {}", secret.what);
        anomaly("warning", "secret", &message, Some(Path::new(&secret.path)))
    }));
    let config = local.dir.join("config.json");
    let config_problem = match facts.config.checked() {
        Ok(Some(_)) => None,
        Ok(None) => Some(("config_missing", "config.json is missing".to_owned())),
        Err(why) => Some(("config_invalid_json", format!("config.json {why}"))),
    };
    if let Some((code, message)) = &config_problem {
        anomalies.push(anomaly("error", code, message, Some(Path::new("config.json"))));
    }
    anomalies.extend(health_anomaly(&facts, &anomalies));
    let healthy = anomalies.iter().all(|anomaly| anomaly["severity"] != "error");
    Ok(Record::default()
        .with("files_count", local.files.len())
        .with("total_bytes", local.files.iter().map(|file| file.size).sum::<u64>())
        .with(
            "config",
            json!({
                "exists": facts.config.exists(),
                "valid_json": facts.config.object().is_some(),
                "path": config.to_string_lossy(),
            }),
        )
        .with("weights", weights)
        .with("anomalies", anomalies)
        .with("healthy", healthy))
}

/// Problem that `mlxk-health` reports, if no anomaly is an error already.
fn health_anomaly(facts: &Facts, known: &[Value]) -> Option<Value> {
    let health = health::check(facts);
    let reported = known.iter().any(|anomaly| anomaly["severity"] == "error");
    (!health.healthy && !reported).then(|| anomaly("error", "unhealthy", &health.reason, None))
}

fn weights(facts: &Facts) -> (Value, Vec<Value>) {
    let is_weight = |file: &&File| ["safetensors", "gguf", "bin"].iter().any(|end| file.is(end));
    let files: Vec<&File> = facts.files.iter().filter(is_weight).collect();
    let ends = files.iter().filter_map(|file| file.path.extension()?.to_str());
    let formats: BTreeSet<_> = ends.collect();
    let mut anomalies = Vec::new();
    if files.is_empty() {
        anomalies.push(anomaly("error", "no_weights_found", "there are no weights", None));
    }
    for file in &files {
        if file.size == 0 {
            let message = "a weight file is empty";
            anomalies.push(anomaly("error", "empty_weight_file", message, Some(&file.path)));
        }
    }
    for file in &facts.files {
        if file.pointer {
            let message = "a pointer of Git LFS instead of the file";
            anomalies.push(anomaly("error", "lfs_pointer_detected", message, Some(&file.path)));
        }
        if ["partial", "part", "tmp", "incomplete"].iter().any(|end| file.is(end)) {
            let message = "it looks like an unfinished download";
            anomalies.push(anomaly("warn", "partial_marker", message, Some(&file.path)));
        }
    }
    let (index, complete) = index(facts, &mut anomalies);
    let weights = json!({
        "count": files.len(),
        "formats": formats,
        "index": index,
        "pattern_complete": complete,
    });
    (weights, anomalies)
}

/// State of the weight index as JSON, and whether all shards that it names exist (`None` without
/// index).
fn index(facts: &Facts, anomalies: &mut Vec<Value>) -> (Value, Option<bool>) {
    match &facts.index {
        None => (json!({"has_index": false, "missing": []}), None),
        Some(Err(why)) => {
            anomalies.push(anomaly("error", "index_parse_error", why, None));
            (json!({"has_index": true, "missing": [], "parse_error": why}), None)
        }
        Some(Ok(index)) => {
            let missing: Vec<_> = index.files().filter(|file| !facts.has(file)).collect();
            if !missing.is_empty() {
                let message = "files that the index names are missing";
                let mut anomaly = anomaly("error", "index_missing_shard", message, None);
                anomaly["missing"] = json!(missing);
                anomalies.push(anomaly);
            }
            (json!({"has_index": true, "missing": missing}), Some(missing.is_empty()))
        }
    }
}

fn anomaly(severity: &str, code: &str, message: &str, path: Option<&Path>) -> Value {
    let mut anomaly = json!({"severity": severity, "code": code, "message": message});
    if let Some(path) = path {
        anomaly["path"] = json!(path.to_string_lossy());
    }
    anomaly
}
