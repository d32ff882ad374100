//! Constraint of a grammar on a completion, whose reasoning stays free.

use std::mem;
use std::sync::Arc;

use mlxk_core::Result;

use super::fault::broken;
use super::matcher::Matcher;
use super::vocabulary::Vocabulary;
use crate::parser::{Markers, Parser, Position};
use crate::text::tokenizer::Tokenizer;
use crate::token::Constraint;

/// Rules of the text of a completion.
pub enum TextRules {
    /// Any text.
    Free,
    /// Text that follows a grammar.
    Grammar(Box<Matcher>),
    /// No further text: a marker has begun that the grammar does not allow.
    Exhausted,
}

/// Rules of tool calls, which may replace a text with rules, or come anywhere in a free one.
pub enum CallRules {
    /// No tool calls.
    Forbidden,
    /// Tool calls in the form that the model has for them.
    Free,
    /// Tool calls that follow a grammar behind the marker that opens the first of them.
    Grammar(Box<Matcher>),
}

/// Constraint of a completion. Reasoning before the text is free.
pub struct GrammarConstraint {
    vocabulary: Vocabulary,
    text: TextRules,
    calls: CallRules,
    tokenizer: Arc<Tokenizer>,
    markers: Arc<Markers>,
    /// Parser that follows the completion until the rules alone decide.
    parser: Option<Parser>,
    /// Tokens that may open reasoning.
    openings: Vec<u32>,
    /// True if there was a token.
    begun: bool,
}

impl GrammarConstraint {
    /// Constraint by the rules of text and tool calls. `parser` tells reasoning and calls apart;
    /// without one, the rules describe the completion as a whole.
    pub fn new(
        vocabulary: &Vocabulary,
        tokenizer: &Arc<Tokenizer>,
        markers: &Arc<Markers>,
        text: TextRules,
        calls: CallRules,
        parser: Option<Parser>,
    ) -> GrammarConstraint {
        let openings = tokenizer.openings(&markers.reasoning);
        GrammarConstraint {
            vocabulary: vocabulary.clone(),
            text,
            calls,
            tokenizer: Arc::clone(tokenizer),
            markers: Arc::clone(markers),
            parser,
            openings,
            begun: false,
        }
    }

    /// Mask of all tokens, with or without those that end the completion.
    fn anything(&self, ends: bool) -> Vec<u32> {
        let mut all = vec![u32::MAX; self.vocabulary.size().div_ceil(32)];
        for end in self.tokenizer.ends().filter(|_| !ends) {
            if let Some(word) = all.get_mut(end as usize / 32) {
                *word &= !(1 << (end % 32));
            }
        }
        all
    }

    /// Tokens with which a marker may begin or continue.
    fn marker_tokens(&self, position: Position) -> Vec<u32> {
        let Position::Opening { reasoning, calls, within } = position else { return Vec::new() };
        let calls = calls.into_iter().filter(|_| !matches!(self.calls, CallRules::Forbidden));
        let rests = reasoning.into_iter().filter(|_| within).chain(calls);
        let rests = rests.flat_map(|rest| self.vocabulary.beginnings(rest));
        self.openings.iter().copied().filter(|_| !self.begun).chain(rests).collect()
    }

    /// Advances the text by a token. Returns false if its rules do not allow the token.
    fn advance_text(&mut self, id: u32) -> Result<bool> {
        if self.tokenizer.is_end(id) {
            return Ok(true);
        }
        match &mut self.text {
            TextRules::Free => Ok(true),
            TextRules::Grammar(matcher) => {
                Ok(matcher.try_consume_tokens(&[id]).map_err(|e| broken(&e))? == 1)
            }
            TextRules::Exhausted => Ok(false),
        }
    }

    /// Continues with the grammar of tool calls. Its first marker may end within a token; if the
    /// grammar does not allow the rest of that token, the call stays unconstrained.
    fn enter_call(&mut self) -> Result<()> {
        let calls = mem::replace(&mut self.calls, CallRules::Forbidden);
        let CallRules::Grammar(mut matcher) = calls else { return Ok(()) };
        let begun = self.parser.as_ref().map_or("", Parser::open_call);
        let begun = self.vocabulary.tokenize(begun);
        if matcher.try_consume_tokens(&begun).map_err(|e| broken(&e))? == begun.len() {
            (self.text, self.parser) = (TextRules::Grammar(matcher), None);
        }
        Ok(())
    }
}

impl Constraint for GrammarConstraint {
    fn allowed(&mut self) -> Result<Vec<u32>> {
        let position = self.parser.as_ref().map_or(Position::Text, Parser::position);
        if matches!(position, Position::Reasoning | Position::Call) {
            return Ok(self.anything(position == Position::Call));
        }
        let mut allowed = match &mut self.text {
            TextRules::Free => return Ok(self.anything(true)),
            TextRules::Grammar(matcher) => {
                matcher.compute_mask_or_eos().map_err(|e| broken(&e))?.as_slice().to_vec()
            }
            TextRules::Exhausted => self.vocabulary.nothing(),
        };
        for id in self.marker_tokens(position) {
            if let Some(word) = allowed.get_mut(id as usize / 32) {
                *word |= 1 << (id % 32);
            }
        }
        Ok(allowed)
    }

    fn push(&mut self, id: u32) -> Result<()> {
        self.begun = true;
        let mut position = Position::Text;
        if let Some(parser) = &mut self.parser {
            let free = matches!(parser.position(), Position::Reasoning | Position::Call);
            parser.push(id, &self.tokenizer, &self.markers);
            position = parser.position();
            if free || position == Position::Reasoning {
                return Ok(());
            }
        }
        let is_free = matches!(self.text, TextRules::Free);
        match (self.advance_text(id)?, position) {
            (true, Position::Call) if is_free => self.enter_call()?,
            (true, Position::Opening { .. }) => {}
            (true, _) if is_free => {}
            // A call that the grammar of the text itself describes is text.
            (true, _) => self.parser = None,
            (false, Position::Opening { .. }) => self.text = TextRules::Exhausted,
            (false, Position::Call) => {
                self.text = TextRules::Exhausted;
                self.enter_call()?;
            }
            (false, _) => return Err(broken(&"nothing may come next")),
        }
        Ok(())
    }
}
