//! The response to a transcription: one document, or a stream of the text.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::header;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use mlxk_core::{Error, Kind};
use mlxk_processor::engine::TranscriptEvents;
use mlxk_processor::transcript::{
    LineOptions, SpeechTask, TranscribeRequest, Transcript, TranscriptEvent, TranscriptFormat,
    TranscriptWriter,
};
use serde_json::json;
use tokio::sync::watch;

use super::form;
use super::options::{self, AudioFormat, Wanted};
use crate::body;
use crate::error::ApiError;
use crate::format::data;
use crate::held::HeldBody;
use crate::request_id::RequestId;
use crate::request_metrics::RequestMetrics;
use crate::state::App;

/// Interval after which an idle stream sends a keep-alive comment.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Responds to the form of a transcription or a translation.
///
/// # Errors
/// If the form is invalid, the engine refuses the request, or it fails before the response starts.
pub async fn respond(
    app: Arc<App>,
    id: RequestId,
    request: Request,
    task: SpeechTask,
) -> Result<Response, ApiError> {
    let form = form::read(&app, request).await?;
    let Wanted { model, options, format, stream } = options::parse(form.fields, task)?;
    let request = TranscribeRequest { model, audio: form.audio, options };
    let mut transcription = Transcription::submit(&app, &id, request, stream, form.held)?;
    if stream {
        // A stream has status 200, so errors that need another one are awaited before it starts.
        let first = transcription.next().await?;
        return Ok(stream_of(transcription, first, id));
    }
    let mut events = Vec::new();
    loop {
        let event = transcription.next().await?;
        let ended = matches!(event, TranscriptEvent::End(_));
        events.push(event);
        if ended {
            return Ok(document(events, format, task));
        }
    }
}

/// A transcription that the engine works on.
struct Transcription {
    metrics: RequestMetrics,
    events: TranscriptEvents,
    /// A receiver that turns true when the server ends running requests.
    aborted: watch::Receiver<bool>,
    /// Memory of the audio, which the engine keeps until the end.
    _held: HeldBody,
}

impl Transcription {
    fn submit(
        app: &Arc<App>,
        id: &RequestId,
        request: TranscribeRequest,
        stream: bool,
        held: HeldBody,
    ) -> Result<Transcription, ApiError> {
        let mut metrics = RequestMetrics::transcription(app, &id.0, &request, stream);
        let events = app.engine.transcribe(request).map_err(|e| failed(&mut metrics, e))?;
        Ok(Transcription { metrics, events, aborted: app.aborted(), _held: held })
    }

    /// Waits for the next event, or for the server to end running requests.
    async fn next(&mut self) -> Result<TranscriptEvent, ApiError> {
        let event = tokio::select! {
            biased;
            _ = self.aborted.wait_for(|&aborted| aborted) => {
                Err(Error::new(Kind::ServerShutdown, "", "the server is stopping"))
            }
            event = self.events.recv() => {
                event.unwrap_or_else(|| Err(Error::new(Kind::Internal, "", "the engine has gone")))
            }
        };
        let event = event.map_err(|e| failed(&mut self.metrics, e))?;
        self.metrics.record_transcript(&event);
        Ok(event)
    }
}

/// The document of a transcription with all its events.
fn document(events: Vec<TranscriptEvent>, format: AudioFormat, task: SpeechTask) -> Response {
    let subtitles = |format| {
        let mut writer = TranscriptWriter::new(format, LineOptions::default(), false);
        events.iter().map(|event| writer.write(event)).collect::<String>()
    };
    let (content_type, text) = match format {
        AudioFormat::Srt => ("text/plain; charset=utf-8", subtitles(TranscriptFormat::Srt)),
        AudioFormat::Vtt => ("text/vtt; charset=utf-8", subtitles(TranscriptFormat::Vtt)),
        _ => {
            let mut whole = Transcript::default();
            events.into_iter().for_each(|event| whole.push(event));
            let text = whole.text().trim().to_owned();
            let mut document = match format {
                AudioFormat::Text => {
                    let content_type = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
                    return (content_type, format!("{text}\n")).into_response();
                }
                AudioFormat::Verbose { segments, words } => {
                    whole.verbose_json(task, segments, words)
                }
                _ => json!({"text": text}),
            };
            let seconds = whole.end.duration.ceil();
            document["usage"] = json!({"type": "duration", "seconds": seconds});
            return body::json(&document);
        }
    };
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// A stream of the text: a delta for each segment, then all of it.
struct TextStream {
    transcription: Transcription,
    /// Text so far.
    text: String,
    /// The event that has been awaited already.
    first: Option<TranscriptEvent>,
    id: RequestId,
    ended: bool,
}

fn stream_of(transcription: Transcription, first: TranscriptEvent, id: RequestId) -> Response {
    let (text, first) = (String::new(), Some(first));
    let stream = TextStream { transcription, text, first, id, ended: false };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    Sse::new(stream.events()).keep_alive(keep_alive).into_response()
}

impl TextStream {
    fn events(self) -> impl Stream<Item = Result<sse::Event, Infallible>> {
        stream::unfold(self, |mut stream| async move {
            while !stream.ended {
                if let Some(event) = stream.advance().await {
                    return Some((Ok(event), stream));
                }
            }
            None
        })
    }

    /// The event of the stream for the next event of the transcription, if it has one.
    async fn advance(&mut self) -> Option<sse::Event> {
        let event = match self.first.take() {
            Some(first) => Ok(first),
            None => self.transcription.next().await,
        };
        match event {
            Ok(TranscriptEvent::Segment(segment)) => {
                let delta = match self.text.is_empty() {
                    true => segment.text.trim_start(),
                    false => &segment.text,
                };
                self.text += delta;
                let event = json!({"type": "transcript.text.delta", "delta": delta});
                (!delta.is_empty()).then(|| data(&event))
            }
            Ok(TranscriptEvent::Language { .. } | TranscriptEvent::Progress(_)) => None,
            Ok(TranscriptEvent::End(_)) => {
                self.ended = true;
                Some(data(&json!({"type": "transcript.text.done", "text": self.text})))
            }
            Err(error) => {
                self.ended = true;
                let error = error.openai(&self.id.0)["error"].take();
                Some(data(&json!({"type": "error", "error": error})))
            }
        }
    }
}

/// Records a failure and returns it as an error of the API.
fn failed(metrics: &mut RequestMetrics, error: Error) -> ApiError {
    let error = ApiError::from(error);
    metrics.fail(&error);
    error
}
