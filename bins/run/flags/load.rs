//! Flags of the model: what is loaded with it, and what it may take.

use std::path::PathBuf;

use clap::Args;
use mlxk_core::{Error, Kind, Result};
use mlxk_engine::CacheOptions;

use crate::run::options::ModelOptions;

/// Flags of the model.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Model and memory")]
pub struct LoadFlags {
    /// With --ndjson -: number of requests that are answered at once (default: 8); with --audio: number
    /// of windows that are decoded at once (default: 1)
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// With --ndjson -: write answers in the order of the requests
    #[arg(long)]
    ordered: bool,
    /// Keep only the first 4 and the last tokens of a sequence in the KV cache, N in total
    #[arg(long, value_name = "N")]
    max_kv_size: Option<u32>,
    /// Quantize the KV cache to this many bits: 2, 3, 4, 5, 6 or 8
    #[arg(long, value_name = "N")]
    kv_bits: Option<u32>,
    /// Number of quantized elements that share a scale: 32, 64 or 128
    #[arg(long, value_name = "N", default_value_t = 64)]
    kv_group_size: u32,
    /// Quantize the KV cache from this many tokens on, as in mlx-lm
    #[arg(long, value_name = "N", default_value_t = 5000)]
    kv_start: u32,
    /// Start from the cached prompt in this file, or write the file if there is none
    #[arg(long, value_name = "FILE")]
    prompt_cache: Option<PathBuf>,
    /// Small model with the same tokenizer that proposes tokens (speculative decoding)
    #[arg(long, value_name = "MODEL", add = mlxk_cli::completion::models())]
    draft_model: Option<String>,
    /// Number of tokens that the draft model proposes at once
    #[arg(long, value_name = "N", default_value_t = 3)]
    num_draft_tokens: usize,
    /// Look for the draft model in this directory first, laid out like HF_HOME (default: .hf_cache of
    /// a workspace)
    #[arg(long, value_name = "DIR")]
    workspace_cache: Option<PathBuf>,
    /// Directory of an adapter that mlx-lm trained: LoRA, DoRA or full weights
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
}

impl LoadFlags {
    /// Options that the flags state.
    ///
    /// # Errors
    /// If a value is invalid.
    pub fn options(&self) -> Result<ModelOptions> {
        let cache = CacheOptions {
            max_kv_size: self.max_kv_size,
            kv_bits: self.kv_bits,
            kv_group_size: self.kv_group_size,
            kv_start: self.kv_start,
            ..CacheOptions::default()
        };
        cache.check().map_err(|e| Error::new(Kind::Command, "", e.message))?;
        Ok(ModelOptions {
            batch: self.windows()?.unwrap_or(8),
            ordered: self.ordered,
            cache,
            prompt_cache: self.prompt_cache.clone(),
            draft: self.draft_model.clone().map(|model| (model, self.num_draft_tokens)),
            workspace_cache: self.workspace_cache.clone(),
            adapter: self.adapter.clone(),
        })
    }

    /// Number of requests, or of windows of audio, that are processed at once, if it is stated.
    ///
    /// # Errors
    /// If it is 0.
    pub fn windows(&self) -> Result<Option<usize>> {
        match self.batch {
            Some(0) => Err(Error::new(Kind::Command, "", "`batch` is not a whole number from 1")),
            batch => Ok(batch),
        }
    }
}
