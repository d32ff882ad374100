//! `/info` of text-embeddings-inference: what the model in memory is, and the limits of requests.

use std::sync::Arc;

use mlxk_core::Task;
use mlxk_core::probe::sentence::Pooling;
use mlxk_processor::engine::ModelInfo;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::openai::embeddings::{MAX_INPUTS, MAX_TOKENS};
use crate::openai::models;
use crate::state::App;

/// The document about the first embedding model or else reranker in memory.
///
/// # Errors
/// If none is in memory.
pub async fn document(app: &Arc<App>) -> Result<Value, ApiError> {
    let all = models::fetch(app).await?;
    let loaded = |task| all.iter().find(|model| model.loaded && model.task == task);
    let model = loaded(Task::Embedding).or_else(|| loaded(Task::Rerank)).ok_or_else(|| {
        ApiError::invalid(
            "no embedding model and no reranker is loaded (GET /v1/models lists models)",
        )
    })?;
    let longest = model.encoder.as_ref().and_then(|encoder| encoder.max_length);
    Ok(json!({
        "model_id": model.id,
        "model_sha": null,
        "model_dtype": "float32",
        "model_type": kind(model),
        "max_concurrent_requests": app.engine.queue_capacity(),
        "max_input_length": longest.map_or(MAX_TOKENS, |length| length.min(MAX_TOKENS)),
        "max_batch_tokens": MAX_TOKENS,
        "max_batch_requests": null,
        "max_client_batch_size": MAX_INPUTS,
        "auto_truncate": false,
        "tokenization_workers": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
    }))
}

/// The type of a model, with the names that text-embeddings-inference has for ways to pool.
fn kind(model: &ModelInfo) -> Value {
    if model.task == Task::Rerank {
        return json!({"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}});
    }
    let pooling = model.encoder.as_ref().and_then(|encoder| encoder.pooling.first());
    let pooling = match pooling {
        Some(Pooling::LastToken) => "last_token",
        Some(other) => other.name(),
        None => Pooling::Mean.name(),
    };
    json!({"embedding": {"pooling": pooling}})
}
