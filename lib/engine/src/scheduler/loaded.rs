//! A model in memory, with the requests that it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use mlxk_core::{Error, Found, Kind, Result};
use mlxk_processor::event::{Event, FinishReason, LengthLimit};
use mlxk_processor::{Prepared, Processor};
use mlxk_tensor::mlx;
use tokio::sync::mpsc::UnboundedSender;

use super::guard::guarded;
use super::weigh::Weighed;
use crate::cost::Cost;
use crate::distributed::Party;
use crate::model::Model;
use crate::prefix_cache::Memory;
use crate::runner::{Runner, Source};

/// Where the events of a request go.
pub type Hearer = UnboundedSender<Result<Event>>;

/// Tokens of an answer that memory is kept for at a time where its length is not asked.
const EXPECTED: u64 = 1024;

/// A model in memory.
pub struct Desk<S: Source = Model> {
    /// Which it is.
    pub found: Found,
    /// When it was last asked.
    pub used: Instant,
    /// Cost of the model, or of the part that is loaded here.
    cost: Cost,
    runner: Runner<S>,
    answers: BTreeMap<u64, Asked>,
    failed: bool,
}

/// A request that is being answered.
struct Asked {
    send: Hearer,
    /// Tokens of the prompt.
    prompt: u64,
    /// Tokens of the answer that memory is kept for.
    kept: u64,
    /// The most tokens that it may have.
    limit: u64,
}

impl Desk {
    /// Loads a model, for requests that `processor` made ready.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn open(weighed: Weighed, processor: Arc<Processor>, memory: &Memory) -> Result<Desk> {
        let mut model = crate::load(&weighed.facts, &weighed.plan)?;
        model.forward.memory = memory.clone();
        let cost = weighed.cost.with(memory);
        Ok(Desk::of(model, weighed.facts.found, cost, processor))
    }

    /// Loads the part of a model that is this rank's, while the others load theirs.
    ///
    /// # Errors
    /// If one of them cannot.
    pub fn lead(
        weighed: Weighed,
        party: Party,
        processor: Arc<Processor>,
        memory: &Memory,
    ) -> Result<Desk> {
        let Weighed { facts, plan, .. } = weighed;
        let cost = Cost::of(&facts, &plan, mlx::on_cpu()?, Some(party.part()))?.with(memory);
        let mut model = party.load(&facts, &plan)?;
        model.forward.memory = memory.clone();
        Ok(Desk::of(model, facts.found, cost, processor))
    }

    /// Takes `bytes` at most for texts that are over.
    pub fn bound_prefixes(&mut self, bytes: u64) {
        self.runner.source_mut().bound_prefixes(bytes);
    }

    /// Bytes that texts take that are over.
    pub fn prefixes(&self) -> u64 {
        self.runner.source().prefixes()
    }
}

impl<S: Source> Desk<S> {
    fn of(source: S, found: Found, cost: Cost, processor: Arc<Processor>) -> Desk<S> {
        let (used, answers) = (Instant::now(), BTreeMap::new());
        let runner = Runner::with(source, processor);
        Desk { found, used, cost, runner, answers, failed: false }
    }

    /// Requests that are being answered.
    pub fn running(&self) -> usize {
        self.answers.len()
    }

    /// Whether it is of no more use.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Bytes of the model's weights.
    pub fn weights(&self) -> u64 {
        self.cost.weights
    }

    /// Bytes that their texts may take.
    pub fn texts(&self) -> u64 {
        self.answers.values().map(|asked| self.cost.sequence(asked.prompt + asked.kept)).sum()
    }

    /// Bytes that memory is to be kept for if a request joins.
    pub fn need(&self, prepared: &Prepared) -> u64 {
        self.cost.sequence(prepared.prompt_tokens().saturating_add(kept(prepared)))
    }

    /// Takes a request in beside those that are being answered.
    pub fn join(&mut self, prepared: Prepared, send: Hearer) {
        self.used = Instant::now();
        let (prompt, kept, limit) = (prepared.prompt_tokens(), kept(&prepared), prepared.limit());
        match guarded(|| self.runner.join_prepared(prepared)) {
            Ok(number) => {
                // Who has gone is noticed at the next step.
                let _ = send.send(Ok(Event::Started { prompt_tokens: prompt }));
                self.answers.insert(number, Asked { send, prompt, kept, limit });
            }
            Err(e) => {
                let _ = send.send(Err(e));
            }
        }
    }

    /// Goes on by a step, without those that nobody listens to. After a panic there are no more.
    pub fn step(&mut self) {
        let advanced = guarded(|| {
            self.advance();
            Ok(())
        });
        if let Err(e) = advanced {
            self.failed = true;
            for (_, asked) in std::mem::take(&mut self.answers) {
                // Who has gone needs no reason.
                let _ = asked.send.send(Err(e.clone()));
            }
        }
    }

    fn advance(&mut self) {
        let gone = self.answers.iter().filter(|(_, asked)| asked.send.is_closed());
        let gone: Vec<u64> = gone.map(|(&number, _)| number).collect();
        for number in gone {
            self.answers.remove(&number);
            self.runner.leave(number);
        }
        if self.answers.is_empty() {
            return;
        }
        self.used = Instant::now();
        for (number, event) in self.runner.step() {
            self.tell(number, event);
        }
    }

    /// Keeps memory of the `free` bytes for answers that are as long as there is memory kept for;
    /// ends those for which there is none.
    pub fn extend(&mut self, mut free: u64) {
        let long = |number: u64, asked: &Asked| {
            asked.kept < asked.limit && self.runner.written(number) >= asked.kept
        };
        let long = self.answers.iter().filter(|(number, asked)| long(**number, asked));
        let long: Vec<u64> = long.map(|(&number, _)| number).collect();
        for number in long {
            let Some(asked) = self.answers.get_mut(&number) else { continue };
            let more = EXPECTED.min(asked.limit - asked.kept);
            let now = asked.prompt + asked.kept;
            let bytes = self.cost.sequence(now + more) - self.cost.sequence(now);
            match free.checked_sub(bytes) {
                Some(left) => {
                    asked.kept += more;
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

    fn tell(&mut self, number: u64, event: Result<Event>) {
        let Some(asked) = self.answers.get(&number) else { return };
        // Clients are told of the tokens of the text that they get.
        if matches!(&event, Ok(Event::Logprobs(logprobs)) if !logprobs.in_text) {
            return;
        }
        let over = matches!(event, Ok(Event::End(_)) | Err(_));
        // As above.
        let _ = asked.send.send(event);
        if over {
            self.answers.remove(&number);
        }
    }
}

/// Tokens of an answer that memory is kept for at first.
fn kept(prepared: &Prepared) -> u64 {
    match prepared.has_max_tokens {
        true => prepared.limit(),
        false => prepared.limit().min(EXPECTED),
    }
}

impl<S: Source> Drop for Desk<S> {
    fn drop(&mut self) {
        for asked in self.answers.values() {
            let message = "the server is stopping";
            let _ = asked.send.send(Err(Error::new(Kind::ServerShutdown, "", message)));
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
        let weighed = super::super::weigh::weigh(&found).unwrap();
        let processor = Arc::new(Processor::read(&weighed.facts, &weighed.plan).unwrap());
        let prompt = Prompt::Tokens(vec![1]);
        let prepared = processor.prepare(&Request::new(prompt)).unwrap();
        let mut desk = Desk::of(Faulty, weighed.facts.found, weighed.cost, processor);
        let (send, mut events) = unbounded_channel();
        desk.join(prepared, send);
        assert!(!desk.failed() && desk.running() == 1);
        desk.step();
        assert!(desk.failed() && desk.running() == 0);
        assert_eq!(events.try_recv().unwrap().unwrap(), Event::Started { prompt_tokens: 1 });
        assert_eq!(events.try_recv().unwrap().unwrap_err().kind, Kind::Internal);
        assert!(events.try_recv().is_err());
    }
}
