//! Measures the programs as whole processes, beside their peers where these are installed.
//!
//! `PEERS` names the `bin` folder of a Python that has mlx-knife (`mlxk`), huggingface_hub (`hf`),
//! mlx-lm and sentence-transformers, or several such folders, separated as in PATH: what one has not, another may. A peer's
//! runs alternate with ours, since a machine's speed drifts. `NDJSON` names a file that gets a record
//! for each figure. Arguments name the parts to measure; without any, all are.
#![allow(clippy::unwrap_used)] // a measurement that cannot be taken ends the run

mod answer;
mod convert;
mod embed;
#[allow(dead_code)] // the tests of lib/core use the rest
#[path = "../lib/core/tests/suite/env.rs"]
mod env;
mod serve;
mod speed;
mod transfers;

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use env::Env;
use serde_json::json;

const MODELS: usize = 500;
const RUNS: usize = 7;

/// The name of a part, and what measures it.
type Part = (&'static str, fn(&Env));

/// What can be measured, in this order: a child counts the memory of its parent as its own, and the
/// last ones take some.
const PARTS: [Part; 7] = [
    ("programs", programs),
    ("speed", speed::run),
    ("convert", convert::run),
    ("embed", embed::run),
    ("transfers", transfers::run),
    ("answer", answer::run),
    ("serve", serve::run),
];

fn main() {
    if transfers::serve() || answer::alone() {
        return;
    }
    // Cargo adds an option of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if let Some(other) = wanted.iter().find(|name| PARTS.iter().all(|(part, _)| part != name)) {
        let known = PARTS.map(|(part, _)| part).join(", ");
        eprintln!("there is no part {other:?}: {known}");
        std::process::exit(2);
    }
    let env = cache();
    for (name, part) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part(&env);
            println!();
        }
    }
}

/// The programs that look at a cache.
fn programs(env: &Env) {
    println!("{MODELS} models of 16 files; median of {RUNS} runs\n");
    println!("{:<44} {:>10} {:>9}", "", "wall ms", "peak MB");
    let ls = env!("CARGO_BIN_EXE_mlxk-ls");
    let health = env!("CARGO_BIN_EXE_mlxk-health");
    compare(env, &[ours(ls, "--version"), peer("mlxk", "--version"), peer("hf", "version")]);
    compare(
        env,
        &[
            ours(ls, "--ndjson --all"),
            peer("mlxk", "list --json"),
            peer("hf", "cache ls --format json"),
        ],
    );
    compare(env, &[ours(health, "--ndjson"), peer("mlxk", "health --json")]);
}

/// A program and its arguments, if it is there.
type Program = Option<(PathBuf, Vec<String>)>;

fn ours(program: &str, args: &str) -> Program {
    Some((program.into(), words(args)))
}

fn peer(program: &str, args: &str) -> Program {
    Some((peers(program).into_iter().next()?, words(args)))
}

/// The programs of this name in the folders of peers.
fn peers(program: &str) -> Vec<PathBuf> {
    let folders = std::env::var_os("PEERS").unwrap_or_default();
    let programs = std::env::split_paths(&folders).map(|folder| folder.join(program));
    programs.filter(|program| program.is_absolute() && program.exists()).collect()
}

/// The first Python among the peers that has mlx-lm.
fn mlx_lm() -> Option<PathBuf> {
    let has = |python: &PathBuf| {
        let tried =
            Command::new(python).args(["-c", "import mlx_lm"]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    peers("python").into_iter().find(has)
}

fn words(args: &str) -> Vec<String> {
    args.split_whitespace().map(str::to_owned).collect()
}

/// Runs the programs in turn, and prints a line for each.
fn compare(env: &Env, programs: &[Program]) {
    let programs: Vec<_> = programs.iter().flatten().collect();
    let mut runs = vec![Vec::new(); programs.len()];
    // The first round warms up and does not count.
    for round in 0..=RUNS {
        for ((program, args), runs) in programs.iter().zip(&mut runs) {
            let run = measure(command(env, program).args(args));
            if round > 0 {
                runs.push(run);
            }
        }
    }
    for ((program, args), runs) in programs.iter().zip(runs) {
        let name = program.file_name().unwrap().display();
        let wall = median(runs.iter().map(|run| run.wall.as_secs_f64() * 1e3));
        let peak = median(runs.iter().map(|run| run.peak_bytes as f64 / 1e6));
        let what = format!("{name} {}", args.join(" "));
        println!("{what:<44} {wall:>10.1} {peak:>9.1}");
        record("wall", &what, wall, "ms");
        record("peak memory", &what, peak, "MB");
    }
    println!();
}

/// Prints a line of a table, what a program needs or reaches, and records it.
fn report(what: &str, program: &str, value: f64, unit: &str) {
    println!("{what:<24} {program:<41} {value:>10.1} {unit}");
    record(what, program, value, unit);
}

/// Adds a record to the file that `NDJSON` names, if it names one.
fn record(what: &str, program: &str, value: f64, unit: &str) {
    let path = std::env::var_os("NDJSON").filter(|path| !path.is_empty());
    let Some(path) = path else { return };
    let line = json!({"what": what, "program": program, "value": value, "unit": unit});
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}

fn command(env: &Env, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("HF_HOME", env.root())
        .env("HF_HUB_OFFLINE", "1")
        .env("MLXK_WORKSPACE_HOME", env.home())
        .env_remove("HF_HUB_CACHE")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[derive(Clone, Copy)]
struct Run {
    wall: Duration,
    /// Time of user and system.
    cpu: Duration,
    peak_bytes: u64,
}

#[expect(clippy::zombie_processes)] // waited for by `wait4`, which tells what it used
fn measure(command: &mut Command) -> Run {
    let start = Instant::now();
    let child = command.spawn().unwrap();
    let mut status = 0;
    // SAFETY: a plain structure of numbers, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are valid to write to, and nobody else waits for the child.
    let waited = unsafe { libc::wait4(child.id() as i32, &mut status, 0, &mut usage) };
    let wall = start.elapsed();
    assert_eq!(waited, child.id() as i32, "{command:?}");
    assert!(ExitStatus::from_raw(status).success(), "{command:?} failed");
    // The unit is kilobytes on Linux and bytes on macOS.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    let cpu = time(usage.ru_utime) + time(usage.ru_stime);
    Run { wall, cpu, peak_bytes: usage.ru_maxrss as u64 * unit }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Imports the model that `MLXK_TEST_MODEL` names, and gives that file too.
fn import(env: &Env, target: &Path) -> PathBuf {
    let gguf = std::env::var_os("MLXK_TEST_MODEL").expect("MLXK_TEST_MODEL names the model");
    let convert = Path::new(env!("CARGO_BIN_EXE_mlxk-convert"));
    measure(command(env, convert).arg(&gguf).arg(target));
    gguf.into()
}

/// Writes a model with numbers of 32 bits, and packed ones with scales of these.
fn widen(env: &Env, model: &Path, target: &Path, more: &[&str]) {
    let convert = Path::new(env!("CARGO_BIN_EXE_mlxk-convert"));
    measure(command(env, convert).args([model, target]).args(["--dtype", "f32"]).args(more));
}

/// A cache of whole models that could run, all alike.
fn cache() -> Env {
    let env = Env::new();
    for n in 0..MODELS {
        let config = format!(
            r#"{{"model_type": "llama", "vocab_size": {n}, "quantization": {{"group_size": 64, "bits": 4}}}}"#
        );
        let mut snapshot = env.snapshot(&format!("mlx-community/Model-{n:03}-4bit"), 'a');
        let mut map = Vec::new();
        for shard in 1..=4 {
            let name = format!("model-{shard:05}-of-00004.safetensors");
            map.push(format!(r#""layers.{shard}.weight": "{name}""#));
            snapshot = snapshot.file(&name, safetensors(&format!("layers.{shard}.weight"), n));
        }
        let index = format!(r#"{{"metadata": {{}}, "weight_map": {{{}}}}}"#, map.join(", "));
        snapshot
            .file("config.json", config)
            .file("model.safetensors.index.json", index)
            .file("generation_config.json", "{\"eos_token_id\": 2}")
            .file("tokenizer.json", "{\"version\": \"1.0\"}")
            .file("tokenizer_config.json", "{\"chat_template\": \"{{ messages }}\"}")
            .file("special_tokens_map.json", "{}")
            .file("added_tokens.json", "{}")
            .file("vocab.json", "{}")
            .file("merges.txt", "")
            .file("chat_template.jinja", "{{ messages }}")
            .file("README.md", "---\nlibrary_name: mlx\ntags: [mlx]\n---\n")
            .file(".gitattributes", "*.safetensors filter=lfs\n")
            .reference("main");
    }
    env
}

/// A file of one tensor.
fn safetensors(name: &str, n: usize) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend((n as u64).to_le_bytes());
    file
}
