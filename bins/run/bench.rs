//! Benchmark of a model on this machine, `--bench`.

use std::time::Instant;

use mlxk_cli::{Form, Output, human, system};
use mlxk_core::{Inspected, Places, Record, Result};
use mlxk_engine::bench;
use mlxk_engine::bench::Speed;

use super::load;
use super::options::RunOptions;

/// Number of tokens in the prompt.
const PROMPT: u64 = 512;

/// Default number of tokens in the answer.
const ANSWER: u64 = 128;

/// Measures the speed of a model, and writes the figures to `out`.
///
/// # Errors
/// If the model cannot be loaded or run.
pub fn bench(
    inspected: &Inspected,
    options: &RunOptions,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    let found = &inspected.facts.found;
    let started = Instant::now();
    let mut model = load::model(inspected, &options.model, places, out)?;
    let load = started.elapsed().as_secs_f64();
    let room = model.context_length().unwrap_or(u64::MAX).max(4) / 2;
    let prompt = PROMPT.min(room) as usize;
    let answer = options.preset.options.max_tokens.unwrap_or(ANSWER).min(room) as usize;
    let speed = bench::speed(&mut model, prompt, answer)?;
    let peak = system::peak_memory().max(bench::peak_memory()?);
    let measured = Measured {
        load,
        speed,
        peak,
        token_bytes: bench::token_bytes(&inspected.facts)?,
        bandwidth: bench::bandwidth()?,
    };
    match out.form {
        Form::Human => out.text(&measured.page(&found.name)),
        Form::Ndjson => out.lines([&measured.record(&found.name)]),
        Form::Json => out.envelope(measured.record(&found.name)),
    }
}

struct Measured {
    /// Time to load the model, in seconds.
    load: f64,
    speed: Speed,
    /// Peak memory of the process, in bytes.
    peak: u64,
    /// Bytes of weights read per token.
    token_bytes: u64,
    /// Memory bandwidth, in bytes per second.
    bandwidth: f64,
}

impl Measured {
    /// Fraction of the memory bandwidth that decoding uses.
    fn share(&self) -> f64 {
        self.speed.decode * self.token_bytes as f64 / self.bandwidth
    }

    fn record(&self, name: &str) -> Record {
        Record::default()
            .with("name", name)
            .with("load_seconds", self.load)
            .with("prompt_tokens", self.speed.prompt_tokens)
            .with("prefill_tps", self.speed.prefill)
            .with("completion_tokens", self.speed.tokens)
            .with("decode_tps", self.speed.decode)
            .with("peak_bytes", self.peak)
            .with("token_bytes", self.token_bytes)
            .with("bandwidth", self.bandwidth)
            .with("bandwidth_share", self.share())
    }

    fn page(&self, name: &str) -> String {
        let Speed { prompt_tokens, prefill, tokens, decode } = self.speed;
        let (percent, read) = (100.0 * self.share(), human::size(self.token_bytes));
        let bandwidth = self.bandwidth / 1e9;
        let lines = [
            ("load", format!("{:.2} s", self.load), String::new()),
            ("prefill", format!("{prefill:.1} tok/s"), format!("{prompt_tokens} tokens")),
            ("decode", format!("{decode:.1} tok/s"), format!("{tokens} tokens")),
            ("memory", human::size(self.peak), "at most".to_owned()),
            (
                "bandwidth",
                format!("{percent:.0} %"),
                format!("while decoding: {read} a token, of {bandwidth:.1} GB/s"),
            ),
        ];
        let line = |(what, value, more): &(&str, String, String)| {
            format!("{what:<10} {value:>14}   {more}").trim_end().to_owned() + "\n"
        };
        format!("{name}\n") + &lines.iter().map(line).collect::<String>()
    }
}
