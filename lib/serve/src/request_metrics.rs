//! What is noted of one answer: how long it took, and how it ended.

use std::sync::Arc;
use std::time::Instant;

use mlxk_core::Record;

use crate::engine::{Event, Request};
use crate::error::Refusal;
use crate::format::finish_reason;
use crate::log::Level;
use crate::routes::App;

/// Tokens that an answer took; as long as it has not ended, those that its pieces tell of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Those of them that were remembered.
    pub cached: u64,
    /// Tokens of the answer.
    pub completion: u64,
}

/// The account of one answer. One that is dropped early was given up by the client.
pub struct Account {
    app: Arc<App>,
    id: String,
    fields: Record,
    spent: Spent,
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
            spent: Spent::default(),
            last: Instant::now(),
            begun: false,
            closed: false,
        }
    }

    /// Notes what came.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::Begun { prompt_tokens } => self.spent.prompt = *prompt_tokens,
            // It belongs to the piece that comes after it.
            Event::Logprobs(..) => {}
            Event::Reasoning(_) | Event::Text(_) | Event::Call(_) => self.piece(),
            Event::End(end) => {
                self.spent = Spent {
                    prompt: end.prompt_tokens,
                    cached: end.cached_tokens,
                    completion: end.completion_tokens,
                };
                self.close(finish_reason(end));
            }
        }
    }

    fn piece(&mut self) {
        let now = Instant::now();
        let time = now - self.last;
        match self.begun {
            true => self.app.meter.between(time),
            false => self.app.meter.first(time),
        }
        (self.begun, self.last) = (true, now);
        self.spent.completion += 1;
    }

    /// Notes that it failed.
    pub fn fail(&mut self, refusal: &Refusal) {
        self.closed = true;
        self.app.meter.answer("error", &self.spent);
        if refusal.status.is_server_error() {
            let message = format!("Generation failed: {}", refusal.message);
            self.app.settings.log.tell(Level::Error, &self.id, message, self.fields.clone());
        }
    }

    fn close(&mut self, reason: &str) {
        self.closed = true;
        self.app.meter.answer(reason, &self.spent);
        let Spent { prompt, cached, completion } = self.spent;
        let fields = self.fields.clone().with("finish_reason", reason);
        let fields = fields.with("prompt_tokens", prompt).with("cached_tokens", cached);
        let fields = fields.with("completion_tokens", completion);
        let message = format!("Generation finished: {reason}");
        self.app.settings.log.tell(Level::Info, &self.id, message, fields);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.closed {
            self.close("cancelled");
        }
    }
}
