//! How fast texts become vectors: short ones, long ones, and the first one; with what memory.
//!
//! Beside sentence-transformers, if a Python of `PEERS` has it. Of ours, the times are those of whole
//! processes, of the peer those of its `encode` alone, after a first call.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::env::Env;
use crate::{Run, command, measure, median, peers, report};

/// Short sentences, and words of each.
const SHORT: (usize, usize) = (256, 9);
/// Texts of 256 tokens, two of them special, and words of each.
const LONG: (usize, usize) = (32, 254);
/// Runs of a program, of which the median counts.
const RUNS: usize = 5;

/// Words that are a token each.
const WORDS: &str = "the a cat dog river mountain king queen city market price stock train water fire \
                     paper book morning evening today runs over quick brown red old new small long";

/// Measures the model MiniLM that `MLXK_TEST_EMBEDDER` names, and prints a table.
pub fn run(env: &Env) {
    let Some(model) = std::env::var_os("MLXK_TEST_EMBEDDER").map(PathBuf::from) else {
        println!("embed: not measured, MLXK_TEST_EMBEDDER names no model");
        return;
    };
    println!(
        "all-MiniLM-L6-v2, {} sentences, {} texts of 256 tokens; median of {RUNS}",
        SHORT.0, LONG.0
    );
    let folder = tempfile::tempdir().unwrap();
    let files = [("short", SHORT), ("long", LONG), ("one", (1, 5))].map(|(name, sizes)| {
        let path = folder.path().join(name);
        std::fs::write(&path, texts(sizes)).unwrap();
        path
    });
    for cores in [1, 2] {
        ours(env, &model, &files, cores);
        if let Some(python) = sentence_transformers() {
            theirs(env, &python, &model, &files, cores);
        }
    }
}

/// Texts of random words, one a line.
fn texts((count, words): (usize, usize)) -> String {
    let known: Vec<&str> = WORDS.split_whitespace().collect();
    let mut state = 1u64;
    let mut word = || {
        // Constants of Knuth's MMIX.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        known[(state >> 33) as usize % known.len()]
    };
    let line = |_| (0..words).map(|_| word()).collect::<Vec<_>>().join(" ") + "\n";
    (0..count).map(line).collect()
}

fn ours(env: &Env, model: &Path, files: &[PathBuf; 3], cores: usize) {
    let program = Path::new(env!("CARGO_BIN_EXE_mlxk-embed"));
    let embed = |file: &Path| {
        let mut command = command(env, program);
        command.arg(model).arg(file).arg("--ndjson");
        on_cores(&mut command, cores);
        command
    };
    let runs = |file: &Path| -> Vec<Run> {
        (0..=RUNS).map(|_| measure(&mut embed(file))).skip(1).collect()
    };
    let seconds = |runs: &[Run]| median(runs.iter().map(|run| run.cpu.as_secs_f64()));
    let [short, long, one] = files;
    let (short, long) = (runs(short), runs(long));
    let first = median((0..=RUNS).map(|_| until_first(&mut embed(one))).skip(1));
    let peak = median(short.iter().chain(&long).map(|run| run.peak_bytes as f64 / 1e6));
    let rates = [SHORT.0 as f64 / seconds(&short), LONG.0 as f64 * 256.0 / seconds(&long)];
    table(&format!("mlxk-embed, {cores} cores"), rates, first, peak);
}

fn theirs(env: &Env, python: &Path, model: &Path, files: &[PathBuf; 3], cores: usize) {
    let encode = || {
        let mut command = command(env, python);
        command.args(["-c", SENTENCE_TRANSFORMERS]).arg(model).args(&files[..2]);
        command.arg(cores.to_string());
        on_cores(&mut command, cores);
        command
    };
    let first = until_first(&mut encode());
    let output = encode().stdout(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "sentence-transformers failed");
    let last = output.stdout.lines().last().unwrap().unwrap();
    let [short, long]: [f64; 2] = serde_json::from_str(&last).unwrap();
    let peak = measure(&mut encode()).peak_bytes as f64 / 1e6;
    let rates = [SHORT.0 as f64 / short, LONG.0 as f64 * 256.0 / long];
    table(&format!("sentence-transformers, {cores} cores"), rates, first, peak);
}

fn table(program: &str, [sentences, tokens]: [f64; 2], first: f64, peak: f64) {
    report("short sentences", program, sentences, "per CPU-s");
    report("tokens of long texts", program, tokens, "per CPU-s");
    report("start to first vector", program, first, "ms");
    report("peak memory", program, peak, "MB");
}

/// Milliseconds until a program writes its first line.
fn until_first(command: &mut Command) -> f64 {
    let started = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let passed = started.elapsed().as_secs_f64() * 1e3;
    assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
    // It may still work; only the first line counts.
    let _ = child.kill();
    child.wait().unwrap();
    passed
}

/// Lets a program run on the first `cores` cores alone, where the system can.
fn on_cores(command: &mut Command, cores: usize) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        let set = move || {
            // SAFETY: a plain structure of bits, for which zeros are valid.
            let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            // SAFETY: the cores are within the structure.
            (0..cores).for_each(|core| unsafe { libc::CPU_SET(core, &mut set) });
            // SAFETY: the structure lives through the call, which changes this process alone.
            let failed = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } != 0;
            if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: the function makes system calls only.
        unsafe { command.pre_exec(set) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (command, cores);
}

/// The first Python among the peers that has sentence-transformers.
fn sentence_transformers() -> Option<PathBuf> {
    let has = |python: &PathBuf| {
        let mut tried = Command::new(python);
        tried.args(["-c", "import sentence_transformers"]).stderr(Stdio::null());
        tried.status().is_ok_and(|status| status.success())
    };
    peers("python").into_iter().find(has)
}

/// A vector of a first text, a line, and the CPU seconds of short and of long texts.
const SENTENCE_TRANSFORMERS: &str = r#"
import json, sys, time, torch
from sentence_transformers import SentenceTransformer
model, short, long, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
model = SentenceTransformer(model, device="cpu")
print(json.dumps(model.encode("the cat sat").tolist()[:4]), flush=True)
def cost(path):
    texts = open(path).read().splitlines()
    runs = []
    for _ in range(4):
        begin = time.process_time()
        model.encode(texts, batch_size=32)
        runs.append(time.process_time() - begin)
    return sorted(runs[1:])[1]
print([cost(short), cost(long)])
"#;
