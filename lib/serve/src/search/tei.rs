//! Routes of text-embeddings-inference: `/embed`, `/similarity`, its form of `/rerank`, and `/` for all
//! three. Their bodies name no model; the one in memory is meant.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use mlxk_processor::engine::{
    EmbedInput, EmbedPrompt, EmbedRequest, Embeddings, ScoreRequest, Scores,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::body;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::openai::embeddings::{Encoding, MAX_INPUTS, dimensions, inputs};
use crate::reply::{self, reply};
use crate::search::ranking::{Format, counted, number, text};
use crate::state::App;

/// Responds to the body of `/embed` with a list of vectors.
///
/// # Errors
/// If the body is invalid, or the engine refuses or fails the request.
pub async fn embed(app: Arc<App>, body: Body) -> Result<Response, ApiError> {
    let state = app.clone();
    let submit = move |fields, _: &mut _| Task::embed(&state, fields);
    let (task, _held) = body::read(&app, body, submit).await?;
    task.respond(&app).await
}

/// Responds to a body of `/`, which is one of `/embed`, `/similarity` or `/rerank`.
///
/// # Errors
/// If the body is invalid, or the engine refuses or fails the request.
pub async fn infer(app: Arc<App>, body: Body) -> Result<Response, ApiError> {
    let state = app.clone();
    let submit =
        move |fields: Fields, _: &mut _| match (fields.peek("inputs"), fields.peek("texts")) {
            (Some(Value::Object(_)), _) => Task::compare(&state, fields),
            (None, Some(_)) => Task::rank(&state, fields),
            _ => Task::embed(&state, fields),
        };
    let (task, _held) = body::read(&app, body, submit).await?;
    task.respond(&app).await
}

/// Responds to the body of `/similarity` with the cosine of each sentence and the source.
///
/// # Errors
/// If the body is invalid, or the engine refuses or fails the request.
pub async fn similarity(app: Arc<App>, body: Body) -> Result<Response, ApiError> {
    let state = app.clone();
    let submit = move |fields, _: &mut _| Task::compare(&state, fields);
    let (task, _held) = body::read(&app, body, submit).await?;
    task.respond(&app).await
}

/// A request that the engine works on, by the form of its response.
enum Task {
    /// A list of vectors.
    Vectors(oneshot::Receiver<mlxk_core::Result<Embeddings>>, Encoding),
    /// The cosines of the first vector and of each other one.
    Cosines(oneshot::Receiver<mlxk_core::Result<Embeddings>>),
    /// Texts by their scores.
    Ranks(oneshot::Receiver<mlxk_core::Result<Scores>>, Format),
}

impl Task {
    fn embed(app: &App, fields: Fields) -> Result<Task, ApiError> {
        let (request, encoding) = parse_embed(fields)?;
        Ok(Task::Vectors(app.engine.embed(request)?, encoding))
    }

    fn compare(app: &App, fields: Fields) -> Result<Task, ApiError> {
        Ok(Task::Cosines(app.engine.embed(parse_similarity(fields)?)?))
    }

    fn rank(app: &App, fields: Fields) -> Result<Task, ApiError> {
        let (request, format) = parse_rerank(fields)?;
        Ok(Task::Ranks(app.engine.score(request)?, format))
    }

    async fn respond(self, app: &App) -> Result<Response, ApiError> {
        match self {
            Task::Vectors(receiver, encoding) => {
                let embeddings = reply(app, receiver).await?;
                let truncated = embeddings.truncated;
                let vectors = embeddings.vectors.into_iter();
                let vectors = vectors.map(|vector| encoding.write(vector));
                reply::respond(&vectors.collect::<Vec<_>>(), truncated)
            }
            Task::Cosines(receiver) => {
                let embeddings = reply(app, receiver).await?;
                let mut vectors = embeddings.vectors.iter();
                let source = vectors.next().map(Vec::as_slice).unwrap_or_default();
                let cosine =
                    |vector: &Vec<f32>| number(source.iter().zip(vector).map(|(a, b)| a * b).sum());
                reply::respond(&vectors.map(cosine).collect::<Vec<Value>>(), embeddings.truncated)
            }
            Task::Ranks(receiver, format) => {
                let scores = reply(app, receiver).await?;
                let truncated = scores.truncated;
                reply::respond(&format.document(scores), truncated)
            }
        }
    }
}

/// Parses the body of `/rerank`.
///
/// # Errors
/// If it is invalid.
pub fn parse_rerank(mut fields: Fields) -> Result<(ScoreRequest, Format), ApiError> {
    let model = fields.text("model")?.unwrap_or_default();
    let query = text(&mut fields, "query")?;
    let texts = fields.read("texts", "a list of texts", |value| {
        value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
    })?;
    let texts = counted("texts", texts)?;
    let raw = fields.boolean("raw_scores")?;
    let returned = fields.boolean("return_text")?.then(|| texts.clone());
    let truncate = truncate(&mut fields)?;
    fields.finish()?;
    let request = ScoreRequest { model, queries: vec![query], documents: texts, raw, truncate };
    Ok((request, Format::Ranks { texts: returned }))
}

fn parse_embed(mut fields: Fields) -> Result<(EmbedRequest, Encoding), ApiError> {
    let model = fields.text("model")?.unwrap_or_default();
    let inputs = inputs(&mut fields, "inputs")?;
    let prompt = fields.text("prompt_name")?.map_or(EmbedPrompt::Default, EmbedPrompt::Named);
    let normalize = fields.read("normalize", "true or false", Value::as_bool)?.or(Some(true));
    let dimensions = dimensions(&mut fields)?;
    let truncate = truncate(&mut fields)?;
    let encoding = Encoding::parse(&mut fields)?.unwrap_or(Encoding::Float);
    fields.finish()?;
    Ok((EmbedRequest { model, inputs, dimensions, prompt, normalize, truncate }, encoding))
}

fn parse_similarity(mut fields: Fields) -> Result<EmbedRequest, ApiError> {
    let model = fields.text("model")?.unwrap_or_default();
    let mut compared =
        fields.object("inputs")?.ok_or_else(|| ApiError::invalid("`inputs` is missing"))?;
    let mut options = fields.object("parameters")?;
    let mut texts = vec![text(&mut compared, "source_sentence")?];
    let sentences = compared.read("sentences", "a list of texts", |value| {
        value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
    })?;
    texts.extend(counted("inputs.sentences", sentences)?);
    if texts.len() > MAX_INPUTS {
        let message = format!("`inputs.sentences`: more than {} texts", MAX_INPUTS - 1);
        return Err(ApiError::invalid(message));
    }
    let (mut prompt, mut cut) = (EmbedPrompt::Default, false);
    if let Some(options) = &mut options {
        prompt = options.text("prompt_name")?.map_or(prompt, EmbedPrompt::Named);
        cut = truncate(options)?;
    }
    compared.finish()?;
    options.map_or(Ok(()), |options| options.finish())?;
    fields.finish()?;
    let inputs = texts.into_iter().map(EmbedInput::Text).collect();
    Ok(EmbedRequest {
        model,
        inputs,
        prompt,
        normalize: Some(true),
        truncate: cut,
        dimensions: None,
    })
}

/// Takes `truncate`, and the direction of it, which is always the end.
fn truncate(fields: &mut Fields) -> Result<bool, ApiError> {
    fields.only("truncation_direction", &[json!("right"), json!("Right")])?;
    fields.boolean("truncate")
}
