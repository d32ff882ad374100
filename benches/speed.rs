//! How fast a model answers: loading, a long prompt, an answer, and eight answers side by side.
//!
//! Beside mlx-lm, if a Python of `PEERS` has it, and llama.cpp, if `LLAMA_BENCH` names its program
//! `llama-bench`.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::env::Env;
use crate::{command, import, median, report};

/// Tokens of the prompt, and of the answer.
const PROMPT: u32 = 512;
const ANSWER: u32 = 128;
/// Answers side by side.
const STREAMS: usize = 8;
/// A part of an answer, whose time is taken away with that for loading and for the prompt.
const BEGINNING: u32 = 16;

/// Measures the model that `MLXK_TEST_MODEL` names, and prints a table.
pub fn run(env: &Env) {
    // Nothing is imported into the cache.
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("SmolLM2");
    println!("SmolLM2-135M, 4 bits");
    let gguf = import(env, &model);
    let decode = ours(env, &model);
    let streams = streams(env, &model);
    let what = format!("mlxk-run, {STREAMS} answers side by side, {:.1} times", streams / decode);
    report("decode", &what, streams, "tok/s");
    if let Some(program) = std::env::var_os("LLAMA_BENCH").filter(|path| !path.is_empty()) {
        llama(env, Path::new(&program), &gguf);
    }
    if let Some(python) = crate::mlx_lm() {
        mlx_lm(env, &python, &model);
    }
}

/// What our own program says of itself; tokens a second of an answer.
fn ours(env: &Env, model: &Path) -> f64 {
    let mut command = command(env, Path::new(env!("CARGO_BIN_EXE_mlxk-run")));
    command.args(["--bench", "--ndjson", "--max-tokens", &ANSWER.to_string()]).arg(model);
    let record: Value = serde_json::from_slice(&output(&mut command)).unwrap();
    let number = |name: &str| record[name].as_f64().unwrap();
    report("load", "mlxk-run", number("load_seconds") * 1e3, "ms");
    report("prefill of 512", "mlxk-run", number("prefill_tps"), "tok/s");
    report("decode", "mlxk-run", number("decode_tps"), "tok/s");
    report("share of the bandwidth", "mlxk-run", number("bandwidth_share") * 1e2, "%");
    number("decode_tps")
}

/// Tokens a second of all answers together, from the difference of long and short ones.
fn streams(env: &Env, model: &Path) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests");
    let answers = |tokens: u32| {
        let request = |n: usize| json!({"id": n, "prompt": format!("{n} days ago there was a")});
        let requests: Vec<String> = (0..STREAMS).map(|n| request(n).to_string() + "\n").collect();
        std::fs::write(&path, requests.concat()).unwrap();
        let mut command = command(env, Path::new(env!("CARGO_BIN_EXE_mlxk-run")));
        command.arg(model).args(["--no-chat-template", "--temperature", "0", "--max-tokens"]);
        command.args([&tokens.to_string(), "--ndjson", "-"]).stdin(File::open(&path).unwrap());
        let started = std::time::Instant::now();
        let lines = output(&mut command);
        let passed = started.elapsed().as_secs_f64();
        let records = String::from_utf8(lines).unwrap();
        let records = records.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let tokens = records.filter_map(|record| record["usage"]["completion_tokens"].as_f64());
        (tokens.sum::<f64>(), passed)
    };
    let rate = || {
        let (long, short) = (answers(ANSWER + BEGINNING), answers(BEGINNING));
        (long.0 - short.0) / (long.1 - short.1)
    };
    median((0..3).map(|_| rate()))
}

/// Its answer follows a prompt of the same length as ours.
fn llama(env: &Env, program: &Path, gguf: &Path) {
    let threads = std::thread::available_parallelism().unwrap().to_string();
    let [prompt, answer] = [PROMPT, ANSWER].map(|n| n.to_string());
    for (what, args) in [
        ("prefill of 512", ["-p", &prompt, "-n", "0", "-d", "0"]),
        ("decode", ["-p", "0", "-n", &answer, "-d", &prompt]),
    ] {
        let mut command = command(env, program);
        command.arg("-m").arg(gguf).args(["-t", &threads, "-r", "3", "-o", "json"]).args(args);
        let rows: Value = serde_json::from_slice(&output(&mut command)).unwrap();
        report(what, "llama.cpp", rows[0]["avg_ts"].as_f64().unwrap(), "tok/s");
    }
}

fn mlx_lm(env: &Env, python: &Path, model: &Path) {
    let mut command = command(env, python);
    let output = output(command.args(["-c", MLX_LM]).arg(model));
    let rates: Vec<f64> = serde_json::from_slice(&output).unwrap();
    for (what, rate) in ["prefill of 512", "decode"].into_iter().zip(rates) {
        report(what, "mlx-lm, cast to f32", rate, "tok/s");
    }
}

/// With 16-bit scales, as published, mlx-lm does not get to an answer on a CPU; with 32-bit ones it
/// takes most of a minute.
const MLX_LM: &str = r#"
import sys, mlx.core as mx, mlx_lm
from mlx.utils import tree_map
model, tokenizer = mlx_lm.load(sys.argv[1])
model.update(tree_map(lambda x: x.astype(mx.float32) if x.dtype == mx.float16 else x, model.parameters()))
for answer in mlx_lm.stream_generate(model, tokenizer, list(range(1000, 1512)), max_tokens=32): pass
print([answer.prompt_tps, answer.generation_tps])
"#;

/// What a program writes, if it ends well.
fn output(command: &mut Command) -> Vec<u8> {
    let output = command.stdout(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{command:?} failed");
    output.stdout
}
