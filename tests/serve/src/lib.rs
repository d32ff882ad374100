//! An engine that answers from a script, for tests of the server.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod ask;
mod served;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mlxk_core::policy::encoder::EncoderPlan;
use mlxk_core::probe::sentence::{Pooling, Similarity};
use mlxk_core::{Error, Kind, Result, Task};
use mlxk_processor::engine::{
    EmbedInput, EmbedRequest, Embeddings, Events, Figures, ModelInfo, ScoreRequest, Scores,
    TranscriptEvents,
};
use mlxk_processor::event::{End, FinishReason, LengthLimit, Logprobs, TokenLogprob};
use mlxk_processor::request::Prompt;
use mlxk_processor::transcript::{
    Segment, TranscribeRequest, TranscriptEnd, TranscriptEvent, Word,
};
use mlxk_processor::{Conversation, Engine, Event, Request, ToolCall};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

pub use ask::{Answered, ask, get, post, post_form, settings};
pub use served::Served;

/// A tool call; `arguments` is the JSON text of an object.
pub fn tool_call(id: &str, name: &str, arguments: &str) -> Event {
    let arguments: Map<String, Value> = serde_json::from_str(arguments).unwrap();
    Event::ToolCall(ToolCall { id: id.to_owned(), name: name.to_owned(), arguments })
}

/// Number of tokens of every prompt.
pub const PROMPT: u64 = 7;

/// Capacity of the engine's queue, in requests.
pub const ROOM: u64 = 128;

/// An engine that answers from a script.
#[derive(Clone, Default)]
pub struct Script {
    /// Events of each model's completions by turn; the text `FAIL` stands for an error.
    answers: BTreeMap<String, Vec<Vec<Event>>>,
    /// Pause before each event.
    pace: Duration,
    /// Models that refuse tools, unless a request lets them leave tools out.
    toolless: Vec<String>,
    /// Largest number of running requests.
    most: Option<u64>,
    /// What the schemas of tools leave to the model.
    unheld: Vec<String>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    running: AtomicU64,
    last: Mutex<Option<Request>>,
    embedded: Mutex<Option<EmbedRequest>>,
    scored: Mutex<Option<ScoreRequest>>,
    transcribed: Mutex<Option<TranscribeRequest>>,
}

/// A guard that counts a request as running until its task ends in any way.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Script {
    /// A script with the models `words`, which says `One two three.`, `calls`, which reasons and
    /// calls a tool, and `fails`, which fails midway.
    pub fn new() -> Script {
        let call = tool_call("call_1", "weather", r#"{"city":"Paris"}"#);
        Script::default()
            .with("words", ["One", " two", " three."].map(text))
            .with("calls", [Event::Reasoning("Hm.".to_owned()), call])
            .with("fails", [text("One"), text("FAIL")])
    }

    /// Adds a model with these events.
    pub fn with(self, model: &str, says: impl IntoIterator<Item = Event>) -> Script {
        self.with_turns(model, [says.into_iter().collect()])
    }

    /// Adds a model with the events of each turn. The turn is the number of tool results in the
    /// conversation; the last one also answers all requests without tools.
    pub fn with_turns(mut self, model: &str, turns: impl Into<Vec<Vec<Event>>>) -> Script {
        self.answers.insert(model.to_owned(), turns.into());
        self
    }

    /// Adds a model whose text is the current time, as of [`now`], repeated `times` times.
    pub fn timed(self, model: &str, times: usize) -> Script {
        self.with(model, vec![text("NOW"); times])
    }

    /// Makes the model `model` one whose chat template has no place for tools.
    pub fn toolless(mut self, model: &str) -> Script {
        self.toolless.push(model.to_owned());
        self
    }

    /// Sets the pause before each event.
    pub fn pace(self, pace: Duration) -> Script {
        Script { pace, ..self }
    }

    /// Sets the largest number of running requests; further ones fail as `queue_full`.
    pub fn most(self, most: u64) -> Script {
        Script { most: Some(most), ..self }
    }

    /// The same engine, whose requests leave some keywords of schemas to the model.
    pub fn unheld(self, keyword: &str) -> Script {
        Script { unheld: vec![keyword.to_owned()], ..self }
    }

    /// The last request.
    pub fn last(&self) -> Request {
        self.shared.last.lock().unwrap().clone().unwrap()
    }

    /// The last request for embeddings.
    pub fn embedded(&self) -> EmbedRequest {
        self.shared.embedded.lock().unwrap().clone().unwrap()
    }

    /// The last request for scores.
    pub fn scored(&self) -> ScoreRequest {
        self.shared.scored.lock().unwrap().clone().unwrap()
    }

    /// The last request to write down speech.
    pub fn transcribed(&self) -> TranscribeRequest {
        self.shared.transcribed.lock().unwrap().clone().unwrap()
    }

    /// The speech `Ja. Nein.` in two segments, of which the model `breaks` fails after the first.
    async fn hear(
        self,
        request: TranscribeRequest,
        send: mpsc::UnboundedSender<Result<TranscriptEvent>>,
    ) {
        let word = |time: std::ops::Range<f64>, text: &str| Word {
            time,
            text: text.to_owned(),
            probability: 0.5,
        };
        let segment = |id, time: std::ops::Range<f64>, text: &str| Segment {
            id,
            time: time.clone(),
            text: text.to_owned(),
            tokens: vec![1, 2],
            words: if request.options.words { vec![word(time, text)] } else { Vec::new() },
            ..Segment::default()
        };
        let failure = || Err(Error::new(Kind::Execution, "/home/me/model", "failed"));
        let second = match &*request.model {
            "breaks" => failure(),
            _ => Ok(TranscriptEvent::Segment(segment(1, 1.0..2.5, " Nein."))),
        };
        let first = match &*request.model {
            "deaf" => Err(Error::new(Kind::CapabilityNotSupported, "org/deaf", "writes text")),
            _ => Ok(TranscriptEvent::Language { code: "de".to_owned(), probability: Some(0.75) }),
        };
        for event in [
            first,
            Ok(TranscriptEvent::Segment(segment(0, 0.0..1.0, " Ja."))),
            Ok(TranscriptEvent::Progress(1.0)),
            second,
            Ok(TranscriptEvent::End(TranscriptEnd { duration: 2.5, tokens: 4 })),
        ] {
            sleep(self.pace).await;
            let failed = event.is_err();
            if send.send(event).is_err() || failed {
                return;
            }
        }
    }

    async fn answer(self, request: Request, send: mpsc::UnboundedSender<Result<Event>>) {
        let turns = &self.answers[&request.model];
        let says = &turns[turn(&request).min(turns.len() - 1)];
        let logprobs = request.options.logprobs.is_some();
        let most = request.options.max_tokens;
        let stops = request.options.stop.clone().unwrap_or_default();
        let (mut given, mut reasoned, mut stop) = (0, 0, None);
        let mut reason = FinishReason::Stop;
        for event in says {
            if Some(given) == most {
                reason = FinishReason::Length(LengthLimit::MaxTokens);
                break;
            }
            stop = match event {
                Event::Text(text) if stops.contains(text) => Some(text.clone()),
                _ => None,
            };
            if stop.is_some() {
                break;
            }
            if !self.pace.is_zero() {
                sleep(self.pace).await;
            }
            if let (true, Event::Text(text)) = (logprobs, event) {
                let bytes = text.clone().into();
                let token = TokenLogprob { id: 0, text: text.clone(), bytes, logprob: -0.5 };
                let logprobs = Logprobs { token: token.clone(), top: vec![token], in_text: true };
                let _ = send.send(Ok(Event::Logprobs(logprobs)));
            }
            let piece = match event {
                Event::Text(text) if text == "FAIL" => {
                    Err(Error::new(Kind::Execution, "/home/me/model", "failed"))
                }
                Event::Text(text) if text == "NOW" => Ok(Event::Text(now().to_string())),
                event => Ok(event.clone()),
            };
            if matches!(event, Event::ToolCall(_)) {
                reason = FinishReason::ToolCalls;
            }
            let failed = piece.is_err();
            if send.send(piece).is_err() || failed {
                return;
            }
            given += 1;
            reasoned += u64::from(matches!(event, Event::Reasoning(_)));
        }
        let end = End {
            reason,
            prompt_tokens: PROMPT,
            cached_tokens: 0,
            completion_tokens: given,
            reasoning_tokens: reasoned,
            stop,
            seed: 0,
        };
        // The receiver may be gone.
        let _ = send.send(Ok(Event::End(end)));
    }
}

/// The turn of a request; the last one if it has no tools.
fn turn(request: &Request) -> usize {
    match &request.prompt {
        Prompt::Chat(chat) if has_tools(request) => {
            chat.messages.iter().filter(|message| message["role"] == "tool").count()
        }
        _ => usize::MAX,
    }
}

fn has_tools(request: &Request) -> bool {
    matches!(&request.prompt, Prompt::Chat(chat) if chat.tools.is_some())
}

impl Engine for Script {
    fn models(&self) -> Result<Vec<ModelInfo>> {
        let listed = |id: &String| ModelInfo {
            id: id.clone(),
            workspace: !id.contains('/'),
            context_length: Some(2048),
            loaded: true,
            task: if id.contains("embed") { Task::Embedding } else { Task::Text },
            encoder: id.contains("embed").then(|| EncoderPlan {
                dimensions: Some(3),
                pooling: vec![Pooling::LastToken],
                max_length: Some(512),
                similarity: Some(Similarity::Cosine),
                ..EncoderPlan::default()
            }),
        };
        Ok(self.answers.keys().map(listed).collect())
    }

    fn submit(&self, request: Request) -> Result<Events> {
        if !self.answers.contains_key(&request.model) {
            return Err(Error::new(Kind::ModelNotFound, &request.model, "no such model"));
        }
        if self.most.is_some_and(|most| self.shared.running.load(Ordering::Relaxed) >= most) {
            return Err(Error::new(Kind::QueueFull, "", "too many requests wait"));
        }
        *self.shared.last.lock().unwrap() = Some(request.clone());
        let (send, events) = mpsc::unbounded_channel();
        if self.toolless.contains(&request.model) && has_tools(&request) && !request.lenient {
            let _ = send.send(Err(Error::new(Kind::Validation, "", "`tools`: no place for them")));
            return Ok(events);
        }
        let unheld = self.unheld.clone();
        let _ = send.send(Ok(Event::Started { prompt_tokens: PROMPT, unheld }));
        self.shared.running.fetch_add(1, Ordering::Relaxed);
        let script = self.clone();
        tokio::spawn(async move {
            let running = Running(script.shared.clone());
            let gone = send.clone();
            tokio::select! {
                () = script.answer(request, send) => {}
                () = gone.closed() => {}
            }
            drop(running);
        });
        Ok(events)
    }

    fn count(&self, _: Request) -> Result<oneshot::Receiver<Result<u64>>> {
        let (send, count) = oneshot::channel();
        let _ = send.send(Ok(PROMPT));
        Ok(count)
    }

    /// Vectors of the input's length or number of tokens, and of the request's dimensions.
    fn embed(&self, request: EmbedRequest) -> Result<oneshot::Receiver<Result<Embeddings>>> {
        let (send, embeddings) = oneshot::channel();
        let size = request.dimensions.unwrap_or(3);
        let length = |input: &EmbedInput| match input {
            EmbedInput::Text(text) => text.chars().count(),
            EmbedInput::Tokens(ids) => ids.len(),
        };
        let vectors: Vec<_> = request.inputs.iter().map(|i| vec![length(i) as f32; size]).collect();
        let prompt_tokens = PROMPT * vectors.len() as u64;
        let truncated = u64::from(request.truncate);
        let _ = send.send(Ok(Embeddings { vectors, prompt_tokens, truncated }));
        *self.shared.embedded.lock().unwrap() = Some(request);
        Ok(embeddings)
    }

    /// Scores that are the length of a document.
    fn score(&self, request: ScoreRequest) -> Result<oneshot::Receiver<Result<Scores>>> {
        let (send, scores) = oneshot::channel();
        let all = request.documents.iter().map(|text| text.chars().count() as f32).collect();
        let prompt_tokens = PROMPT * request.documents.len() as u64;
        let _ = send.send(Ok(Scores { scores: all, prompt_tokens, truncated: 0 }));
        *self.shared.scored.lock().unwrap() = Some(request);
        Ok(scores)
    }

    fn transcribe(&self, request: TranscribeRequest) -> Result<TranscriptEvents> {
        let (send, events) = mpsc::unbounded_channel();
        *self.shared.transcribed.lock().unwrap() = Some(request.clone());
        self.shared.running.fetch_add(1, Ordering::Relaxed);
        let script = self.clone();
        tokio::spawn(async move {
            let running = Running(script.shared.clone());
            let gone = send.clone();
            tokio::select! {
                () = script.hear(request, send) => {}
                () = gone.closed() => {}
            }
            drop(running);
        });
        Ok(events)
    }

    fn queue_capacity(&self) -> u64 {
        ROOM
    }

    fn figures(&self) -> Figures {
        Figures {
            running: self.shared.running.load(Ordering::Relaxed),
            models: self.answers.len() as u64,
            ..Figures::default()
        }
    }
}

/// The current Unix time in nanoseconds.
pub fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// The conversation of a request; panics if it has another prompt.
pub fn conversation(request: &Request) -> Conversation {
    match &request.prompt {
        Prompt::Chat(conversation) => conversation.clone(),
        other => panic!("{other:?}"),
    }
}

/// An event with a delta of text.
pub fn text(text: &str) -> Event {
    Event::Text(text.to_owned())
}
