//! Every answer of `--json` is as the published layout says.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::env::Env;

/// The layout, version 0.2.4, with the answers that its first publication left out.
static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(include_str!("data/envelope.schema.json")).unwrap();
    jsonschema::validator_for(&schema).unwrap()
});

/// Panics if the envelope is not as published.
pub fn validate(envelope: &Value) {
    let errors: Vec<_> = SCHEMA.iter_errors(envelope).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}\n{envelope:#}");
}

#[test]
fn the_schema_refuses_what_is_not_an_envelope() {
    let good = json!({"status": "success", "command": "list", "error": null,
                      "data": {"models": [], "count": 0, "system": null}});
    validate(&good);
    let mut without = good.clone();
    without.as_object_mut().unwrap().remove("error");
    let (mut status, mut model) = (good.clone(), good);
    status["status"] = json!("fine");
    model["data"]["models"] = json!([{"name": "a/b"}]);
    for bad in [without, status, model] {
        assert!(!SCHEMA.is_valid(&bad), "{bad}");
    }
}

#[test]
fn every_command_answers_with_an_envelope() {
    let env = Env::with_three();
    env.model("mine").write_workspace();
    for (program, args, status) in [
        ("mlxk", vec!["--version"], 0),
        ("mlxk-ls", vec![], 0),
        ("mlxk-ls", vec!["--revisions", "-f", "size>1KB"], 0),
        ("mlxk-show", vec!["Good"], 0),
        ("mlxk-show", vec!["Good", "--files"], 0),
        ("mlxk-show", vec!["Broken", "--config"], 0),
        ("mlxk-show", vec!["mine"], 0),
        ("mlxk-show", vec!["nothing"], 1),
        ("mlxk-show", vec!["org"], 1),
        ("mlxk-health", vec![], 1),
        ("mlxk-health", vec!["Good"], 0),
        ("mlxk-health", vec!["org"], 1),
        ("mlxk-health", vec!["nothing"], 1),
        ("mlxk-rm", vec!["Good"], 0),
        ("mlxk-rm", vec!["Good", "--dry-run"], 0),
        ("mlxk-rm", vec!["nothing"], 1),
        ("mlxk-rm", vec!["org"], 1),
        ("mlxk-rm", vec!["--prune", "--dry-run"], 0),
        ("mlxk-rm", vec!["--force", "Good"], 0),
        ("mlxk-ls", vec!["--nonsense"], 2),
        ("mlxk", vec!["nonsense"], 2),
        ("mlxk", vec![], 2),
    ] {
        let envelope = env.run(program).args(&args).envelope(status);
        let expected = if status > 0 && program != "mlxk-health" { "error" } else { "success" };
        let ambiguous = program == "mlxk-health" && args == ["org"];
        assert_eq!(envelope["status"], if ambiguous { "error" } else { expected }, "{args:?}");
    }
}
