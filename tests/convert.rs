//! mlxk-convert: a GGUF file becomes a managed workspace, or nothing is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::env::{Env, interrupted};

#[path = "../lib/gguf/tests/gguf/mod.rs"]
pub mod gguf;

use gguf::{Builder, integer, string};

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
    file(&env, "part.gguf", &llama.clone().set("split.count", integer(3)).bytes());
    fs::write(env.hub().join("cached.gguf"), &whole).unwrap();
    let cached = env.hub().join("cached.gguf").display().to_string();
    file(&env, "less.gguf", &llama.clone().without("blk.0.ffn_up.weight").bytes());
    let lying = |counts: [u64; 2], rest: &[u8]| {
        let counts = counts.map(u64::to_le_bytes).concat();
        [b"GGUF\x03\0\0\0", &*counts, rest].concat()
    };
    let length = |n: u64| n.to_le_bytes();
    file(&env, "many.gguf", &lying([1 << 62, 0], b""));
    file(&env, "long.gguf", &lying([0, 1], &length(10_000_000_000)));
    file(&env, "bytes.gguf", &lying([0, 1], &[&length(1)[..], b"\xff\x04\0\0\0"].concat()));
    let made = Command::new("mkfifo").arg(env.home().join("pipe.gguf")).status().unwrap();
    assert!(made.success());
    let before = env.files();
    for (source, reason) in [
        ("many.gguf", "4611686018427387904 tensors cannot be in a file of 24 bytes"),
        ("long.gguf", "metadata key 0: 10000000000 bytes needed"),
        ("bytes.gguf", "metadata key 0: not UTF-8 text"),
        ("short.gguf", "but the file ends at"),
        ("part.gguf", "one of the 3 files of a model"),
        (&*cached, "lies inside the Hugging Face cache"),
        ("text.gguf", "not a GGUF file"),
        ("empty.gguf", "not a GGUF file"),
        ("other.gguf", "the architecture \"gemma9\" cannot be imported"),
        ("less.gguf", "model.layers.0.mlp.up_proj.weight: the tensor is missing"),
        ("absent.gguf", "No such file"),
        ("pipe.gguf", "not a file"),
        ("/dev/zero", "not a file"),
        (".", "no conversion is selected"),
    ] {
        let ended = env.run("mlxk-convert").args([source, "new"]).end();
        // To select nothing is a mistake of the arguments.
        assert_eq!(ended.status(), if source == "." { 2 } else { 1 }, "{ended:?}");
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
    for dtype in ["float16", "bfloat16", "float32"] {
        env.run("mlxk-convert").args(["tiny.gguf", dtype, "--dtype", dtype]).ok();
        let config = fs::read_to_string(env.workspaces().join(dtype).join("config.json")).unwrap();
        assert!(config.contains(dtype), "{config}");
    }
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
    form.refused(2, "mlxk-convert: affine has no form of 7 bits in groups of 64");
    assert!(!env.workspaces().join("other").exists());
}

/// The names, types and bytes of the tensors of a workspace.
fn tensors(path: &Path) -> Vec<(String, String, Vec<u8>)> {
    let bytes = fs::read(path.join("model.safetensors")).unwrap();
    let (length, rest) = bytes.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: Map<String, Value> = serde_json::from_slice(header).unwrap();
    let tensor = |(name, entry): (String, Value)| {
        let range = [0, 1].map(|end| entry["data_offsets"][end].as_u64().unwrap() as usize);
        let kind = format!("{} {}", entry["dtype"].as_str().unwrap(), entry["shape"]);
        (name, kind, data[range[0]..range[1]].to_vec())
    };
    let mut tensors: Vec<_> =
        header.into_iter().filter(|(name, _)| name != "__metadata__").map(tensor).collect();
    tensors.sort();
    tensors
}

#[test]
fn a_file_that_is_quantised_at_once_is_one_that_was_imported_first() {
    let env = Env::new();
    file(&env, "tiny.gguf", &Builder::llama().bytes());
    let four = ["--quantize", "4", "--q-group-size", "32"];
    let convert = |args: &[&str]| env.run("mlxk-convert").args(args).records().remove(0);
    let record = convert(&[&["tiny.gguf", "once"], &four[..]].concat());
    assert_eq!(record["source"], env.home().join("tiny.gguf").to_str().unwrap());
    convert(&["tiny.gguf", "plain"]);
    convert(&[&["plain", "twice"], &four[..]].concat());
    let [once, twice] = ["once", "twice"].map(|name| tensors(&env.workspaces().join(name)));
    assert!(once.iter().any(|(name, ..)| name.ends_with("q_proj.scales")));
    assert_eq!(once, twice);
    let sentinel = &env.run("mlxk-show").args(["once"]).records()[0]["workspace_metadata"];
    assert_eq!(sentinel["quantization"], json!({"bits": 4, "group_size": 32}));
    let left = fs::read_dir(env.workspaces()).unwrap().count();
    assert_eq!(left, 3, "nothing is left of the plain weights in between");
}

#[test]
fn a_file_is_unpacked_if_that_is_wished() {
    let env = Env::new();
    let packed = [&[0, 0x3c][..], &[3; 32]].concat().repeat(32); // scale 1, and 32 threes
    let q8 = Builder::llama().tensor("blk.0.attn_output.weight", &[32, 32], 8, packed);
    file(&env, "q8.gguf", &q8.bytes());
    let o_proj = |to: &str, flags: &[&str]| {
        env.run("mlxk-convert").args([&["q8.gguf", to], flags].concat()).ok();
        let all = tensors(&env.workspaces().join(to)).into_iter();
        all.filter(|(name, ..)| name.contains("o_proj")).collect::<Vec<_>>()
    };
    assert_eq!(o_proj("kept", &[]).len(), 3, "codes, scales and biases");
    let plain = o_proj("plain", &["--dequantize", "--dtype", "f32"]);
    assert_eq!(plain.len(), 1);
    assert_eq!((&*plain[0].1, &plain[0].2), ("F32 [32,32]", &3f32.to_le_bytes().repeat(32 * 32)));
}

#[test]
fn an_adapter_goes_into_the_weights_for_good() {
    let env = Env::new();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let adapter = data.join("adapters/packed");
    let expected = fs::read(adapter.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let base = env.workspaces().join("base");
    fs::create_dir(&base).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let case = data.join("parity").join(expected["case"].as_str().unwrap());
        fs::copy(case.join(name), base.join(name)).unwrap();
    }
    let args = ["base", "taught", "--merge-adapter", adapter.to_str().unwrap()];
    let record = &env.run("mlxk-convert").args(args).records()[0];
    assert_eq!((&record["mode"], &record["health_status"]), (&json!("merge"), &json!("healthy")));
    let mut hash = Sha256::new();
    for (name, kind, bytes) in tensors(&env.workspaces().join("taught")) {
        hash.update(format!("{name} {kind} "));
        hash.update(bytes);
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(expected["fused"], found);
}

#[test]
fn health_is_not_asked_for_where_that_is_wished() {
    let env = Env::new();
    file(&env, "tiny.gguf", &Builder::llama().bytes());
    let record = |to: &str, flags: &[&str]| {
        env.run("mlxk-convert").args([&["tiny.gguf", to], flags].concat()).records().remove(0)
    };
    let (asked, skipped) = (record("a", &[]), record("b", &["--skip-health"]));
    assert_eq!(
        (&asked["health_check"], &asked["health_status"]),
        (&json!(true), &json!("healthy"))
    );
    assert_eq!(
        (&skipped["health_check"], &skipped["health_status"]),
        (&json!(false), &Value::Null)
    );
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
