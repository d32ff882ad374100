//! Rankings: documents in the order of their scores, in the forms of the APIs, and the fields that
//! requests for them share.

use mlxk_processor::engine::Scores;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::fields::Fields;
use crate::format::unique_id;

/// Maximum number of documents, as in Cohere's API.
pub const MAX_DOCUMENTS: usize = 10_000;

/// Form of a response.
pub enum Format {
    /// The form of Jina and Cohere.
    Results {
        /// Name of the model.
        model: String,
        /// Number of results; all if absent.
        top_n: Option<usize>,
        /// Documents that the results contain; none if they are not asked for.
        documents: Option<Vec<Value>>,
    },
    /// The form of text-embeddings-inference.
    Ranks {
        /// Texts that the ranks contain; none if they are not asked for.
        texts: Option<Vec<String>>,
    },
}

impl Format {
    /// The document of a response with `scores`.
    pub fn document(self, scores: Scores) -> Value {
        let order = ranked(&scores.scores);
        match self {
            Format::Results { model, top_n, documents } => {
                let result = |index: usize| {
                    let mut result = Map::new();
                    result.insert("index".into(), index.into());
                    result.insert("relevance_score".into(), number(scores.scores[index]));
                    if let Some(documents) = &documents {
                        result.insert("document".into(), documents[index].clone());
                    }
                    Value::Object(result)
                };
                let count = top_n.unwrap_or(order.len());
                let results: Vec<Value> = order.into_iter().take(count).map(result).collect();
                let tokens = scores.prompt_tokens;
                json!({
                    "id": unique_id("rerank-"),
                    "object": "list",
                    "model": model,
                    "results": results,
                    "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
                })
            }
            Format::Ranks { texts } => {
                let rank = |index: usize| match &texts {
                    Some(texts) => json!({
                        "index": index, "score": number(scores.scores[index]), "text": texts[index],
                    }),
                    None => json!({"index": index, "score": number(scores.scores[index])}),
                };
                order.into_iter().map(rank).collect()
            }
        }
    }
}

/// Takes a text that must be there, and not be empty.
///
/// # Errors
/// If it is missing, empty, or not a text.
pub fn text(fields: &mut Fields, name: &str) -> Result<String, ApiError> {
    let text = fields.text(name)?.filter(|text| !text.is_empty());
    text.ok_or_else(|| ApiError::invalid(format!("`{name}` is missing or empty")))
}

/// Documents of the field `name`, if it is there and their number is allowed.
///
/// # Errors
/// If there are none or too many.
pub fn counted(name: &str, documents: Option<Vec<String>>) -> Result<Vec<String>, ApiError> {
    let documents = documents.ok_or_else(|| ApiError::invalid(format!("`{name}` is missing")))?;
    match documents.len() {
        1..=MAX_DOCUMENTS => Ok(documents),
        count => {
            let message =
                format!("`{name}` has {count} texts, from 1 to {MAX_DOCUMENTS} are allowed");
            Err(ApiError::invalid(message))
        }
    }
}

/// Indices of scores, the highest first; of equal scores, the first one first.
fn ranked(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// A number with no more digits than a 32-bit float needs.
pub fn number(x: f32) -> Value {
    x.to_string().parse::<f64>().map_or_else(|_| x.into(), Value::from)
}
