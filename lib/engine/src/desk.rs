//! A model in memory, with the requests that it answers.

use std::collections::BTreeMap;
use std::time::Instant;

use mlxk_core::{Error, Facts, Found, Health, Kind, Plan, Result, health, policy, probe};
use mlxk_infer::distributed::Party;
use mlxk_infer::generate::{End as Ended, Reason as Ending};
use mlxk_infer::{Event as Heard, Memory, Model, Ready, Request, Runner, Vocabulary};
use mlxk_serve::{Call, End, Event, Likelihood, Reason};
use tokio::sync::mpsc::UnboundedSender;

/// Where the events of a request go.
pub type Hearer = UnboundedSender<Result<Event>>;

/// Tokens of an answer that memory is kept for where its length is not asked.
const EXPECTED: u64 = 1024;

/// A model in memory.
pub struct Desk {
    /// Which it is.
    pub found: Found,
    /// Bytes of its weights.
    pub weights: u64,
    /// When it was last asked.
    pub used: Instant,
    /// Bytes of the keys and values of a token.
    token: u64,
    runner: Runner<Model>,
    answers: BTreeMap<u64, Asked>,
}

/// A request that is being answered.
struct Asked {
    send: Hearer,
    /// Bytes that its text may take.
    bytes: u64,
}

/// What a model will take, told before it is loaded.
pub struct Weighed {
    /// What is known of it.
    pub facts: Facts,
    /// How it runs.
    pub plan: Plan,
    /// Bytes of its weights.
    pub weights: u64,
    token: u64,
}

/// Reads what a model is, without loading it.
///
/// # Errors
/// If it cannot run.
pub fn weigh(found: &Found) -> Result<Weighed> {
    read(found, |facts, health, plan| mlxk_infer::admit(facts, health, plan).map(|_| ()))
}

/// The same for a model of which a part will be loaded here.
///
/// # Errors
/// If it cannot run.
pub fn weigh_part(found: &Found) -> Result<Weighed> {
    read(found, mlxk_infer::admit_part)
}

fn read(found: &Found, admit: fn(&Facts, &Health, &Plan) -> Result<()>) -> Result<Weighed> {
    const MANY: u64 = 1024;
    let facts = probe::read(found)?;
    let health = health::check(&facts);
    let plan = policy::decide(&facts, &health);
    admit(&facts, &health, &plan)?;
    let on_cpu = mlxk_infer::on_cpu()?;
    let weights = mlxk_infer::estimate(&facts, 0, on_cpu)?;
    let token = (mlxk_infer::estimate(&facts, MANY, on_cpu)? - weights) / MANY;
    Ok(Weighed { facts, plan, weights, token })
}

impl Desk {
    /// Loads a model.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn open(weighed: Weighed, memory: &Memory) -> Result<Desk> {
        let model = mlxk_infer::load(&weighed.facts, &weighed.plan)?;
        Desk::of(model, weighed, memory)
    }

    /// Loads the part of a model that is this rank's, while the others load theirs.
    ///
    /// # Errors
    /// If one of them cannot.
    pub fn lead(weighed: Weighed, party: Party, memory: &Memory) -> Result<Desk> {
        let (weights, token) = (party.bytes(), party.part().of(weighed.token));
        let model = party.load(&weighed.facts, &weighed.plan)?;
        Desk::of(model, Weighed { weights, token, ..weighed }, memory)
    }

    fn of(mut model: Model, weighed: Weighed, memory: &Memory) -> Result<Desk> {
        let Weighed { facts, plan, weights, token } = weighed;
        model.memory = memory.clone();
        let runner = Runner::new(model, &facts, &plan)?;
        let (found, used, answers) = (facts.found.clone(), Instant::now(), BTreeMap::new());
        Ok(Desk { found, weights, used, token, runner, answers })
    }

    /// Requests that are being answered.
    pub fn running(&self) -> usize {
        self.answers.len()
    }

    /// Bytes that their texts may take.
    pub fn texts(&self) -> u64 {
        self.answers.values().map(|asked| asked.bytes).sum()
    }

    /// How many tokens the prompt of a request has.
    pub fn count(&mut self, request: &Request) -> Result<u64> {
        self.used = Instant::now();
        self.runner.count(request)
    }

    /// Bytes that the text of a request may take, whose prompt has so many tokens.
    pub fn need(&self, request: &Request, prompt: u64) -> u64 {
        let window = self.runner.context_length().unwrap_or(u64::MAX);
        let answer = request.options.max_tokens.unwrap_or(EXPECTED);
        prompt.saturating_add(answer).min(window).saturating_mul(self.token)
    }

    /// What rules for answers are made ready with.
    pub fn vocabulary(&self) -> Result<Vocabulary> {
        self.runner.vocabulary().cloned()
    }

    /// Takes a request in beside those that are being answered, with its rules made ready.
    pub fn join(&mut self, request: &Request, ready: Option<Ready>, prompt: u64, send: Hearer) {
        self.used = Instant::now();
        match self.runner.join_ready(request, ready) {
            Ok(number) => {
                // Who has gone is noticed at the next step.
                let _ = send.send(Ok(Event::Begun { prompt_tokens: prompt }));
                let bytes = self.need(request, prompt);
                self.answers.insert(number, Asked { send, bytes });
            }
            Err(e) => {
                let _ = send.send(Err(e));
            }
        }
    }

    /// Goes on by a step, without those that nobody listens to.
    pub fn step(&mut self) {
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
        let events = self.runner.step();
        for (number, event) in events {
            let Some(asked) = self.answers.get(&number) else { continue };
            let over = matches!(event, Ok(Heard::End(_)) | Err(_));
            let _ = asked.send.send(event.map(told));
            if over {
                self.answers.remove(&number);
            }
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for asked in self.answers.values() {
            let message = "the server is stopping";
            let _ = asked.send.send(Err(Error::new(Kind::ServerShutdown, "", message)));
        }
    }
}

fn told(event: Heard) -> Event {
    match event {
        Heard::Logprobs(told) => {
            let top = told.top.into_iter().map(likelihood).collect();
            Event::Logprobs(likelihood(told.own), top)
        }
        Heard::Reasoning(text) => Event::Reasoning(text),
        Heard::Text(text) => Event::Text(text),
        Heard::Call(call) => {
            let arguments = serde_json::Value::Object(call.arguments).to_string();
            Event::Call(Call { id: call.id, name: call.name, arguments })
        }
        Heard::End(end) => Event::End(ended(&end)),
    }
}

fn likelihood(told: mlxk_infer::generate::Likelihood) -> Likelihood {
    Likelihood { text: told.text, logprob: told.logprob }
}

fn ended(end: &Ended) -> End {
    End {
        reason: match end.reason {
            Ending::Stop | Ending::Interrupted => Reason::Stop,
            Ending::Calls => Reason::Calls,
            Ending::Length(_) => Reason::Length,
        },
        prompt_tokens: end.prompt_tokens,
        cached_tokens: end.cached_tokens,
        completion_tokens: end.completion_tokens,
        reasoning_tokens: end.reasoning_tokens,
        stop: end.stop.clone(),
    }
}
