//! APIs for search beside OpenAI's embeddings: reranking as Jina and Cohere have it, scores as vLLM
//! has them, and the routes of text-embeddings-inference.

pub mod info;
mod ranking;
pub mod rerank;
pub mod score;
pub mod tei;
