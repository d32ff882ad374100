//! Embeddings: texts in, a vector of each out, in batches of packed sequences.

use std::cmp::Reverse;

use mlx_rs::{Stream, with_stream};
use mlxk_core::{Error, Facts, Kind, Plan, Result};
use mlxk_models::encoder::Encoder;
use mlxk_models::encoder::head::{Head, Span};
use mlxk_models::encoder::sentence::{Module, Sentence};
use mlxk_processor::Tokenizer;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::{CPU, MLX, Ops};

use crate::forward::ids;
use crate::load;

/// Largest number of tokens of a batch; a longer text is a batch of its own.
const BATCH_TOKENS: usize = 4096;

/// Embedding model in memory. It stays on the thread that loaded it.
pub struct Embedder {
    network: Box<dyn Encoder>,
    head: Head,
    stream: Stream,
    tokenizer: Tokenizer,
    sentence: Sentence,
    max_length: usize,
}

/// Options of an embedding.
#[derive(Clone, Debug, Default)]
pub struct EmbedOptions {
    /// Text to put before each text.
    pub prompt: String,
    /// True if texts that are too long are cut instead of refused.
    pub truncate: bool,
    /// Number of elements to keep of a vector, which is normalised then; all of them if none.
    pub dimensions: Option<usize>,
}

/// A text to embed, in tokens.
#[derive(Clone, Debug)]
pub struct Input {
    /// Tokens, special ones included.
    pub ids: Vec<u32>,
    /// True if the text was too long and its end is missing.
    pub truncated: bool,
    /// Number of tokens at the beginning that pooling leaves out.
    prompt: usize,
}

impl Embedder {
    /// Loads the embedding model of `facts` if `plan` says that it can run, on the device that MLX
    /// chooses.
    ///
    /// # Errors
    /// If the model is none that embeds, or one of its files cannot be used.
    pub fn load(facts: &Facts, plan: &Plan) -> Result<Embedder> {
        Embedder::load_for(facts, plan, mlx::on_cpu()?)
    }

    /// Loads the embedding model in the form for a CPU or in that for a GPU, which a CPU can run too.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_for(facts: &Facts, plan: &Plan, on_cpu: bool) -> Result<Embedder> {
        let sentence = Sentence::read(facts)?;
        let tokenizer = Tokenizer::read(facts)?;
        let load::LoadedNetwork { network, stream, .. } =
            load::network(facts, plan, on_cpu, None, None)?;
        let network = network.encoder()?;
        let ops: &dyn Ops = if on_cpu { &CPU } else { &MLX };
        let hidden = network.hidden_size();
        let head = with_stream(&stream, || Head::load(facts, &sentence.modules, hidden, ops))?;
        let stated = sentence.max_length.or_else(|| {
            let stated = facts.tokenizer_config.get("model_max_length")?.as_u64();
            stated.and_then(|length| usize::try_from(length).ok())
        });
        let max_length = network.max_length();
        let max_length = stated.map_or(max_length, |length| length.min(max_length)).max(1);
        Ok(Embedder { network, head, stream, tokenizer, sentence, max_length })
    }

    /// Largest number of tokens of a text, special tokens included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Number of elements of a vector.
    pub fn dimensions(&self) -> usize {
        self.head.dimensions
    }

    /// Options of the model: its default prompt, and its number of dimensions.
    pub fn defaults(&self) -> EmbedOptions {
        let name = self.sentence.default_prompt.as_ref();
        let prompt = name.and_then(|name| self.sentence.prompts.get(name));
        let prompt = prompt.cloned().unwrap_or_default();
        EmbedOptions { prompt, truncate: false, dimensions: self.sentence.dimensions }
    }

    /// Text of the prompt that the model calls `name`.
    ///
    /// # Errors
    /// If the model has no such prompt.
    pub fn prompt(&self, name: &str) -> Result<&str> {
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
            Some(count) if count == 0 || count > self.dimensions() => {
                let all = self.dimensions();
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
        let vocabulary = self.network.vocabulary();
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            let message = format!("token {id} is not among the {vocabulary} that the model knows");
            return Err(Error::validation(message));
        }
        let truncated = ids.len() > self.max_length;
        match (ids.is_empty(), truncated && !options.truncate) {
            (true, _) => Err(Error::validation("a text without tokens")),
            (_, true) => Err(self.too_long()),
            _ => {
                let ids = ids.into_iter().take(self.max_length).collect();
                Ok(Input { ids, truncated, prompt: 0 })
            }
        }
    }

    /// Vectors [dimensions] of `inputs`, in their order. An error of a batch is that of all its inputs.
    pub fn embed(&self, inputs: &[Input], options: &EmbedOptions) -> Vec<Result<Vec<f32>>> {
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        order.sort_by_key(|&place| Reverse(inputs[place].ids.len()));
        let mut vectors: Vec<Result<Vec<f32>>> = inputs.iter().map(|_| Ok(Vec::new())).collect();
        let mut rest = &order[..];
        while !rest.is_empty() {
            let (batch, others) = rest.split_at(fitting(rest, inputs));
            rest = others;
            let texts: Vec<&Input> = batch.iter().map(|&place| &inputs[place]).collect();
            match self.forward(&texts) {
                Ok(batched) => {
                    for (&place, vector) in batch.iter().zip(batched) {
                        vectors[place] = finished(vector, options);
                    }
                }
                Err(e) => batch.iter().for_each(|&place| vectors[place] = Err(e.clone())),
            }
        }
        vectors
    }

    fn forward(&self, texts: &[&Input]) -> Result<Vec<Vec<f32>>> {
        let tokens: Vec<u32> = texts.iter().flat_map(|text| text.ids.iter().copied()).collect();
        let spans = texts.iter().map(|text| Span { length: text.ids.len(), prompt: text.prompt });
        let spans: Vec<Span> = spans.collect();
        let lengths: Vec<usize> = spans.iter().map(|span| span.length).collect();
        let vectors = with_stream(&self.stream, || {
            let h = self.network.encode(&ids(&tokens), &lengths)?;
            self.head.forward(&h, &spans)
        });
        vectors.map_err(mlx::failed)
    }

    /// Tokens of a text, and whether it was too long.
    fn tokens(&self, text: &str) -> Result<(Vec<u32>, bool)> {
        match self.sentence.lower_case {
            true => {
                let lower: String = text.chars().flat_map(char::to_lowercase).collect();
                self.tokenizer.encode_within(&lower, self.max_length)
            }
            false => self.tokenizer.encode_within(text, self.max_length),
        }
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

/// Number of the first of `order` that are a batch.
fn fitting(order: &[usize], inputs: &[Input]) -> usize {
    let mut tokens = 0;
    let fits = |&&place: &&usize| {
        tokens += inputs[place].ids.len();
        tokens <= BATCH_TOKENS
    };
    order.iter().take_while(fits).count().max(1)
}

/// A vector cut as `options` say. Errors if the model computed no numbers.
fn finished(mut vector: Vec<f32>, options: &EmbedOptions) -> Result<Vec<f32>> {
    if let Some(count) = options.dimensions.filter(|&count| count < vector.len()) {
        vector.truncate(count);
        mlxk_models::encoder::pooling::normalize(&mut vector);
    }
    match vector.iter().all(|x| x.is_finite()) {
        true => Ok(vector),
        false => Err(Error::new(Kind::Execution, "", "the model's vector is not finite")),
    }
}
