//! Tiny models with known continuations, in a home of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::env::{Env, Run};

/// Where the tiny models and the adapters are.
pub fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// The tokens of the known answer up to the first that comes again.
const DISTINCT: usize = 10;

/// A home with a tiny model as the workspace `tiny`, whose token 17 is the word `w17`.
pub struct Tiny {
    pub env: Env,
    pub prompt: String,
    pub greedy: String,
    ids: Vec<u32>,
}

impl Tiny {
    pub fn new() -> Tiny {
        let env = Env::new();
        let expected = fs::read(data("parity/llama/expected.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let text = |key: &str| expected[key].as_str().unwrap().to_owned();
        let ids = serde_json::from_value(expected["greedy_ids"].clone()).unwrap();
        let tiny = Tiny { env, prompt: text("prompt"), greedy: text("greedy"), ids };
        tiny.add("llama", "tiny");
        tiny
    }

    /// Adds the model of a parity case as the workspace `name`.
    pub fn add(&self, case: &str, name: &str) {
        let (from, to) = (data("parity").join(case), self.env.workspaces().join(name));
        fs::create_dir_all(&to).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }

    /// The first `count` words of the known answer.
    pub fn words(&self, count: usize) -> String {
        self.greedy.split(' ').take(count).collect::<Vec<_>>().join(" ")
    }

    /// Where a file of the model is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.env.workspaces().join("tiny").join(name)
    }

    /// Writes a file of the model.
    pub fn file(&self, name: &str, content: &Value) {
        fs::write(self.path(name), content.to_string()).unwrap();
    }

    pub fn config(&self, key: &str, value: Value) {
        let mut config = read(&self.path("config.json"));
        config[key] = value;
        self.file("config.json", &config);
    }

    /// Gives the model a chat template.
    pub fn template(&self, source: &str) {
        self.file("tokenizer_config.json", &json!({"chat_template": source}));
    }

    /// Lets the known answer be made of these pieces, without spaces between, and then its end:
    /// only what its tokens are called is changed. `<0xE4>` is a byte, and what a chat template
    /// names as a mark is a token of its own.
    pub fn says(&self, pieces: &[&str]) {
        assert!(pieces.len() < DISTINCT);
        let mut tokenizer = read(&self.path("tokenizer.json"));
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        for (piece, id) in pieces.iter().zip(&self.ids) {
            vocabulary.retain(|_, known| known != id);
            vocabulary.insert((*piece).to_owned(), json!(id));
        }
        let steps = ["ByteFallback", "Fuse"].map(|kind| json!({"type": kind}));
        tokenizer["decoder"] = json!({"type": "Sequence", "decoders": steps});
        self.file("tokenizer.json", &tokenizer);
        self.config("eos_token_id", json!(self.ids[pieces.len()]));
    }

    /// Asks for the known answer.
    pub fn run(&self, args: &[&str]) -> Run {
        self.env.run("mlxk-run").args(["tiny", "--temperature", "0"]).args(args)
    }

    /// Asks with whatever temperature.
    pub fn free(&self, args: &[&str]) -> Run {
        self.env.run("mlxk-run").args(["tiny"]).args(args)
    }

    /// The records that requests give.
    pub fn requests(&self, args: &[&str], requests: &[Value]) -> Vec<Value> {
        let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
        self.free(&["--ndjson", "-"]).args(args).stdin(lines).records()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.env.command("mlxk-run");
        command.arg("tiny").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

pub fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}
