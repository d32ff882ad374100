//! From a prompt to one token after another.

use mlx_rs::error::Result;
use mlx_rs::transforms::{async_eval, eval};
use mlx_rs::{Array, Stream, memory, with_stream};
use mlxk_core::{Error, Kind};

use crate::cache::{Cache, Texts};
use crate::mlx;
use crate::models::Language;
use crate::sample::{Sampler, Sampling};

/// Tokens after which MLX gives the memory back that it keeps for reuse.
const TIDY: u64 = 256;

/// A model in memory. It stays on the thread that loaded it.
pub struct Model {
    network: Box<dyn Language>,
    /// Where all work is queued.
    stream: Stream,
    /// Whether to queue a token's work before the token before it is known: a GPU then never waits
    /// for the host, a CPU would only be late with the first of the two.
    ahead: bool,
    /// Tokens of a prompt that are processed at once.
    pub prefill_chunk: usize,
    context_length: Option<u64>,
}

impl Model {
    /// `network`, whose work goes to `stream` of the CPU or not; it was trained on texts of
    /// `context_length` tokens, if that is known.
    pub fn new(
        network: Box<dyn Language>,
        stream: Stream,
        on_cpu: bool,
        context_length: Option<u64>,
    ) -> Model {
        let prefill_chunk = if on_cpu { 512 } else { 2048 };
        Model { network, stream, ahead: !on_cpu, prefill_chunk, context_length }
    }

    /// How many tokens the model was trained to see at once, if that is known.
    pub fn context_length(&self) -> Option<u64> {
        self.context_length
    }

    /// Processes `prompt` and returns what follows it, token by token. Errors if the prompt is
    /// empty or holds ids that the model does not know, or `sampling` makes no sense.
    pub fn tokens(&mut self, prompt: &[u32], sampling: &Sampling) -> mlxk_core::Result<Tokens<'_>> {
        sampling.check()?;
        let (last, before) = self.check(prompt)?;
        let mut cache = self.network.cache();
        self.run(|| self.prefill(before, &mut cache))?;
        let sampler = Sampler::new(sampling.clone(), prompt);
        let last = ids(&[last]);
        Ok(Tokens { model: self, cache, sampler, last, queued: None, read: 0 })
    }

    /// The logits of the token that follows `prompt`, one for each token that the model knows.
    pub fn logits(&mut self, prompt: &[u32]) -> mlxk_core::Result<Vec<f32>> {
        let (last, before) = self.check(prompt)?;
        let mut cache = self.network.cache();
        let logits = self.run(|| {
            self.prefill(before, &mut cache)?;
            self.next_logits(&ids(&[last]), &mut cache)?.as_type::<f32>()
        })?;
        logits.to_vec_exact().map_err(|e| mlx::failed(e.to_string().as_str().into()))
    }

    /// The last id and those before, all known to the model.
    fn check<'p>(&self, prompt: &'p [u32]) -> mlxk_core::Result<(u32, &'p [u32])> {
        let vocabulary = self.network.vocabulary();
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocabulary) {
            let message = format!("token {id} is not among the {vocabulary} that the model knows");
            return Err(Error::new(Kind::InvalidModel, "", message)
                .hint("the tokenizer belongs to another model"));
        }
        let (last, before) = prompt
            .split_last()
            .ok_or_else(|| Error::new(Kind::Validation, "", "the prompt is empty"))?;
        Ok((*last, before))
    }

    /// Lets the cache see `prompt`, a chunk at a time: only its state is ever evaluated.
    fn prefill(&self, prompt: &[u32], cache: &mut Cache) -> Result<()> {
        for chunk in prompt.chunks(self.prefill_chunk.max(1)) {
            let mut text = Texts::one(cache, chunk.len() as i32);
            self.network.forward(&self.network.embed(&ids(chunk))?, &mut text)?;
            eval(cache.arrays())?;
            memory::clear_cache()?;
        }
        Ok(())
    }

    /// The logits [1, vocabulary] after `id` [1, 1], which the cache has not yet seen.
    fn next_logits(&self, id: &Array, cache: &mut Cache) -> Result<Array> {
        let h = self.network.forward(&self.network.embed(id)?, &mut Texts::one(cache, 1))?;
        self.network.head(&h)?.reshape(&[1, -1])
    }

    fn run<T>(&self, work: impl FnOnce() -> Result<T>) -> mlxk_core::Result<T> {
        with_stream(&self.stream, work).map_err(mlx::failed)
    }
}

/// The tokens after a prompt. It never ends by itself; dropping it ends the work.
pub struct Tokens<'m> {
    model: &'m Model,
    cache: Cache,
    sampler: Sampler,
    /// The last token that was read [1, 1].
    last: Array,
    /// The one after it, whose work is queued already.
    queued: Option<Array>,
    read: u64,
}

impl Tokens<'_> {
    /// The next token, read only when the one after it is queued: one wait for each.
    fn advance(&mut self) -> Result<u32> {
        self.last = match self.queued.take() {
            Some(token) => token,
            None => self.step()?,
        };
        if self.model.ahead {
            let next = self.step()?;
            async_eval([&next])?;
            self.queued = Some(next);
        }
        self.read += 1;
        if self.read.is_multiple_of(TIDY) {
            memory::clear_cache()?;
        }
        self.last.try_item_exact().map_err(|e| e.to_string().as_str().into())
    }

    /// The token after `last`, not yet computed.
    fn step(&mut self) -> Result<Array> {
        let logits = self.model.next_logits(&self.last, &mut self.cache)?;
        self.sampler.choose(&logits)
    }
}

impl Iterator for Tokens<'_> {
    type Item = mlxk_core::Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        let model = self.model;
        Some(model.run(|| self.advance()))
    }
}

/// Ids as [1, length].
fn ids(ids: &[u32]) -> Array {
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
