//! mlxk-run: answers of tiny models with known continuations, from the command line to the text.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::env::{Env, Run, interrupted, records};

const SIGPIPE: i32 = 13;

/// A home with the tiny models as workspaces, whose token 17 is the word `w17`.
struct Tiny {
    env: Env,
    prompt: String,
    greedy: String,
}

impl Tiny {
    fn new() -> Tiny {
        let env = Env::new();
        let data = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/parity/llama"));
        let model = env.workspaces().join("tiny");
        fs::create_dir_all(&model).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(data.join(file), model.join(file)).unwrap();
        }
        let expected = fs::read(data.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let text = |key: &str| expected[key].as_str().unwrap().to_owned();
        Tiny { env, prompt: text("prompt"), greedy: text("greedy") }
    }

    /// The first `count` words of the known answer.
    fn words(&self, count: usize) -> String {
        self.greedy.split(' ').take(count).collect::<Vec<_>>().join(" ")
    }

    /// Changes files of the model.
    fn file(&self, name: &str, content: &Value) {
        let path = self.env.workspaces().join("tiny").join(name);
        fs::write(path, content.to_string()).unwrap();
    }

    fn config(&self, key: &str, value: Value) {
        let path = self.env.workspaces().join("tiny/config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        config[key] = value;
        self.file("config.json", &config);
    }

    fn run(&self, args: &[&str]) -> Run {
        let greedy = ["tiny", "--temperature", "0"];
        self.env.run("mlxk-run").args(greedy).args(args)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.env.command("mlxk-run");
        command.arg("tiny").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Reads the first bytes that a program writes.
fn first_output(child: &mut Child) {
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn the_answer_is_the_known_one_and_a_cut_is_told() {
    let tiny = Tiny::new();
    for args in [&["--max-tokens", "24"][..], &["--no-stream", "--max-tokens", "24"]] {
        let ended = tiny.run(args).args([&tiny.prompt]).end();
        assert_eq!((ended.status(), ended.stdout()), (0, format!("{}\n", tiny.greedy)));
        assert_eq!(ended.stderr(), "[Output cut at 24 tokens: --max-tokens]\n");
    }
}

#[test]
fn standard_input_is_read_for_a_dash_or_through_the_gate() {
    let tiny = Tiny::new();
    let (first, rest) = tiny.prompt.rsplit_once(' ').unwrap();
    let args = ["--max-tokens", "3"];
    let known = format!("{}\n", tiny.words(3));
    let piped = |more: &[&str]| tiny.run(&args).args(more).stdin(format!("{}\n", tiny.prompt));
    assert_eq!(piped(&["-"]).ok(), known);
    assert_eq!(piped(&[]).env("MLXK2_ENABLE_PIPES", "1").ok(), known);
    assert_eq!(tiny.run(&args).args(["-", "--prompt", rest]).stdin(first).ok(), known);
    let ignored = tiny.run(&args).args([&tiny.prompt]).stdin("w1 w2 w3");
    assert_eq!(ignored.ok(), known);
    let closed = piped(&["-"]).env("MLXK2_ENABLE_PIPES", "0").end();
    closed.refused(2, "mlxk-run: standard input is closed by MLXK2_ENABLE_PIPES=0");
    piped(&[]).end().refused(2, "mlxk-run: no prompt");
}

#[test]
fn a_stdin_that_nobody_asked_for_is_not_waited_for() {
    let tiny = Tiny::new();
    let mut command = tiny.command(&["--max-tokens", "1", "w1"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let held_open = child.stdin.take();
    assert!(child.wait().unwrap().success());
    drop(held_open);
}

#[test]
fn each_request_gives_a_record_and_bad_lines_only_themselves() {
    let tiny = Tiny::new();
    let good = json!({"id": 7, "prompt": tiny.prompt, "max_tokens": 2, "tag": {"a": null}});
    let stop = json!({"prompt": tiny.prompt, "stop": ["6 w239"], "seed": 5});
    let input = format!("{good}\n\nnot json\n{{\"id\":8}}\n{stop}\n");
    let ended = tiny.run(&["--ndjson", "-"]).stdin(input).end();
    assert_eq!(ended.status(), 1);
    let answers = records(&ended.stdout());
    assert_eq!(answers.len(), 2, "{ended:?}");
    assert_eq!((&answers[0]["id"], &answers[0]["tag"]), (&good["id"], &good["tag"]));
    assert_eq!(answers[0]["response"], tiny.words(2));
    assert_eq!(answers[0]["finish_reason"], "length");
    let usage = json!({"prompt_tokens": 21, "completion_tokens": 2, "total_tokens": 23});
    assert_eq!(answers[0]["usage"], usage);
    assert!(answers[0]["seed"].is_u64());
    assert_eq!(answers[1]["response"], "w317 w1");
    assert_eq!((&answers[1]["finish_reason"], &answers[1]["seed"]), (&json!("stop"), &json!(5)));
    let complaints = ended.stderr();
    assert!(complaints.contains("mlxk-run: standard input, line 3: not a JSON object\n"));
    assert!(complaints.contains("line 4: neither a `prompt` nor `messages`\n"), "{complaints}");
}

#[test]
fn one_prompt_gives_one_record_or_the_envelope() {
    let tiny = Tiny::new();
    let args = ["--max-tokens", "2", &tiny.prompt];
    let record = &tiny.run(&["--ndjson"]).args(args).records()[0];
    assert_eq!(
        (&record["prompt"], &record["response"]),
        (&json!(tiny.prompt), &json!(tiny.words(2)))
    );
    let data = tiny.run(&args).envelope(0)["data"].clone();
    assert_eq!((&data["model"], &data["prompt"]), (&json!("tiny"), &json!(tiny.prompt)));
    assert_eq!(
        (&data["response"], &data["finish_reason"]),
        (&json!(tiny.words(2)), &json!("length"))
    );
    let error = tiny.run(&[" "]).envelope(1)["error"].clone();
    assert_eq!(error["type"], "validation_error");
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let tiny = Tiny::new();
    let answer = |seed: &str| {
        let run = tiny.env.run("mlxk-run");
        run.args(["tiny", "--temperature", "2", "--max-tokens", "12", "--seed", seed, "w1"]).ok()
    };
    assert_eq!(answer("1"), answer("1"));
    assert_ne!(answer("1"), answer("2"));
}

#[test]
fn an_answer_that_looks_like_an_error_is_an_answer() {
    let tiny = Tiny::new();
    let path = tiny.env.workspaces().join("tiny/tokenizer.json");
    let tokenizer = fs::read_to_string(&path).unwrap().replace("\"w317\"", "\"Error: \"");
    fs::write(&path, tokenizer).unwrap();
    assert_eq!(tiny.run(&["--max-tokens", "1", &tiny.prompt]).ok(), "Error: \n");
}

#[test]
fn the_answer_fills_the_context_and_a_longer_prompt_is_refused() {
    let tiny = Tiny::new();
    tiny.config("max_position_embeddings", json!(24));
    let ended = tiny.run(&[&tiny.prompt]).end();
    assert_eq!(ended.stdout(), format!("{}\n", tiny.words(3)));
    assert_eq!(ended.stderr(), "[Output cut at 3 tokens: the model's context is full]\n");
    tiny.config("max_position_embeddings", json!(20));
    let message = "mlxk-run: the prompt has 21 tokens, and the model's context holds 20";
    tiny.run(&[&tiny.prompt]).end().refused(1, message);
}

#[test]
fn what_cannot_run_is_refused_with_the_reason() {
    let tiny = Tiny::new();
    let refused = |status, message: &str| {
        let ended = tiny.run(&["w1"]).end();
        assert_eq!((ended.status(), ended.stdout().as_str()), (status, ""), "{ended:?}");
        let first = ended.stderr().lines().next().unwrap().to_owned();
        assert!(first.starts_with("mlxk-run: ") && first.contains(message), "{first}");
    };
    tiny.config("eos_token_id", json!(16));
    assert_eq!(tiny.run(&[&tiny.prompt]).ok(), "w317\n");
    tiny.config("model_type", json!("quux"));
    refused(1, "Model type 'quux' not supported");
    tiny.config("model_type", json!("llama"));
    tiny.file("tokenizer_config.json", &json!({"chat_template": "a\n{% if %}"}));
    refused(1, "tokenizer_config.json: line 2: ");
    tiny.file("tokenizer_config.json", &json!({"chat_template": "{{ raise_exception('no') }}"}));
    refused(1, "the chat template refuses: no");
    tiny.file("tokenizer.json", &json!({"model": 1}));
    refused(1, "tokenizer.json: not a tokenizer");
    fs::remove_file(tiny.env.workspaces().join("tiny/model.safetensors")).unwrap();
    refused(1, "tiny: ");
}

#[test]
fn files_that_no_model_can_have_are_refused() {
    let tiny = Tiny::new();
    let home = tiny.env.workspaces().join("tiny");
    let config = fs::read(home.join("config.json")).unwrap();
    let refused = |message: &str| {
        let before = tiny.env.files();
        let ended = tiny.run(&["w1"]).end();
        assert_eq!((ended.status(), ended.stdout().as_str()), (1, ""), "{ended:?}");
        assert_eq!(ended.stderr().matches("mlxk-run: ").count(), 1, "{ended:?}");
        assert!(ended.stderr().contains(message), "{message}: {ended:?}");
        assert_eq!(tiny.env.files(), before);
    };
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
fn wrong_use_is_told_before_anything_is_loaded() {
    let tiny = Tiny::new();
    let refused = |args: &[&str], message| tiny.run(args).end().refused(2, message);
    refused(&["w1", "--max-tokens", "0"], "mlxk-run: `max_tokens` is not a whole number from 1");
    refused(&["w1", "--top-p", "2"], "mlxk-run: `top_p` is not a number from 0 to 1");
    refused(
        &["--ndjson", "-", "w1"],
        "mlxk-run: requests on standard input and a prompt on the command line",
    );
    let empty = tiny.run(&["-"]).stdin("\n\n").end();
    empty.refused(1, "mlxk-run: standard input is empty, and there is no other prompt");
    let binary = tiny.run(&["-"]).stdin(b"\xff\xfe".to_vec()).end();
    binary.refused(1, "mlxk-run: standard input: not UTF-8 text");
}

#[test]
fn ctrl_c_ends_the_answer_and_the_program_dies_by_it() {
    let tiny = Tiny::new();
    tiny.config("max_position_embeddings", json!(100_000));
    let mut child = tiny.command(&["w1"]).stdin(Stdio::null()).spawn().unwrap();
    first_output(&mut child);
    let output = interrupted(child);
    assert!(output.stdout.ends_with(b"\n"), "{output:?}");
    assert_eq!(output.stderr, b"");
}

#[test]
fn ctrl_c_ends_the_reading_of_a_prompt_at_once() {
    let tiny = Tiny::new();
    tiny.config("max_position_embeddings", json!(100_000));
    let mut child = tiny.command(&["--verbose", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&b"w1 ".repeat(50_000)).unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut String::new()).unwrap(); // what tells that the model is loaded
    assert_eq!(interrupted(child).stdout, b"", "the answer has not begun");
}

#[test]
fn ctrl_c_ends_the_wait_for_a_request_at_once() {
    let tiny = Tiny::new();
    let mut child = tiny.command(&["--ndjson", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{\"prompt\":\"w1\",\"max_tokens\":1}\n").unwrap();
    let mut answer = [0];
    while answer != *b"\n" {
        child.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    }
    interrupted(child);
    drop(stdin);
}

#[test]
fn a_reader_that_goes_away_ends_the_answer_silently() {
    let tiny = Tiny::new();
    let mut child = tiny.command(&["w1"]).stdin(Stdio::null()).spawn().unwrap();
    first_output(&mut child);
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.signal(), output.stderr.as_slice()), (Some(SIGPIPE), &b""[..]));
}
