//! The metrics and the log entry of one completion: its latencies, its usage, and how it ended.

use std::sync::Arc;
use std::time::Instant;

use mlxk_core::Record;
use mlxk_processor::transcript::{TranscribeRequest, TranscriptEvent};
use mlxk_processor::{Event, Request};

use crate::error::ApiError;
use crate::format::finish_reason;
use crate::log::Level;
use crate::metrics::Usage;
use crate::state::App;

/// The metrics of one completion. Dropping them before its end counts it as `cancelled`.
pub struct RequestMetrics {
    app: Arc<App>,
    id: String,
    /// Fields of the log entry.
    fields: Record,
    /// Usage so far; while the completion runs, each event with output counts as one token.
    usage: Usage,
    /// Time of the last event with output, or of the request before the first one.
    last: Instant,
    has_output: bool,
    finished: bool,
}

impl RequestMetrics {
    /// Starts the clock of the engine's `request`, which belongs to the request of HTTP with `id`.
    pub fn start(app: &Arc<App>, id: &str, request: &Request, stream: bool) -> RequestMetrics {
        let max_tokens = request.options.max_tokens;
        let fields = Record::default().with("model", &*request.model).with("stream", stream);
        RequestMetrics::with(app, id, fields.with("max_tokens", max_tokens))
    }

    /// Starts the clock of a transcription, as [`RequestMetrics::start`] does.
    pub fn transcription(
        app: &Arc<App>,
        id: &str,
        request: &TranscribeRequest,
        stream: bool,
    ) -> RequestMetrics {
        let fields = Record::default().with("model", &*request.model).with("stream", stream);
        RequestMetrics::with(app, id, fields.with("audio_bytes", request.audio.len()))
    }

    fn with(app: &Arc<App>, id: &str, fields: Record) -> RequestMetrics {
        RequestMetrics {
            app: app.clone(),
            id: id.to_owned(),
            fields,
            usage: Usage::default(),
            last: Instant::now(),
            has_output: false,
            finished: false,
        }
    }

    /// Records an event.
    pub fn record(&mut self, event: &Event) {
        match event {
            Event::Started { prompt_tokens, unheld } => {
                self.usage.prompt = *prompt_tokens;
                if !unheld.is_empty() {
                    let fields = self.fields.clone().with("unenforced", unheld.clone());
                    let message = "Schemas of tools are not enforced in all";
                    self.app.settings.log.request(Level::Info, &self.id, message, fields);
                }
            }
            // Log probabilities belong to the event that follows them, which counts.
            Event::Logprobs(_) => {}
            Event::Reasoning(_) | Event::Text(_) | Event::ToolCall(_) => self.output(),
            Event::End(end) => {
                self.usage = Usage {
                    prompt: end.prompt_tokens,
                    cached: end.cached_tokens,
                    completion: end.completion_tokens,
                };
                self.finish(finish_reason(end));
            }
        }
    }

    /// Records an event of a transcription, each segment of which is an output.
    pub fn record_transcript(&mut self, event: &TranscriptEvent) {
        match event {
            TranscriptEvent::Language { .. } | TranscriptEvent::Progress(_) => {}
            TranscriptEvent::Segment(_) => self.output(),
            TranscriptEvent::End(end) => {
                self.usage = Usage { completion: end.tokens, ..Usage::default() };
                self.fields = self.fields.clone().with("duration", end.duration);
                self.finish("stop");
            }
        }
    }

    /// Records that the completion failed.
    pub fn fail(&mut self, error: &ApiError) {
        self.finished = true;
        self.app.metrics.count_completion("error", &self.usage);
        if error.status.is_server_error() {
            let message = format!("Generation failed: {}", error.message);
            self.app.settings.log.request(Level::Error, &self.id, message, self.fields.clone());
        }
    }

    fn output(&mut self) {
        let now = Instant::now();
        let time = now - self.last;
        match self.has_output {
            true => self.app.metrics.observe_inter_token(time),
            false => self.app.metrics.observe_first_token(time),
        }
        (self.has_output, self.last) = (true, now);
        self.usage.completion += 1;
    }

    fn finish(&mut self, reason: &str) {
        self.finished = true;
        self.app.metrics.count_completion(reason, &self.usage);
        let Usage { prompt, cached, completion } = self.usage;
        let fields = self.fields.clone().with("finish_reason", reason);
        let fields = fields.with("prompt_tokens", prompt).with("cached_tokens", cached);
        let fields = fields.with("completion_tokens", completion);
        let message = format!("Generation finished: {reason}");
        self.app.settings.log.request(Level::Info, &self.id, message, fields);
    }
}

impl Drop for RequestMetrics {
    fn drop(&mut self) {
        if !self.finished {
            self.finish("cancelled");
        }
    }
}
