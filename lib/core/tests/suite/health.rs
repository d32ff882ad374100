//! Healthy models of each kind, and the reason for every defect.

use std::fs;

use crate::env::Env;
use crate::model::{Model, POINTER, in_cache, inspect, name, shard};
use mlxk_core::{Found, Health, Origin};
use serde_json::json;

#[test]
fn whole_models_are_healthy() {
    let vision = || Model::new().config(json!({"vision_config": {"depth": 2}}));
    let cases = [
        ("one file", Model::new()),
        ("shards and an index", Model::sharded()),
        ("shards without an index", Model::sharded().without("model.safetensors.index.json")),
        (
            "old names",
            Model::new().without("model.safetensors").file("weights.00.safetensors", shard(&["a"])),
        ),
        (
            "no tokenizer at all",
            Model::new().without("tokenizer.json").without("tokenizer_config.json"),
        ),
        ("sentencepiece", Model::new().without("tokenizer.json").file("tokenizer.model", "x")),
        ("vision", vision().json("preprocessor_config.json", json!({"size": 1}))),
        ("vision, embedded", vision().config(json!({"preprocessor_config": {"size": 1}}))),
        (
            "partial in a name",
            Model::new().file("partial-rotary.md", "x").file("impartial.txt", "x"),
        ),
        (
            "pickles beside",
            Model::new().file("pytorch_model.bin", "x").file("training_args.bin", "x"),
        ),
        (
            "a byte order mark",
            Model::new().file("config.json", "\u{feff}{\"model_type\": \"llama\"}"),
        ),
        (
            "numbers of Python",
            Model::new().file(
                "config.json",
                r#"{"a": "\\", "b": [0.0, Infinity, -Infinity, NaN], "c": "\" Infinity"}"#,
            ),
        ),
        (
            "GGUF",
            Model::new().without("config.json").without("model.safetensors").file("m.gguf", "GGUF"),
        ),
        (
            "an index for one file",
            Model::new().index(json!({"a": "model.safetensors", "b": "model.safetensors"})),
        ),
        ("what macOS leaves", Model::new().file("._model.safetensors", "\0\u{5}\u{16}\u{7}")),
        ("what an editor leaves", Model::new().file("config.json~", "{").file(".x.json.swp", "")),
        ("what Windows leaves", Model::new().file("Thumbs.db", "x").file("desktop.ini", POINTER)),
        ("an orphan", Model::new().file("model.safetensors.incomplete", "x").file("x.part", "x")),
        (
            "a copy",
            Model::new().file("model (1).safetensors", "").file("adapters.safetensors", "x"),
        ),
        (
            "other forms",
            Model::sharded()
                .file("consolidated.safetensors", "cut")
                .file("original/consolidated.00.pth", POINTER)
                .file("onnx/model.onnx", POINTER)
                .file("flax_model.msgpack", POINTER),
        ),
        (
            "a processor beside text",
            Model::new()
                .file("preprocessor_config.json", "{")
                .json("processor_config.json", json!([])),
        ),
        ("what Git keeps", Model::new().file(".git/objects/x.tmp", POINTER)),
    ];
    for (case, model) in cases {
        let Health { healthy, reason } = model.health();
        assert!(healthy, "{case}: {reason}");
    }
    assert_eq!(Model::new().health().reason, "Model is healthy");
    assert_eq!(Model::sharded().health().reason, "Multi-file model complete");
}

#[test]
fn every_defect_is_named() {
    let good = Model::new;
    let sharded = Model::sharded;
    let bare = || sharded().without("model.safetensors.index.json");
    let vision = || good().config(json!({"model_type": "gemma3", "vision_config": {"depth": 2}}));
    let weightless = || good().without("model.safetensors");
    let lying = [&10_000_000_000u64.to_le_bytes()[..], b"{}"].concat();
    let short = shard(&["a", "b"])[..20].to_vec();
    let cut = shard(&["a", "b"])[..shard(&["a", "b"]).len() - 1].to_vec();
    let cases = [
        (good().without("config.json"), "config.json missing"),
        (good().file("config.json", "{\"a\": "), "config.json contains invalid JSON: EOF"),
        (
            good().file("config.json", "{\"a\": \"\u{1}\"}"),
            "config.json contains invalid JSON: control",
        ),
        (
            good().file("config.json", b"{\"a\": \"\xff\"}"),
            "config.json contains invalid JSON: invalid unicode",
        ),
        (good().file("config.json", ""), "config.json contains invalid JSON: EOF"),
        (
            good().file("config.json", "[1]"),
            "config.json is empty or invalid: a list, not an object",
        ),
        (
            good().file("config.json", "null"),
            "config.json is empty or invalid: null, not an object",
        ),
        (good().file("config.json", "{}"), "config.json is empty or invalid: it has no fields"),
        (
            good().file("config.json", vec![b' '; (16 << 20) + 1]),
            "config.json cannot be read: 16777217 bytes are over the limit",
        ),
        (sharded().file("model.safetensors.index.json", "{"), "Invalid index file"),
        (sharded().index(json!({})), "Empty or invalid weight_map in index"),
        (
            sharded().index(json!({"a": "../../etc/hostname"})),
            "Index points outside the model: a is in \"../../etc/hostname\"",
        ),
        (sharded().index(json!({"a": "/etc/hostname"})), "Index points outside the model"),
        (
            sharded().without(&name(2, 2)),
            "Index and shards do not match: 1 of 2 files in the index are missing: model-00002-of-00002.safetensors",
        ),
        (
            sharded().without(&name(1, 2)).without(&name(2, 2)),
            "Missing weight shards: model-00001-of-00002.safetensors, model-00002-of-00002.safetensors",
        ),
        (sharded().file(&name(2, 2), ""), "Empty weight files: model-00002-of-00002.safetensors"),
        (
            sharded().file(&name(2, 2), POINTER),
            "LFS pointers instead of files: model-00002-of-00002.safetensors",
        ),
        (
            sharded().file(&name(2, 2), shard(&["a", "b"])),
            "Index and shards do not match: tensor \"a\" is in both",
        ),
        (
            sharded().file(&name(2, 2), shard(&["b", "c"])),
            "Index and shards do not match: tensor \"c\" of model-00002-of-00002.safetensors is not in the index",
        ),
        (
            sharded().file(&name(2, 2), shard(&[])),
            "Index and shards do not match: tensor \"b\" is not in model-00002-of-00002.safetensors",
        ),
        (
            sharded().without("tokenizer.json").file("tokenizer.json.partial", ""),
            "Partial download marker detected: tokenizer.json.partial",
        ),
        (bare().file(&name(2, 3), shard(&["b"])), "Inconsistent shard totals detected"),
        (bare().without(&name(1, 2)), "Missing shards by pattern: 1/2 present"),
        (good().file("model.safetensors", ""), "Empty weight files: model.safetensors"),
        (
            good().file("model.safetensors", "x".repeat(300)),
            "model.safetensors: header of 8680820740569200760 bytes is over the limit of 100000000",
        ),
        (
            good().file("model.safetensors", lying),
            "model.safetensors: header of 10000000000 bytes is over the limit of 100000000",
        ),
        (
            good().file("model.safetensors", short),
            "model.safetensors: truncated: header of 105 bytes in a file of 20",
        ),
        (
            good().file("model.safetensors", cut),
            "model.safetensors: truncated: the tensors end at byte 115, the file at 114",
        ),
        (
            weightless().file("model.safetensors.tmp", "x"),
            "Partial download marker detected: model.safetensors.tmp",
        ),
        (good().file("tokenizer.json", POINTER), "LFS pointers instead of files: tokenizer.json"),
        (weightless(), "No model weights found"),
        (
            weightless().file("pytorch_model.bin", "x"),
            "Unsafe weight format: pytorch_model.bin (only safetensors is read)",
        ),
        (weightless().file("model.pt", "x"), "Unsafe weight format: model.pt"),
        (weightless().file("m.gguf", ""), "Empty weight files: m.gguf"),
        (
            good().config(json!({"vision_config": {"depth": 2}})),
            "Vision model missing preprocessor_config.json or processor_config.json",
        ),
        (
            vision().file("preprocessor_config.json", "{"),
            "preprocessor_config.json contains invalid JSON",
        ),
        (
            vision().file("processor_config.json", "7"),
            "processor_config.json is empty or invalid: a number",
        ),
        (good().file("tokenizer_config.json", "x"), "tokenizer_config.json contains invalid JSON"),
        (
            good().file("tokenizer_config.json", "\"x\""),
            "tokenizer_config.json is empty or invalid: a string",
        ),
        (
            good().without("tokenizer.json"),
            "tokenizer_config.json present but tokenizer.json missing",
        ),
        (
            good().file("generation_config.json", "{"),
            "generation_config.json contains invalid JSON",
        ),
    ];
    for (model, expected) in cases {
        let Health { healthy, reason } = model.health();
        assert!(!healthy && reason.starts_with(expected), "{reason}\n  not {expected}");
        assert_eq!(model.plan().runnable.unwrap_err(), reason, "what is broken cannot run");
    }
}

#[test]
fn a_download_that_did_not_end_is_seen() {
    let env = Env::new();
    let snapshot = Model::new().cached(&env, "org/model");
    let found = in_cache("org/model", &snapshot);
    let incomplete = snapshot.repo.join("blobs/abc.0123abcd.incomplete");
    fs::write(&incomplete, "x").unwrap();
    assert!(inspect(&found).health.healthy, "the snapshot is whole without it");
    fs::remove_file(snapshot.path.join("model.safetensors")).unwrap();
    assert_eq!(inspect(&found).health.reason, "Unfinished download: blobs/abc.0123abcd.incomplete");
    fs::write(snapshot.repo.join("blobs/abc"), "x").unwrap();
    assert_eq!(inspect(&found).health.reason, "No model weights found", "it came whole in the end");

    fs::remove_file(snapshot.repo.join("blobs/abc")).unwrap();
    let newer = snapshot.path.with_file_name("b".repeat(40));
    fs::create_dir(&newer).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(9);
    fs::File::open(&newer).unwrap().set_modified(later).unwrap();
    let reason = inspect(&found).health.reason;
    assert_eq!(reason, "No model weights found", "the newer revision waits for it");
}

#[test]
fn a_reason_is_one_line_whatever_the_names() {
    let Health { reason, .. } = Model::new().file("a\n\u{1b}[2J\u{202e}.txt.part", "").health();
    let shown = "a\u{fffd}\u{fffd}[2J\u{fffd}.txt.part";
    assert_eq!(reason, format!("Partial download marker detected: {shown}"));
    let plan = Model::new().config(json!({"model_type": "\n".repeat(10_000)})).plan();
    let reason = plan.runnable.unwrap_err();
    assert!(reason.chars().count() <= 500 && !reason.contains('\n'));
}

#[test]
fn a_repository_without_a_snapshot_is_not_a_whole_model() {
    let env = Env::new();
    let repo = env.hub().join("models--org--none");
    fs::create_dir_all(&repo).unwrap();
    let found = Found {
        name: "org/none".to_owned(),
        path: repo.join("snapshots"),
        revision: None,
        origin: Origin::Cache { repo },
    };
    assert_eq!(inspect(&found).health.reason, "No snapshots found");
}
