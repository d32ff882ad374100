//! The models of the engine, in the form of OpenAI's API.

use std::sync::Arc;

use mlxk_core::{Error, Kind};
use mlxk_processor::engine::ModelInfo;
use serde_json::{Value, json};

use crate::body::blocking;
use crate::error::ApiError;
use crate::state::App;

/// The engine's models, listed on a blocking thread, as the engine may read the disk.
pub async fn fetch(app: &Arc<App>) -> Result<Vec<ModelInfo>, ApiError> {
    let app = app.clone();
    blocking(move || Ok(app.engine.models()?)).await
}

/// The list of models.
pub fn list(models: &[ModelInfo]) -> Value {
    json!({"object": "list", "data": models.iter().map(object).collect::<Vec<_>>()})
}

/// The model called `id`; an error if it is not among `models`.
pub fn find(models: &[ModelInfo], id: &str) -> Result<Value, ApiError> {
    let found = models.iter().find(|model| model.id == id);
    found.map(object).ok_or_else(|| Error::new(Kind::ModelNotFound, id, "no such model").into())
}

fn object(model: &ModelInfo) -> Value {
    let mut object = json!({
        "id": model.id,
        "object": "model",
        // Clients require a number; the time at which a model was made is unknown.
        "created": 0,
        "owned_by": if model.workspace { "workspace" } else { "mlx-knife" },
        "permission": [],
        "context_length": model.context_length,
        "loaded": model.loaded,
        "task": model.task.name(),
    });
    if let Some(encoder) = &model.encoder {
        object["max_length"] = encoder.max_length.into();
        if encoder.similarity.is_some() {
            object["dimensions"] = encoder.dimensions.into();
        }
    }
    object
}
