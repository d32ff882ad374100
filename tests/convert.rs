//! mlxk-convert: a GGUF file becomes a managed workspace, or nothing is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::env::{Env, interrupted};

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
        ("less.gguf", "model.layers.0.mlp.up_proj.weight: the tensor is missing"),
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

/// A workspace of a model of so many tokens, all of whose weights are zero and take no room on disk.
fn hollow(path: &Path, vocabulary: usize) {
    let config = json!({"model_type": "llama", "vocab_size": vocabulary, "hidden_size": 64,
        "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "torch_dtype": "float32"});
    let matrices = [
        "self_attn.q",
        "self_attn.k",
        "self_attn.v",
        "self_attn.o",
        "mlp.gate",
        "mlp.up",
        "mlp.down",
    ];
    let mut tensors = vec![("model.embed_tokens".to_owned(), vec![vocabulary, 64])];
    tensors.extend(matrices.map(|name| (format!("model.layers.0.{name}_proj"), vec![64, 64])));
    for norm in ["layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"] {
        tensors.push((format!("model.{norm}"), vec![64]));
    }
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert(format!("{name}.weight"), entry);
    }
    let header = Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    fs::create_dir_all(path).unwrap();
    fs::write(path.join("config.json"), config.to_string()).unwrap();
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/llama");
    fs::copy(tokenizer.join("tokenizer.json"), path.join("tokenizer.json")).unwrap();
    fs::write(path.join("model.safetensors"), &bytes).unwrap();
    let file = fs::File::options().write(true).open(path.join("model.safetensors")).unwrap();
    file.set_len((bytes.len() + end) as u64).unwrap();
}

#[test]
fn a_signal_in_the_middle_leaves_nothing() {
    let env = Env::new();
    hollow(&env.workspaces().join("large"), 1 << 22);
    let before = env.files();
    let mut command = env.command("mlxk-convert");
    command.args(["large", "small", "--quantize", "4"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut convert = command.spawn().unwrap();
    let late = Instant::now() + Duration::from_secs(20);
    while env.files().len() < before.len() + 3 {
        assert!(
            convert.try_wait().unwrap().is_none() && Instant::now() < late,
            "nothing is written"
        );
        thread::sleep(Duration::from_millis(1));
    }
    let output = interrupted(convert);
    assert!(output.stdout.is_empty(), "{output:?}");
    assert_eq!(env.files(), before);
}

#[test]
fn the_cache_is_neither_source_nor_target_not_even_by_a_link() {
    let env = Env::new();
    hollow(&env.workspaces().join("model"), 320);
    let cached = env.hub().join("models--a--b/snapshots").join("0".repeat(40));
    hollow(&cached, 320);
    std::os::unix::fs::symlink(&cached, env.workspaces().join("link")).unwrap();
    std::os::unix::fs::symlink(env.hub(), env.home().join("hub")).unwrap();
    let before = env.files();
    let within = cached.to_str().unwrap().to_owned();
    let into = env.hub().join("new").to_str().unwrap().to_owned();
    for (source, target) in
        [(&*within, "new"), ("link", "new"), ("model", &*into), ("model", "./hub/new")]
    {
        for way in [&["--quantize", "4", "--q-group-size", "32"][..], &["--repair-index"]] {
            let ended = env.run("mlxk-convert").args([source, target]).args(way).end();
            assert_eq!(ended.status(), 1, "{source} {target}: {ended:?}");
            let told = ended.stderr().lines().next().unwrap().to_owned();
            assert!(told.contains("Hugging Face cache"), "{source} {target}: {told}");
        }
    }
    assert_eq!(env.files(), before);
    env.run("mlxk-convert").args(["model", "new", "--quantize", "4", "--q-group-size", "32"]).ok();
}

#[test]
fn a_recipe_that_there_is_not_is_told_with_those_that_there_are() {
    let env = Env::new();
    hollow(&env.workspaces().join("model"), 320);
    for (flags, known) in [
        (&["--quantize", "mixed_9_9"][..], "mixed_2_6"),
        (&["--quantize", "4", "--q-mode", "int4"], "mxfp4"),
        (&["--quantize", "4", "--dequantize"], "cannot be used with"),
    ] {
        let ended = env.run("mlxk-convert").args(["model", "new"]).args(flags).end();
        assert_eq!(ended.status(), 2, "{flags:?}: {ended:?}");
        assert!(ended.stderr().contains(known), "{flags:?}: {ended:?}");
    }
    assert!(!env.workspaces().join("new").exists());
}

#[test]
fn events_tell_how_far_it_is_where_records_are_asked_for_and_only_there() {
    let env = Env::new();
    let source = file(&env, "tiny.gguf", &Builder::llama().bytes());
    let of = |args: &[&str]| env.run("mlxk-convert").args(args).records();
    let records = of(&["tiny.gguf", "./told", "--ndjson"]);
    let [plan, end] = [&records[0], &records[records.len() - 1]];
    assert_eq!((&plan["type"], &plan["model"]), (&json!("plan"), &json!("tiny.gguf")));
    assert_eq!(plan["name"], Value::Null, "an event is no model");
    assert!(plan["bytes"].as_u64().unwrap() > 4 * 32 * 32, "{plan}");
    assert_eq!((&end["type"], &end["source"]), (&json!("end"), &json!(source)));
    let quiet = of(&["tiny.gguf", "./untold"]);
    assert_eq!((quiet.len(), &quiet[0]["type"]), (1, &Value::Null));
    let copied = of(&["./told", "./copied", "--repair-index", "--ndjson"]);
    assert_eq!(copied[copied.len() - 1]["type"], "end");
}
