//! Rerankers: pairs of a query and a document in, a score of each out, in batches of packed
//! sequences.

use mlx_rs::error::Exception;
use mlx_rs::{Stream, with_stream};
use mlxk_core::{Architecture, Error, Facts, Kind, Plan, Result};
use mlxk_models::encoder::{Encoder, Packed};
use mlxk_processor::{Pair, Tokenizer};
use mlxk_tensor::mlx;
use serde_json::Value;

use crate::embed::{batches, longest, tokens_of_tokenizer};
use crate::load;

/// Reranker in memory. It stays on the thread that loaded it.
pub struct Reranker {
    network: Box<dyn Encoder>,
    stream: Stream,
    tokenizer: Tokenizer,
    max_length: usize,
    method: Method,
    /// True if scores are those of the sigmoid, between 0 and 1, as the model states.
    sigmoid: bool,
}

/// Way from a pair to its score.
enum Method {
    /// A cross encoder reads both texts, with tokens of two types if `typed`.
    Cross { typed: bool },
    /// A language model answers the question in a frame; the score is that of one answer against
    /// the other.
    Judge { before: Vec<u32>, after: Vec<u32>, answers: [u32; 2] },
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

impl Reranker {
    /// Loads the reranker of `facts` if `plan` says that it can run, on the device that MLX chooses.
    ///
    /// # Errors
    /// If the model is no reranker, or one of its files cannot be used.
    pub fn load(facts: &Facts, plan: &Plan) -> Result<Reranker> {
        Reranker::load_for(facts, plan, mlx::on_cpu()?)
    }

    /// Loads the reranker in the form for a CPU or in that for a GPU, which a CPU can run too.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_for(facts: &Facts, plan: &Plan, on_cpu: bool) -> Result<Reranker> {
        let tokenizer = Tokenizer::read(facts)?;
        let (network, stream) = load::encoder(facts, plan, on_cpu, None)?;
        let refused = |message: &str| Error::new(Kind::InvalidModel, &facts.found.name, message);
        let method = match plan.architecture.is_some_and(Architecture::is_encoder) {
            true => cross(facts),
            false => judge(&tokenizer, network.vocabulary())?
                .ok_or_else(|| refused("it has no tokens for yes and no"))?,
        };
        let labelled = network.classifier().is_some_and(|classifier| classifier.labels == 1);
        if matches!(method, Method::Cross { .. }) && !labelled {
            return Err(refused("the checkpoint has no classifier with one label"));
        }
        let max_length = longest(&*network, tokens_of_tokenizer(facts));
        let sigmoid = sigmoid(facts);
        Ok(Reranker { network, stream, tokenizer, max_length, method, sigmoid })
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
            Method::Cross { .. } => {
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

    /// Logits of `pairs`, in their order. An error of a batch is that of all its pairs.
    pub fn logits(&self, pairs: &[Pair]) -> Vec<Result<f32>> {
        let lengths: Vec<usize> = pairs.iter().map(|pair| pair.ids.len()).collect();
        let mut logits: Vec<Result<f32>> = pairs.iter().map(|_| Ok(0.0)).collect();
        for batch in batches(&lengths) {
            let own: Vec<&Pair> = batch.iter().map(|&place| &pairs[place]).collect();
            match self.forward(&own) {
                Ok(batched) => {
                    for (&place, logit) in batch.iter().zip(batched) {
                        logits[place] = match logit.is_finite() {
                            true => Ok(logit),
                            false => Err(not_finite()),
                        };
                    }
                }
                Err(e) => batch.iter().for_each(|&place| logits[place] = Err(e.clone())),
            }
        }
        logits
    }

    /// Scores of `pairs`, in their order: logits, or their sigmoid, as the model states.
    pub fn scores(&self, pairs: &[Pair]) -> Vec<Result<f32>> {
        let score = |logit: f32| if self.sigmoid { 1.0 / (1.0 + (-logit).exp()) } else { logit };
        self.logits(pairs).into_iter().map(|logit| logit.map(score)).collect()
    }

    fn forward(&self, pairs: &[&Pair]) -> Result<Vec<f32>> {
        let ids: Vec<u32> = pairs.iter().flat_map(|pair| pair.ids.iter().copied()).collect();
        let types: Vec<u32> = pairs.iter().flat_map(|pair| pair.types.iter().copied()).collect();
        let lengths: Vec<usize> = pairs.iter().map(|pair| pair.ids.len()).collect();
        let typed = matches!(self.method, Method::Cross { typed: true });
        let types = typed.then_some(types.as_slice());
        let packed = Packed { ids: &ids, types, lengths: &lengths };
        let logits = with_stream(&self.stream, || match &self.method {
            Method::Cross { .. } => {
                let h = self.network.encode(&packed)?;
                let classifier = self.network.classifier();
                let classifier = classifier.ok_or_else(|| Exception::custom("no classifier"))?;
                classifier.forward(&h, &lengths)
            }
            // The softmax of two logits is the sigmoid of their difference.
            Method::Judge { answers, .. } => {
                let both = self.network.next(&packed, *answers)?;
                Ok(both.into_iter().map(|[yes, no]| yes - no).collect())
            }
        });
        logits.map_err(mlx::failed)
    }
}

/// Method of a cross encoder.
fn cross(facts: &Facts) -> Method {
    let types = facts.config.get("type_vocab_size").and_then(|count| count.as_u64());
    Method::Cross { typed: types.is_none_or(|count| count > 1) }
}

/// Method of a language model that knows `vocabulary` tokens; none if it lacks an answer.
fn judge(tokenizer: &Tokenizer, vocabulary: usize) -> Result<Option<Method>> {
    let known = |answer| tokenizer.id(answer).filter(|&id| (id as usize) < vocabulary);
    let [Some(yes), Some(no)] = ANSWERS.map(known) else { return Ok(None) };
    let (before, after) = (tokenizer.encode_part(BEFORE)?, tokenizer.encode_part(AFTER)?);
    Ok(Some(Method::Judge { before, after, answers: [yes, no] }))
}

/// True unless config.json states that scores are logits, as sentence-transformers reads it.
fn sigmoid(facts: &Facts) -> bool {
    let own = facts.config.get("sentence_transformers");
    let stated = own.as_ref().and_then(|own| own.get("activation_fn")).cloned();
    let stated = stated.or_else(|| facts.config.get("sbert_ce_default_activation_function"));
    let name = stated.as_ref().and_then(Value::as_str).unwrap_or_default();
    name.rsplit('.').next() != Some("Identity")
}

fn not_finite() -> Error {
    Error::new(Kind::Execution, "", "the model's score is not finite")
}
