//! Configuration files of sentence-transformers: modules after the encoder, length limit, and
//! prompts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::reader::Reader;
use crate::json::Document;

/// The list of the modules of a model.
pub const MODULES: &str = "modules.json";

/// The file of prompts and of the similarity.
const PROMPTS: &str = "config_sentence_transformers.json";

/// Embeddings of single tokens, which [`MAX_SIM`] compares.
const LATE: &str = "Late interaction (ColBERT)";

/// Sum of the largest similarities of single tokens, as PyLate calls it.
const MAX_SIM: &str = "MaxSim";

/// Configuration of sentence-transformers; a model without these files uses mean pooling.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// What the files ask for that cannot run, as a sentence; `None` if all of it can.
    pub unsupported: Option<String>,
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

/// Activation of a `Dense` module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // named like the classes in PyTorch
pub enum DenseActivation {
    Identity,
    Tanh,
    Relu,
    Gelu,
    Silu,
}

/// Pooling method: the way from the hidden states of the tokens of a text to one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Vector of the first token.
    Cls,
    /// Largest value of each element.
    Max,
    /// Mean.
    Mean,
    /// Sum divided by the root of the number of tokens.
    MeanSqrtLength,
    /// Mean weighted by position: 1, 2, 3, ...
    WeightedMean,
    /// Vector of the last token.
    LastToken,
}

impl Pooling {
    /// All methods: the name of the boolean field in older configurations, and the name in newer
    /// ones. Older configurations concatenate the results of several methods in this order.
    pub const ALL: [(Pooling, &str, &str); 6] = [
        (Pooling::Cls, "pooling_mode_cls_token", "cls"),
        (Pooling::Max, "pooling_mode_max_tokens", "max"),
        (Pooling::Mean, "pooling_mode_mean_tokens", "mean"),
        (Pooling::MeanSqrtLength, "pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        (Pooling::WeightedMean, "pooling_mode_weightedmean_tokens", "weightedmean"),
        (Pooling::LastToken, "pooling_mode_lasttoken", "lasttoken"),
    ];

    /// Name of the method in newer configurations.
    pub fn name(self) -> &'static str {
        Pooling::ALL[self as usize].2
    }

    /// Method of that name in newer configurations.
    pub fn find(name: &str) -> Option<Pooling> {
        Pooling::ALL.iter().find(|(.., known)| *known == name).map(|(way, ..)| *way)
    }
}

/// Similarity of two embeddings: the larger, the more alike they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Similarity {
    /// Cosine of the angle between them.
    #[default]
    Cosine,
    /// Dot product.
    Dot,
    /// Negative Euclidean distance.
    Euclidean,
    /// Negative Manhattan distance.
    Manhattan,
}

impl Similarity {
    /// Similarity of that name in configurations.
    fn find(name: &str) -> Option<Similarity> {
        match name {
            "cosine" => Some(Similarity::Cosine),
            "dot" | "dot_product" => Some(Similarity::Dot),
            "euclidean" => Some(Similarity::Euclidean),
            "manhattan" => Some(Similarity::Manhattan),
            _ => None,
        }
    }

    /// Name of the similarity in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Similarity::Cosine => "cosine",
            Similarity::Dot => "dot",
            Similarity::Euclidean => "euclidean",
            Similarity::Manhattan => "manhattan",
        }
    }
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
    similarity_fn_name: Option<String>,
}

impl Sentence {
    /// Reads the files of a model; a reason names its file.
    pub(crate) fn read(reader: &Reader, config: &Document) -> Result<Sentence, String> {
        let texts: Texts = reader.parsed("sentence_bert_config.json")?.unwrap_or_default();
        let prompts: Prompts = reader.parsed(PROMPTS)?.unwrap_or_default();
        let entries: Option<Vec<Entry>> = reader.parsed(MODULES)?;
        let late = prompts.similarity_fn_name.as_deref() == Some(MAX_SIM);
        let unsupported = match late {
            true => Some(format!("{LATE} not supported ({PROMPTS}: {MAX_SIM})")),
            false => entries.as_deref().unwrap_or_default().iter().find_map(Entry::unsupported),
        };
        let similarity = prompts.similarity_fn_name.filter(|_| !late);
        let similarity = similarity.map_or(Ok(Similarity::default()), |name| {
            Similarity::find(&name)
                .ok_or_else(|| format!("{PROMPTS}: no similarity is called `{name}`"))
        });
        Ok(Sentence {
            modules: match &unsupported {
                Some(_) => Vec::new(),
                None => modules(reader, config, entries.as_deref())?,
            },
            max_length: texts.max_seq_length.filter(|&length| length > 0),
            lower_case: texts.do_lower_case.unwrap_or(false),
            prompts: prompts.prompts.unwrap_or_default(),
            default_prompt: prompts.default_prompt_name,
            dimensions: prompts.truncate_dim.filter(|&count| count > 0),
            similarity: similarity?,
            unsupported,
        })
    }

    /// Replaces the ways to pool by `way`.
    pub fn pool_by(&mut self, way: Pooling) {
        for module in &mut self.modules {
            if let Module::Pooling { ways, .. } = module {
                *ways = vec![way];
            }
        }
    }

    /// Ways in which the vectors of tokens become one; several are concatenated.
    pub fn pooling(&self) -> &[Pooling] {
        let ways = self.modules.iter().find_map(|module| match module {
            Module::Pooling { ways, .. } => Some(ways.as_slice()),
            _ => None,
        });
        ways.unwrap_or_default()
    }

    /// Modules of the type `Dense`.
    pub fn dense(&self) -> impl Iterator<Item = &DenseConfig> {
        self.modules.iter().filter_map(|module| match module {
            Module::Dense(dense) => Some(dense),
            _ => None,
        })
    }
}

impl DenseConfig {
    /// Path of the file of the module's weights, relative to the model.
    pub fn weights(&self) -> PathBuf {
        Path::new(&self.folder).join("model.safetensors")
    }

    /// Activation of the layer; `None` if it is not known.
    pub fn activation(&self) -> Option<DenseActivation> {
        let name = self.activation_function.as_deref().unwrap_or("Tanh");
        match name.rsplit('.').next().unwrap_or_default() {
            "Identity" => Some(DenseActivation::Identity),
            "Tanh" => Some(DenseActivation::Tanh),
            "ReLU" => Some(DenseActivation::Relu),
            "GELU" => Some(DenseActivation::Gelu),
            "SiLU" => Some(DenseActivation::Silu),
            _ => None,
        }
    }
}

/// Modules after the encoder, as the `entries` of modules.json list them.
fn modules(
    reader: &Reader,
    config: &Document,
    entries: Option<&[Entry]>,
) -> Result<Vec<Module>, String> {
    let mean = || Module::Pooling { ways: vec![Pooling::Mean], include_prompt: true };
    let Some(entries) = entries else {
        // model2vec states it in config.json.
        let normalized = config.get("normalize") == Some(Value::Bool(true));
        return Ok([Some(mean()), normalized.then_some(Module::Normalize)]
            .into_iter()
            .flatten()
            .collect());
    };
    let [encoder, others @ ..] = entries else {
        return Err(format!("{MODULES}: no modules"));
    };
    let own = match (encoder.kind(), encoder.path.as_str()) {
        ("Transformer", "" | ".") => None,
        ("StaticEmbedding", _) => Some(mean()),
        _ => {
            let Entry { path, r#type } = encoder;
            let expected = "not a Transformer in the model's folder or a StaticEmbedding";
            return Err(format!("{MODULES}: the first module is `{type}` in {path:?}, {expected}"));
        }
    };
    let module = |entry: &Entry| match entry.kind() {
        "Pooling" => pooling(reader, &format!("{}/config.json", entry.path)),
        "Dense" => dense(reader, &entry.path),
        _ => Ok(Module::Normalize),
    };
    let modules = own.into_iter().map(Ok).chain(others.iter().map(module));
    let modules: Vec<Module> = modules.collect::<Result<_, _>>()?;
    let pools = |module: &Module| matches!(module, Module::Pooling { .. });
    match modules.split_first() {
        Some((first, rest)) if pools(first) && !rest.iter().any(pools) => Ok(modules),
        _ => Err(format!("{MODULES}: expected one Pooling, after the Transformer")),
    }
}

impl Entry {
    /// Name of the module's type. Older files say `sentence_transformers.models.Dense`, newer ones
    /// name a module of that name.
    fn kind(&self) -> &str {
        self.r#type.rsplit('.').next().unwrap_or_default()
    }

    /// The reason why the module cannot run, if it cannot.
    fn unsupported(&self) -> Option<String> {
        const KNOWN: [&str; 5] =
            ["Transformer", "StaticEmbedding", "Pooling", "Dense", "Normalize"];
        let what = match self.kind() {
            _ if self.r#type.starts_with("pylate.") => LATE,
            "SpladePooling" | "MLMTransformer" | "SparseStaticEmbedding" | "SparseAutoEncoder" => {
                "Sparse embeddings (SPLADE)"
            }
            kind if KNOWN.contains(&kind) => return None,
            _ => "A module of this type",
        };
        Some(format!("{what} not supported ({MODULES}: {})", self.r#type))
    }
}

fn pooling(reader: &Reader, file: &str) -> Result<Module, String> {
    let config: Map<String, Value> = need(reader, file)?;
    let names: Option<Vec<&str>> = match config.get("pooling_mode") {
        None | Some(Value::Null) => None,
        Some(Value::Array(names)) => Some(names.iter().filter_map(Value::as_str).collect()),
        Some(name) => Some(name.as_str().into_iter().collect()),
    };
    let ways: Vec<Pooling> = match names {
        Some(names) => {
            let way = |&name: &&str| {
                Pooling::find(name)
                    .ok_or_else(|| format!("{file}: no way to pool is called `{name}`"))
            };
            names.iter().map(way).collect::<Result<_, _>>()?
        }
        None => {
            let on = |key: &str| config.get(key) == Some(&Value::Bool(true));
            let unknown = |key: &&String| {
                key.starts_with("pooling_mode_")
                    && Pooling::ALL.iter().all(|(_, known, _)| known != key)
            };
            if let Some(key) = config.keys().filter(|key| on(key)).find(unknown) {
                return Err(format!("{file}: no way to pool is called `{key}`"));
            }
            Pooling::ALL.iter().filter(|(_, key, _)| on(key)).map(|(way, ..)| *way).collect()
        }
    };
    let ways = if ways.is_empty() { vec![Pooling::Mean] } else { ways };
    let include_prompt = config.get("include_prompt") != Some(&Value::Bool(false));
    Ok(Module::Pooling { ways, include_prompt })
}

fn dense(reader: &Reader, folder: &str) -> Result<Module, String> {
    let config: DenseConfig = need(reader, &format!("{folder}/config.json"))?;
    Ok(Module::Dense(DenseConfig { folder: folder.to_owned(), ..config }))
}

/// Reads the JSON file `name` of a model. Errors if it is missing or malformed.
fn need<T: DeserializeOwned>(reader: &Reader, name: &str) -> Result<T, String> {
    reader.parsed(name)?.ok_or_else(|| format!("{name}: the file is missing"))
}
