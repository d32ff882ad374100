//! The APIs of OpenAI: chat completions, completions, responses, embeddings,
//! transcriptions, and the list of models.

pub mod audio;
mod calls;
pub mod chat;
pub mod completions;
pub mod embeddings;
mod envelope;
mod input;
mod logprobs;
pub mod messages;
pub mod models;
pub mod response_format;
pub mod responses;
mod responses_format;
pub mod tools;
