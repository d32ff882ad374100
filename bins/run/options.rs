//! Options of a run, as the flags state them.

use std::path::PathBuf;

use clap::ValueEnum;
use mlxk_engine::CacheOptions;
use mlxk_processor::Image;
use mlxk_processor::request::Preset;

/// Options of a run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Defaults for all that a request does not state.
    pub preset: Preset,
    /// Pictures that go with the prompt.
    pub images: Vec<Image>,
    /// Parts of an answer that are shown.
    pub reasoning: Reasoning,
    /// True if standard output is a terminal.
    pub terminal: bool,
    /// True if standard output may be coloured.
    pub colours: bool,
    /// Options of the model.
    pub model: ModelOptions,
    /// True if text is written as it is generated.
    pub stream: bool,
    /// True if speed is reported on standard error.
    pub verbose: bool,
}

/// Options of a model: adapter, draft model, caches, and the limit of concurrent requests.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Maximum number of requests that are answered concurrently.
    pub batch: usize,
    /// True if answers are written in the order of their requests.
    pub ordered: bool,
    /// Options of the KV cache.
    pub cache: CacheOptions,
    /// File of the prompt cache.
    pub prompt_cache: Option<PathBuf>,
    /// Name of the draft model, and the number of tokens that it drafts per step.
    pub draft: Option<(String, usize)>,
    /// Directory in which models that belong to the model are looked for first.
    pub workspace_cache: Option<PathBuf>,
    /// Folder of an adapter.
    pub adapter: Option<PathBuf>,
}

/// Parts of an answer that are shown; `--help` shows what is said of each here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reasoning {
    /// Reasoning before the answer; the default on a terminal
    Show,
    /// The answer alone; the default elsewhere
    Hide,
    /// Reasoning alone
    Only,
}
