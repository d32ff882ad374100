//! Processor of a reranker: tokens of pairs, and scores from logits, without weights.

use mlxk_core::policy::detect;
use mlxk_core::{Architecture, Error, Facts, Kind, Plan, Result};
use mlxk_models::encoder::Encoder;
use mlxk_processor::{Pair, Tokenizer};
use serde_json::Value;

use crate::embed_processor::{longest, tokens_of_tokenizer};
use crate::load;

/// Processor of a reranker, which turns pairs of texts into its inputs on any thread.
pub struct PairProcessor {
    tokenizer: Tokenizer,
    max_length: usize,
    /// Way from a pair to its score.
    pub(crate) method: Method,
    /// True if scores are those of the sigmoid, between 0 and 1, as the model states.
    sigmoid: bool,
}

/// Way from a pair to its score.
pub(crate) enum Method {
    /// A cross encoder reads both texts, with tokens of two types if `typed`.
    Cross { typed: bool },
    /// A language model reads both texts, and a head scores the last token.
    Scored,
    /// A language model answers the question in a frame; the score is that of one answer against
    /// the other, or that of a head in place of these.
    Judge { before: Vec<u32>, after: Vec<u32>, answers: Option<[u32; 2]> },
}

/// Frame of a question to a language model, before and after the pair, and the answers. Source: the
/// model card of Qwen3-Reranker.
const BEFORE: &str = "<|im_start|>system\nJudge whether the Document meets the requirements based on \
    the Query and the Instruct provided. Note that the answer can only be \"yes\" or \
    \"no\".<|im_end|>\n<|im_start|>user\n";
const INSTRUCT: &str = "<Instruct>: Given a web search query, retrieve relevant passages that answer \
    the query\n";
const AFTER: &str = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
const ANSWERS: [&str; 2] = ["yes", "no"];

impl PairProcessor {
    /// Reads the processor of the reranker of `facts`; of its weights only the headers.
    ///
    /// # Errors
    /// If the model is no reranker, or one of its files cannot be used.
    pub fn read(facts: &Facts, plan: &Plan) -> Result<PairProcessor> {
        PairProcessor::of(facts, plan, &*load::sketched_encoder(facts, plan)?)
    }

    /// Reads the processor of `network`, whose weights may be missing.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of(facts: &Facts, plan: &Plan, network: &dyn Encoder) -> Result<PairProcessor> {
        let tokenizer = Tokenizer::read(facts)?;
        let refused = |message: &str| Error::new(Kind::InvalidModel, &facts.found.name, message);
        let encodes = plan.architecture.is_some_and(Architecture::is_encoder);
        let labels = match encodes {
            true => Some(network.classifier().map_or(0, |classifier| classifier.labels)),
            false => network.labels(),
        };
        if labels.is_some_and(|labels| labels != 1) {
            return Err(refused("the checkpoint has no classifier with one label"));
        }
        let method = match labels {
            Some(_) if encodes => cross(facts),
            Some(_) if detect::qwen3_reranker(facts) => judge(&tokenizer, None)?,
            Some(_) => Method::Scored,
            None => {
                let answers = answers(&tokenizer, network.vocabulary());
                let answers = answers.ok_or_else(|| refused("it has no tokens for yes and no"))?;
                judge(&tokenizer, Some(answers))?
            }
        };
        let max_length = longest(network, tokens_of_tokenizer(facts));
        Ok(PairProcessor { tokenizer, max_length, method, sigmoid: sigmoid(facts) })
    }

    /// Score of a pair with the logit `x`.
    pub fn score(&self, x: f32) -> f32 {
        if self.sigmoid { 1.0 / (1.0 + (-x).exp()) } else { x }
    }

    /// Largest number of tokens of a pair, special tokens included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// True if scores are between 0 and 1.
    pub fn sigmoid(&self) -> bool {
        self.sigmoid
    }

    /// Tokens of a pair; the longer text is cut if there are too many and `truncate` says so.
    ///
    /// # Errors
    /// [`Kind::ContextLengthExceeded`] if the pair is too long and is not to be cut.
    pub fn pair(&self, query: &str, document: &str, truncate: bool) -> Result<Pair> {
        let pair = match &self.method {
            Method::Cross { .. } | Method::Scored => {
                self.tokenizer.encode_pair([query, document], self.max_length)?
            }
            Method::Judge { before, after, .. } => {
                let question = format!("{INSTRUCT}<Query>: {query}\n<Document>: {document}");
                let room = self.max_length.saturating_sub(before.len() + after.len());
                let (ids, truncated) = self.tokenizer.encode_within(&question, room, false)?;
                let ids = [before, &ids[..], after].concat();
                Pair { types: vec![0; ids.len()], ids, truncated }
            }
        };
        if pair.truncated && !truncate {
            let most = self.max_length;
            let message = format!("query and text have more than the {most} tokens of the model");
            return Err(Error::new(Kind::ContextLengthExceeded, "", message));
        }
        Ok(pair)
    }
}

/// Method of a cross encoder.
fn cross(facts: &Facts) -> Method {
    let types = facts.config.get("type_vocab_size").and_then(|count| count.as_u64());
    Method::Cross { typed: types.is_none_or(|count| count > 1) }
}

/// Tokens of the answers, if the model is one that knows them among its `vocabulary` tokens.
fn answers(tokenizer: &Tokenizer, vocabulary: usize) -> Option<[u32; 2]> {
    let known = |answer| tokenizer.id(answer).filter(|&id| (id as usize) < vocabulary);
    let [yes, no] = ANSWERS.map(known);
    Some([yes?, no?])
}

/// Method of a language model that is asked in a frame.
fn judge(tokenizer: &Tokenizer, answers: Option<[u32; 2]>) -> Result<Method> {
    let (before, after) = (tokenizer.encode_part(BEFORE)?, tokenizer.encode_part(AFTER)?);
    Ok(Method::Judge { before, after, answers })
}

/// True unless config.json states that scores are logits, as sentence-transformers reads it.
fn sigmoid(facts: &Facts) -> bool {
    let own = facts.config.get("sentence_transformers");
    let stated = own.as_ref().and_then(|own| own.get("activation_fn")).cloned();
    let stated = stated.or_else(|| facts.config.get("sbert_ce_default_activation_function"));
    let name = stated.as_ref().and_then(Value::as_str).unwrap_or_default();
    name.rsplit('.').next() != Some("Identity")
}
