//! OpenAI's embeddings: a vector for each text, as numbers or in base64.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mlxk_processor::engine::{EmbedInput, EmbedPrompt, EmbedRequest, Embeddings};
use serde::Serialize;
use serde_json::Value;

use crate::body;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::job;
use crate::reply::{self, reply};
use crate::state::App;

/// Maximum number of inputs, as in OpenAI's API.
pub const MAX_INPUTS: usize = 2048;

/// Maximum number of tokens of all inputs of a request, as in OpenAI's API. The engine holds it.
pub const MAX_TOKENS: u64 = 300_000;

/// Responds to the body of an embeddings request.
///
/// # Errors
/// If the body is invalid, or the engine refuses or fails the request.
pub async fn respond(app: Arc<App>, body: Body) -> Result<Response, ApiError> {
    let state = app.clone();
    let submit = move |fields, _: &mut _| {
        let only = state.settings.embed_only.as_ref();
        let (mut request, encoding) = parse(fields)?;
        let model = match only {
            Some(only) => {
                request.model.clone_from(&only.model);
                only.identity.clone()
            }
            None => request.model.clone(),
        };
        // embed-serve of mlx-knife has another default than OpenAI.
        let default = if only.is_some() { Encoding::Base64 } else { Encoding::Float };
        Ok((state.engine.embed(request)?, model, encoding.unwrap_or(default)))
    };
    let ((receiver, model, encoding), _held) = body::read(&app, body, submit).await?;
    let embeddings = reply(&app, receiver).await?;
    let truncated = embeddings.truncated;
    let fingerprint = app.settings.embed_only.as_ref().map(|only| only.fingerprint.clone());
    let document =
        Document { system_fingerprint: fingerprint, ..document(embeddings, model, encoding) };
    reply::respond(&document, truncated)
}

/// Encoding of vectors in a response.
#[derive(Clone, Copy)]
pub enum Encoding {
    /// A list of numbers.
    Float,
    /// 32-bit floats in little-endian order, in base64.
    Base64,
}

impl Encoding {
    /// Takes the encoding that a body asks for.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn parse(fields: &mut Fields) -> Result<Option<Encoding>, ApiError> {
        fields.read("encoding_format", "\"float\" or \"base64\"", |value| match value.as_str()? {
            "float" => Some(Encoding::Float),
            "base64" => Some(Encoding::Base64),
            _ => None,
        })
    }

    /// The vector in this encoding.
    pub fn write(self, vector: Vec<f32>) -> Vector {
        match self {
            Encoding::Float => Vector::Float(vector),
            Encoding::Base64 => Vector::Base64(base64(&vector)),
        }
    }
}

fn parse(mut fields: Fields) -> Result<(EmbedRequest, Option<Encoding>), ApiError> {
    let model = job::model(&mut fields)?;
    let inputs = inputs(&mut fields, "input")?;
    let encoding = Encoding::parse(&mut fields)?;
    let prompt = prompt(&mut fields)?;
    let request = EmbedRequest {
        model,
        inputs,
        prompt,
        dimensions: dimensions(&mut fields)?,
        normalize: fields.read("normalize", "true or false", Value::as_bool)?,
        truncate: fields.boolean("truncate")?,
    };
    fields.finish()?;
    Ok((request, encoding))
}

/// Takes the inputs in the field `name`: a text, tokens, or a list of these.
///
/// # Errors
/// If it is missing or something else, an input is empty, or there are too many.
pub fn inputs(fields: &mut Fields, name: &str) -> Result<Vec<EmbedInput>, ApiError> {
    let value = fields.take(name);
    let value = value.ok_or_else(|| ApiError::invalid(format!("`{name}` is missing")))?;
    let inputs = match (input(&value), value) {
        (Some(input), _) => vec![input],
        (None, Value::Array(all)) if all.len() > MAX_INPUTS => {
            let message =
                format!("`{name}` has {} inputs, at most {MAX_INPUTS} are allowed", all.len());
            return Err(ApiError::invalid(message));
        }
        (None, Value::Array(all)) if !all.is_empty() => {
            let each = |(index, value): (usize, &Value)| {
                let expected = "a text or a list of tokens";
                input(value)
                    .ok_or_else(|| ApiError::invalid_field(&format!("{name}[{index}]"), expected))
            };
            all.iter().enumerate().map(each).collect::<Result<_, _>>()?
        }
        _ => {
            let expected = "a text, a list of tokens, or a list of these that is not empty";
            return Err(ApiError::invalid_field(name, expected));
        }
    };
    match inputs.iter().position(is_empty) {
        Some(index) => Err(ApiError::invalid(format!("`{name}`: input {index} is empty"))),
        None => Ok(inputs),
    }
}

fn input(value: &Value) -> Option<EmbedInput> {
    match value {
        Value::String(text) => Some(EmbedInput::Text(text.clone())),
        Value::Array(ids) if !ids.is_empty() => {
            let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
            ids.iter().map(id).collect::<Option<_>>().map(EmbedInput::Tokens)
        }
        _ => None,
    }
}

fn is_empty(input: &EmbedInput) -> bool {
    match input {
        EmbedInput::Text(text) => text.is_empty(),
        EmbedInput::Tokens(ids) => ids.is_empty(),
    }
}

/// Takes the number of dimensions to keep.
///
/// # Errors
/// If it is not a whole number from 1.
pub fn dimensions(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let dimensions = fields.integer("dimensions", 1, u64::from(u32::MAX))?;
    Ok(dimensions.and_then(|count| usize::try_from(count).ok()))
}

/// Takes the fields that choose a prompt: `prompt_name`, `input_type`, and the `instruct` of
/// mlx-knife, which is a task in the form of Qwen3-Embedding.
fn prompt(fields: &mut Fields) -> Result<EmbedPrompt, ApiError> {
    let name = fields.text("prompt_name")?;
    let instruct = fields.text("instruct")?;
    let kind = fields.read("input_type", "\"query\" or \"document\"", |value| {
        match value.as_str()? {
            "query" | "search_query" => Some(EmbedPrompt::Query),
            "document" | "passage" | "search_document" => Some(EmbedPrompt::Document),
            _ => None,
        }
    })?;
    match (name, instruct, kind) {
        (None, None, kind) => Ok(kind.unwrap_or_default()),
        (Some(name), None, None) => Ok(EmbedPrompt::Named(name)),
        (None, Some(task), None | Some(EmbedPrompt::Query)) => {
            Ok(EmbedPrompt::Text(format!("Instruct: {task}\nQuery:")))
        }
        _ => {
            let message = "`prompt_name`, `instruct` and `input_type` exclude each other";
            Err(ApiError::invalid(message))
        }
    }
}

/// The document of a response.
#[derive(Serialize)]
struct Document {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<String>,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

/// A vector as an encoding has it.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Vector {
    /// A list of numbers.
    Float(Vec<f32>),
    /// Base64.
    Base64(String),
}

/// Tokens of a request that generates nothing.
#[derive(Serialize)]
pub struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

impl Usage {
    /// Usage of `tokens` tokens of a prompt.
    pub fn of(tokens: u64) -> Usage {
        Usage { prompt_tokens: tokens, total_tokens: tokens }
    }
}

fn document(embeddings: Embeddings, model: String, encoding: Encoding) -> Document {
    let Embeddings { vectors, prompt_tokens, .. } = embeddings;
    let data = vectors.into_iter().enumerate().map(|(index, vector)| Embedding {
        object: "embedding",
        index,
        embedding: encoding.write(vector),
    });
    Document {
        object: "list",
        data: data.collect(),
        model,
        system_fingerprint: None,
        usage: Usage::of(prompt_tokens),
    }
}

fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}
