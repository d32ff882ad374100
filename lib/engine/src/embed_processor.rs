//! Processor of an embedding model: prompts, tokens and options of texts, without weights.

use mlxk_core::probe::sentence::{Module, Pooling, Sentence};
use mlxk_core::{Error, Facts, Kind, Plan, Result};
use mlxk_models::encoder::similarity::score;
use mlxk_models::encoder::task::tasks;
use mlxk_models::encoder::{Encoder, Words};
use mlxk_models::sketch::config;
use mlxk_processor::Tokenizer;
use mlxk_processor::engine::EmbedPrompt;

use crate::load;

/// Processor of an embedding model, which turns texts into its inputs on any thread.
pub struct EmbedProcessor {
    tokenizer: Tokenizer,
    /// Configuration of sentence-transformers.
    pub(crate) sentence: Sentence,
    max_length: usize,
    vocabulary: usize,
    dimensions: usize,
    /// True if texts get special tokens.
    special: bool,
    /// Token that is left out of texts.
    unknown: Option<u32>,
    /// Tasks for which the model has adapters.
    tasks: Vec<String>,
}

/// Options of an embedding.
#[derive(Clone, Debug, Default)]
pub struct EmbedOptions {
    /// Text to put before each text.
    pub prompt: String,
    /// True if texts that are too long are cut instead of refused.
    pub truncate: bool,
    /// Number of elements to keep of a vector; all of them if none.
    pub dimensions: Option<usize>,
    /// True if vectors are normalised, false if they are not; the model decides if none, and
    /// vectors that lose elements are.
    pub normalize: Option<bool>,
}

/// Usual names of prompts and tasks for the questions of a search.
const QUERIES: &[&str] = &["query", "search_query", "retrieval.query"];

/// Usual names of prompts and tasks for the texts that a search looks through.
const DOCUMENTS: &[&str] =
    &["document", "passage", "corpus", "search_document", "retrieval.passage"];

/// A text to embed, in tokens.
#[derive(Clone, Debug)]
pub struct Input {
    /// Tokens, special ones included.
    pub ids: Vec<u32>,
    /// True if the text was too long and its end is missing.
    pub truncated: bool,
    /// Number of tokens at the beginning that pooling leaves out.
    pub(crate) prompt: usize,
}

impl EmbedProcessor {
    /// Reads the processor of the embedding model of `facts`; of its weights only the headers.
    ///
    /// # Errors
    /// If the model is none that embeds, or one of its files cannot be used.
    pub fn read(facts: &Facts, plan: &Plan) -> Result<EmbedProcessor> {
        EmbedProcessor::of(facts, &*load::sketched_encoder(facts, plan)?, None)
    }

    /// Reads the processor of `network`, whose weights may be missing, with `pooling` instead of the
    /// model's own.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of(
        facts: &Facts,
        network: &dyn Encoder,
        pooling: Option<Pooling>,
    ) -> Result<EmbedProcessor> {
        let invalid = |reason: &String| Error::new(Kind::InvalidModel, &facts.found.name, reason);
        let mut sentence = facts.sentence.as_ref().map_err(invalid)?.clone();
        if let Some(pooling) = pooling {
            sentence.pool_by(pooling);
        }
        let tokenizer = Tokenizer::read(facts)?;
        let stated = sentence.max_length.or_else(|| tokens_of_tokenizer(facts));
        let known = network.words() == Some(Words::Known);
        let size = |size: usize, module: &Module| match module {
            Module::Pooling { ways, .. } => network.hidden_size() * ways.len(),
            Module::Dense(dense) => dense.out_features,
            Module::Normalize => size,
        };
        Ok(EmbedProcessor {
            max_length: longest(network, stated),
            vocabulary: network.vocabulary(),
            dimensions: sentence.modules.iter().fold(network.hidden_size(), size),
            special: network.words().is_none(),
            unknown: known.then(|| tokenizer.unknown(facts)).flatten(),
            tasks: tasks(&config(facts)?).into_iter().map(str::to_owned).collect(),
            tokenizer,
            sentence,
        })
    }

    /// Options of a request with `prompt` to the model called `name`.
    ///
    /// # Errors
    /// If the model has no prompt of the name that `prompt` gives.
    pub fn options(&self, prompt: &EmbedPrompt, name: &str) -> Result<EmbedOptions> {
        let prompt = self.prompt(prompt, name)?.to_owned();
        let dimensions = self.sentence.dimensions;
        Ok(EmbedOptions { prompt, dimensions, ..EmbedOptions::default() })
    }

    /// Task whose adapter `prompt` asks for, if the model has one.
    pub fn task(&self, prompt: &EmbedPrompt) -> Option<&str> {
        task_of(&self.tasks, prompt)
    }

    /// Largest number of tokens of a text, special tokens included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Number of elements of a vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Similarity of two vectors, by the function that the model is made for.
    pub fn similarity(&self, a: &[f32], b: &[f32]) -> f32 {
        score(self.sentence.similarity, a, b)
    }

    /// Text that the model called `name` puts before texts. For a side of a search that is the prompt
    /// with a usual name for that side, or, if the model has no prompts, that of its family; empty if
    /// there is none.
    ///
    /// # Errors
    /// If the model has no prompt of the name that `prompt` gives.
    pub fn prompt<'p>(&'p self, prompt: &'p EmbedPrompt, name: &str) -> Result<&'p str> {
        let prompts = &self.sentence.prompts;
        let usual =
            |names: &[&str]| names.iter().find_map(|name| Some(prompts.get(*name)?.as_str()));
        let [query, document] = match prompts.is_empty() {
            true => family(name),
            false => ["", ""],
        };
        Ok(match prompt {
            EmbedPrompt::Default => {
                let default = self.sentence.default_prompt.as_ref();
                default.and_then(|name| prompts.get(name)).map_or("", String::as_str)
            }
            EmbedPrompt::Named(name) => self.named(name)?,
            EmbedPrompt::Query => usual(QUERIES).unwrap_or(query),
            EmbedPrompt::Document => usual(DOCUMENTS).unwrap_or(document),
            EmbedPrompt::Text(text) => text,
        })
    }

    /// Text of the prompt that the model calls `name`.
    fn named(&self, name: &str) -> Result<&str> {
        let prompts = &self.sentence.prompts;
        prompts.get(name).map(String::as_str).ok_or_else(|| {
            let names: Vec<&str> = prompts.keys().map(String::as_str).collect();
            let hint = match names.is_empty() {
                true => "the model has no prompts".to_owned(),
                false => format!("its prompts are {}", names.join(", ")),
            };
            Error::validation(format!("the model has no prompt {name:?}")).hint(hint)
        })
    }

    /// Checks `options` against the model.
    ///
    /// # Errors
    /// If `dimensions` is zero or more than the model has.
    pub fn check(&self, options: &EmbedOptions) -> Result<()> {
        match options.dimensions {
            Some(count) if count == 0 || count > self.dimensions => {
                let all = self.dimensions;
                let message =
                    format!("`dimensions` is {count}, and the model's vectors have {all}");
                Err(Error::validation(message))
            }
            _ => Ok(()),
        }
    }

    /// Tokens of a text with the prompt of `options` before it.
    ///
    /// # Errors
    /// [`Kind::ContextLengthExceeded`] if the text is too long, and `options` do not say to cut it.
    pub fn input(&self, text: &str, options: &EmbedOptions) -> Result<Input> {
        let whole = [&options.prompt, text].concat();
        let (ids, truncated) = self.tokens(&whole)?;
        if truncated && !options.truncate {
            return Err(self.too_long());
        }
        Ok(Input { ids, truncated, prompt: self.prompt_length(&options.prompt)? })
    }

    /// An input of the tokens `ids`, special tokens included; they get no prompt.
    ///
    /// # Errors
    /// If there are no tokens, too many, or some that the model does not know.
    pub fn given(&self, ids: Vec<u32>, options: &EmbedOptions) -> Result<Input> {
        let vocabulary = self.vocabulary;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            let message = format!("token {id} is not among the {vocabulary} that the model knows");
            return Err(Error::validation(message));
        }
        let truncated = ids.len() > self.max_length;
        match (ids.is_empty(), truncated && !options.truncate) {
            (true, _) if self.special => Err(Error::validation("a text without tokens")),
            (_, true) => Err(self.too_long()),
            _ => {
                let ids = ids.into_iter().take(self.max_length).collect();
                Ok(Input { ids, truncated, prompt: 0 })
            }
        }
    }

    /// Tokens of a text, and whether it was too long.
    fn tokens(&self, text: &str) -> Result<(Vec<u32>, bool)> {
        let lower: String;
        let text = match self.sentence.lower_case {
            true => {
                lower = text.chars().flat_map(char::to_lowercase).collect();
                &lower
            }
            false => text,
        };
        let (mut ids, truncated) =
            self.tokenizer.encode_within(text, self.max_length, self.special)?;
        ids.retain(|&id| Some(id) != self.unknown);
        if ids.is_empty() && self.special {
            return Err(Error::validation("a text without tokens"));
        }
        Ok((ids, truncated))
    }

    /// Number of tokens of a prompt at the beginning of a text, if these do not count in pooling. As in
    /// sentence-transformers these are those of the prompt alone, but for a special token at its end.
    fn prompt_length(&self, prompt: &str) -> Result<usize> {
        let counts =
            |module: &Module| !matches!(module, Module::Pooling { include_prompt: false, .. });
        if prompt.is_empty() || self.sentence.modules.iter().all(counts) {
            return Ok(0);
        }
        let (ids, _) = self.tokens(prompt)?;
        let special = ids.last().is_some_and(|&id| self.tokenizer.special_token(id).is_some());
        Ok(ids.len() - usize::from(special))
    }

    fn too_long(&self) -> Error {
        let message = format!("the text has more than the {} tokens of the model", self.max_length);
        Error::new(Kind::ContextLengthExceeded, "", message)
    }
}

/// The one of `tasks` whose adapter `prompt` asks for.
pub(crate) fn task_of<'t>(tasks: &'t [String], prompt: &EmbedPrompt) -> Option<&'t str> {
    let named = |task: &&String| match prompt {
        EmbedPrompt::Named(name) => name == *task,
        EmbedPrompt::Query => QUERIES.contains(&task.as_str()),
        EmbedPrompt::Document => DOCUMENTS.contains(&task.as_str()),
        EmbedPrompt::Default | EmbedPrompt::Text(_) => false,
    };
    tasks.iter().find(named).map(String::as_str)
}

/// Prompts of the family of the model called `name`: for queries and for documents.
fn family(name: &str) -> [&'static str; 2] {
    let name = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_lowercase();
    let known = FAMILIES.iter().find(|(part, _)| name.contains(part));
    known.map_or(["", ""], |(_, both)| *both)
}

/// Largest number of tokens of a text in `network`, of which the files state `stated`.
pub(crate) fn longest(network: &dyn Encoder, stated: Option<usize>) -> usize {
    let most = network.max_length();
    stated.map_or(most, |length| length.min(most)).max(1)
}

/// Largest number of tokens of a text that the tokenizer's configuration states.
pub(crate) fn tokens_of_tokenizer(facts: &Facts) -> Option<usize> {
    let stated = facts.tokenizer_config.get("model_max_length")?.as_u64()?;
    usize::try_from(stated).ok()
}

/// Prompts of families whose files state none, by a part of their names: for queries and for
/// documents. Sources: their model cards.
const FAMILIES: &[(&str, [&str; 2])] = &[
    ("bge-m3", ["", ""]),
    ("bge", [REPRESENT, ""]),
    ("mxbai", [REPRESENT, ""]),
    ("arctic-embed", [REPRESENT, ""]),
    ("e5-mistral", [INSTRUCT, ""]),
    ("qwen3-embedding", [INSTRUCT_SHORT, ""]),
    ("gte-qwen2", [INSTRUCT, ""]),
    ("e5", ["query: ", "passage: "]),
    ("nomic-embed", ["search_query: ", "search_document: "]),
    ("modernbert-embed", ["search_query: ", "search_document: "]),
    ("embeddinggemma", ["task: search result | query: ", "title: none | text: "]),
];

const REPRESENT: &str = "Represent this sentence for searching relevant passages: ";
const INSTRUCT: &str = "Instruct: Given a web search query, retrieve relevant passages that answer \
                        the query\nQuery: ";
const INSTRUCT_SHORT: &str = "Instruct: Given a web search query, retrieve relevant passages that \
                              answer the query\nQuery:";
