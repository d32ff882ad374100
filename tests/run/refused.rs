//! What is broken, hostile or for another model: a line before the answer begins, and nothing else.

use std::fs;
use std::path::Path;

use mlxk_core::tensors::{Dtype, Entry, Header, SHARD, write};
use serde_json::{Value, json};

use super::tiny::{Tiny, data, read};

/// Checks that the model, asked with `args`, refuses in one line (and perhaps a hint) that says
/// `message`.
fn refused(tiny: &Tiny, args: &[&str], message: &str) {
    let before = tiny.env.files();
    let ended = tiny.run(args).args(["--max-tokens", "3", &tiny.prompt]).end();
    assert_eq!((ended.status(), ended.stdout().as_str()), (1, ""), "{ended:?}");
    let stderr = ended.stderr();
    let mut lines = stderr.lines();
    let first = lines.next().unwrap();
    assert!(first.starts_with("mlxk-run: ") && first.contains(message), "{message}: {first}");
    assert!(lines.all(|line| line.starts_with("hint: ")), "{stderr}");
    assert_eq!(tiny.env.files(), before);
}

#[test]
fn what_cannot_run_is_refused_with_the_reason() {
    let tiny = Tiny::new();
    let refused = |message: &str| refused(&tiny, &[], message);
    tiny.config("eos_token_id", json!(16));
    assert_eq!(tiny.run(&[&tiny.prompt]).ok(), "w317\n");
    tiny.config("model_type", json!("quux"));
    refused("Model type 'quux' not supported");
    tiny.config("model_type", json!("llama"));
    tiny.file("tokenizer_config.json", &json!({"chat_template": "a\n{% if %}"}));
    refused("tokenizer_config.json: line 2: ");
    tiny.file("tokenizer_config.json", &json!({"chat_template": "{{ raise_exception('no') }}"}));
    refused("the chat template refuses: no");
    tiny.file("tokenizer.json", &json!({"model": 1}));
    refused("tokenizer.json: not a tokenizer");
    fs::remove_file(tiny.env.workspaces().join("tiny/model.safetensors")).unwrap();
    refused("tiny: ");
}

#[test]
fn files_that_no_model_can_have_are_refused() {
    let tiny = Tiny::new();
    let home = tiny.env.workspaces().join("tiny");
    let config = fs::read(home.join("config.json")).unwrap();
    let refused = |message: &str| refused(&tiny, &[], message);
    let huge = json!(9_007_199_254_740_993_u64);
    for (key, value, message) in [
        ("hidden_size", json!("x"), "config.json: `hidden_size`: invalid type: string"),
        ("vocab_size", json!(-1), "config.json: `vocab_size`: invalid value: integer `-1`"),
        ("intermediate_size", huge, "config.json: `intermediate_size` cannot be 9007199254740993"),
        ("num_attention_heads", json!(0), "config.json: `num_attention_heads` cannot be 0"),
        ("num_key_value_heads", json!(0), "config.json: `num_key_value_heads` cannot be 0"),
        ("num_key_value_heads", json!(3), "4 query heads cannot share 3 key heads"),
        (
            "num_hidden_layers",
            json!(5),
            "model.layers.4.input_layernorm.weight: the tensor is missing",
        ),
        (
            "num_hidden_layers",
            json!(3),
            "model.layers.3.input_layernorm.weight: the model has no use",
        ),
        ("vocab_size", json!(10), "lm_head.weight: expected shape [10, 32], found [320, 32]"),
        ("head_dim", json!(7), "config.json: 7 elements of a head cannot rotate"),
        ("rms_norm_eps", json!(-1), "config.json: `rms_norm_eps` cannot be -1"),
        ("rms_norm_eps", json!(1e300), "config.json: `rms_norm_eps` cannot be inf"),
        ("rope_theta", json!(0), "config.json: position embeddings need a positive `rope_theta`"),
        ("rope_scaling", json!({"type": "zz"}), "config.json: position embeddings of type `zz`"),
        ("quantization", json!([]), "config.json: has a `quantization` that is not an object"),
        ("model_file", json!("x.py"), "requires executing model-supplied code"),
    ] {
        tiny.config(key, value);
        refused(message);
        fs::write(home.join("config.json"), &config).unwrap();
    }
    fs::write(home.join("config.json"), br#"{"model_type": "llama", "hidden_size": NaN}"#).unwrap();
    refused("config.json: `hidden_size`: invalid type: null");
    let nested = format!(r#"{{"model_type": "llama", "a": {}"#, "[".repeat(1 << 20));
    fs::write(home.join("config.json"), nested).unwrap();
    refused("config.json");
    fs::write(home.join("config.json"), &config).unwrap();
    tiny.file("generation_config.json", &json!({"temperature": "x"}));
    refused("generation_config.json: `temperature` is not a number: \"x\"");
    tiny.file("generation_config.json", &json!({}));
    fs::write(home.join("chat_template.jinja"), b"\xff").unwrap();
    refused("chat_template.jinja: ");
}

#[test]
fn a_hostile_template() {
    let tiny = Tiny::new();
    tiny.template("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}");
    refused(&tiny, &[], "tokenizer_config.json: the chat template does too much work");
    tiny.template(&" ".repeat(10 << 20));
    refused(&tiny, &[], "tokenizer_config.json: a chat template of 10485760 bytes");
    tiny.template("{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}");
    refused(&tiny, &[], "does too much work, or makes too much text");
    tiny.template("{{ messages[0].nothing.at_all }}");
    refused(&tiny, &[], "tokenizer_config.json: line 1: ");
}

/// The tensors of the model, one after another, as a test leaves them.
type Tensors = Vec<(Entry, Vec<u8>)>;

fn rewrite(tiny: &Tiny, change: impl Fn(&mut Tensors)) {
    let file = fs::read(data("parity/llama/model.safetensors")).unwrap();
    let header = Header::read(&mut &file[..], file.len() as u64).unwrap();
    let tensor = |tensor: mlxk_core::tensors::Tensor| {
        let bytes = file[tensor.range.start as usize..tensor.range.end as usize].to_vec();
        (Entry { name: tensor.name, dtype: tensor.dtype, shape: tensor.shape }, bytes)
    };
    let mut tensors: Tensors = header.tensors.into_iter().map(tensor).collect();
    change(&mut tensors);
    let (entries, bytes): (Vec<Entry>, Vec<Vec<u8>>) = tensors.into_iter().unzip();
    let place = |entry: &Entry| entries.iter().position(|e| e.name == entry.name).unwrap();
    let home = tiny.path("");
    write(Path::new(&home), &entries, SHARD, |entry| Ok(bytes[place(entry)].as_slice().into()))
        .unwrap();
}

#[test]
fn weights_that_are_not_those_of_the_model() {
    let tiny = Tiny::new();
    const NORM: &str = "model.norm.weight";
    let norm = |tensors: &mut Tensors| tensors.iter().position(|(e, _)| e.name == NORM).unwrap();
    rewrite(&tiny, |tensors| {
        let at = norm(tensors);
        tensors.remove(at);
    });
    refused(&tiny, &[], "model.norm.weight: the tensor is missing");
    rewrite(&tiny, |tensors| {
        let at = norm(tensors);
        let (entry, bytes) = tensors[at].clone();
        tensors.push((Entry { name: "model.more.weight".into(), ..entry }, bytes));
    });
    refused(&tiny, &[], "model.more.weight: the model has no use");
    rewrite(&tiny, |tensors| {
        let at = norm(tensors);
        tensors[at].0.shape = vec![16];
        tensors[at].1.truncate(64);
    });
    refused(&tiny, &[], "model.norm.weight: expected shape [32], found [16]");
    rewrite(&tiny, |tensors| {
        let at = norm(tensors);
        tensors[at].0.dtype = Dtype::I32;
    });
    refused(&tiny, &[], "model.norm.weight: ");
    rewrite(&tiny, |_| ());
    assert_eq!(tiny.run(&["--max-tokens", "3", &tiny.prompt]).ok(), format!("{}\n", tiny.words(3)));
}

#[test]
fn rules_that_nothing_can_follow() {
    let tiny = Tiny::new();
    let file = tiny.env.home().join("rules");
    let path = file.to_str().unwrap();
    let schema = |schema: Value, message: &str| {
        fs::write(&file, schema.to_string()).unwrap();
        refused(&tiny, &["--json-schema", path], message);
    };
    tiny.config("eos_token_id", json!(16));
    schema(json!({"type": "string", "minLength": 5, "maxLength": 2}), "`json_schema`: ");
    schema(json!(false), "`json_schema`: ");
    schema(json!({"$ref": "#/nowhere"}), "`json_schema`: ");
    fs::write(&file, "{").unwrap();
    refused(&tiny, &["--json-schema", path], "rules: not a JSON schema: ");
    fs::write(&file, "start: nothing").unwrap();
    refused(&tiny, &["--grammar", path], "`grammar`: ");
    refused(&tiny, &["--grammar", "none"], "none: ");
}

#[test]
fn an_adapter_a_draft_and_a_prompt_cache_of_another_model() {
    let tiny = Tiny::new();
    tiny.add("qwen2", "other");
    tiny.add("llama", "twin");
    let adapter = data("adapters/lora");
    tiny.config("num_hidden_layers", json!(3));
    rewrite(&tiny, |tensors| tensors.retain(|(entry, _)| !entry.name.contains("layers.3.")));
    refused(&tiny, &["--adapter", adapter.to_str().unwrap()], "another model");
    rewrite(&tiny, |_| ());
    tiny.config("num_hidden_layers", json!(4));
    refused(&tiny, &["--adapter", "nothing"], "nothing/adapter_config.json: ");
    let file = tiny.env.workspaces().join("twin/tokenizer.json");
    let mut tokenizer = read(&file);
    tokenizer["model"]["vocab"].as_object_mut().unwrap().insert("more".into(), json!(320));
    fs::write(&file, tokenizer.to_string()).unwrap();
    refused(&tiny, &["--draft-model", "twin"], "twin: its tokenizer differs from that of ");
    refused(&tiny, &["--draft-model", "nobody"], "nobody: no such model");
    refused(&tiny, &["--draft-model", "other", "--num-draft-tokens", "0"], "`num_draft_tokens`");
    let cache = tiny.env.home().join("cache");
    let cache = cache.to_str().unwrap();
    tiny.free(&["--prompt-cache", cache, "--max-tokens", "1", "w1 w2"]).ok();
    let ended = tiny.env.run("mlxk-run").args(["other", "w1", "--prompt-cache", cache]).end();
    assert!(ended.status() == 1 && ended.stderr().contains("a prompt cache of "), "{ended:?}");
    refused(&tiny, &["--prompt-cache", "none/cache"], "none/cache: No such file");
    fs::write(cache, b"not one").unwrap();
    refused(&tiny, &["--prompt-cache", cache], "cache: ");
}
