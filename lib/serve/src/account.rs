//! What is noted of one answer: how long it took, and how it ended.

use std::sync::Arc;
use std::time::Instant;

use mlxk_core::Record;

use crate::app::App;
use crate::engine::{End, Event, Request};
use crate::log::Level;
use crate::refusal::Refusal;
use crate::wording::finish_reason;

/// The account of one answer. One that is dropped early was given up by the client.
pub struct Account {
    app: Arc<App>,
    id: String,
    fields: Record,
    /// When it was asked, or the last piece came.
    last: Instant,
    begun: bool,
    closed: bool,
}

impl Account {
    /// Of the answer to a request, which came under `id`.
    pub fn open(app: &Arc<App>, id: &str, request: &Request, stream: bool) -> Account {
        let most = request.record.get("max_tokens").cloned().unwrap_or_default();
        let fields = Record::default().with("model", &*request.model).with("stream", stream);
        Account {
            app: app.clone(),
            id: id.to_owned(),
            fields: fields.with("max_tokens", most),
            last: Instant::now(),
            begun: false,
            closed: false,
        }
    }

    /// Notes what came.
    pub fn hear(&mut self, event: &Event) {
        if let Event::End(end) = event {
            return self.close(finish_reason(end), Some(end));
        }
        let now = Instant::now();
        let time = now - self.last;
        match self.begun {
            true => self.app.meter.between(time),
            false => self.app.meter.first(time),
        }
        (self.begun, self.last) = (true, now);
    }

    /// Notes that it failed.
    pub fn fail(&mut self, refusal: &Refusal) {
        self.closed = true;
        self.app.meter.answer("error", None);
        if refusal.status.is_server_error() {
            let message = format!("Generation failed: {}", refusal.message);
            self.app.settings.log.tell(Level::Error, &self.id, message, self.fields.clone());
        }
    }

    fn close(&mut self, reason: &str, end: Option<&End>) {
        self.closed = true;
        self.app.meter.answer(reason, end);
        let mut fields = self.fields.clone().with("finish_reason", reason);
        if let Some(end) = end {
            fields = fields
                .with("prompt_tokens", end.prompt_tokens)
                .with("cached_tokens", end.cached_tokens)
                .with("completion_tokens", end.completion_tokens);
        }
        let message = format!("Generation finished: {reason}");
        self.app.settings.log.tell(Level::Info, &self.id, message, fields);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.closed {
            self.close("cancelled", None);
        }
    }
}
