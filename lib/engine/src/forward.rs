//! Forward passes of a network in memory: tokens of sequences in, logits out.

use std::ops::Range;
use std::rc::Rc;

use mlx_rs::error::{Exception, Result};
use mlx_rs::ops::zeros_dtype;
use mlx_rs::transforms::eval;
use mlx_rs::{Array, Dtype, Stream, memory, with_stream};
use mlxk_core::{Error, Kind};
use mlxk_models::checkpoint::part::Part;
use mlxk_models::language::{Language, Spliced};
use mlxk_models::vision::Features;
use mlxk_processor::Media;
use mlxk_tensor::cache::{Cache, Remote, Sequences, Slot};
use mlxk_tensor::{collective, mlx};
use serde::{Deserialize, Serialize};

use crate::prefix_cache::CacheOptions;
use crate::vision::LazyTower;

/// Rows of activations for which MLX has kernels of its own on a GPU, which read the weights once.
const GPU_ROWS: usize = 8;

/// Rows of activations that kernels of the CPU multiply at once.
const CPU_ROWS: usize = 4;

/// Network in memory, with its stream and settings. It stays on the thread that loaded it.
pub struct Forward {
    network: Box<dyn Language>,
    /// Stream on which all work is queued.
    stream: Stream,
    /// True if the work of a token is queued before the token before it is known: a GPU then never
    /// waits for the host, a CPU would only be late with the first of the two.
    pub ahead: bool,
    /// True if the network has the form for a CPU.
    on_cpu: bool,
    /// Part of the model that this rank has, if not all of it.
    part: Option<Part>,
    /// Vision tower, if the model takes pictures.
    pub tower: Option<LazyTower>,
    /// Other ranks, which run the other parts of the model, if this rank leads them.
    pub ranks: Option<Rc<dyn Ranks>>,
    /// Most tokens of prompts that are processed at once, 1 or more.
    pub prefill_chunk: usize,
    /// Rows of a step that take about the time of two: as many as a kernel for a few rows multiplies at
    /// once.
    pub rows_at_once: usize,
    context_length: Option<u64>,
    /// Options of the caches.
    pub cache_options: CacheOptions,
    /// Buffers that MLX holds for reuse; comes last, so that it is dropped last.
    _kept: Kept,
}

/// Other ranks, which run the rest of a model.
pub trait Ranks {
    /// Makes the ranks run the next tokens of sequences.
    ///
    /// # Errors
    /// If a rank has gone.
    fn pass(&self, pass: Pass) -> Result<()>;

    /// Cache of a new sequence on the other ranks.
    fn sequence(&self) -> Box<dyn Remote>;
}

/// Next tokens of sequences that all ranks run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pass {
    /// Number of each sequence, and its count of tokens. An unknown number is a new sequence.
    pub sequences: Vec<(u64, usize)>,
    /// Token ids.
    pub ids: Vec<u32>,
    /// Positions of the rows of each sequence, if they are not consecutive, and the difference between
    /// position and index of consecutive rows; none if there is no picture.
    pub positions: Vec<(Option<Vec<[i32; 3]>>, i32)>,
    /// Rows of the features of pictures, which the ranks share next.
    pub pictures: Vec<Shape>,
}

/// Shape of the features of a picture among the rows of a pass.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// Rows of the image tokens.
    pub rows: Range<i32>,
    /// Elements of a row of features.
    pub hidden: i32,
    /// Number of features that layers add.
    pub deep: usize,
}

impl Pass {
    fn of(ids: &[u32], spliced: &[Spliced], sequences: &Sequences) -> Pass {
        let positions = sequences.positions().iter();
        let shape = |own: &Spliced| Shape {
            rows: own.rows.clone(),
            hidden: own.features.dim(-1),
            deep: own.deep.len(),
        };
        Pass {
            sequences: sequences.remote(),
            ids: ids.to_vec(),
            positions: positions.map(|own| (own.rows.map(<[_]>::to_vec), own.delta)).collect(),
            pictures: spliced.iter().map(shape).collect(),
        }
    }
}

/// Features of pictures as all ranks have them: those of rank 0, which alone has them `known`.
///
/// # Errors
/// If a rank has gone.
pub fn shared(pictures: &[Shape], known: Option<&[Spliced]>) -> Result<Vec<Spliced>> {
    let one = |(i, shape): (usize, &Shape)| {
        let own = known.and_then(|known| known.get(i));
        let share = |own: Option<&Array>| {
            let own = match own {
                Some(own) => own.as_dtype(Dtype::Float32)?,
                None => zeros_dtype(&[shape.rows.len() as i32, shape.hidden], Dtype::Float32)?,
            };
            let shared = collective::all_sum(&own)?;
            // A collective operation must end on all ranks before any of them starts another one.
            eval([&shared])?;
            Ok::<_, Exception>(shared)
        };
        let features = share(own.map(|own| &own.features))?;
        let deep = (0..shape.deep).map(|layer| share(own.map(|own| &own.deep[layer])));
        Ok(Spliced { rows: shape.rows.clone(), features, deep: deep.collect::<Result<_>>()? })
    };
    pictures.iter().enumerate().map(one).collect()
}

/// Buffers of dropped arrays that MLX holds for new ones; dropping this frees them.
struct Kept;

impl Drop for Kept {
    fn drop(&mut self) {
        // Should this fail, the next model reuses the buffers.
        let _ = memory::clear_cache();
    }
}

impl Forward {
    /// Forward passes of `network` on `stream`, in the form for a CPU or for a GPU; the network is all
    /// of the model or a `part` of it, and was trained on sequences of `context_length` tokens.
    pub fn new(
        network: Box<dyn Language>,
        stream: Stream,
        on_cpu: bool,
        part: Option<Part>,
        context_length: Option<u64>,
    ) -> Forward {
        Forward {
            network,
            stream,
            // Commands to ranks name the tokens, which must be known then.
            ahead: !on_cpu && part.is_none(),
            on_cpu,
            part,
            tower: None,
            ranks: None,
            prefill_chunk: prefill_chunk(on_cpu),
            rows_at_once: if on_cpu { CPU_ROWS } else { GPU_ROWS },
            context_length,
            cache_options: CacheOptions::default(),
            _kept: Kept,
        }
    }

    /// Length of the sequences that the model was trained on, in tokens, if that is known.
    pub fn context_length(&self) -> Option<u64> {
        self.context_length
    }

    /// Number of tokens that the model knows; ids are below this.
    pub fn vocabulary(&self) -> usize {
        self.network.vocabulary()
    }

    /// Logits [vocabulary] of the token that follows `prompt`.
    ///
    /// # Errors
    /// As [`check`](Self::check), and if the model fails.
    pub fn logits(&mut self, prompt: &[u32]) -> mlxk_core::Result<Vec<f32>> {
        self.check(prompt)?;
        let mut cache = self.cache();
        let logits = self.run(|| {
            let mut h = None;
            for chunk in prompt.chunks(self.prefill_chunk.max(1)) {
                let sequence = Sequences::one(&mut cache, chunk.len() as i32);
                h = Some(self.forward(&ids(chunk), &[], sequence)?);
                eval(cache.arrays())?;
                memory::clear_cache()?;
            }
            let h = h.ok_or_else(|| Exception::custom("no prompt"))?;
            self.head(&h, &[prompt.len().saturating_sub(1) % self.prefill_chunk.max(1)])
        })?;
        logits.to_vec_exact().map_err(|e| mlx::failed(e.to_string().as_str().into()))
    }

    /// Checks that `prompt` has tokens, and only such that the model knows.
    ///
    /// # Errors
    /// [`Kind::Validation`] if it is empty, [`Kind::InvalidModel`] if an id is unknown.
    pub fn check(&self, prompt: &[u32]) -> mlxk_core::Result<()> {
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

    /// Cache of a sequence, without any token.
    pub fn cache(&self) -> Cache {
        let mut cache =
            self.network.cache().with_layout(|layout| self.cache_options.layout(layout));
        cache.slots.extend(self.ranks.as_ref().map(|ranks| Slot::Remote(ranks.sequence())));
        cache
    }

    /// Hidden states [1, length, hidden] of `ids` [1, length], the next tokens of `sequences`; features
    /// of `spliced` replace the embeddings of their rows.
    ///
    /// # Errors
    /// If the network fails or a rank has gone.
    pub fn forward(&self, ids: &Array, spliced: &[Spliced], sequences: Sequences) -> Result<Array> {
        if let Some(ranks) = &self.ranks {
            let tokens: &[u32] =
                ids.try_as_slice().map_err(|e| Exception::custom(e.to_string()))?;
            let pass = Pass::of(tokens, spliced, &sequences);
            let pictures = pass.pictures.clone();
            ranks.pass(pass)?;
            shared(&pictures, Some(spliced))?;
        }
        let mut inputs = self.network.embed(ids, spliced)?;
        let mut sequences = sequences.at_once(self.on_cpu);
        let Some(part) = &self.part else { return self.network.forward(inputs, &mut sequences) };
        let [from, to] = part.edges();
        if let Some(rank) = from {
            inputs.h = collective::receive_like(&inputs.h, rank)?;
        }
        let h = self.network.forward(inputs, &mut sequences)?;
        let h = to.map_or(Ok(h.clone()), |rank| collective::send(&h, rank))?;
        // A collective operation must end on all ranks before any of them starts another one.
        eval([&h])?;
        Ok(h)
    }

    /// Features of a picture.
    ///
    /// # Errors
    /// If the model has no vision tower, or that cannot be loaded or fails.
    pub fn features(&self, media: &Media) -> Result<Features> {
        let tower = self.tower.as_ref().ok_or_else(|| Exception::custom("there is no tower"))?;
        tower
            .features(media, self.cache_options.feature_bytes)
            .map_err(|e| Exception::custom(e.to_string()))
    }

    /// Logits [rows, vocabulary], float32, of the `rows` of `h` [1, length, hidden].
    ///
    /// # Errors
    /// If MLX fails.
    pub fn head(&self, h: &Array, rows: &[usize]) -> Result<Array> {
        let logits = if rows.len() as i32 == h.dim(1) {
            self.network.head(h)?
        } else {
            let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
            let rows = Array::from_slice(&rows, &[rows.len() as i32]);
            self.network.head(&h.take_axis(rows, 1)?)?
        };
        logits.reshape(&[rows.len() as i32, -1])?.as_type::<f32>()
    }

    /// Runs `work` on the stream of the model.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn run<T>(&self, work: impl FnOnce() -> Result<T>) -> mlxk_core::Result<T> {
        with_stream(&self.stream, work).map_err(mlx::failed)
    }
}

/// Default of [`Forward::prefill_chunk`], on a CPU or on a GPU.
pub fn prefill_chunk(on_cpu: bool) -> usize {
    if on_cpu { 512 } else { 2048 }
}

/// Array [1, length] of `ids`.
pub fn ids(ids: &[u32]) -> Array {
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
            let sequences: [&[u32]; 3] = [&[5, 9, 2, 7, 11, 3, 8], &[4], &[6, 1, 30]];
            let network = &model.forward.network;
            let mut caches = sequences.map(|_| network.cache());
            let step = |rows: &mut [(&mut Cache, &[u32])]| {
                let packed: Vec<u32> =
                    rows.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
                let rows = rows.iter_mut().map(|(cache, ids)| (&mut **cache, ids.len() as i32));
                let inputs = network.embed(&ids(&packed), &[]).unwrap();
                let h = network.forward(inputs, &mut Sequences::new(rows.collect())).unwrap();
                let logits = network.head(&h).unwrap().as_type::<f32>().unwrap();
                logits.to_vec_exact::<f32>().unwrap()
            };
            let mut rows: Vec<_> = caches.iter_mut().zip(sequences).collect();
            let together = [step(&mut rows[1..]), step(&mut rows), step(&mut rows[..2])].concat();
            let mut alone = Vec::new();
            let mut caches = sequences.map(|_| network.cache());
            let mut rows: Vec<_> = caches.iter_mut().zip(sequences).collect();
            for sequence in [1, 2, 0, 1, 2, 0, 1] {
                alone.extend(step(&mut rows[sequence..=sequence]));
            }
            let largest = alone.iter().fold(0f32, |most, x| most.max(x.abs()));
            for (a, b) in together.iter().zip(&alone) {
                assert!((a - b).abs() <= 1e-5 * largest, "{case}: {a} and {b}");
            }
            assert_eq!(together.len(), alone.len());
        }
    }
}
