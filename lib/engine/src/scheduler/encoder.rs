//! A loaded embedding model or reranker with the requests that it answers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mlxk_core::{Error, Found, Kind, Result};
use mlxk_processor::Pair;
use mlxk_processor::engine::{Embeddings, Scores};
use tokio::sync::oneshot;

use super::guard::guarded;
use super::resident::Resident;
use crate::embed::{BATCH_TOKENS, Embedder};
use crate::embed_processor::{EmbedOptions, Input};
use crate::prefill::Prefill;
use crate::rerank::Reranker;

/// Network that computes an output of each input, many inputs at once.
pub trait BatchNetwork {
    /// Input: the tokens of a sequence.
    type Input;
    /// Options of a request.
    type Options;
    /// Output of an input.
    type Output;
    /// Answer to a request.
    type Answer;

    /// Number of tokens of an input.
    fn tokens(input: &Self::Input) -> usize;

    /// True if an input was cut.
    fn truncated(input: &Self::Input) -> bool;

    /// Outputs of inputs, in their order.
    ///
    /// # Errors
    /// If the network fails.
    fn compute(
        &self,
        inputs: &[(&Self::Input, &Self::Options)],
    ) -> Result<Vec<Result<Self::Output>>>;

    /// Answer with the outputs of all inputs of a request, of `tokens` tokens, `truncated` of which
    /// were cut.
    fn answer(outputs: Vec<Self::Output>, tokens: u64, truncated: u64) -> Self::Answer;
}

impl BatchNetwork for Embedder {
    type Input = Input;
    type Options = EmbedOptions;
    type Output = Vec<f32>;
    type Answer = Embeddings;

    fn tokens(input: &Input) -> usize {
        input.ids.len()
    }

    fn truncated(input: &Input) -> bool {
        input.truncated
    }

    fn compute(&self, inputs: &[(&Input, &EmbedOptions)]) -> Result<Vec<Result<Vec<f32>>>> {
        self.embed_batch(inputs)
    }

    fn answer(vectors: Vec<Vec<f32>>, prompt_tokens: u64, truncated: u64) -> Embeddings {
        Embeddings { vectors, prompt_tokens, truncated }
    }
}

/// Form of the scores of a request.
pub struct ScoreOptions {
    /// True if scores are logits.
    pub raw: bool,
}

impl BatchNetwork for Reranker {
    type Input = Pair;
    type Options = ScoreOptions;
    type Output = f32;
    type Answer = Scores;

    fn tokens(pair: &Pair) -> usize {
        pair.ids.len()
    }

    fn truncated(pair: &Pair) -> bool {
        pair.truncated
    }

    fn compute(&self, pairs: &[(&Pair, &ScoreOptions)]) -> Result<Vec<Result<f32>>> {
        let own: Vec<&Pair> = pairs.iter().map(|(pair, _)| *pair).collect();
        let logits = self.logits_of_batch(&own)?.into_iter().zip(pairs);
        let score = |logit, raw| if raw { logit } else { self.score(logit) };
        Ok(logits
            .map(|(logit, (_, options))| logit.map(|logit| score(logit, options.raw)))
            .collect())
    }

    fn answer(scores: Vec<f32>, prompt_tokens: u64, truncated: u64) -> Scores {
        Scores { scores, prompt_tokens, truncated }
    }
}

/// Request whose inputs are prepared.
pub struct Job<N: BatchNetwork> {
    inputs: Vec<N::Input>,
    options: N::Options,
    /// Outputs of the first inputs.
    outputs: Vec<N::Output>,
    send: oneshot::Sender<Result<N::Answer>>,
}

impl<N: BatchNetwork> Job<N> {
    /// A request, whose answer `send` receives.
    pub fn new(
        inputs: Vec<N::Input>,
        options: N::Options,
        send: oneshot::Sender<Result<N::Answer>>,
    ) -> Job<N> {
        Job { inputs, options, outputs: Vec::new(), send }
    }

    /// True if the client has disconnected.
    pub fn is_closed(&self) -> bool {
        self.send.is_closed()
    }

    /// Ends the request with an error.
    pub fn fail(self, error: Error) {
        // A client that has disconnected needs no error.
        let _ = self.send.send(Err(error));
    }

    fn is_complete(&self) -> bool {
        self.outputs.len() == self.inputs.len()
    }

    fn complete(self) {
        let tokens = self.inputs.iter().map(|input| N::tokens(input) as u64).sum();
        let truncated = self.inputs.iter().filter(|input| N::truncated(input)).count() as u64;
        // A client that has disconnected needs no answer.
        let _ = self.send.send(Ok(N::answer(self.outputs, tokens, truncated)));
    }
}

/// A loaded embedding model or reranker with the requests that it answers.
pub struct LoadedEncoder<N: BatchNetwork> {
    network: N,
    found: Found,
    /// Task whose adapter the network has.
    adapter: Option<String>,
    used: Instant,
    weights: u64,
    /// Running requests; the next step begins with the first.
    jobs: VecDeque<Job<N>>,
    /// Time of a token in the last batches; `None` before the first batch.
    pace: Option<Duration>,
    failed: bool,
}

impl<N: BatchNetwork> LoadedEncoder<N> {
    /// The loaded `network` of a model, with weights of `weights` bytes.
    pub fn new(
        network: N,
        found: Found,
        adapter: Option<String>,
        weights: u64,
    ) -> LoadedEncoder<N> {
        let (used, jobs) = (Instant::now(), VecDeque::new());
        LoadedEncoder { network, found, adapter, used, weights, jobs, pace: None, failed: false }
    }

    /// Adds a request.
    pub fn join(&mut self, job: Job<N>) {
        self.used = Instant::now();
        self.jobs.push_back(job);
    }

    /// Maximum number of tokens of a batch; an input that is longer is a batch of its own.
    fn budget(&self, prefill: Prefill) -> usize {
        match prefill {
            Prefill::Chunk | Prefill::Fair { streams: Some(Duration::ZERO) } => BATCH_TOKENS,
            Prefill::Fair { streams } => {
                let pace = self.pace.filter(|pace| !pace.is_zero());
                let tokens = |(time, pace): (Duration, Duration)| time.div_duration_f64(pace);
                let tokens = streams.zip(pace).map_or(0.0, tokens);
                (tokens as usize).min(BATCH_TOKENS)
            }
        }
    }

    /// Number of inputs that each request has in the next batch: in turn one of each request, while
    /// the batch has at most `budget` tokens.
    fn shares(&self, budget: usize) -> Vec<usize> {
        let mut shares = vec![0; self.jobs.len()];
        let mut tokens = 0;
        loop {
            let before = shares.iter().sum::<usize>();
            for (place, job) in self.jobs.iter().enumerate() {
                let Some(input) = job.inputs.get(job.outputs.len() + shares[place]) else {
                    continue;
                };
                tokens += N::tokens(input).max(1);
                if tokens > budget && shares.iter().any(|&share| share > 0) {
                    return shares;
                }
                shares[place] += 1;
            }
            if shares.iter().sum::<usize>() == before {
                return shares;
            }
        }
    }

    fn advance(&mut self, prefill: Prefill) {
        self.jobs.retain(|job| !job.is_closed());
        if self.jobs.is_empty() {
            return;
        }
        self.used = Instant::now();
        let shares = self.shares(self.budget(prefill));
        let next = |(job, &share): (&Job<N>, &usize)| {
            let begin = job.outputs.len();
            begin..begin + share
        };
        let drawn: Vec<_> = self.jobs.iter().zip(&shares).map(next).collect();
        let inputs = self.jobs.iter().zip(drawn);
        let inputs: Vec<_> = inputs
            .flat_map(|(job, drawn)| job.inputs[drawn].iter().map(|input| (input, &job.options)))
            .collect();
        let tokens: usize = inputs.iter().map(|(input, _)| N::tokens(input).max(1)).sum();
        let computed = match inputs.is_empty() {
            true => Ok(Vec::new()),
            false => self.network.compute(&inputs),
        };
        let pace = self.used.elapsed() / u32::try_from(tokens).unwrap_or(u32::MAX).max(1);
        // The first batch also prepares the device.
        self.pace = Some(self.pace.map_or(pace, |known| (known + pace) / 2));
        self.deliver(&shares, computed);
    }

    /// Gives each request the outputs of its share of a batch, and ends those that are complete.
    fn deliver(&mut self, shares: &[usize], computed: Result<Vec<Result<N::Output>>>) {
        let (mut outputs, failed) = match computed {
            Ok(outputs) => (outputs.into_iter(), None),
            Err(e) => (Vec::new().into_iter(), Some(e)),
        };
        for (mut job, &share) in std::mem::take(&mut self.jobs).into_iter().zip(shares) {
            let own: Result<Vec<N::Output>> = match &failed {
                Some(e) if share > 0 => Err(e.clone()),
                _ => {
                    let own: Vec<Result<N::Output>> = outputs.by_ref().take(share).collect();
                    own.into_iter().collect()
                }
            };
            match own {
                Err(e) => job.fail(e),
                Ok(own) => {
                    job.outputs.extend(own);
                    match job.is_complete() {
                        true => job.complete(),
                        false => self.jobs.push_back(job),
                    }
                }
            }
        }
        // Another request begins the next batch, as a batch may have no room for all.
        if !self.jobs.is_empty() {
            self.jobs.rotate_left(1);
        }
    }

    fn end(&mut self, error: &Error) {
        self.jobs.drain(..).for_each(|job| job.fail(error.clone()));
    }
}

impl<N: BatchNetwork> Resident for LoadedEncoder<N> {
    fn found(&self) -> &Found {
        &self.found
    }

    fn adapter(&self) -> Option<&str> {
        self.adapter.as_deref()
    }

    fn used(&self) -> Instant {
        self.used
    }

    fn weights(&self) -> u64 {
        self.weights
    }

    fn running(&self) -> usize {
        self.jobs.len()
    }

    fn failed(&self) -> bool {
        self.failed
    }

    fn prefills(&self) -> bool {
        !self.jobs.is_empty()
    }

    fn step(&mut self, prefill: Prefill) {
        let advanced = guarded(|| {
            self.advance(prefill);
            Ok(())
        });
        if let Err(e) = advanced {
            self.failed = true;
            self.end(&e);
        }
    }
}

impl<N: BatchNetwork> Drop for LoadedEncoder<N> {
    fn drop(&mut self) {
        self.end(&Error::new(Kind::ServerShutdown, "", "the server is stopping"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use mlxk_core::Origin;

    use super::*;

    /// A network whose outputs are the sizes of its batches; an input is its number of tokens.
    struct Sizes;

    impl BatchNetwork for Sizes {
        type Input = usize;
        type Options = ();
        type Output = usize;
        type Answer = Vec<usize>;

        fn tokens(input: &usize) -> usize {
            *input
        }

        fn truncated(_: &usize) -> bool {
            false
        }

        fn compute(&self, inputs: &[(&usize, &())]) -> Result<Vec<Result<usize>>> {
            if inputs.iter().any(|(tokens, ())| **tokens == 13) {
                panic!("boo");
            }
            let bad = || Err(Error::new(Kind::Execution, "", "not finite"));
            let output = |tokens: usize| if tokens == 7 { bad() } else { Ok(inputs.len()) };
            Ok(inputs.iter().map(|(tokens, ())| output(**tokens)).collect())
        }

        fn answer(outputs: Vec<usize>, _: u64, _: u64) -> Vec<usize> {
            outputs
        }
    }

    type Receiver = oneshot::Receiver<Result<Vec<usize>>>;

    fn loaded() -> LoadedEncoder<Sizes> {
        let path = PathBuf::from("m");
        let found = Found { name: "m".into(), path, revision: None, origin: Origin::Workspace };
        LoadedEncoder::new(Sizes, found, None, 1)
    }

    fn join(model: &mut LoadedEncoder<Sizes>, inputs: Vec<usize>) -> Receiver {
        let (send, receiver) = oneshot::channel();
        model.join(Job::new(inputs, (), send));
        receiver
    }

    #[test]
    fn a_large_request_lets_small_ones_pass() {
        let mut model = loaded();
        let mut large = join(&mut model, vec![250; 100]);
        let mut small = join(&mut model, vec![250, 250]);
        model.step(Prefill::Chunk);
        // Two of each fit into a batch.
        assert_eq!(small.try_recv().unwrap().unwrap(), [4, 4]);
        assert!(large.try_recv().is_err() && model.running() == 1);
        (0..25).for_each(|_| model.step(Prefill::Chunk));
        assert_eq!(large.try_recv().unwrap().unwrap().len(), 100);
    }

    #[test]
    fn a_batch_beside_streams_takes_about_their_time() {
        let mut model = loaded();
        let answer = join(&mut model, vec![10; 1000]);
        model.step(Prefill::Fair { streams: None });
        assert_eq!(model.jobs[0].outputs.len(), 1, "an input without a known pace");
        model.pace = Some(Duration::from_millis(1));
        model.step(Prefill::Fair { streams: Some(Duration::from_millis(50)) });
        assert_eq!(model.jobs[0].outputs.len(), 6);
        drop(answer);
        model.step(Prefill::Chunk);
        assert_eq!(model.running(), 0, "nobody waits for it");
    }

    #[test]
    fn an_error_ends_its_request_alone_and_a_panic_all() {
        let mut model = loaded();
        let [mut bad, mut good] = [vec![1, 7], vec![1, 1]].map(|inputs| join(&mut model, inputs));
        model.step(Prefill::Chunk);
        assert_eq!(bad.try_recv().unwrap().unwrap_err().kind, Kind::Execution);
        assert_eq!(good.try_recv().unwrap().unwrap(), [4, 4]);
        let [mut one, mut two] = [vec![13], vec![1]].map(|inputs| join(&mut model, inputs));
        model.step(Prefill::Chunk);
        assert!(model.failed());
        for answer in [&mut one, &mut two] {
            assert_eq!(answer.try_recv().unwrap().unwrap_err().kind, Kind::Internal);
        }
    }
}
