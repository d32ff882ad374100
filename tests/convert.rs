//! mlxk-convert: a GGUF file becomes a managed workspace, or nothing is left.

use std::fs;
use std::path::PathBuf;

use crate::env::Env;

#[path = "../lib/gguf/tests/gguf/mod.rs"]
pub mod gguf;

use gguf::{Builder, string};

/// A file in the home.
fn file(env: &Env, name: &str, bytes: &[u8]) -> PathBuf {
    let path = env.home().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_file_becomes_a_workspace_that_is_managed_clean_and_healthy() {
    let env = Env::new();
    let source = file(&env, "tiny.gguf", &Builder::llama().bytes());
    let records = env.run("mlxk-convert").args(["tiny.gguf", "tiny"]).records();
    let target = env.workspaces().canonicalize().unwrap().join("tiny");
    let record = &records[0];
    assert_eq!(record["source"], source.to_str().unwrap());
    assert_eq!(record["target"], target.to_str().unwrap());
    assert_eq!(record["mode"], "gguf");
    assert_eq!(record["tensors"], 11);
    assert_eq!(record["health_status"], "healthy");
    assert!(record["size_bytes"].as_u64().unwrap() > 4 * 32 * 32, "{record}");
    let shown = env.run("mlxk-ls").args(["--all", "tiny"]).records();
    assert_eq!(shown[0]["clean"], true);
    assert_eq!(shown[0]["health"], "healthy");
    assert_eq!(shown[0]["runtime_compatible"], true, "{}", shown[0]);
    assert_eq!(shown[0]["content_hash"], record["content_hash"]);
    let sentinel = fs::read_to_string(target.join(".mlxk_workspace.json")).unwrap();
    let sentinel: serde_json::Value = serde_json::from_str(&sentinel).unwrap();
    assert_eq!(sentinel["managed"], true);
    assert_eq!(sentinel["operation"], "convert");
    assert_eq!(sentinel["mode"], "gguf");
    assert_eq!(sentinel["source_repo"], source.to_str().unwrap());
}

#[test]
fn its_record_names_the_workspace_to_the_next_program() {
    let env = Env::new();
    file(&env, "tiny.gguf", &Builder::llama().bytes());
    let record = env.run("mlxk-convert").args(["tiny.gguf", "./here"]).ok();
    let health = env.run("mlxk-health").stdin(record).records();
    assert_eq!(health[0]["health"], "healthy");
    assert_eq!(health[0]["mode"], "gguf", "fields pass through");
}

#[test]
fn the_envelope_and_the_sentence() {
    let env = Env::new();
    file(&env, "tiny.gguf", &Builder::llama().bytes());
    let envelope = env.run("mlxk-convert").args(["tiny.gguf", "./a"]).envelope(0);
    assert_eq!(envelope["data"]["mode"], "gguf");
    let text = env.run("mlxk-convert").args(["tiny.gguf", "./b", "--human"]).ok();
    assert!(text.contains("/b (healthy, 11 tensors, "), "{text}");
}

#[test]
fn what_cannot_be_imported_leaves_nothing() {
    let env = Env::new();
    let llama = Builder::llama();
    let whole = llama.bytes();
    file(&env, "short.gguf", &whole[..whole.len() - 4096]);
    file(&env, "text.gguf", b"hello");
    file(&env, "empty.gguf", b"");
    let other = Builder::of("gemma9").set("general.architecture", string("gemma9"));
    file(&env, "other.gguf", &other.bytes());
    file(&env, "less.gguf", &llama.clone().without("blk.0.ffn_up.weight").bytes());
    let lying = |counts: [u64; 2], rest: &[u8]| {
        let counts = counts.map(u64::to_le_bytes).concat();
        [b"GGUF\x03\0\0\0", &*counts, rest].concat()
    };
    let length = |n: u64| n.to_le_bytes();
    file(&env, "many.gguf", &lying([1 << 62, 0], b""));
    file(&env, "long.gguf", &lying([0, 1], &length(10_000_000_000)));
    file(&env, "bytes.gguf", &lying([0, 1], &[&length(1)[..], b"\xff\x04\0\0\0"].concat()));
    let before = env.files();
    for (source, reason) in [
        ("many.gguf", "4611686018427387904 tensors cannot be in a file of 24 bytes"),
        ("long.gguf", "metadata key 0: 10000000000 bytes needed"),
        ("bytes.gguf", "metadata key 0: not UTF-8 text"),
        ("short.gguf", "but the file ends at"),
        ("text.gguf", "not a GGUF file"),
        ("empty.gguf", "not a GGUF file"),
        ("other.gguf", "the architecture \"gemma9\" cannot be imported"),
        ("less.gguf", "\"blk.0.ffn_up.weight\" is missing"),
        ("absent.gguf", "No such file"),
        (".", "say what shall become of it"),
    ] {
        let ended = env.run("mlxk-convert").args([source, "new"]).end();
        assert_eq!(ended.status(), 1, "{ended:?}");
        let first = ended.stderr().lines().next().unwrap().to_owned();
        assert!(first.starts_with("mlxk-convert: ") && first.contains(source), "{first}");
        assert!(first.contains(reason), "{first}");
        assert_eq!(ended.stdout(), "");
    }
    assert_eq!(env.files(), before);
}

#[test]
fn a_target_that_is_taken_or_in_the_cache_is_refused() {
    let env = Env::new();
    file(&env, "tiny.gguf", &Builder::llama().bytes());
    let taken = env.model("taken").write_workspace();
    let before = env.files();
    let cached = env.hub().join("x");
    for target in [taken.to_str().unwrap(), cached.to_str().unwrap(), "./no/where", "tiny.gguf/x"] {
        let ended = env.run("mlxk-convert").args(["tiny.gguf", target]).end();
        assert_eq!(ended.status(), 1, "{target}: {ended:?}");
    }
    assert_eq!(env.files(), before);
    fs::create_dir(env.home().join("empty")).unwrap();
    env.run("mlxk-convert").args(["tiny.gguf", "./empty"]).ok();
    let unknown = env.run("mlxk-convert").args(["tiny.gguf", "x", "--dtype", "f8"]).end();
    assert_eq!(unknown.status(), 2);
}

#[test]
fn a_wrong_index_is_made_anew_in_a_copy() {
    let env = Env::new();
    let wrong = r#"{"metadata": {}, "weight_map": {"w": "elsewhere.safetensors"}}"#;
    let other = br#"{"v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let other = [&(other.len() as u64).to_le_bytes()[..], other, &[0; 4]].concat();
    let broken = env.model("broken").file("model.safetensors.index.json", wrong);
    broken.file("more.safetensors", other).write_workspace();
    assert_eq!(env.run("mlxk-health").args(["broken"]).end().status(), 1);
    let envelope = env.run("mlxk-convert").args(["--repair-index", "broken", "whole"]).envelope(0);
    assert_eq!(envelope["data"]["mode"], "repair-index");
    assert_eq!(envelope["data"]["health_status"], "healthy");
    assert_eq!(env.run("mlxk-health").args(["whole"]).end().status(), 0);
    let ended = env.run("mlxk-convert").args(["--repair-index", "broken", "whole"]).end();
    assert_eq!(ended.status(), 1);
    assert!(ended.stderr().contains("ws/whole: exists and is not empty"), "{ended:?}");
    fs::remove_file(env.workspaces().join("broken/tokenizer.json")).unwrap();
    let unhealthy = || env.run("mlxk-convert").args(["--repair-index", "broken", "sick"]);
    assert_eq!(unhealthy().envelope(1)["error"]["type"], "unhealthy");
    assert!(!env.workspaces().join("sick").exists());
    unhealthy().args(["--skip-health"]).ok();
    let summary =
        env.run("mlxk-convert").args(["--human", "--repair-index", "whole", "again"]).ok();
    assert!(
        summary.ends_with("again (The index of 2 files was made anew, healthy)\n"),
        "{summary}"
    );
}

#[test]
fn a_workspace_is_quantised_and_runs() {
    let env = Env::new();
    file(&env, "tiny.gguf", &Builder::llama().bytes());
    env.run("mlxk-convert").args(["tiny.gguf", "tiny", "--dtype", "f32"]).ok();
    let records = env
        .run("mlxk-convert")
        .args(["tiny", "small", "--quantize", "4"])
        .args(["--q-group-size", "32"])
        .records();
    assert_eq!(records[0]["mode"], "quantize");
    assert_eq!(records[0]["health_status"], "healthy");
    let shown = env.run("mlxk-show").args(["small"]).records();
    assert_eq!(shown[0]["quantization"]["bits"], 4);
    assert_eq!(shown[0]["clean"], true);
    let twice = env.run("mlxk-convert").args(["small", "smaller", "--quantize", "2"]).end();
    let small = env.workspaces().canonicalize().unwrap().join("small");
    twice.refused(1, &format!("mlxk-convert: {}: is quantised already", small.display()));
    let form = env.run("mlxk-convert").args(["tiny", "other", "--quantize", "7"]).end();
    form.refused(1, "mlxk-convert: affine has no form of 7 bits in groups of 64");
    assert!(!env.workspaces().join("other").exists());
}
