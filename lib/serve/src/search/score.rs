//! Scores of pairs of texts, in the form of vLLM.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use mlxk_processor::engine::ScoreRequest;
use serde_json::{Value, json};

use crate::body;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::format::{unique_id, unix_time};
use crate::job;
use crate::reply::{self, reply};
use crate::search::ranking::{counted, number};
use crate::state::App;

/// Responds to the body of a score request.
///
/// # Errors
/// If the body is invalid, or the engine refuses or fails the request.
pub async fn respond(app: Arc<App>, body: Body) -> Result<Response, ApiError> {
    let state = app.clone();
    let submit = move |fields, _: &mut _| {
        let request = parse(fields)?;
        let model = request.model.clone();
        Ok((state.engine.score(request)?, model))
    };
    let ((receiver, model), _held) = body::read(&app, body, submit).await?;
    let scores = reply(&app, receiver).await?;
    let data = scores.scores.iter().enumerate();
    let data = data
        .map(|(index, &score)| json!({"index": index, "object": "score", "score": number(score)}));
    let tokens = scores.prompt_tokens;
    let document = json!({
        "id": unique_id("score-"),
        "object": "list",
        "created": unix_time(),
        "model": model,
        "data": data.collect::<Vec<Value>>(),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    });
    reply::respond(&document, scores.truncated)
}

fn parse(mut fields: Fields) -> Result<ScoreRequest, ApiError> {
    let model = job::model(&mut fields)?;
    let queries = counted("text_1", texts(&mut fields, "text_1")?)?;
    let documents = counted("text_2", texts(&mut fields, "text_2")?)?;
    let truncate = fields.boolean("truncate")?;
    fields.finish()?;
    if queries.len() != 1 && queries.len() != documents.len() {
        let (ones, twos) = (queries.len(), documents.len());
        let message = format!("`text_1` has {ones} texts, and `text_2` has {twos}");
        return Err(ApiError::invalid(message));
    }
    Ok(ScoreRequest { model, queries, documents, raw: false, truncate })
}

fn texts(fields: &mut Fields, name: &str) -> Result<Option<Vec<String>>, ApiError> {
    fields.read(name, "a text or a list of texts", |value| match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(all) => all.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => None,
    })
}
