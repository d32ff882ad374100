//! What an answer costs besides the work of MLX: until its first token, in memory, and for every token.

use std::io::{Read, Write, copy, pipe, sink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use mlxk_core::{Facts, Found, Inspected, Origin, Plan, Result, inspect};
use mlxk_engine::sample::{Draw, host};
use mlxk_engine::{Runner, Source, Step};
use mlxk_processor::request::{Options, Prompt, Rules};
use mlxk_processor::{Constraint, Event, Request, Sampling, Token, Tokenizer};
use serde_json::{Map, Value, json};

use crate::env::Env;
use crate::{RUNS, command, import, measure, median, report};

const QUESTION: &str = "What is the capital of France?";

/// The argument that makes this program [`alone`].
const ALONE: &str = "load-and-look";

/// Tokens of a vocabulary as large as those of today's models.
const VOCABULARY: usize = 150_000;

/// What most tokens are made of.
const LETTERS: &[u8] = b" abcdefghijklmnopqrstuvwxyz";

/// Tokens that are chosen to learn what one costs.
const TOKENS: usize = 1000;

/// Measures all of it, and prints a table.
pub fn run(env: &Env) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("SmolLM2");
    import(env, &model);
    first_token(env, &model);
    memory(env, &model);
    vocabulary(folder.path());
    tokens(folder.path());
}

/// The facts of a model in a folder, and whether it can run.
fn known(path: &Path) -> (Facts, Plan) {
    let (name, path) = (path.display().to_string(), path.to_owned());
    let found = Found { name, path, revision: None, origin: Origin::Workspace };
    let Inspected { facts, plan, .. } = inspect(&found).unwrap();
    (facts, plan)
}

fn milliseconds(times: impl Iterator<Item = Duration>) -> f64 {
    median(times.map(|time| time.as_secs_f64() * 1e3))
}

/// How long after its start a program writes the first bytes.
fn first_bytes(mut command: Command) -> Duration {
    let started = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let passed = started.elapsed();
    drop(child.stdout.take());
    child.wait().unwrap();
    passed
}

/// Is the process that loads a model and looks at a prompt, if that is what the arguments say, and
/// tells how long that took. It is another one, since memory that is used again costs less.
pub fn alone() -> bool {
    let mut args = std::env::args().skip(1);
    let Some(model) = args.next().filter(|arg| arg == ALONE).and_then(|_| args.next()) else {
        return false;
    };
    let prompt: Vec<u32> = args.map(|id| id.parse().unwrap()).collect();
    let (facts, plan) = known(Path::new(&model));
    let started = Instant::now();
    let mut model = mlxk_engine::load(&facts, &plan).unwrap();
    model.tokens(&prompt, &Sampling::GREEDY).unwrap().next().unwrap().unwrap();
    println!("{}", started.elapsed().as_secs_f64());
    true
}

/// From the start of the program to its first token, beside loading and the prompt alone.
fn first_token(env: &Env, model: &Path) {
    let (facts, _) = known(model);
    let prompt = Tokenizer::read(&facts).unwrap().encode(&chat(QUESTION)).unwrap();
    let ids: Vec<String> = prompt.iter().map(u32::to_string).collect();
    let alone = || {
        let mut command = command(env, &std::env::current_exe().unwrap());
        let output = command.arg(ALONE).arg(model).args(&ids).stdout(Stdio::piped()).output();
        let said = String::from_utf8(output.unwrap().stdout).unwrap();
        Duration::from_secs_f64(said.trim().parse().unwrap())
    };
    let whole = || {
        let mut command = command(env, Path::new(env!("CARGO_BIN_EXE_mlxk-run")));
        command.arg(model).args(["--temperature", "0", "--max-tokens", "1", QUESTION]);
        first_bytes(command)
    };
    alone();
    whole();
    let both: Vec<(Duration, Duration)> = (0..RUNS).map(|_| (alone(), whole())).collect();
    let [alone, whole] = [0, 1].map(|n| milliseconds(both.iter().map(|b| [b.0, b.1][n])));
    let what = "to the first token";
    report(what, "loading and the prompt alone", alone, "ms");
    report(what, &format!("mlxk-run, {:.2} times that", whole / alone), whole, "ms");
    if let Some(python) = crate::mlx_lm() {
        let theirs = || {
            let mut command = command(env, &python);
            command.args(["-c", MLX_LM]).arg(model).arg(QUESTION);
            first_bytes(command)
        };
        report(what, "mlx-lm, cast to f32", milliseconds((0..3).map(|_| theirs())), "ms");
    }
}

/// The model's chat template around a question.
fn chat(question: &str) -> String {
    let system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
    format!(
        "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )
}

const MLX_LM: &str = r#"
import sys, mlx.core as mx, mlx_lm
from mlx.utils import tree_map
model, tokenizer = mlx_lm.load(sys.argv[1])
model.update(tree_map(lambda x: x.astype(mx.float32) if x.dtype == mx.float16 else x, model.parameters()))
prompt = tokenizer.apply_chat_template([{"role": "user", "content": sys.argv[2]}], add_generation_prompt=True)
for answer in mlx_lm.stream_generate(model, tokenizer, prompt, max_tokens=1): print(answer.text, flush=True)
"#;

/// The peak of the memory of an answer, beside what its weights and its context need.
fn memory(env: &Env, model: &Path) {
    const LONG: u64 = 256;
    let (facts, plan) = known(model);
    let on_cpu = mlxk_tensor::mlx::on_cpu().unwrap();
    let cost = mlxk_engine::Cost::of(&facts, &plan, on_cpu, None).unwrap();
    let needed = (cost.weights + cost.sequence(LONG)) as f64 / 1e6;
    let mut command = command(env, Path::new(env!("CARGO_BIN_EXE_mlxk-run")));
    command.arg(model).args(["--no-chat-template", "--max-tokens", &LONG.to_string(), "Once"]);
    let peak = measure(&mut command).peak_bytes as f64 / 1e6;
    let what = format!("{LONG} tokens");
    report(&what, "weights and context", needed, "MB");
    report(&what, &format!("mlxk-run, peak, {:+.1}", peak - needed), peak, "MB");
}

/// Writes a tokenizer of byte-level BPE and a configuration. As in those of models, nearly all tokens
/// are made of letters, and few have bytes that are no text alone, or that end a string of JSON.
fn vocabulary(folder: &Path) {
    let mut random = noise(7);
    let mut words: Vec<String> = (0..256).map(character).collect();
    let mut known: Map<String, Value> = Map::new();
    let mut merges = Vec::new();
    known.extend(words.iter().cloned().zip((0..).map(Value::from)));
    while words.len() < VOCABULARY - 1 {
        let [left, right] = [(); 2].map(|()| {
            let (kind, place) = (random.next().unwrap() % 450, random.next().unwrap() as usize);
            match kind {
                0 => words[place % 256].clone(),
                1..=150 if words.len() > 256 => words[256 + place % (words.len() - 256)].clone(),
                _ => character(LETTERS[place % LETTERS.len()].into()),
            }
        });
        let word = format!("{left}{right}");
        if word.chars().count() < 12 && !known.contains_key(&word) {
            known.insert(word.clone(), words.len().into());
            merges.push(json!([left, right]));
            words.push(word);
        }
    }
    let end = VOCABULARY - 1;
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "added_tokens": [{"id": end, "content": "</s>", "special": true, "lstrip": false,
            "rstrip": false, "normalized": false, "single_word": false}],
        "model": {"type": "BPE", "vocab": known, "merges": merges},
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = json!({"model_type": "llama", "eos_token_id": end});
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// What stands for a byte in byte-level tokens.
fn character(byte: u32) -> String {
    let seen = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let hidden =
        (0..byte).filter(|b| !matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)).count() as u32;
    char::from_u32(if seen { byte } else { 0x100 + hidden }).unwrap().to_string()
}

/// Numbers that look random, the same each time.
fn noise(seed: u64) -> impl Iterator<Item = u64> {
    let step =
        |x: &u64| Some(x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407));
    std::iter::successors(step(&seed), step).map(|x| x >> 33)
}

/// Logits as a trained model has them: a few tokens stand out of many.
fn logits(seed: u64) -> Vec<f32> {
    let mut random = noise(seed).map(|n| n as f32 / (1u64 << 31) as f32);
    let mut unit = || random.next().unwrap();
    let rest = |u: f32, v: f32| 2.0 * (-2.0 * (u + 1e-9).ln()).sqrt() * (6.3 * v).cos();
    let mut logits: Vec<f32> = (0..VOCABULARY).map(|_| rest(unit(), unit())).collect();
    (0..50).for_each(|_| logits[(unit() * VOCABULARY as f32) as usize] = 10.0 + 10.0 * unit());
    logits
}

/// A model that takes no time: what it would say is known.
struct Instantly {
    logits: Vec<Vec<f32>>,
    text: Option<Continued>,
    number: u64,
}

/// A text that it continues.
struct Continued {
    sampling: Sampling,
    constraint: Option<Box<dyn Constraint>>,
    tokens: Vec<u32>,
}

impl Source for Instantly {
    fn join(
        &mut self,
        prompt: &[u32],
        sampling: Sampling,
        constraint: Option<Box<dyn Constraint>>,
    ) -> Result<u64> {
        self.text = Some(Continued { sampling, constraint, tokens: prompt.to_vec() });
        Ok(1)
    }

    fn step(&mut self) -> Result<Step> {
        let Continued { sampling, constraint, tokens } = self.text.as_mut().unwrap();
        self.number += 1;
        let logits = &self.logits[self.number as usize % self.logits.len()];
        let allowed = constraint.as_mut().map(|rules| rules.allowed()).transpose()?;
        let draw = Draw { sampling, recent: tokens, tokens, number: self.number, allowed };
        let token: Token = host::choose(logits, &draw).unwrap();
        constraint.as_mut().map(|rules| rules.push(token.id)).transpose()?;
        tokens.push(token.id);
        Ok(vec![(1, Ok(token))])
    }

    fn reused(&self, _: u64) -> u64 {
        0
    }

    fn leave(&mut self, _: u64) {
        self.text = None;
    }
}

/// What a token costs besides the model: choosing it, its text, stop strings, rules, writing.
fn tokens(folder: &Path) {
    let (facts, plan) = known(folder);
    let logits: Vec<Vec<f32>> = (0..8).map(logits).collect();
    let source = Instantly { logits: logits.clone(), text: None, number: 0 };
    let started = Instant::now();
    let mut runner = Runner::new(source, &facts, &plan).unwrap();
    let ready = started.elapsed().as_secs_f64() * 1e3;
    let stop = vec!["\nUser:".to_owned(), "<|im_end|>".to_owned()];
    let plain =
        Options { seed: Some(1), stop: Some(stop), max_tokens: Some(100), ..Options::default() };
    let schema = json!({"type": "array", "items": {"type": "object", "required": ["name", "age"],
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}});
    let text = "start: TEXT\nTEXT: /(?s:.+)/".to_owned();
    let penalised = Options { repetition_penalty: Some(1.1), ..plain.clone() };
    let all = Options {
        top_k: Some(40),
        min_p: Some(0.05),
        xtc_probability: Some(0.5),
        logprobs: Some(5),
        ..penalised.clone()
    };
    for (what, options, rules) in [
        ("greedy", Options { temperature: Some(0.0), ..plain.clone() }, None),
        ("temperature 0.7, top-p 0.9", plain.clone(), None),
        ("the same, repetition penalty", penalised, None),
        ("all filters, 5 logprobs", all, None),
        ("temperature 0.7, top-p 0.9, JSON schema", plain.clone(), Some(Rules::Schema(schema))),
        ("the same, free text in a grammar", plain, Some(Rules::Grammar(text))),
    ] {
        let prompt = Prompt::Text("Once upon".into());
        let request = Request { options, rules, ..Request::new(prompt) };
        answer(&mut runner, &request);
        let times = (0..RUNS).map(|_| answer(&mut runner, &request) * 1e6);
        report("besides, 150,000 to choose", what, median(times), "µs");
    }
    report("besides, 150,000 to choose", "its tokenizer made ready", ready, "ms");
}

/// Seconds for a token of answers to `request`, written into a pipe as they come.
fn answer(runner: &mut Runner<Instantly>, request: &Request) -> f64 {
    let (mut reader, mut writer) = pipe().unwrap();
    let reading = thread::spawn(move || copy(&mut reader, &mut sink()).unwrap());
    let (mut tokens, mut passed) = (0, Duration::ZERO);
    while tokens < TOKENS {
        runner.join(request).unwrap();
        let started = Instant::now();
        let mut over = false;
        while !over && tokens < TOKENS {
            tokens += 1;
            for (_, event) in runner.step() {
                match event.unwrap() {
                    Event::Text(text) => writer.write_all(text.as_bytes()).unwrap(),
                    Event::End(_) => over = true,
                    _ => {}
                }
            }
        }
        passed += started.elapsed();
        runner.leave(1);
    }
    drop(writer);
    reading.join().unwrap();
    passed.as_secs_f64() / tokens as f64
}
