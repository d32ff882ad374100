//! The flags of programs that ask models: how to choose tokens, what to remember, what to load besides.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use mlxk_core::{Error, Kind, Result};
use mlxk_infer::Memory;
use mlxk_infer::request::Options;

/// How to choose tokens, for those who want it exactly.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Choice of tokens")]
pub struct ChoiceFlags {
    /// How often to drop the likeliest tokens, all but the last above --xtc-threshold
    #[arg(long, value_name = "P")]
    xtc_probability: Option<f32>,
    /// How likely a token is that --xtc-probability may drop
    #[arg(long, value_name = "P")]
    xtc_threshold: Option<f32>,
    /// Taken from the logits of recent tokens
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    presence_penalty: Option<f32>,
    /// Taken from the logits of recent tokens for every time they came
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    frequency_penalty: Option<f32>,
    /// How many of the last tokens are recent (20)
    #[arg(long, value_name = "N")]
    penalty_context: Option<u32>,
    /// Add to the logit of a token; may be repeated
    #[arg(long, value_name = "ID=X", action = ArgAction::Append)]
    logit_bias: Vec<String>,
    /// End the answer at this token; may be repeated
    #[arg(long, value_name = "ID", action = ArgAction::Append)]
    stop_id: Vec<u32>,
    /// Tell in records how likely tokens were, and as many of the likeliest ones
    #[arg(long, value_name = "N")]
    logprobs: Option<u32>,
}

impl ChoiceFlags {
    /// What the flags wish.
    ///
    /// # Errors
    /// If a bias is not of the form `ID=X`.
    pub fn options(&self) -> Result<Options> {
        let bias = |text: &String| {
            let bias = text
                .split_once('=')
                .and_then(|(id, bias)| Some((id.trim().parse().ok()?, bias.trim().parse().ok()?)));
            bias.ok_or_else(|| {
                Error::new(Kind::Command, "--logit-bias", format!("not ID=X: {text}"))
                    .hint("ID is the number of a token, X a number")
            })
        };
        Ok(Options {
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            penalty_context: self.penalty_context,
            logit_bias: self.logit_bias.iter().map(bias).collect::<Result<_>>()?,
            stop_ids: self.stop_id.clone(),
            logprobs: self.logprobs,
            ..Options::default()
        })
    }
}

/// How a model works.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Work of the model")]
pub struct WorkFlags {
    /// With --ndjson -: answer so many requests side by side
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
    /// With --ndjson -: write answers in the order of their requests
    #[arg(long)]
    ordered: bool,
    /// Remember the first 4 and the last tokens of a text, so many together
    #[arg(long, value_name = "N")]
    max_kv_size: Option<u32>,
    /// Remember keys and values in this many bits: 2, 3, 4, 5, 6 or 8
    #[arg(long, value_name = "N")]
    kv_bits: Option<u32>,
    /// How many of them share a scale: 32, 64 or 128
    #[arg(long, value_name = "N", default_value_t = 64)]
    kv_group_size: u32,
    /// How long a text is when that begins
    #[arg(long, value_name = "N", default_value_t = 0)]
    kv_start: u32,
    /// Start from what this file remembers of a prompt; write it if there is none
    #[arg(long, value_name = "FILE")]
    prompt_cache: Option<PathBuf>,
    /// A small model with the same tokens, which guesses what this one says
    #[arg(long, value_name = "MODEL", add = mlxk_cli::completion::models())]
    draft_model: Option<String>,
    /// How many tokens it guesses at once
    #[arg(long, value_name = "N", default_value_t = 3)]
    num_draft_tokens: usize,
    /// A folder with an adapter (LoRA, DoRA) for the model
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
}

/// How a model works, as wanted.
#[derive(Clone, Debug)]
pub struct Work {
    /// Requests that are answered side by side.
    pub batch: usize,
    /// Whether answers come in the order of their requests.
    pub ordered: bool,
    /// What the model remembers.
    pub memory: Memory,
    /// Where the memory of a prompt is kept.
    pub prompt_cache: Option<PathBuf>,
    /// A model that guesses, as typed, and how many tokens at once.
    pub draft: Option<(String, usize)>,
    /// The folder of an adapter.
    pub adapter: Option<PathBuf>,
}

impl WorkFlags {
    /// What the flags wish.
    ///
    /// # Errors
    /// If a value means nothing.
    pub fn work(&self) -> Result<Work> {
        let memory = Memory {
            max_kv_size: self.max_kv_size,
            kv_bits: self.kv_bits,
            kv_group_size: self.kv_group_size,
            kv_start: self.kv_start,
            ..Memory::default()
        };
        memory.check().map_err(|e| Error::new(Kind::Command, "", e.message))?;
        if self.batch == 0 {
            return Err(Error::new(Kind::Command, "", "`batch` is not a whole number from 1"));
        }
        Ok(Work {
            batch: self.batch,
            ordered: self.ordered,
            memory,
            prompt_cache: self.prompt_cache.clone(),
            draft: self.draft_model.clone().map(|model| (model, self.num_draft_tokens)),
            adapter: self.adapter.clone(),
        })
    }
}
