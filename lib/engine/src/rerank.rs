//! Rerankers: pairs of a query and a document in, a score of each out, in batches of packed
//! sequences.

use std::ops::Deref;

use mlx_rs::error::Exception;
use mlx_rs::{Stream, with_stream};
use mlxk_core::{Error, Facts, Kind, Plan, Result};
use mlxk_models::encoder::{Encoder, Packed};
use mlxk_processor::Pair;
use mlxk_tensor::mlx;

use crate::embed::batches;
use crate::load;
use crate::pair_processor::{Method, PairProcessor};

/// Reranker in memory. It stays on the thread that loaded it.
pub struct Reranker {
    network: Box<dyn Encoder>,
    stream: Stream,
    processor: PairProcessor,
}

impl Deref for Reranker {
    type Target = PairProcessor;

    fn deref(&self) -> &PairProcessor {
        &self.processor
    }
}

impl Reranker {
    /// Loads the reranker of `facts` if `plan` says that it can run, on the device that MLX chooses.
    ///
    /// # Errors
    /// If the model is no reranker, or one of its files cannot be used.
    pub fn load(facts: &Facts, plan: &Plan) -> Result<Reranker> {
        Reranker::load_for(facts, plan, mlx::on_cpu()?)
    }

    /// Loads the reranker in the form for a CPU or in that for a GPU, which a CPU can run too.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_for(facts: &Facts, plan: &Plan, on_cpu: bool) -> Result<Reranker> {
        let (network, stream) = load::encoder(facts, plan, on_cpu, None)?;
        let processor = PairProcessor::of(facts, plan, &*network)?;
        Ok(Reranker { network, stream, processor })
    }

    /// Logits of `pairs`, in their order. An error of a batch is that of all its pairs.
    pub fn logits(&self, pairs: &[Pair]) -> Vec<Result<f32>> {
        let lengths: Vec<usize> = pairs.iter().map(|pair| pair.ids.len()).collect();
        let mut logits: Vec<Result<f32>> = pairs.iter().map(|_| Ok(0.0)).collect();
        for batch in batches(&lengths) {
            let own: Vec<&Pair> = batch.iter().map(|&place| &pairs[place]).collect();
            match self.logits_of_batch(&own) {
                Ok(batched) => {
                    for (&place, logit) in batch.iter().zip(batched) {
                        logits[place] = logit;
                    }
                }
                Err(e) => batch.iter().for_each(|&place| logits[place] = Err(e.clone())),
            }
        }
        logits
    }

    /// Scores of `pairs`, in their order: logits, or their sigmoid, as the model states.
    pub fn scores(&self, pairs: &[Pair]) -> Vec<Result<f32>> {
        self.logits(pairs).into_iter().map(|logit| logit.map(|x| self.score(x))).collect()
    }

    /// Logits of a batch of pairs, in their order.
    ///
    /// # Errors
    /// If the network fails.
    pub fn logits_of_batch(&self, pairs: &[&Pair]) -> Result<Vec<Result<f32>>> {
        let ids: Vec<u32> = pairs.iter().flat_map(|pair| pair.ids.iter().copied()).collect();
        let types: Vec<u32> = pairs.iter().flat_map(|pair| pair.types.iter().copied()).collect();
        let lengths: Vec<usize> = pairs.iter().map(|pair| pair.ids.len()).collect();
        let typed = matches!(self.processor.method, Method::Cross { typed: true });
        let types = typed.then_some(types.as_slice());
        let packed = Packed { ids: &ids, types, lengths: &lengths };
        let logits = with_stream(&self.stream, || match &self.processor.method {
            Method::Cross { .. } => {
                let h = self.network.encode(&packed)?;
                let classifier = self.network.classifier();
                let classifier = classifier.ok_or_else(|| Exception::custom("no classifier"))?;
                classifier.forward(&h, &lengths)
            }
            // The softmax of two logits is the sigmoid of their difference.
            Method::Judge { answers: Some(answers), .. } => {
                let both = self.network.next(&packed, *answers)?;
                Ok(both.into_iter().map(|[yes, no]| yes - no).collect())
            }
            Method::Judge { answers: None, .. } | Method::Scored => self.network.scores(&packed),
        });
        let finite = |logit: f32| if logit.is_finite() { Ok(logit) } else { Err(not_finite()) };
        Ok(logits.map_err(mlx::failed)?.into_iter().map(finite).collect())
    }
}

fn not_finite() -> Error {
    Error::new(Kind::Execution, "", "the model's score is not finite")
}
