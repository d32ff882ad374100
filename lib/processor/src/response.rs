//! Response to a request: tokens in, events out.

use crate::event::{End, Event, FinishReason, LengthLimit, Logprobs, TokenLogprob};
use crate::parser::{Delta, Markers, Parser};
use crate::text::tokenizer::Tokenizer;
use crate::token::Token;

/// Completion that is being generated.
pub struct Generation {
    /// Parser of the tokens.
    pub parser: Parser,
    /// Token ids that end the completion, besides those of the model.
    pub stop_ids: Vec<u32>,
    /// Maximum number of tokens of the completion.
    pub limit: u64,
    /// Limit that determines this number.
    pub limited_by: LengthLimit,
    /// End of the completion, with the counts so far.
    pub end: End,
    /// Log probabilities of tokens whose text is held back.
    pub pending: Vec<Logprobs>,
    /// True if the end was sent.
    pub over: bool,
}

impl Generation {
    /// Advances by a token, and returns the events that follow from it.
    pub fn push(&mut self, token: &Token, tokenizer: &Tokenizer, markers: &Markers) -> Vec<Event> {
        self.end.completion_tokens += 1;
        let mut logprobs = logprobs(token, tokenizer);
        if tokenizer.is_end(token.id) || self.stop_ids.contains(&token.id) {
            self.pending.extend(logprobs);
            return self.finish(FinishReason::Stop);
        }
        let was_reasoning = self.parser.is_reasoning();
        let (deltas, stopped) = self.parser.push(token.id, tokenizer, markers);
        self.end.reasoning_tokens += u64::from(was_reasoning || self.parser.is_reasoning());
        if let Some(logprobs) = &mut logprobs {
            logprobs.in_text = tokenizer.text_token(token.id).is_some() && self.parser.is_in_text();
        }
        self.pending.extend(logprobs);
        if stopped {
            self.exclude_stop_string(&deltas);
        }
        let mut events =
            if stopped || !self.parser.holds_back() { self.logprobs() } else { Vec::new() };
        events.extend(deltas.into_iter().map(Event::from));
        if stopped {
            self.end.stop = self.parser.stop_string().map(str::to_owned);
            events.push(self.send_end(FinishReason::Stop));
        } else if self.end.completion_tokens == self.limit {
            events.extend(self.finish(FinishReason::Length(self.limited_by)));
        }
        events
    }

    /// Ends the completion, and returns what was held back and the end.
    pub fn finish(&mut self, reason: FinishReason) -> Vec<Event> {
        let mut events = self.logprobs();
        events.extend(self.parser.finish().into_iter().map(Event::from));
        events.push(self.send_end(reason));
        events
    }

    /// Events of the pending log probabilities.
    fn logprobs(&mut self) -> Vec<Event> {
        self.pending.drain(..).map(Event::Logprobs).collect()
    }

    /// Marks the pending tokens behind the last `deltas` as no part of the text: they belong to the
    /// stop string.
    fn exclude_stop_string(&mut self, deltas: &[Delta]) {
        let text = |delta: &Delta| match delta {
            Delta::Text(text) => text.len(),
            _ => 0,
        };
        let mut shown: usize = deltas.iter().map(text).sum();
        for logprobs in &mut self.pending {
            logprobs.in_text &= shown > 0;
            shown = shown.saturating_sub(logprobs.token.bytes.len());
        }
    }

    fn send_end(&mut self, reason: FinishReason) -> Event {
        self.over = true;
        self.end.reason = match reason {
            FinishReason::Stop if self.parser.has_tool_calls() => FinishReason::ToolCalls,
            reason => reason,
        };
        Event::End(self.end.clone())
    }
}

/// Log probabilities of a sampled token with the texts of the tokens, if it has any.
fn logprobs(token: &Token, tokenizer: &Tokenizer) -> Option<Logprobs> {
    let with_text = |id, logprob| {
        let (text, bytes) = (tokenizer.alone(id), tokenizer.bytes(id));
        TokenLogprob { id, text, bytes, logprob }
    };
    let chosen = with_text(token.id, token.logprob?);
    let top = token.top.iter().map(|&(id, logprob)| with_text(id, logprob)).collect();
    Some(Logprobs { token: chosen, top, in_text: false })
}
