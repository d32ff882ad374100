//! Benchmarks: the speed of a model, and the bandwidth of memory that bounds it.

use std::time::{Duration, Instant};

use mlx_rs::transforms::eval;
use mlx_rs::{Array, memory};
use mlxk_core::tensors::Tensor;
use mlxk_core::{Facts, Result};
use mlxk_models::sketch;
use mlxk_processor::Sampling;
use mlxk_tensor::mlx;
use rayon::prelude::*;
use serde_json::Value;

use crate::model::Model;

/// Number of trials; the median counts.
const TRIALS: u64 = 3;

/// Time after which the trial of a slow model ends.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that are read to measure bandwidth: more than the caches of a CPU hold.
const READ: usize = 256 << 20;

/// Speed of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Number of tokens of the prompt.
    pub prompt_tokens: usize,
    /// Speed of prefill, in tokens of the prompt a second.
    pub prefill: f64,
    /// Number of tokens of the answer.
    pub tokens: usize,
    /// Speed of decoding, in tokens a second after the first one.
    pub decode: f64,
}

/// Measures a model by `tokens` tokens after a prompt of `prompt_tokens`, once it is warm.
///
/// # Errors
/// If the model fails.
pub fn speed(model: &mut Model, prompt_tokens: usize, tokens: usize) -> Result<Speed> {
    trial(model, &prompt(model, prompt_tokens.min(16), TRIALS), 2)?;
    let trials = (0..TRIALS).map(|n| trial(model, &prompt(model, prompt_tokens, n), tokens));
    let trials: Vec<(f64, f64)> = trials.collect::<Result<_>>()?;
    let prefill = median(trials.iter().map(|trial| trial.0));
    Ok(Speed { prompt_tokens, prefill, tokens, decode: median(trials.iter().map(|trial| trial.1)) })
}

/// Tokens a second of a prompt, and of the answer to it.
fn trial(model: &mut Model, prompt: &[u32], tokens: usize) -> Result<(f64, f64)> {
    let started = Instant::now();
    let mut answer = model.tokens(prompt, &Sampling::GREEDY)?;
    answer.next().transpose()?;
    let first = Instant::now();
    let mut more = 0;
    while more + 1 < tokens.max(2) && first.elapsed() < TRIAL_TIMEOUT {
        answer.next().transpose()?;
        more += 1;
    }
    let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
    Ok((rate(prompt.len(), first - started), rate(more, first.elapsed())))
}

/// Random tokens, others for each `trial`, so that no cache holds them.
fn prompt(model: &Model, count: usize, trial: u64) -> Vec<u32> {
    let step =
        |x: &u64| Some(x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407));
    let numbers = std::iter::successors(step(&(trial + 1)), step).map(|x| x >> 33);
    numbers.take(count).map(|n| (n % model.vocabulary() as u64) as u32).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bandwidth of memory for the device that models run on, in bytes a second: read by all cores, or
/// read and written by a GPU.
///
/// # Errors
/// If MLX fails.
pub fn bandwidth() -> Result<f64> {
    let passes = match mlx::on_cpu()? {
        true => by_cores(),
        false => by_gpu().map_err(mlx::failed)?,
    };
    Ok(passes.into_iter().fold(0.0, f64::max))
}

fn by_cores() -> Vec<f64> {
    let memory = vec![1u64; READ / size_of::<u64>()];
    let pass = |_| {
        let started = Instant::now();
        let sum = |part: &[u64]| part.iter().fold(0u64, |sum, x| sum.wrapping_add(*x));
        std::hint::black_box(memory.par_chunks(1 << 16).map(sum).reduce(|| 0, u64::wrapping_add));
        READ as f64 / started.elapsed().as_secs_f64()
    };
    (0..2 * TRIALS).map(pass).collect()
}

fn by_gpu() -> mlx_rs::error::Result<Vec<f64>> {
    let array = Array::ones::<f32>(&[(READ / size_of::<f32>()) as i32])?;
    eval([&array])?;
    let pass = |_| {
        let started = Instant::now();
        eval([&array.add(Array::from_f32(1.0))?])?;
        Ok(2.0 * READ as f64 / started.elapsed().as_secs_f64())
    };
    (0..2 * TRIALS).map(pass).collect()
}

/// Most bytes that MLX has held at once.
///
/// # Errors
/// If MLX does not tell.
pub fn peak_memory() -> Result<u64> {
    memory::peak_memory().map(|bytes| bytes as u64).map_err(mlx::failed)
}

/// Bytes of weights that are read for a token: all but embeddings that are no head, and of the routed
/// experts as many as a token has.
///
/// # Errors
/// If config.json cannot be read.
pub fn token_bytes(facts: &Facts) -> Result<u64> {
    let config = sketch::config(facts)?;
    let chosen = chosen(config.get("text_config").unwrap_or(&config));
    let headers = facts.weights().into_iter().filter_map(|shard| shard.header.as_ref().ok());
    let tensors: Vec<&Tensor> = headers.flat_map(|header| &header.tensors).collect();
    let head = |tensor: &&&Tensor| HEADS.iter().any(|name| tensor.name.contains(name));
    let untied = tensors.iter().any(|tensor| head(&tensor));
    let share = |tensor: &Tensor| match tensor.name.as_str() {
        name if untied && EMBEDDINGS.iter().any(|part| name.contains(part)) => 0.0,
        name if name.contains("shared_expert") => 1.0,
        name if EXPERTS.iter().any(|part| name.contains(part)) => chosen,
        _ => 1.0,
    };
    let bytes = |tensor: &&Tensor| (tensor.range.end - tensor.range.start) as f64 * share(tensor);
    Ok(tensors.iter().map(bytes).sum::<f64>() as u64)
}

/// Parts of the names of embeddings.
const EMBEDDINGS: [&str; 5] =
    ["embed_tokens.", "wte.", "tok_embeddings.", "word_embeddings.", "embed_in."];
/// Parts of the names of heads.
const HEADS: [&str; 3] = ["lm_head.", "embed_out.", "output.weight"];
/// Parts of the names of routed experts.
const EXPERTS: [&str; 3] = [".experts.", "switch_mlp.", "switch_glu."];

/// Fraction of the routed experts that a token has.
fn chosen(config: &Value) -> f64 {
    let number = |names: &[&str]| names.iter().find_map(|name| config.get(name)?.as_f64());
    let all = number(&["num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"]);
    let some = number(&["num_experts_per_tok", "top_k_experts", "moe_k", "num_experts_per_token"]);
    all.zip(some).map_or(1.0, |(all, some)| (some / all.max(1.0)).min(1.0))
}
