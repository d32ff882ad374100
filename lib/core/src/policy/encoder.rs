//! What an embedding model or a reranker makes of texts: sizes, limits and prompts, as its files state
//! them.

use std::path::Path;

use serde_json::Value;

use crate::architecture::Architecture;
use crate::policy::detect;
use crate::probe::Facts;
use crate::probe::sentence::{DenseConfig, Module, Pooling, Sentence, Similarity};

/// Properties of an embedding model or of a reranker, of which a reranker has the length alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncoderPlan {
    /// Number of elements of a vector, if the files state it.
    pub dimensions: Option<usize>,
    /// Ways in which the vectors of tokens become one; several are concatenated.
    pub pooling: Vec<Pooling>,
    /// True if vectors have length 1.
    pub normalized: bool,
    /// Largest number of tokens of a text, special tokens included; `None` if there is no limit.
    pub max_length: Option<u64>,
    /// Names of the prompts that can be put before texts.
    pub prompts: Vec<String>,
    /// Name of the prompt of texts that get no other one.
    pub default_prompt: Option<String>,
    /// Similarity of two vectors.
    pub similarity: Option<Similarity>,
}

impl EncoderPlan {
    /// Properties of the reranker of `facts`.
    pub(super) fn reranker(facts: &Facts, context_length: Option<u64>) -> EncoderPlan {
        let max_length = least([network_length(facts, context_length), tokenizer_length(facts)]);
        EncoderPlan { max_length, ..EncoderPlan::default() }
    }

    /// Properties of the embedding model of `facts`; those of its network alone if its files are
    /// invalid.
    pub(super) fn embedder(facts: &Facts, context_length: Option<u64>) -> EncoderPlan {
        let network = network_length(facts, context_length);
        let Ok(sentence) = &facts.sentence else {
            return EncoderPlan { max_length: network, ..EncoderPlan::default() };
        };
        let stated = sentence.max_length.map(|length| length as u64);
        let whole = dimensions(facts, sentence);
        EncoderPlan {
            dimensions: whole.map(|all| sentence.dimensions.map_or(all, |count| count.min(all))),
            pooling: sentence.pooling().to_vec(),
            normalized: sentence.modules.contains(&Module::Normalize),
            max_length: least([network, stated.or_else(|| tokenizer_length(facts))]),
            prompts: sentence.prompts.keys().cloned().collect(),
            default_prompt: sentence.default_prompt.clone(),
            similarity: Some(sentence.similarity),
        }
    }

    /// The properties in words, such as `384 dimensions, mean pooling, cosine, 256 tokens`.
    pub fn summary(&self) -> String {
        let dimensions = self.dimensions.map(|count| format!("{count} dimensions"));
        let pooling = (!self.pooling.is_empty()).then(|| format!("{} pooling", self.pooled()));
        let similarity = self.similarity.map(|similarity| similarity.name().to_owned());
        let length = self.max_length.map(|length| format!("{length} tokens"));
        let prompts = self.prompts.join(", ");
        let prompts = (!prompts.is_empty()).then(|| format!("prompts {prompts}"));
        let stated = [dimensions, pooling, similarity, length, prompts].into_iter().flatten();
        stated.collect::<Vec<_>>().join(", ")
    }

    /// Names of the ways to pool, in order.
    pub fn pooled(&self) -> String {
        self.pooling.iter().map(|way| way.name()).collect::<Vec<_>>().join("+")
    }
}

/// Number of elements of a vector before it is cut, if the files state it.
fn dimensions(facts: &Facts, sentence: &Sentence) -> Option<usize> {
    sentence.modules.iter().try_fold(hidden_size(facts)?, |size, module| match module {
        Module::Pooling { ways, .. } => size.checked_mul(ways.len()),
        Module::Dense(dense) => Some(dense.out_features),
        Module::Normalize => Some(size),
    })
}

/// Number of elements of the vector of a token, if the files state it.
pub fn hidden_size(facts: &Facts) -> Option<usize> {
    const KEYS: [&str; 4] = ["hidden_size", "dim", "n_embd", "d_model"];
    let text = facts.config.get("text_config");
    let below = |key: &str| text.as_ref().and_then(|text| text.get(key).cloned());
    let stated = KEYS.iter().find_map(|key| facts.config.get(key).or_else(|| below(key)));
    match detect::architecture(facts) {
        Some(Architecture::StaticEmbedding) => table_width(facts),
        _ => stated.and_then(|size| usize::try_from(size.as_u64()?).ok()),
    }
}

/// Number of columns of the table of a static embedding.
fn table_width(facts: &Facts) -> Option<usize> {
    let headers = facts.shards.iter().filter_map(|shard| shard.header.as_ref().ok());
    let tensors: Vec<_> = headers.flat_map(|header| &header.tensors).collect();
    let columns = |name: &str| {
        let tensor = tensors.iter().find(|tensor| tensor.name == name)?;
        tensor.shape.last().copied()
    };
    let group = || facts.config.get("quantization")?.get("group_size")?.as_u64();
    match columns("embedding.scales").or_else(|| columns("embeddings.scales")) {
        Some(groups) => groups.checked_mul(usize::try_from(group().unwrap_or(64)).ok()?),
        None => columns("embedding.weight").or_else(|| columns("embeddings")),
    }
}

/// Largest number of tokens that the network takes.
fn network_length(facts: &Facts, context_length: Option<u64>) -> Option<u64> {
    let number = |key: &str| facts.config.get(key).and_then(|value| value.as_u64());
    let learned = facts.config.get("position_embedding_type").is_none_or(|kind| kind != "rotary");
    match detect::architecture(facts) {
        Some(Architecture::StaticEmbedding) => number("seq_length"),
        // Their positions begin after the id of the padding token.
        Some(Architecture::Roberta) if learned => {
            context_length?.checked_sub(number("pad_token_id").unwrap_or(1) + 1)
        }
        Some(Architecture::Mpnet) => context_length?.checked_sub(2),
        Some(Architecture::DistilBert) => Some(context_length.unwrap_or(512)),
        _ => context_length,
    }
}

/// Largest number of tokens that the tokenizer's configuration states.
fn tokenizer_length(facts: &Facts) -> Option<u64> {
    facts.tokenizer_config.get("model_max_length").as_ref().and_then(Value::as_u64)
}

fn least<const N: usize>(lengths: [Option<u64>; N]) -> Option<u64> {
    lengths.into_iter().flatten().min()
}

/// Checks that nothing in the configuration of an embedding model asks for what cannot run.
///
/// # Errors
/// If something does, which the reason names.
pub(super) fn check(facts: &Facts) -> Result<(), String> {
    if detect::architectures(facts).iter().any(|name| name.to_lowercase().contains("colbert")) {
        return Err("Late interaction (ColBERT) not supported".to_owned());
    }
    let sentence = facts.sentence.as_ref().map_err(Clone::clone)?;
    if let Some(reason) = &sentence.unsupported {
        return Err(reason.clone());
    }
    for dense in sentence.dense() {
        let file = Path::new(&dense.folder).join("config.json");
        let file = file.display();
        if dense.use_residual {
            return Err(format!("{file}: a Dense with `use_residual` cannot run"));
        }
        if dense.activation().is_none() {
            let name = dense.activation_function.as_deref().unwrap_or_default();
            return Err(format!("{file}: the activation `{name}` cannot run"));
        }
    }
    Ok(())
}

/// Checks the files of a model's modules.
///
/// # Errors
/// If one is missing or invalid, or does not fit the one before it.
pub fn check_files(facts: &Facts) -> Result<(), String> {
    let sentence = facts.sentence.as_ref().map_err(Clone::clone)?;
    if let Some(name) = &sentence.default_prompt
        && !sentence.prompts.contains_key(name)
    {
        let file = "config_sentence_transformers.json";
        return Err(format!(
            "{file}: `default_prompt_name` is {name:?}, and no prompt is called so"
        ));
    }
    let mut size = hidden_size(facts);
    for module in &sentence.modules {
        match module {
            Module::Pooling { ways, .. } => size = size.map(|size| size * ways.len()),
            Module::Normalize => {}
            Module::Dense(dense) => {
                if let Some(size) = size.filter(|&size| size != dense.in_features) {
                    let takes = dense.in_features;
                    let folder = &dense.folder;
                    return Err(format!("{folder}: takes {takes} elements, and {size} come"));
                }
                check_weights(facts, dense)?;
                size = Some(dense.out_features);
            }
        }
    }
    Ok(())
}

/// Checks that the weights of a module are there, and of its sizes.
fn check_weights(facts: &Facts, dense: &DenseConfig) -> Result<(), String> {
    let path = dense.weights();
    let (file, folder) = (path.display(), Path::new(&dense.folder));
    let Some(shard) = facts.dense.iter().find(|shard| shard.path == path) else {
        return Err(match facts.file(folder.join("pytorch_model.bin")) {
            _ if facts.file(&path).is_some() => format!("LFS pointers instead of files: {file}"),
            Some(other) => {
                let other = other.path.display();
                format!("Unsafe weight format: {other} (only safetensors is read)")
            }
            None => format!("{file}: the file is missing"),
        });
    };
    let header = shard.header.as_ref().map_err(|reason| format!("{file}: {reason}"))?;
    let shape = |name: &str| {
        let tensor = header.tensors.iter().find(|tensor| tensor.name == name)?;
        Some(tensor.shape.as_slice())
    };
    let (ins, outs) = (dense.in_features, dense.out_features);
    let Some(weight) = shape("linear.weight") else {
        return Err(format!("{file}: the tensor linear.weight is missing"));
    };
    if weight != [outs, ins] && shape("linear.scales").is_none() {
        return Err(format!("{file}: linear.weight is {weight:?}, not [{outs}, {ins}]"));
    }
    match shape("linear.bias") {
        None if dense.bias => Err(format!("{file}: the tensor linear.bias is missing")),
        Some(bias) if bias != [outs] => {
            Err(format!("{file}: linear.bias is {bias:?}, not [{outs}]"))
        }
        _ => Ok(()),
    }
}
