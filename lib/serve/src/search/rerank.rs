//! Reranking: documents in the order of their relevance to a query, in the form that Jina, Cohere
//! (v1 and v2), vLLM and llama.cpp share. A body with `texts` is one of text-embeddings-inference.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use mlxk_processor::engine::ScoreRequest;
use serde_json::{Value, json};

use crate::body;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::job;
use crate::reply::{self, reply};
use crate::search::ranking::{Format, counted, text};
use crate::search::tei;
use crate::state::App;

/// Responds to the body of a rerank request.
///
/// # Errors
/// If the body is invalid, or the engine refuses or fails the request.
pub async fn respond(app: Arc<App>, body: Body) -> Result<Response, ApiError> {
    let state = app.clone();
    let submit = move |fields: Fields, _: &mut _| {
        let (request, format) = match fields.peek("texts") {
            None => parse(fields)?,
            Some(_) => tei::parse_rerank(fields)?,
        };
        Ok((state.engine.score(request)?, format))
    };
    let ((receiver, format), _held) = body::read(&app, body, submit).await?;
    let scores = reply(&app, receiver).await?;
    let truncated = scores.truncated;
    reply::respond(&format.document(scores), truncated)
}

fn parse(mut fields: Fields) -> Result<(ScoreRequest, Format), ApiError> {
    let model = job::model(&mut fields)?;
    let query = text(&mut fields, "query")?;
    let documents = fields.read("documents", "a list of texts or of {\"text\": ...}", |value| {
        let text = |value: &Value| Some(text_of(value)?.to_owned());
        value.as_array()?.iter().map(text).collect::<Option<Vec<String>>>()
    })?;
    let documents = counted("documents", documents)?;
    let top_n = fields.integer("top_n", 1, u64::from(u32::MAX))?;
    let top_n = top_n.and_then(|count| usize::try_from(count).ok());
    let returned = fields.boolean("return_documents")?;
    // Jina calls it `truncation`.
    let truncate = fields.boolean("truncate")? | fields.boolean("truncation")?;
    fields.finish()?;
    let returned = returned.then(|| documents.iter().map(|text| json!({"text": text})).collect());
    let format = Format::Results { model: model.clone(), top_n, documents: returned };
    Ok((ScoreRequest { model, queries: vec![query], documents, raw: false, truncate }, format))
}

fn text_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("text")?.as_str())
}
