//! An answer in the making: tokens in, events out.

use crate::event::{Bound, End, Event, Reason, Told};
use crate::parser::{Answer, Marks, Piece};
use crate::sampling::Token;
use crate::text::tokenizer::Tokenizer;

/// One answer.
pub struct Generation {
    /// Its text.
    pub answer: Answer,
    /// Tokens that end it, besides those of the model.
    pub stop_ids: Vec<u32>,
    /// The most tokens that it may have.
    pub limit: u64,
    /// What sets the limit.
    pub bound: Bound,
    /// What will be told at its end.
    pub end: End,
    /// How likely tokens were whose text is held back.
    pub waiting: Vec<Told>,
    /// Whether the end was told.
    pub over: bool,
}

impl Generation {
    /// Goes on by a token: what comes of it.
    pub fn push(&mut self, token: &Token, tokenizer: &Tokenizer, marks: &Marks) -> Vec<Event> {
        self.end.completion_tokens += 1;
        let mut told = token.logprobs.as_ref().map(|told| tokenizer.told(token.id, told));
        if tokenizer.is_end(token.id) || self.stop_ids.contains(&token.id) {
            self.waiting.extend(told);
            return self.finish(Reason::Stop);
        }
        let reasoned = self.answer.reasons();
        let (pieces, stopped) = self.answer.push(token.id, tokenizer, marks);
        self.end.reasoning_tokens += u64::from(reasoned || self.answer.reasons());
        if let Some(told) = &mut told {
            told.of_text = tokenizer.text_token(token.id).is_some() && self.answer.speaks();
        }
        self.waiting.extend(told);
        if stopped {
            self.leave_out_the_stop(&pieces);
        }
        let mut events =
            if stopped || !self.answer.holds() { self.likelihoods() } else { Vec::new() };
        events.extend(pieces.into_iter().map(Event::from));
        if stopped {
            self.end.stop = self.answer.stopped_by().map(str::to_owned);
            events.push(self.tell(Reason::Stop));
        } else if self.end.completion_tokens == self.limit {
            events.extend(self.finish(Reason::Length(self.bound)));
        }
        events
    }

    /// Ends the answer: what was held back, and the end.
    pub fn finish(&mut self, reason: Reason) -> Vec<Event> {
        let mut events = self.likelihoods();
        events.extend(self.answer.finish().into_iter().map(Event::from));
        events.push(self.tell(reason));
        events
    }

    /// Those that wait.
    fn likelihoods(&mut self) -> Vec<Event> {
        self.waiting.drain(..).map(Event::Logprobs).collect()
    }

    /// Of the tokens that wait, those behind the last `pieces` are of the stop string.
    fn leave_out_the_stop(&mut self, pieces: &[Piece]) {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.len(),
            _ => 0,
        };
        let mut told: usize = pieces.iter().map(text).sum();
        for token in &mut self.waiting {
            token.of_text &= told > 0;
            told = told.saturating_sub(token.own.bytes.len());
        }
    }

    fn tell(&mut self, reason: Reason) -> Event {
        self.over = true;
        self.end.reason = match reason {
            Reason::Stop if self.answer.calls() => Reason::Calls,
            reason => reason,
        };
        Event::End(self.end.clone())
    }
}
