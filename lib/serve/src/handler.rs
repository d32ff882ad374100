//! The handler of all routes that generate: from a body through the engine to a response.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::future::select_all;
use futures_util::stream::{self, Stream};
use mlxk_core::{Error, Kind, Record};
use mlxk_processor::engine::Events;
use mlxk_processor::request::{Prompt, Rules};
use mlxk_processor::{Event, Request};
use tokio::sync::watch;

use crate::body;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::format::{Format, Output};
use crate::held::HeldBody;
use crate::job::Job;
use crate::log::Level;
use crate::omitted::{OMITTED, Omitted};
use crate::request_id::RequestId;
use crate::request_metrics::RequestMetrics;
use crate::state::App;

/// Interval after which an idle stream sends a keep-alive comment.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The header that names what is left to the model in the schemas of tools that are not strict.
const UNENFORCED: HeaderName = HeaderName::from_static("x-mlxk-unenforced");

/// Maximum length of that header in bytes.
const MAX_UNENFORCED: usize = 1_000;

/// Parses the body of the request `id` by its API, runs the job, and responds with a document or a
/// stream.
///
/// # Errors
/// If the body is invalid, the engine refuses a request, or generation fails before the response
/// starts.
pub async fn generate(
    app: Arc<App>,
    id: RequestId,
    body: Body,
    parse: impl FnOnce(Fields) -> Result<Job, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let (state, request_id) = (app.clone(), id.clone());
    let submit = move |fields, held: &mut HeldBody| {
        Generation::submit(&state, &request_id, parse(fields)?, held)
    };
    let (generation, held) = body::read(&app, body, submit).await?;
    generation.respond(&app, id, held).await
}

/// A job that the engine works on.
struct Generation {
    completions: Vec<Completion>,
    format: Box<dyn Format>,
    stream: bool,
    omitted: Omitted,
}

impl Generation {
    /// Submits the requests of a job to the engine.
    fn submit(
        app: &Arc<App>,
        id: &RequestId,
        job: Job,
        held: &mut HeldBody,
    ) -> Result<Generation, ApiError> {
        let Job { requests, count, count_field, parallel_tool_calls, stream, format, omitted } =
            job;
        let capacity = app.engine.queue_capacity();
        if count > capacity {
            let message =
                format!("`{count_field}`: {count} answers at once, where {capacity} may wait");
            return Err(ApiError::invalid(message));
        }
        let mut completions = Vec::new();
        for request in requests {
            // The first one is no larger than the body.
            if !completions.is_empty() {
                held.copy(request.weight())?;
            }
            if request.rules.is_some() {
                held.set_costly();
            }
            let metrics = RequestMetrics::start(app, &id.0, &request, stream);
            completions.push(Completion::submit(metrics, app, request, parallel_tool_calls)?);
        }
        Ok(Generation { completions, format, stream, omitted })
    }

    /// Waits for all completions, or for their start if the response is a stream. The engine keeps
    /// no request that has started, so the body counts until then.
    async fn respond(
        self,
        app: &Arc<App>,
        id: RequestId,
        held: HeldBody,
    ) -> Result<Response, ApiError> {
        let Generation { mut completions, mut format, stream, mut omitted } = self;
        // A stream has status 200, so errors that need another one are awaited before it starts.
        let (mut prompt_tokens, mut unheld) = (Vec::new(), Vec::new());
        for completion in &mut completions {
            let (tokens, own) = completion.start(app).await?;
            prompt_tokens.push(tokens);
            unheld = own;
            if completion.omits_tools {
                omitted.add("tools");
            }
        }
        drop(held);
        log_omitted(app, &id, &omitted);
        if stream {
            let ready = format.start(&prompt_tokens).into();
            let stream = EventStream { completions, format, ready, id, first: 0 };
            let response = with_unenforced(stream.into_response(), &unheld);
            return Ok(with_omitted(response, &omitted));
        }
        let mut outputs = Vec::new();
        for mut completion in completions {
            let mut output = Output::default();
            while let Some(event) = completion.next().await? {
                output.push(event);
            }
            outputs.push(output);
        }
        let response = with_unenforced(body::json(&format.document(outputs)), &unheld);
        Ok(with_omitted(response, &omitted))
    }
}

/// Logs what the request `id` has that is left out.
pub fn log_omitted(app: &App, id: &RequestId, omitted: &Omitted) {
    if let Some(list) = omitted.list() {
        let fields = Record::default().with("omitted", &*list);
        let message = format!("Left out of the prompt: {list}");
        app.settings.log.request(Level::Info, &id.0, message, fields);
    }
}

/// The response with a header that names what is left out, if anything is.
pub fn with_omitted(mut response: Response, omitted: &Omitted) -> Response {
    if let Some(value) = omitted.header() {
        response.headers_mut().insert(OMITTED, value);
    }
    response
}

/// A completion that the engine generates.
struct Completion {
    metrics: RequestMetrics,
    events: Events,
    /// A receiver that turns true when the server ends running requests.
    aborted: watch::Receiver<bool>,
    parallel_tool_calls: bool,
    /// Number of tool calls so far.
    calls: usize,
    ended: bool,
    /// The request, if it has tools that may be left out of the prompt.
    with_tools: Option<Request>,
    /// True if the tools are left out of the prompt.
    omits_tools: bool,
}

impl Completion {
    fn submit(
        mut metrics: RequestMetrics,
        app: &App,
        request: Request,
        parallel_tool_calls: bool,
    ) -> Result<Completion, ApiError> {
        let with_tools = has_tools(&request).then(|| request.clone());
        let events = app.engine.submit(request).map_err(|e| failed(&mut metrics, e))?;
        let aborted = app.aborted();
        Ok(Completion {
            metrics,
            events,
            aborted,
            parallel_tool_calls,
            calls: 0,
            ended: false,
            with_tools,
            omits_tools: false,
        })
    }

    /// Waits for the start of the completion and returns the number of tokens of its prompt, and
    /// what is left to the model in the schemas of tools. Tools that the chat template of the model
    /// has no place for are left out of the prompt.
    async fn start(&mut self, app: &App) -> Result<(u64, Vec<String>), ApiError> {
        let mut first = self.receive().await;
        if let Err(e) = &first
            && ApiError::from(e.clone()).is_about_tools()
            && let Some(request) = self.with_tools.take()
        {
            let request = Request { lenient: true, ..request };
            self.events = app.engine.submit(request).map_err(|e| failed(&mut self.metrics, e))?;
            self.omits_tools = true;
            first = self.receive().await;
        }
        self.with_tools = None;
        match first {
            Ok(Event::Started { prompt_tokens, unheld }) => {
                let started = Event::Started { prompt_tokens, unheld: unheld.clone() };
                self.metrics.record(&started);
                Ok((prompt_tokens, unheld))
            }
            Ok(_) => Err(failed(&mut self.metrics, engine_gone())),
            Err(e) => Err(failed(&mut self.metrics, e)),
        }
    }

    /// Waits for the next event; none after the end.
    async fn next(&mut self) -> Result<Option<Event>, ApiError> {
        while !self.ended {
            let event = self.receive().await.map_err(|e| failed(&mut self.metrics, e))?;
            self.metrics.record(&event);
            self.ended = matches!(event, Event::End(_));
            let is_call = matches!(event, Event::ToolCall(_));
            self.calls += usize::from(is_call);
            if !is_call || self.parallel_tool_calls || self.calls == 1 {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Waits for the engine's next event, or for the server to end running requests.
    async fn receive(&mut self) -> mlxk_core::Result<Event> {
        tokio::select! {
            biased;
            _ = self.aborted.wait_for(|&aborted| aborted) => {
                Err(Error::new(Kind::ServerShutdown, "", "the server is stopping"))
            }
            event = self.events.recv() => event.unwrap_or_else(|| Err(engine_gone())),
        }
    }
}

/// A response that streams the completions of a job.
struct EventStream {
    completions: Vec<Completion>,
    format: Box<dyn Format>,
    /// Formatted events that are not sent yet.
    ready: VecDeque<sse::Event>,
    id: RequestId,
    /// The completion that is polled first; it moves on with each event, so that none starves.
    first: usize,
}

impl IntoResponse for EventStream {
    fn into_response(self) -> Response {
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
        Sse::new(self.events()).keep_alive(keep_alive).into_response()
    }
}

impl EventStream {
    fn events(self) -> impl Stream<Item = Result<sse::Event, Infallible>> {
        stream::unfold(self, |mut stream| async move {
            while stream.ready.is_empty() {
                if !stream.advance().await {
                    return None;
                }
            }
            stream.ready.pop_front().map(|event| (Ok(event), stream))
        })
    }

    /// Formats the next event. Returns false if the stream is over.
    async fn advance(&mut self) -> bool {
        if self.completions.is_empty() {
            return false;
        }
        let (index, event) = self.next().await;
        match event {
            Ok(Some(event)) => self.ready.extend(self.format.event(index, event)),
            Ok(None) => {
                self.ready.extend(self.format.finish());
                self.completions.clear();
            }
            Err(error) => {
                self.ready.extend(self.format.fail(&error, &self.id.0));
                self.completions.clear();
            }
        }
        true
    }

    /// Waits for the next event of any completion and returns it with the completion's index; none
    /// when all have ended.
    async fn next(&mut self) -> (usize, Result<Option<Event>, ApiError>) {
        let first = self.first % self.completions.len();
        self.first += 1;
        let mut open: Vec<_> = self.completions.iter_mut().enumerate().collect();
        open.rotate_left(first);
        open.retain(|(_, completion)| !completion.ended);
        let next = open
            .into_iter()
            .map(|(index, completion)| Box::pin(async move { (index, completion.next().await) }));
        let next: Vec<_> = next.collect();
        match next.is_empty() {
            true => (0, Ok(None)),
            false => select_all(next).await.0,
        }
    }
}

/// The response with a header that names what is left to the model in the schemas of tools.
fn with_unenforced(mut response: Response, unheld: &[String]) -> Response {
    if unheld.is_empty() {
        return response;
    }
    let text: String =
        unheld.join("; ").chars().map(|c| if is_plain(c) { c } else { '?' }).collect();
    let text = text.get(..MAX_UNENFORCED).map_or(text.clone(), |start| format!("{start}..."));
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().insert(UNENFORCED, value);
    }
    response
}

/// True for the characters that a header may hold.
fn is_plain(c: char) -> bool {
    c == ' ' || c.is_ascii_graphic()
}

/// True if a request has tools that the model need not call.
fn has_tools(request: &Request) -> bool {
    match &request.prompt {
        Prompt::Chat(chat) => {
            chat.tools.is_some() && !matches!(request.rules, Some(Rules::Call(_)))
        }
        Prompt::Text(_) | Prompt::Tokens(_) => false,
    }
}

fn engine_gone() -> Error {
    Error::new(Kind::Internal, "", "the engine has gone")
}

/// Records a failure and returns it as an error of the API.
fn failed(metrics: &mut RequestMetrics, error: Error) -> ApiError {
    let error = ApiError::from(error);
    metrics.fail(&error);
    error
}
