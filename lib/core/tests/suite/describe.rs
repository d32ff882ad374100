//! The records of models.

use std::fs;

use crate::env::Env;
use crate::model::{Model, in_cache, inspect};
use mlxk_core::describe;
use mlxk_core::workspace::clean::State;
use serde_json::{Value, json};

#[test]
fn a_model_is_described_as_mlx_knife_does() {
    let env = Env::new();
    let snapshot = Model::new().cached(&env, "org/model");
    let model = inspect(&in_cache("org/model", &snapshot));
    let record = describe::model(&model, None);
    let modified = record.str("last_modified").unwrap().to_owned();
    assert!(modified.starts_with("20") && modified.ends_with('Z') && modified.len() == 20);
    let expected = json!({
        "name": "org/model", "hash": "a".repeat(40), "size_bytes": model.facts.size(),
        "last_modified": modified, "framework": "PyTorch", "model_type": "chat",
        "capabilities": ["text-generation", "chat"], "context_length": 2048,
        "health": "healthy", "runtime_compatible": true, "reason": null, "cached": true,
        "source": "cache",
        "origin": null, "content_hash": null, "hash_modified": null, "clean": null,
    });
    assert_eq!(record.to_string(), expected.to_string());

    let sentinel =
        json!({"managed": true, "source_repo": "org/source", "content_hash": "sha256:0"});
    let found = Model::new().without("model.safetensors").json(".mlxk_workspace.json", sentinel);
    let state = State { clean: false, content_hash: Some("sha256:now".into()) };
    let record = describe::model(&inspect(&found.at(&env, "w")), Some(&state));
    assert_eq!(record.str("name"), env.home().join("w").to_str());
    assert_eq!(
        (record.str("origin"), record.str("source")),
        (Some("org/source"), Some("workspace"))
    );
    assert_eq!(record.str("content_hash"), Some("sha256:now"));
    assert_eq!(record.str("reason"), Some("No model weights found"));
    assert_eq!(record.get("clean"), Some(&json!(false)));
    assert_eq!(record.get("hash"), Some(&Value::Null));
}

#[test]
fn last_modified_is_utc() {
    let env = Env::new();
    let found = Model::new().at(&env, "model");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    fs::File::open(&found.path).unwrap().set_modified(time).unwrap();
    let record = describe::model(&inspect(&found), None);
    assert_eq!(record.str("last_modified"), Some("2023-11-14T22:13:20Z"));
}
