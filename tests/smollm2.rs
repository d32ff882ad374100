//! SmolLM2-135M-Instruct, a trained model with known answers, from its GGUF file to its words.

use std::ffi::OsString;
use std::process::Stdio;

use mlxk_core::{Found, Inspected, Origin, inspect};
use mlxk_processor::{Conversation, Sampling, Template, Tokenizer};
use serde_json::{Value, json};

use crate::env::{Env, Run, interrupted};

const QUESTION: &str = "What is the capital of France?";
/// The answer with the token that ends it.
const ANSWER: [u32; 8] = [504, 3575, 282, 4649, 314, 7042, 30, 2];
/// The likeliest first tokens of it, and their logits.
const LOGITS: [(usize, f32); 3] = [(504, 25.3254), (60, 25.2433), (15319, 24.9424)];

const BEGINNING: &str = "Once upon a time, there was a little";
const STORY: &str = " girl named Emma who loved to play in the sun. She would often go to the beach \
                     and play with her friends. One day, she decided to go to the beach and play \
                     with her friends.";

/// No token of how this goes on is nearly another, as codes for keys and values would make it.
const LETTERS: &str = "A, B, C, D, E, F, G, H, I, J,";
const MORE_LETTERS: &str = " K, L, M, N,";

const GREEDY: Sampling = Sampling::GREEDY;

fn gguf() -> OsString {
    std::env::var_os("MLXK_TEST_MODEL")
        .expect("MLXK_TEST_MODEL names no model: run `make test`, which fetches it")
}

/// A home with the model as the workspace SmolLM2.
struct Smol(Env);

impl Smol {
    fn new() -> Smol {
        let env = Env::new();
        env.run("mlxk-convert").args([gguf(), "SmolLM2".into()]).ok();
        Smol(env)
    }

    fn run(&self, args: &[&str]) -> Run {
        self.0.run("mlxk-run").args(["SmolLM2"]).args(args)
    }
}

#[test]
fn what_it_is_known_to_say_is_said() {
    let smol = Smol::new();
    let story = ["--no-chat-template", "--temperature", "0", "--max-tokens", "40", BEGINNING];
    assert_eq!(smol.run(&story).ok(), format!("{STORY}\n"));
    let answer = smol.run(&["--temperature", "0", "-"]).stdin(QUESTION).ok();
    assert_eq!(answer, "The capital of France is Paris.\n");
}

#[test]
fn a_seed_gives_the_same_answer_again_streamed_or_not() {
    let smol = Smol::new();
    let args = ["--max-tokens", "12", "Tell me about the café.", "--seed"];
    let streamed = |seed| smol.run(&args).args([seed]).ok();
    let known = streamed("7");
    assert_ne!(streamed("8"), known);
    assert_eq!(smol.run(&args).args(["7", "--no-stream"]).ok(), known);
}

#[test]
fn a_seed_gives_the_same_answer_alone_and_beside_seven_others() {
    let smol = Smol::new();
    let request =
        |seed| json!({"id": seed, "prompt": "Tell me a story.", "seed": seed}).to_string();
    let requests: Vec<String> = (0..8).map(request).collect();
    let answers = |batch: &str| {
        let args = ["--ordered", "--temperature", "1", "--top-p", "1", "--max-tokens", "64"];
        let run = smol.run(&args).args(["--batch", batch, "--ndjson", "-"]);
        let records = run.stdin(requests.join("\n")).records();
        records.iter().map(|record| record["response"].to_string()).collect::<Vec<_>>()
    };
    let alone = answers("1");
    assert_ne!(alone[0], alone[1]);
    assert_eq!(answers("8"), alone);
}

#[test]
fn its_first_logits_and_its_tokens_are_the_known_ones() {
    let smol = Smol::new();
    let (name, path) = ("SmolLM2".to_owned(), smol.0.workspaces().join("SmolLM2"));
    let found = Found { name, path, revision: None, origin: Origin::Workspace };
    let Inspected { facts, plan, .. } = inspect(&found).unwrap();
    let tokenizer = Tokenizer::read(&facts).unwrap();
    let messages = vec![json!({"role": "user", "content": QUESTION})];
    let conversation = Conversation { messages, ..Conversation::default() };
    let template = Template::find(&facts).unwrap().unwrap();
    let prompt = template.render(&conversation, tokenizer.special()).unwrap();
    let prompt = tokenizer.encode(&prompt).unwrap();
    let mut model = mlxk_engine::load(&facts, &plan).unwrap();
    let logits = model.logits(&prompt).unwrap();
    for (id, known) in LOGITS {
        assert!((logits[id] - known).abs() < 2e-3, "token {id}: {} and not {known}", logits[id]);
    }
    let tokens = model.tokens(&prompt, &GREEDY).unwrap();
    assert_eq!(tokens.take(ANSWER.len()).map(Result::unwrap).collect::<Vec<_>>(), ANSWER);
}

#[test]
fn it_says_the_same_by_other_ways_of_work() {
    let smol = Smol::new();
    let cache = smol.0.home().join("cache");
    let cache = cache.to_str().unwrap();
    for way in [
        &["--kv-bits", "8", "--kv-start", "0"][..],
        &["--kv-bits", "6", "--kv-start", "10", "--kv-group-size", "32"],
        &["--max-kv-size", "64"],
        &["--draft-model", "SmolLM2"],
        &["--prompt-cache", cache],
        &["--prompt-cache", cache],
    ] {
        let letters = ["--no-chat-template", "--temperature", "0", "--max-tokens", "8", LETTERS];
        assert_eq!(smol.run(&letters).args(way).ok(), format!("{MORE_LETTERS}\n"), "{way:?}");
    }
}

#[test]
fn it_fills_in_a_form() {
    let smol = Smol::new();
    let schema = json!({"type": "object", "required": ["name", "age"], "additionalProperties": false,
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer",
            "minimum": 0, "maximum": 120}}});
    let request = json!({"prompt": "Invent a person.", "json_schema": schema, "temperature": 0});
    let record = &smol.run(&["--ndjson", "-"]).stdin(request.to_string()).records()[0];
    let person: Value = serde_json::from_str(record["response"].as_str().unwrap()).unwrap();
    assert!(person["name"].is_string() && person["age"].is_u64(), "{record}");
    assert_eq!(record["finish_reason"], "stop");
}

#[test]
fn an_import_that_is_interrupted_leaves_nothing() {
    let env = Env::new();
    let before = env.files();
    let mut command = env.command("mlxk-convert");
    command.args([gguf(), "SmolLM2".into()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    while env.files() == before && child.try_wait().unwrap().is_none() {}
    let output = interrupted(child);
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b""[..], &b""[..]));
    assert_eq!(env.files(), before);
}
