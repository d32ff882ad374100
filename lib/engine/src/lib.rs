//! Engine that runs models: loading, continuous batching, sampling, caches, several ranks, and the
//! scheduler of a server.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

mod admission;
mod batch;
pub mod bench;
#[cfg(any(target_os = "linux", test))]
mod cgroup;
mod cost;
pub mod distributed;
mod embed;
mod embed_processor;
mod feature_cache;
mod forward;
mod host_memory;
mod load;
mod model;
mod pair_processor;
mod prefill;
mod prefix_cache;
mod prompt_cache;
mod rerank;
mod runner;
pub mod sample;
mod scheduler;
mod thread;
pub mod transcribe;
mod vision;

pub use admission::{admit, admit_embedder, admit_part, admit_reranker, admit_speech};
pub use batch::Step;
pub use cost::Cost;
pub use embed::{EmbedForm, Embedder};
pub use embed_processor::{EmbedOptions, EmbedProcessor, Input};
pub use forward::Forward;
pub use host_memory::free as free_memory;
pub use load::{load, load_adapted, load_for};
pub use model::{Model, Tokens};
pub use pair_processor::PairProcessor;
pub use prefill::Prefill;
pub use prefix_cache::CacheOptions;
pub use rerank::Reranker;
pub use runner::{Runner, Source};
pub use scheduler::distributed::follow;
pub use scheduler::{Bounds, Local, id};
pub use thread::WorkerThread;
pub use transcribe::{Attempt, Prompt, Timed, Transcriber, WindowDecoder, Written};
