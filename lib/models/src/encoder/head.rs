//! Modules after an encoder: from the hidden states of tokens to an embedding per sequence.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_core::Facts;
use mlxk_core::probe::sentence::{Module, Pooling};
use mlxk_tensor::array::elements;
use mlxk_tensor::ops::Ops;

use super::dense::Dense;
use super::pooling::{normalize, pool};

/// Modules after an encoder.
pub struct Head {
    steps: Vec<Step>,
    /// True if the tokens of a prompt are pooled.
    include_prompt: bool,
    /// Number of elements of an embedding.
    pub dimensions: usize,
}

enum Step {
    Pool(Vec<Pooling>),
    Dense(Dense),
    Normalize,
}

/// Tokens of a sequence among packed ones.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Number of tokens of the sequence.
    pub length: usize,
    /// Number of tokens of the prompt at its beginning.
    pub prompt: usize,
    /// True if its embedding is normalised, false if it is not; the modules decide if `None`.
    pub normalize: Option<bool>,
}

impl Head {
    /// Loads `modules` of a model whose tokens have vectors of `hidden` elements.
    ///
    /// # Errors
    /// If the weights of one are missing or of another shape.
    pub fn load(
        facts: &Facts,
        modules: &[Module],
        hidden: usize,
        ops: &'static dyn Ops,
    ) -> mlxk_core::Result<Head> {
        let mut head = Head { steps: Vec::new(), include_prompt: true, dimensions: hidden };
        for module in modules {
            head.steps.push(match module {
                Module::Pooling { ways, include_prompt } => {
                    head.dimensions = hidden * ways.len();
                    head.include_prompt = *include_prompt;
                    Step::Pool(ways.clone())
                }
                Module::Dense(config) => {
                    let dense = Dense::load(facts, config, head.dimensions, ops)?;
                    head.dimensions = dense.outs;
                    Step::Dense(dense)
                }
                Module::Normalize => Step::Normalize,
            });
        }
        Ok(head)
    }

    /// Embeddings of the sequences `texts`, whose packed hidden states are `h` [1, rows, hidden].
    /// They are normalised as the modules say, or as their sequences do.
    pub fn forward(&self, h: &Array, texts: &[Span]) -> Result<Vec<Vec<f32>>> {
        let size = h.dim(2) as usize;
        let h = h.as_type::<f32>()?;
        let rows = elements(&h)?;
        let mut vectors = Vec::new();
        for step in &self.steps {
            match step {
                Step::Pool(ways) => vectors = self.pool(rows, size, texts, ways),
                Step::Dense(dense) => vectors = project(dense, &vectors)?,
                Step::Normalize => {
                    let kept = |text: &Span| text.normalize == Some(false);
                    let changed = vectors.iter_mut().zip(texts).filter(|(_, text)| !kept(text));
                    changed.for_each(|(vector, _)| normalize(vector));
                }
            }
        }
        let asked = vectors.iter_mut().zip(texts).filter(|(_, text)| text.normalize == Some(true));
        asked.for_each(|(vector, _)| normalize(vector));
        Ok(vectors)
    }

    fn pool(&self, rows: &[f32], size: usize, texts: &[Span], ways: &[Pooling]) -> Vec<Vec<f32>> {
        let mut rest = rows;
        let pooled = |text: &Span| {
            let (own, others) = rest.split_at(text.length * size);
            rest = others;
            let skipped = if self.include_prompt { 0 } else { text.prompt };
            ways.iter().flat_map(|&way| pool(way, own, size, skipped)).collect()
        };
        texts.iter().map(pooled).collect()
    }
}

fn project(dense: &Dense, vectors: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
    let all = vectors.concat();
    let size = all.len() / vectors.len().max(1);
    let x = Array::from_slice(&all, &[1, vectors.len() as i32, size as i32]);
    let y = dense.forward(&x)?;
    Ok(elements(&y)?.chunks_exact(dense.outs).map(<[f32]>::to_vec).collect())
}
