//! The handler of all routes that generate: from a body through the engine to a response.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::future::select_all;
use futures_util::stream::{self, Stream};
use mlxk_core::{Error, Kind};
use mlxk_processor::engine::Events;
use mlxk_processor::{Event, Request};
use tokio::sync::watch;

use crate::body;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::format::{Format, Output};
use crate::held::HeldBody;
use crate::job::Job;
use crate::request_id::RequestId;
use crate::request_metrics::RequestMetrics;
use crate::state::App;

/// Interval after which an idle stream sends a keep-alive comment.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

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
    generation.respond(id, held).await
}

/// A job that the engine works on.
struct Generation {
    completions: Vec<Completion>,
    format: Box<dyn Format>,
    stream: bool,
}

impl Generation {
    /// Submits the requests of a job to the engine.
    fn submit(
        app: &Arc<App>,
        id: &RequestId,
        job: Job,
        held: &mut HeldBody,
    ) -> Result<Generation, ApiError> {
        let Job { requests, count, count_field, parallel_tool_calls, stream, format } = job;
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
        Ok(Generation { completions, format, stream })
    }

    /// Waits for all completions, or for their start if the response is a stream. The engine keeps
    /// no request that has started, so the body counts until then.
    async fn respond(self, id: RequestId, held: HeldBody) -> Result<Response, ApiError> {
        let Generation { mut completions, mut format, stream } = self;
        // A stream has status 200, so errors that need another one are awaited before it starts.
        let mut prompt_tokens = Vec::new();
        for completion in &mut completions {
            prompt_tokens.push(completion.start().await?);
        }
        drop(held);
        if stream {
            let ready = format.start(&prompt_tokens).into();
            let stream = EventStream { completions, format, ready, id, first: 0 };
            return Ok(stream.into_response());
        }
        let mut outputs = Vec::new();
        for mut completion in completions {
            let mut output = Output::default();
            while let Some(event) = completion.next().await? {
                output.push(event);
            }
            outputs.push(output);
        }
        Ok(body::json(&format.document(outputs)))
    }
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
}

impl Completion {
    fn submit(
        mut metrics: RequestMetrics,
        app: &App,
        request: Request,
        parallel_tool_calls: bool,
    ) -> Result<Completion, ApiError> {
        let events = app.engine.submit(request).map_err(|e| failed(&mut metrics, e))?;
        let aborted = app.aborted();
        Ok(Completion { metrics, events, aborted, parallel_tool_calls, calls: 0, ended: false })
    }

    /// Waits for the start of the completion and returns the number of tokens of its prompt.
    async fn start(&mut self) -> Result<u64, ApiError> {
        match self.receive().await {
            Ok(Event::Started { prompt_tokens }) => {
                self.metrics.record(&Event::Started { prompt_tokens });
                Ok(prompt_tokens)
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

fn engine_gone() -> Error {
    Error::new(Kind::Internal, "", "the engine has gone")
}

/// Records a failure and returns it as an error of the API.
fn failed(metrics: &mut RequestMetrics, error: Error) -> ApiError {
    let error = ApiError::from(error);
    metrics.fail(&error);
    error
}
