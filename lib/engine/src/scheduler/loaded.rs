//! A loaded model with the requests that it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlxk_core::{Error, Found, Kind, Result};
use mlxk_processor::event::{Event, FinishReason, LengthLimit};
use mlxk_processor::{Prepared, Processor};
use mlxk_tensor::mlx;
use tokio::sync::mpsc::UnboundedSender;

use super::costed::Costed;
use super::guard::guarded;
use super::resident::Resident;
use crate::cost::Cost;
use crate::distributed::Group;
use crate::model::Model;
use crate::prefill::Prefill;
use crate::prefix_cache::CacheOptions;
use crate::runner::{Runner, Source};

/// Channel of the events of a request; closed once the client has disconnected.
pub type EventSender = UnboundedSender<Result<Event>>;

/// Tokens of an answer for which memory is reserved at a time, if the request states no length.
const EXPECTED: u64 = 1024;

/// A loaded model with the requests that it answers.
pub struct LoadedModel<S: Source = Model> {
    /// The model on disk.
    found: Found,
    /// Time at which a request last joined.
    used: Instant,
    /// Cost of the model, or of the part that is loaded here.
    cost: Cost,
    runner: Runner<S>,
    answers: BTreeMap<u64, Running>,
    failed: bool,
}

/// A running request.
struct Running {
    send: EventSender,
    /// Tokens of the prompt.
    prompt: u64,
    /// Tokens of the answer that memory is reserved for.
    kept: u64,
    /// Maximum number of tokens of the answer.
    limit: u64,
}

impl LoadedModel {
    /// Loads a whole model, for requests that `processor` prepared.
    ///
    /// # Errors
    /// The errors of [`load`](crate::load).
    pub fn open(
        costed: Costed,
        processor: Arc<Processor>,
        options: &CacheOptions,
    ) -> Result<LoadedModel> {
        let mut model = crate::load(&costed.facts, &costed.plan)?;
        model.forward.cache_options = options.clone();
        let cost = costed.cost.with(options);
        Ok(LoadedModel::of(model, costed.facts.found, cost, processor))
    }

    /// Loads the part of a model that rank 0 holds, while the ranks of `group` load theirs.
    ///
    /// # Errors
    /// If a rank cannot load its part.
    pub fn lead(
        costed: Costed,
        group: Group,
        processor: Arc<Processor>,
        options: &CacheOptions,
    ) -> Result<LoadedModel> {
        let Costed { facts, plan, .. } = costed;
        let cost = Cost::of(&facts, &plan, mlx::on_cpu()?, Some(group.part()))?.with(options);
        let mut model = group.load(&facts, &plan)?;
        model.forward.cache_options = options.clone();
        Ok(LoadedModel::of(model, facts.found, cost, processor))
    }
}

impl<S: Source> LoadedModel<S> {
    fn of(source: S, found: Found, cost: Cost, processor: Arc<Processor>) -> LoadedModel<S> {
        let (used, answers) = (Instant::now(), BTreeMap::new());
        let runner = Runner::with(source, processor);
        LoadedModel { found, used, cost, runner, answers, failed: false }
    }

    /// Bytes to reserve for a request when it joins.
    pub fn need(&self, prepared: &Prepared) -> u64 {
        self.cost.sequence(prepared.prompt_tokens().saturating_add(kept(prepared)))
    }

    /// Adds a request to the batch; `send` receives its events.
    pub fn join(&mut self, mut prepared: Prepared, send: EventSender) {
        self.used = Instant::now();
        let unheld = std::mem::take(&mut prepared.unheld);
        let (prompt, kept, limit) = (prepared.prompt_tokens(), kept(&prepared), prepared.limit());
        match guarded(|| self.runner.join_prepared(prepared)) {
            Ok(number) => {
                // A client that has gone is noticed at the next step.
                let _ = send.send(Ok(Event::Started { prompt_tokens: prompt, unheld }));
                self.answers.insert(number, Running { send, prompt, kept, limit });
            }
            Err(e) => {
                let _ = send.send(Err(e));
            }
        }
    }

    fn advance(&mut self, prefill: Prefill) {
        let gone = self.answers.iter().filter(|(_, running)| running.send.is_closed());
        let gone: Vec<u64> = gone.map(|(&number, _)| number).collect();
        for number in gone {
            self.answers.remove(&number);
            self.runner.leave(number);
        }
        if self.answers.is_empty() {
            return;
        }
        self.used = Instant::now();
        for (number, event) in self.runner.step_with(prefill) {
            self.tell(number, event);
        }
    }

    fn tell(&mut self, number: u64, event: Result<Event>) {
        let Some(running) = self.answers.get(&number) else { return };
        // Clients get the log probabilities of tokens whose text they get.
        if matches!(&event, Ok(Event::Logprobs(logprobs)) if !logprobs.in_text) {
            return;
        }
        let over = matches!(event, Ok(Event::End(_)) | Err(_));
        // A client that has gone is noticed at the next step.
        let _ = running.send.send(event);
        if over {
            self.answers.remove(&number);
        }
    }
}

impl<S: Source> Resident for LoadedModel<S> {
    fn found(&self) -> &Found {
        &self.found
    }

    fn used(&self) -> Instant {
        self.used
    }

    fn weights(&self) -> u64 {
        self.cost.tensors()
    }

    fn running(&self) -> usize {
        self.answers.len()
    }

    fn failed(&self) -> bool {
        self.failed
    }

    fn sequence_bytes(&self) -> u64 {
        self.answers.values().map(|running| self.cost.sequence(running.prompt + running.kept)).sum()
    }

    fn prefix_bytes(&self) -> u64 {
        self.runner.source().prefix_bytes()
    }

    fn limit_prefix_cache(&mut self, bytes: u64) {
        self.runner.source_mut().limit_prefix_cache(bytes);
    }

    fn decode_time(&self) -> Option<Duration> {
        self.runner.source().decode_time()
    }

    fn prefills(&self) -> bool {
        self.runner.source().prefills()
    }

    /// Advances all requests by one step, and drops those whose clients have disconnected. A panic
    /// ends all of them with an error.
    fn step(&mut self, prefill: Prefill) {
        let advanced = guarded(|| {
            self.advance(prefill);
            Ok(())
        });
        if let Err(e) = advanced {
            self.failed = true;
            for (_, running) in std::mem::take(&mut self.answers) {
                // A client that has disconnected needs no error.
                let _ = running.send.send(Err(e.clone()));
            }
        }
    }

    /// Reserves more bytes, and ends answers for which too few bytes are free.
    fn extend(&mut self, mut free: u64) {
        let long = |number: u64, running: &Running| {
            running.kept < running.limit && self.runner.written(number) >= running.kept
        };
        let long = self.answers.iter().filter(|(number, running)| long(**number, running));
        let long: Vec<u64> = long.map(|(&number, _)| number).collect();
        for number in long {
            let Some(running) = self.answers.get_mut(&number) else { continue };
            let more = EXPECTED.min(running.limit - running.kept);
            let now = running.prompt + running.kept;
            let bytes = self.cost.sequence(now + more) - self.cost.sequence(now);
            match free.checked_sub(bytes) {
                Some(left) => {
                    running.kept += more;
                    free = left;
                }
                None => {
                    for event in self.runner.end(number, FinishReason::Length(LengthLimit::Memory))
                    {
                        self.tell(number, Ok(event));
                    }
                }
            }
        }
    }
}

/// Tokens of an answer for which memory is reserved when its request joins.
fn kept(prepared: &Prepared) -> u64 {
    match prepared.has_max_tokens {
        true => prepared.limit(),
        false => prepared.limit().min(EXPECTED),
    }
}

impl<S: Source> Drop for LoadedModel<S> {
    fn drop(&mut self) {
        for running in self.answers.values() {
            let message = "the server is stopping";
            let _ = running.send.send(Err(Error::new(Kind::ServerShutdown, "", message)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::batch::Step;
    use mlxk_core::Origin;
    use mlxk_processor::request::Prompt;
    use mlxk_processor::{Constraint, Request, Sampling};
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    /// A model that panics.
    struct Faulty;

    impl Source for Faulty {
        fn join(&mut self, _: &[u32], _: Sampling, _: Option<Box<dyn Constraint>>) -> Result<u64> {
            Ok(1)
        }

        fn step(&mut self) -> Result<Step> {
            panic!("boo")
        }

        fn reused(&self, _: u64) -> u64 {
            0
        }

        fn leave(&mut self, _: u64) {}
    }

    #[test]
    fn a_panic_of_a_model_ends_its_answers_with_an_error() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/parity/llama");
        let name = path.display().to_string();
        let found = Found { name, path, revision: None, origin: Origin::Workspace };
        let costed = super::super::costed::read(&found).unwrap();
        let processor = Arc::new(Processor::read(&costed.facts, &costed.plan).unwrap());
        let prompt = Prompt::Tokens(vec![1]);
        let prepared = processor.prepare(&Request::new(prompt)).unwrap();
        let mut model = LoadedModel::of(Faulty, costed.facts.found, costed.cost, processor);
        let (send, mut events) = unbounded_channel();
        model.join(prepared, send);
        assert!(!model.failed() && model.running() == 1);
        model.step(Prefill::Chunk);
        assert!(model.failed() && model.running() == 0);
        let started = Event::Started { prompt_tokens: 1, unheld: Vec::new() };
        assert_eq!(events.try_recv().unwrap().unwrap(), started);
        assert_eq!(events.try_recv().unwrap().unwrap_err().kind, Kind::Internal);
        assert!(events.try_recv().is_err());
    }
}
