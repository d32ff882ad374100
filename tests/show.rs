//! mlxk-show: what is said of a model.

use serde_json::json;

use crate::env::{COMMIT, Env};

#[test]
fn the_sheet_is_as_it_always_was() {
    let env = Env::with_three();
    let show = |args: &[&str]| env.run("mlxk-show").args(["--human"]).args(args).ok();
    let head = "Model: mlx-community/Good-4bit@1111111\n\
                Framework: MLX\n\
                Type: chat\n\
                Capabilities: text-generation, chat\n\
                Quantization: 4-bit (group_size=64)\n\
                Size: 4.3KB\n\
                Modified: 10m ago\n\
                Health: healthy\n";
    let metadata = "\nMetadata:\n  model_type: llama\n  architecture: LlamaForCausalLM\n  \
                    context_length: 2048\n  num_hidden_layers: 1\n";
    assert_eq!(show(&["Good"]), head.to_owned() + metadata);
    let files = "\nFiles:\n  - config.json (config, 154B)\n  - model.safetensors (weights, 4.1KB)\n  \
                 - tokenizer.json (tokenizer, 2B)\n  - tokenizer_config.json (tokenizer, 34B)\n";
    assert_eq!(show(&["Good", "--files"]), head.to_owned() + files);
    let strange = show(&["Strange"]);
    assert!(strange.contains("Health: healthy (files OK, runtime incompatible)\n"), "{strange}");
    assert!(strange.contains("Reason: Model type 'quux' not supported"), "{strange}");
}

#[test]
fn a_record_gains_fields_and_loses_none() {
    let env = Env::with_three();
    let record =
        json!({"name": "mlx-community/Good-4bit", "hash": COMMIT, "mark": [1]}).to_string();
    let shown = &env.run("mlxk-show").args(["--config"]).stdin(record).records()[0];
    assert_eq!(shown["mark"], json!([1]));
    assert_eq!(shown["config"]["model_type"], "llama");
    assert_eq!(shown["quantization"], json!({"bits": 4, "group_size": 64}));
    let shown = &env.run("mlxk-show").args(["--files", "Good"]).records()[0];
    let first = json!({"path": "config.json", "size_bytes": 154, "type": "config"});
    assert_eq!(shown["files"][0], first);
}

#[test]
fn health_is_that_of_the_revision_shown() {
    let env = Env::new();
    let broken = "2".repeat(40);
    env.model("org/m").commit(&broken).without("model.safetensors").write();
    env.model("org/m").write();
    let show = |name: &str| env.run("mlxk-show").args([name]).records()[0].clone();
    assert_eq!(show("org/m")["health"], "healthy");
    assert_eq!(show("org/m@222")["health"], "unhealthy");
    assert_eq!(show("org/m@222")["hash"], *broken);
    assert_eq!(show("org/m@main")["hash"], COMMIT);
}

#[test]
fn a_name_that_fits_several_models_is_refused_with_them() {
    let env = Env::with_three();
    env.run("mlxk-show")
        .args(["org"])
        .end()
        .refused(1, "mlxk-show: org: ambiguous: matches 2 models");
    let error = &env.run("mlxk-show").args(["org"]).envelope(1)["error"];
    assert_eq!(error["type"], "ambiguous_match");
    assert_eq!(error["matches"], json!(["org/Broken", "org/Strange"]));
}

#[test]
fn without_a_name_it_is_used_wrongly() {
    let env = Env::new();
    env.run("mlxk-show").end().refused(2, "mlxk-show: no model named");
}

#[test]
fn several_models_come_in_order_and_a_missing_one_does_not_stop_them() {
    let env = Env::with_three();
    let ended = env.run("mlxk-show").args(["Strange", "nothing", "Good"]).end();
    let names: Vec<_> =
        crate::env::records(&ended.stdout()).iter().map(|r| r["name"].clone()).collect();
    assert_eq!(names, ["org/Strange", "mlx-community/Good-4bit"]);
    assert_eq!(ended.status(), 1);
    assert!(ended.stderr().starts_with("mlxk-show: nothing: no such model\nhint: "), "{ended:?}");
}

#[test]
fn a_managed_workspace_is_clean_until_it_is_changed() {
    let env = Env::new();
    let sentinel = json!({"managed": true, "mlxk_version": "2.0.8", "operation": "clone",
                          "created_at": "2026-01-02T03:04:05.000006Z", "source_repo": "org/m"});
    let directory =
        env.model("mine").file(".mlxk_workspace.json", sentinel.to_string()).write_workspace();
    let show = |args: &[&str]| env.run("mlxk-show").args(["--human", "mine"]).args(args).ok();
    let before = show(&[]);
    assert!(before.contains("\nWorkspace:\n  Source: org/m\n  Operation: clone\n"), "{before}");
    let hashed = show(&["--recalc-hash"]);
    assert!(hashed.contains("\n  Clean: ✓\n  Content Hash: sha256:"), "{hashed}");
    std::fs::write(directory.join("notes.txt"), "changed").unwrap();
    assert!(show(&[]).contains("\n  Clean: ✗ (workspace modified since clone)\n"));
    let data = &env.run("mlxk-show").args(["mine", "--recalc-hash"]).envelope(0)["data"];
    assert_eq!((&data["hash_updated"], &data["model"]["clean"]), (&json!(true), &json!(true)));
}

#[test]
fn only_a_managed_workspace_has_a_hash() {
    let env = Env::with_three();
    let before = env.files();
    let ended = env.run("mlxk-show").args(["Good", "--recalc-hash"]).end();
    let message = "mlxk-show: mlx-community/Good-4bit: not a managed workspace, so it has no hash";
    ended.refused(1, message);
    assert_eq!(env.files(), before);
}

#[test]
fn files_are_named_by_their_paths() {
    let env = Env::with_three();
    let snapshot = env.model("org/deep").write();
    std::fs::create_dir(snapshot.join("1_Pooling")).unwrap();
    std::fs::write(snapshot.join("1_Pooling/config.json"), "{}").unwrap();
    std::fs::write(snapshot.join("._config.json"), "x").unwrap();
    let text = env.run("mlxk-show").args(["--human", "org/deep", "--files"]).ok();
    assert!(text.contains("  - 1_Pooling/config.json (config, 2B)\n"), "{text}");
    assert!(text.ends_with("  - ._config.json (config, 1B)\n"), "{text}");
    let files = &env.run("mlxk-show").args(["org/deep", "--files"]).envelope(0)["data"]["files"];
    assert_eq!(files[0]["name"], "1_Pooling/config.json");
}
