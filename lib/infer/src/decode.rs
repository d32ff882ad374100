//! A model in memory, and what it makes of a prompt.

use std::cell::RefCell;
use std::rc::Rc;

use mlx_rs::error::{Exception, Result};
use mlx_rs::transforms::eval;
use mlx_rs::{Array, Stream, memory, with_stream};
use mlxk_core::{Error, Kind};
use mlxk_processor::{Sampling, Token};

use crate::batch::{Batch, Draft};
use crate::cache::{Cache, Slot, Texts};
use crate::distributed::{self, Elsewhere, Others, Part};
use crate::mlx;
use crate::models::Language;
use crate::remember::Memory;

/// A model in memory, with the texts that it continues. It stays on the thread that loaded it.
pub struct Model {
    network: Box<dyn Language>,
    /// Where all work is queued.
    stream: Stream,
    /// Whether to queue a token's work before the token before it is known: a GPU then never waits
    /// for the host, a CPU would only be late with the first of the two.
    pub(crate) ahead: bool,
    on_cpu: bool,
    /// What this rank has of the model, if not all of it.
    part: Option<Part>,
    /// Those that have the rest, if this rank leads them.
    pub(crate) others: Option<Rc<RefCell<Others>>>,
    /// Tokens of prompts that are processed at once.
    pub prefill_chunk: usize,
    context_length: Option<u64>,
    /// What it remembers.
    pub memory: Memory,
    /// What guesses for it, if anything does.
    pub(crate) draft: Option<Box<Draft>>,
    pub(crate) batch: Batch,
    /// The last to go.
    _kept: Kept,
}

/// What MLX keeps of the memory of arrays that are gone, for new ones.
struct Kept;

impl Drop for Kept {
    fn drop(&mut self) {
        // Should that fail, the next model takes it.
        let _ = memory::clear_cache();
    }
}

impl Model {
    /// `network`, whose work goes to `stream` of the CPU or not; it is a `part` of the model if there
    /// is one, and was trained on texts of `context_length` tokens, if that is known.
    pub fn new(
        network: Box<dyn Language>,
        stream: Stream,
        on_cpu: bool,
        part: Option<Part>,
        context_length: Option<u64>,
    ) -> Model {
        let prefill_chunk = if on_cpu { 512 } else { 2048 };
        let (memory, batch) = (Memory::default(), Batch::default());
        Model {
            network,
            stream,
            // Ranks are told the tokens, which must be known then.
            ahead: !on_cpu && part.is_none(),
            on_cpu,
            part,
            others: None,
            prefill_chunk,
            context_length,
            memory,
            draft: None,
            batch,
            _kept: Kept,
        }
    }

    /// How many tokens the model was trained to see at once, if that is known.
    pub fn context_length(&self) -> Option<u64> {
        self.context_length
    }

    /// Tokens that the model knows; ids are below this.
    pub fn vocabulary(&self) -> usize {
        self.network.vocabulary()
    }

    /// What follows `prompt`, token by token. Errors as [`join`](Model::join) does.
    pub fn tokens(&mut self, prompt: &[u32], sampling: &Sampling) -> mlxk_core::Result<Tokens<'_>> {
        let text = self.join(prompt, sampling.clone(), None)?;
        Ok(Tokens { model: self, text, ready: Vec::new() })
    }

    /// The logits of the token that follows `prompt`, one for each token that the model knows.
    pub fn logits(&mut self, prompt: &[u32]) -> mlxk_core::Result<Vec<f32>> {
        self.check(prompt)?;
        let mut cache = self.cache();
        let logits = self.run(|| {
            let mut h = None;
            for chunk in prompt.chunks(self.prefill_chunk.max(1)) {
                let text = Texts::one(&mut cache, chunk.len() as i32);
                h = Some(self.forward(&ids(chunk), text)?);
                eval(cache.arrays())?;
                memory::clear_cache()?;
            }
            let h = h.ok_or_else(|| Exception::custom("no prompt"))?;
            self.head(&h, &[prompt.len().saturating_sub(1) % self.prefill_chunk.max(1)])
        })?;
        logits.to_vec_exact().map_err(|e| mlx::failed(e.to_string().as_str().into()))
    }

    /// Errors if the prompt is empty or holds ids that the model does not know.
    pub(crate) fn check(&self, prompt: &[u32]) -> mlxk_core::Result<()> {
        let vocabulary = self.vocabulary();
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocabulary) {
            let message = format!("token {id} is not among the {vocabulary} that the model knows");
            return Err(Error::new(Kind::InvalidModel, "", message)
                .hint("the tokenizer belongs to another model"));
        }
        match prompt.is_empty() {
            true => Err(Error::new(Kind::Validation, "", "the prompt is empty")),
            false => Ok(()),
        }
    }

    /// A memory without any token.
    pub(crate) fn cache(&self) -> Cache {
        let mut cache = self.memory.apply(self.network.cache());
        let elsewhere = self.others.as_ref().map(|others| Slot::Elsewhere(Elsewhere::new(others)));
        cache.slots.extend(elsewhere);
        cache
    }

    /// What the model makes of `ids` [1, length], the next of `texts`: [1, length, hidden].
    pub(crate) fn forward(&self, ids: &Array, texts: Texts) -> Result<Array> {
        if let Some(others) = &self.others {
            let tokens: &[u32] =
                ids.try_as_slice().map_err(|e| Exception::custom(e.to_string()))?;
            others.borrow().pass(texts.elsewhere(), tokens.to_vec())?;
        }
        let h = self.network.embed(ids)?;
        let mut texts = texts.at_once(self.on_cpu);
        let Some(part) = &self.part else { return self.network.forward(&h, &mut texts) };
        let [from, to] = part.edges();
        let h = from.map_or(Ok(h.clone()), |rank| distributed::receive_like(&h, rank))?;
        let h = self.network.forward(&h, &mut texts)?;
        let h = to.map_or(Ok(h.clone()), |rank| distributed::send(&h, rank))?;
        // What ranks do together is done by all of them before any does something else.
        eval([&h])?;
        Ok(h)
    }

    /// The logits [rows, vocabulary], in single precision, after the `rows` of `h`.
    pub(crate) fn head(&self, h: &Array, rows: &[usize]) -> Result<Array> {
        let logits = if rows.len() as i32 == h.dim(1) {
            self.network.head(h)?
        } else {
            let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
            let rows = Array::from_slice(&rows, &[rows.len() as i32]);
            self.network.head(&h.take_axis(rows, 1)?)?
        };
        logits.reshape(&[rows.len() as i32, -1])?.as_type::<f32>()
    }

    /// Does `work` where the model's work is queued.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> Result<T>) -> mlxk_core::Result<T> {
        with_stream(&self.stream, work).map_err(mlx::failed)
    }
}

/// The tokens after a prompt. It never ends by itself; dropping it ends the work.
pub struct Tokens<'m> {
    model: &'m mut Model,
    text: u64,
    ready: Vec<mlxk_core::Result<Token>>,
}

impl Iterator for Tokens<'_> {
    type Item = mlxk_core::Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            match self.model.step() {
                Ok(tokens) => self.ready.extend(tokens.into_iter().map(|(_, token)| token)),
                Err(e) => return Some(Err(e)),
            }
        }
        Some(self.ready.remove(0).map(|token| token.id))
    }
}

impl Drop for Tokens<'_> {
    fn drop(&mut self) {
        self.model.leave(self.text);
    }
}

/// Ids as [1, length].
pub(crate) fn ids(ids: &[u32]) -> Array {
    Array::from_slice(ids, &[1, ids.len() as i32])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;
    use crate::load::tests::model;

    #[test]
    fn texts_that_share_a_step_do_not_see_each_other() {
        for (case, on_cpu) in [("llama", true), ("llama", false), ("mistral", true)] {
            let model = model(case, on_cpu);
            let texts: [&[u32]; 3] = [&[5, 9, 2, 7, 11, 3, 8], &[4], &[6, 1, 30]];
            let network = &model.network;
            let mut caches = texts.map(|_| network.cache());
            let step = |rows: &mut [(&mut Cache, &[u32])]| {
                let packed: Vec<u32> =
                    rows.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
                let rows = rows.iter_mut().map(|(cache, ids)| (&mut **cache, ids.len() as i32));
                let h = network.embed(&ids(&packed)).unwrap();
                let h = network.forward(&h, &mut Texts::new(rows.collect())).unwrap();
                let logits = network.head(&h).unwrap().as_type::<f32>().unwrap();
                logits.to_vec_exact::<f32>().unwrap()
            };
            let mut rows: Vec<_> = caches.iter_mut().zip(texts).collect();
            let together = [step(&mut rows[1..]), step(&mut rows), step(&mut rows[..2])].concat();
            let mut alone = Vec::new();
            let mut caches = texts.map(|_| network.cache());
            let mut rows: Vec<_> = caches.iter_mut().zip(texts).collect();
            for text in [1, 2, 0, 1, 2, 0, 1] {
                alone.extend(step(&mut rows[text..=text]));
            }
            let largest = alone.iter().fold(0f32, |most, x| most.max(x.abs()));
            for (a, b) in together.iter().zip(&alone) {
                assert!((a - b).abs() <= 1e-5 * largest, "{case}: {a} and {b}");
            }
            assert_eq!(together.len(), alone.len());
        }
    }
}
