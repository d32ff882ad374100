//! Configuration files of sentence-transformers: modules after the encoder, length limit, and
//! prompts.

use std::collections::BTreeMap;
use std::fs;

use mlxk_core::{Error, Facts, Kind, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::pooling::Pooling;
use super::similarity::Similarity;

/// Largest size of a configuration file in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Configuration of sentence-transformers; a model without these files uses mean pooling.
#[derive(Clone, Debug, PartialEq)]
pub struct Sentence {
    /// Modules after the encoder, in order.
    pub modules: Vec<Module>,
    /// Maximum tokens of an input, special tokens included; `None` if the files state none.
    pub max_length: Option<usize>,
    /// True if inputs are converted to lower case.
    pub lower_case: bool,
    /// Prompts prepended to inputs, by name.
    pub prompts: BTreeMap<String, String>,
    /// Name of the prompt for inputs without another one.
    pub default_prompt: Option<String>,
    /// Number of elements that embeddings are truncated to.
    pub dimensions: Option<usize>,
    /// Similarity of two embeddings.
    pub similarity: Similarity,
}

/// Module after the encoder.
#[derive(Clone, Debug, PartialEq)]
pub enum Module {
    /// Pools the hidden states of tokens by each of `ways`, and concatenates the results.
    Pooling {
        /// Pooling methods, in order.
        ways: Vec<Pooling>,
        /// True if the tokens of the prompt count.
        include_prompt: bool,
    },
    /// Linear layer with an activation.
    Dense(DenseConfig),
    /// Divides the embedding by its Euclidean norm.
    Normalize,
}

/// Configuration of a `Dense` module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct DenseConfig {
    /// Folder of the module in the model.
    #[serde(skip)]
    pub folder: String,
    /// Number of input elements.
    pub in_features: usize,
    /// Number of output elements.
    pub out_features: usize,
    /// True if the layer has a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Class of the activation in PyTorch; Tanh if absent.
    pub activation_function: Option<String>,
    /// True if the input is added to the output.
    #[serde(default)]
    pub use_residual: bool,
}

fn yes() -> bool {
    true
}

/// Entry of modules.json.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    path: String,
    r#type: String,
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
struct Texts {
    max_seq_length: Option<usize>,
    do_lower_case: Option<bool>,
}

/// `config_sentence_transformers.json`.
#[derive(Default, Deserialize)]
struct Prompts {
    prompts: Option<BTreeMap<String, String>>,
    default_prompt_name: Option<String>,
    truncate_dim: Option<usize>,
    similarity_fn_name: Option<Similarity>,
}

impl Sentence {
    /// Reads the files of a model.
    ///
    /// # Errors
    /// If a file is malformed, or names a module or a way to pool that is not known.
    pub fn read(facts: &Facts) -> Result<Sentence> {
        let texts: Texts = read(facts, "sentence_bert_config.json")?.unwrap_or_default();
        let prompts: Prompts =
            read(facts, "config_sentence_transformers.json")?.unwrap_or_default();
        Ok(Sentence {
            modules: modules(facts)?,
            max_length: texts.max_seq_length.filter(|&length| length > 0),
            lower_case: texts.do_lower_case.unwrap_or(false),
            prompts: prompts.prompts.unwrap_or_default(),
            default_prompt: prompts.default_prompt_name,
            dimensions: prompts.truncate_dim,
            similarity: prompts.similarity_fn_name.unwrap_or_default(),
        })
    }
}

/// Modules after the encoder, as modules.json lists them.
fn modules(facts: &Facts) -> Result<Vec<Module>> {
    const LIST: &str = "modules.json";
    let mean = || Module::Pooling { ways: vec![Pooling::Mean], include_prompt: true };
    let Some(entries) = read::<Vec<Entry>>(facts, LIST)? else {
        // model2vec states it in config.json.
        let normalized = facts.config.get("normalize") == Some(Value::Bool(true));
        return Ok([Some(mean()), normalized.then_some(Module::Normalize)]
            .into_iter()
            .flatten()
            .collect());
    };
    // Older files say `sentence_transformers.models.Dense`, newer ones name a module of that name.
    let kind = |entry: &Entry| entry.r#type.rsplit('.').next().unwrap_or_default().to_owned();
    let [encoder, others @ ..] = &entries[..] else {
        return Err(invalid(facts, LIST, "no modules"));
    };
    let table = match (kind(encoder).as_str(), encoder.path.as_str()) {
        ("Transformer", "" | ".") => false,
        ("StaticEmbedding", _) => true,
        _ => {
            let what = format!("the first module is `{}` in {:?}", encoder.r#type, encoder.path);
            let expected = "not a Transformer in the model's folder or a StaticEmbedding";
            return Err(invalid(facts, LIST, format!("{what}, {expected}")));
        }
    };
    let module = |entry: &Entry| match kind(entry).as_str() {
        "Pooling" => pooling(facts, &format!("{}/config.json", entry.path)),
        "Dense" => dense(facts, &entry.path),
        "Normalize" => Ok(Module::Normalize),
        _ => {
            let what = format!("modules of type `{}` cannot run", entry.r#type);
            Err(invalid(facts, LIST, what))
        }
    };
    let own = table.then(|| Ok(mean()));
    let modules: Vec<Module> =
        own.into_iter().chain(others.iter().map(module)).collect::<Result<_>>()?;
    let pools = |module: &Module| matches!(module, Module::Pooling { .. });
    match modules.split_first() {
        Some((first, rest)) if pools(first) && !rest.iter().any(pools) => Ok(modules),
        _ => Err(invalid(facts, LIST, "expected one Pooling, after the Transformer")),
    }
}

fn pooling(facts: &Facts, file: &str) -> Result<Module> {
    let config: Map<String, Value> = need(facts, file)?;
    let names: Option<Vec<&str>> = match config.get("pooling_mode") {
        None | Some(Value::Null) => None,
        Some(Value::Array(names)) => Some(names.iter().filter_map(Value::as_str).collect()),
        Some(name) => Some(name.as_str().into_iter().collect()),
    };
    let known =
        |name: &str| Pooling::ALL.iter().find(|(.., new)| *new == name).map(|(way, ..)| *way);
    let ways: Vec<Pooling> = match names {
        Some(names) => {
            let way = |&name: &&str| {
                known(name).ok_or_else(|| {
                    invalid(facts, file, format!("no way to pool is called `{name}`"))
                })
            };
            names.iter().map(way).collect::<Result<_>>()?
        }
        None => {
            let on = |key: &str| config.get(key) == Some(&Value::Bool(true));
            Pooling::ALL.iter().filter(|(_, key, _)| on(key)).map(|(way, ..)| *way).collect()
        }
    };
    let ways = if ways.is_empty() { vec![Pooling::Mean] } else { ways };
    let include_prompt = config.get("include_prompt") != Some(&Value::Bool(false));
    Ok(Module::Pooling { ways, include_prompt })
}

fn dense(facts: &Facts, folder: &str) -> Result<Module> {
    let config: DenseConfig = need(facts, &format!("{folder}/config.json"))?;
    Ok(Module::Dense(DenseConfig { folder: folder.to_owned(), ..config }))
}

/// Reads the JSON file `name` of a model. Errors if it is missing or malformed.
fn need<T: DeserializeOwned>(facts: &Facts, name: &str) -> Result<T> {
    read(facts, name)?.ok_or_else(|| invalid(facts, name, "the file is missing"))
}

/// Reads the JSON file `name` of a model; `None` if it is absent. Errors if it is malformed.
fn read<T: DeserializeOwned>(facts: &Facts, name: &str) -> Result<Option<T>> {
    let Some(file) = facts.file(name) else { return Ok(None) };
    if file.size > MAX_FILE {
        return Err(invalid(facts, name, format!("{} bytes are too many", file.size)));
    }
    let path = facts.path(name);
    let text = fs::read(&path).map_err(|e| Error::io(&path, e))?;
    serde_json::from_slice(&text).map(Some).map_err(|e| invalid(facts, name, e.to_string()))
}

fn invalid(facts: &Facts, name: &str, message: impl Into<String>) -> Error {
    Error::at(Kind::InvalidModel, &facts.path(name), message)
}
