//! The models that can be asked, as OpenAI lists them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::engine::Listed;
use crate::error::Refusal;
use crate::handler::apart;
use crate::routes::App;

/// What the engine has; it may read the disk for it.
pub async fn listed(app: &Arc<App>) -> Result<Vec<Listed>, Refusal> {
    let app = app.clone();
    apart(move || Ok(app.engine.models()?)).await
}

/// All of them.
pub fn list(listed: &[Listed]) -> Value {
    json!({"object": "list", "data": listed.iter().map(object).collect::<Vec<_>>()})
}

/// The one called `id`.
pub fn one(listed: &[Listed], id: &str) -> Result<Value, Refusal> {
    let found = listed.iter().find(|model| model.id == id);
    found.map(object).ok_or_else(|| {
        let error = mlxk_core::Error::new(mlxk_core::Kind::ModelNotFound, id, "no such model");
        error.into()
    })
}

fn object(model: &Listed) -> Value {
    json!({
        "id": model.id,
        "object": "model",
        // Nobody asks when a model was made; clients ask that there be a number.
        "created": 0,
        "owned_by": if model.workspace { "workspace" } else { "mlx-knife" },
        "permission": [],
        "context_length": model.context_length,
        "loaded": model.loaded,
    })
}
