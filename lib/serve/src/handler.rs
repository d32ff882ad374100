//! From a body to its answers: the path that all APIs take.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http;
use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use http_body_util::LengthLimitError;
use mlxk_core::{Error, Kind};
use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use crate::engine::{Event, Events, Request};
use crate::error::Refusal;
use crate::fields::Fields;
use crate::format::{Answer, Wording};
use crate::job::Task;
use crate::middleware::Id;
use crate::request_metrics::Account;
use crate::routes::{App, Settings};

/// Time after which a silent stream says that it is there.
const SILENCE: Duration = Duration::from_secs(10);

/// Bytes of a body from which on reading it would keep other clients waiting.
const LARGE: usize = 64 << 10;

/// What `work` makes of the fields of a body, which has to come within limits of size and time.
pub async fn body<T: Send + 'static>(
    app: &App,
    body: Body,
    work: impl FnOnce(Fields) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let bytes = received(&app.settings, body).await?;
    let (lenient, large) = (app.settings.lenient, bytes.len() > LARGE);
    let work = move || work(Fields::parse(&bytes, lenient)?);
    if large { apart(work).await } else { work() }
}

async fn received(settings: &Settings, body: Body) -> Result<Bytes, Refusal> {
    let (limit, time) = (settings.max_body, settings.times.body);
    let large = || {
        let message = format!("the body has more than {limit} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
    };
    let broken = |e: axum::Error| match e.into_inner().is::<LengthLimitError>() {
        true => large(),
        false => Refusal::invalid("the body breaks off, or is not framed as HTTP has it"),
    };
    // One that says so itself is not waited for.
    if body.size_hint().lower() > limit as u64 {
        return Err(large());
    }
    let late = |_| {
        let message = format!("no body within {} seconds", time.as_secs_f64());
        Refusal::new(StatusCode::REQUEST_TIMEOUT, "validation_error", message)
    };
    timeout(time, to_bytes(body, limit)).await.map_err(late)?.map_err(broken)
}

/// Does `work`, which takes long, on a thread that no client waits for.
pub async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |e: JoinError| Refusal::from(Error::new(Kind::Internal, "", e.to_string()));
    spawn_blocking(work).await.map_err(failed)?
}

/// Answers in the making to all requests of a body.
pub struct Open {
    choices: Vec<Choice>,
    wording: Box<dyn Wording>,
    stream: bool,
}

impl Open {
    /// Hands the requests of a task to the engine.
    pub fn new(app: &Arc<App>, id: &Id, task: Task) -> Result<Open, Refusal> {
        let Task { requests, count: (count, field), single, stream, wording } = task;
        let room = app.engine.room();
        if count > room {
            let message = format!("`{field}`: {count} answers at once, where {room} may wait");
            return Err(Refusal::invalid(message));
        }
        let mut choices = Vec::new();
        for request in requests {
            let account = Account::open(app, &id.0, &request, stream);
            choices.push(Choice::open(account, app, request, single)?);
        }
        Ok(Open { choices, wording, stream })
    }

    /// Waits for the answers, or for their beginning if they are told as they come.
    pub async fn answer(self, id: Id) -> Result<Response, Refusal> {
        let Open { mut choices, mut wording, stream } = self;
        // What cannot be answered at all is told by a status, which a stream has no more.
        let mut prompt_tokens = Vec::new();
        for choice in &mut choices {
            prompt_tokens.push(choice.begin().await?);
        }
        if stream {
            let ready = wording.begin(&prompt_tokens).into();
            let told = Told { choices, wording, ready, id, next: 0 };
            return Ok(told.into_response());
        }
        let mut answers = Vec::new();
        for mut choice in choices {
            let mut answer = Answer::default();
            while let Some(event) = choice.next().await? {
                answer.hear(event);
            }
            answers.push(answer);
        }
        Ok(json(&wording.whole(answers)))
    }
}

/// A JSON document.
pub fn json(value: &serde_json::Value) -> Response {
    let kind = [(http::header::CONTENT_TYPE, "application/json")];
    (kind, value.to_string()).into_response()
}

/// One answer in the making.
struct Choice {
    account: Account,
    events: Events,
    /// Turns true when there is no more time.
    stopping: watch::Receiver<bool>,
    /// Whether calls after the first are left out.
    single: bool,
    calls: usize,
    over: bool,
}

impl Choice {
    fn open(
        mut account: Account,
        app: &App,
        request: Request,
        single: bool,
    ) -> Result<Choice, Refusal> {
        let events = app.engine.submit(request).map_err(|e| failed(&mut account, e))?;
        Ok(Choice { account, events, stopping: app.over(), single, calls: 0, over: false })
    }

    /// What the engine says next, unless the server stops.
    async fn hear(&mut self) -> mlxk_core::Result<Event> {
        tokio::select! {
            biased;
            _ = self.stopping.wait_for(|&stopping| stopping) => {
                Err(Error::new(Kind::ServerShutdown, "", "the server is stopping"))
            }
            event = self.events.recv() => event.unwrap_or_else(|| Err(closed())),
        }
    }

    /// Waits until the model begins: the tokens of the prompt.
    async fn begin(&mut self) -> Result<u64, Refusal> {
        match self.hear().await {
            Ok(Event::Begun { prompt_tokens }) => {
                self.account.hear(&Event::Begun { prompt_tokens });
                Ok(prompt_tokens)
            }
            Ok(_) => Err(failed(&mut self.account, closed())),
            Err(e) => Err(failed(&mut self.account, e)),
        }
    }

    /// What comes next; nothing after the end.
    async fn next(&mut self) -> Result<Option<Event>, Refusal> {
        while !self.over {
            let event = self.hear().await.map_err(|e| failed(&mut self.account, e))?;
            self.account.hear(&event);
            self.over = matches!(event, Event::End(_));
            self.calls += usize::from(matches!(event, Event::Call(_)));
            if !matches!(event, Event::Call(_)) || !self.single || self.calls == 1 {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

/// Answers that are told as they come.
struct Told {
    choices: Vec<Choice>,
    wording: Box<dyn Wording>,
    ready: VecDeque<sse::Event>,
    id: Id,
    /// The answer that is asked first for its next piece, so that none is left behind.
    next: usize,
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let keep = KeepAlive::new().interval(SILENCE).text("keep-alive");
        Sse::new(self.events()).keep_alive(keep).into_response()
    }
}

impl Told {
    fn events(self) -> impl Stream<Item = Result<sse::Event, Infallible>> {
        stream::unfold(self, |mut told| async move {
            while told.ready.is_empty() {
                if !told.advance().await {
                    return None;
                }
            }
            told.ready.pop_front().map(|event| (Ok(event), told))
        })
    }

    /// Takes in what comes next. False if there is nothing more.
    async fn advance(&mut self) -> bool {
        if self.choices.is_empty() {
            return false;
        }
        let (number, piece) = self.piece().await;
        match piece {
            Ok(Some(event)) => self.ready.extend(self.wording.piece(number, event)),
            Ok(None) => {
                self.ready.extend(self.wording.end());
                self.choices.clear();
            }
            Err(refusal) => {
                self.ready.extend(self.wording.fail(&refusal, &self.id.0));
                self.choices.clear();
            }
        }
        true
    }

    /// The next piece of whichever answer has one, with its number; none when all are complete.
    async fn piece(&mut self) -> (usize, Result<Option<Event>, Refusal>) {
        let count = self.choices.len();
        let first = self.next % count;
        self.next += 1;
        let mut open: Vec<(usize, &mut Choice)> = self.choices.iter_mut().enumerate().collect();
        open.rotate_left(first);
        open.retain(|(_, choice)| !choice.over);
        let waiting = open
            .into_iter()
            .map(|(number, choice)| Box::pin(async move { (number, choice.next().await) }));
        let waiting: Vec<_> = waiting.collect();
        if waiting.is_empty() {
            return (0, Ok(None));
        }
        futures_util::future::select_all(waiting).await.0
    }
}

fn closed() -> Error {
    Error::new(Kind::Internal, "", "the engine has gone")
}

/// Why there is no answer, or no more of it.
fn failed(account: &mut Account, error: Error) -> Refusal {
    let refusal = Refusal::from(error);
    account.fail(&refusal);
    refusal
}
