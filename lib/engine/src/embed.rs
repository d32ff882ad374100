//! Embeddings: texts in, a vector of each out, in batches of packed sequences.

use std::cmp::Reverse;
use std::ops::Deref;

use mlx_rs::ops::zeros;
use mlx_rs::{Stream, with_stream};
use mlxk_core::probe::sentence::Pooling;
use mlxk_core::{Error, Facts, Kind, Plan, Result};
use mlxk_models::encoder::head::{Head, Span};
use mlxk_models::encoder::pooling::normalize;
use mlxk_models::encoder::task::tasks;
use mlxk_models::encoder::{Encoder, Packed};
use mlxk_models::sketch::config;
use mlxk_processor::engine::EmbedPrompt;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::{CPU, MLX, Ops};

use crate::embed_processor::{EmbedOptions, EmbedProcessor, Input, task_of};
use crate::load;

/// Largest number of tokens of a batch, whose activations stay near the cores; a longer text is a batch
/// of its own.
pub(crate) const BATCH_TOKENS: usize = 1024;

/// Embedding model in memory. It stays on the thread that loaded it.
pub struct Embedder {
    network: Box<dyn Encoder>,
    head: Head,
    stream: Stream,
    processor: EmbedProcessor,
}

/// Form in which an embedding model is loaded.
#[derive(Clone, Debug, Default)]
pub struct EmbedForm {
    /// Task whose adapter is added to the weights; few models have such adapters.
    pub task: Option<String>,
    /// Way to pool, instead of the model's own.
    pub pooling: Option<Pooling>,
}

impl EmbedForm {
    /// The form in which the model of `facts` answers requests with `prompt`.
    ///
    /// # Errors
    /// If config.json is no JSON object.
    pub fn of(facts: &Facts, prompt: &EmbedPrompt) -> Result<EmbedForm> {
        let config = config(facts)?;
        let tasks: Vec<String> = tasks(&config).into_iter().map(str::to_owned).collect();
        let task = task_of(&tasks, prompt).map(str::to_owned);
        Ok(EmbedForm { task, pooling: None })
    }
}

impl Deref for Embedder {
    type Target = EmbedProcessor;

    fn deref(&self) -> &EmbedProcessor {
        &self.processor
    }
}

impl Embedder {
    /// Loads the embedding model of `facts` if `plan` says that it can run, on the device that MLX
    /// chooses.
    ///
    /// # Errors
    /// If the model is none that embeds, or has not what `form` asks for, or one of its files cannot be
    /// used.
    pub fn load(facts: &Facts, plan: &Plan, form: EmbedForm) -> Result<Embedder> {
        Embedder::load_for(facts, plan, mlx::on_cpu()?, form)
    }

    /// Loads the embedding model in the form for a CPU or in that for a GPU, which a CPU can run too.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_for(facts: &Facts, plan: &Plan, on_cpu: bool, form: EmbedForm) -> Result<Embedder> {
        let (network, stream) = load::encoder(facts, plan, on_cpu, form.task.as_deref())?;
        let processor = EmbedProcessor::of(facts, &*network, form.pooling)?;
        let ops: &dyn Ops = if on_cpu { &CPU } else { &MLX };
        let (hidden, modules) = (network.hidden_size(), &processor.sentence.modules);
        let head = with_stream(&stream, || Head::load(facts, modules, hidden, ops))?;
        Ok(Embedder { network, head, stream, processor })
    }

    /// Vectors [dimensions] of `inputs`, in their order. An error of a batch is that of all its inputs.
    pub fn embed(&self, inputs: &[Input], options: &EmbedOptions) -> Vec<Result<Vec<f32>>> {
        let lengths: Vec<usize> = inputs.iter().map(|input| input.ids.len()).collect();
        let mut vectors: Vec<Result<Vec<f32>>> = inputs.iter().map(|_| Ok(Vec::new())).collect();
        for batch in batches(&lengths) {
            let texts: Vec<_> = batch.iter().map(|&place| (&inputs[place], options)).collect();
            match self.embed_batch(&texts) {
                Ok(batched) => {
                    for (&place, vector) in batch.iter().zip(batched) {
                        vectors[place] = vector;
                    }
                }
                Err(e) => batch.iter().for_each(|&place| vectors[place] = Err(e.clone())),
            }
        }
        vectors
    }

    /// Vectors [dimensions] of a batch of inputs, each with its options, in their order.
    ///
    /// # Errors
    /// If the network fails.
    pub fn embed_batch(&self, texts: &[(&Input, &EmbedOptions)]) -> Result<Vec<Result<Vec<f32>>>> {
        let ids: Vec<u32> = texts.iter().flat_map(|(text, _)| text.ids.iter().copied()).collect();
        let spans = texts.iter().map(|(text, options)| Span {
            length: text.ids.len(),
            prompt: text.prompt,
            normalize: options.normalize,
        });
        let spans: Vec<Span> = spans.collect();
        let lengths: Vec<usize> = spans.iter().map(|span| span.length).collect();
        let vectors = with_stream(&self.stream, || {
            let packed = Packed { ids: &ids, types: None, lengths: &lengths };
            let h = match ids.is_empty() {
                true => zeros::<f32>(&[1, 0, self.network.hidden_size() as i32])?,
                false => self.network.encode(&packed)?,
            };
            self.head.forward(&h, &spans)
        });
        let vectors = vectors.map_err(mlx::failed)?.into_iter();
        Ok(vectors.zip(texts).map(|(vector, (_, options))| finished(vector, options)).collect())
    }
}

/// Places of inputs with `lengths` tokens in batches, the longest first.
pub(crate) fn batches(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&place| Reverse(lengths[place]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for place in order {
        tokens += lengths[place];
        match batches.last_mut().filter(|_| tokens <= BATCH_TOKENS) {
            Some(batch) => batch.push(place),
            None => {
                tokens = lengths[place];
                batches.push(vec![place]);
            }
        }
    }
    batches
}

/// A vector cut as `options` say. Errors if the model computed no numbers.
fn finished(mut vector: Vec<f32>, options: &EmbedOptions) -> Result<Vec<f32>> {
    if let Some(count) = options.dimensions.filter(|&count| count < vector.len()) {
        vector.truncate(count);
        if options.normalize != Some(false) {
            normalize(&mut vector);
        }
    }
    match vector.iter().all(|x| x.is_finite()) {
        true => Ok(vector),
        false => Err(Error::new(Kind::Execution, "", "the model's vector is not finite")),
    }
}
