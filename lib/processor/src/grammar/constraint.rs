//! An answer that follows rules, token by token, and what may stand in its place.

use std::mem;
use std::sync::Arc;

use mlxk_core::Result;

use super::{Ready, Vocabulary, broken};
use crate::parser::{Answer, Marks, Place};
use crate::sampling::Constraint;
use crate::text::tokenizer::Tokenizer;

/// What the text of an answer may be.
pub enum Text {
    /// Anything.
    Free,
    /// What follows rules.
    Held(Box<Ready>),
    /// Nothing more: a mark has begun that the rules have no place for.
    Over,
}

/// What may stand in the place of an answer that follows rules, or anywhere in one that is free.
pub enum Besides {
    /// Nothing.
    Nothing,
    /// Calls, in whatever form the model has for them.
    Calls,
    /// Calls that follow rules of their own behind the mark that opens the first.
    Ruled(Box<Ready>),
}

/// The rules for one answer. Reasoning before it is free, and so are calls in its place that have no
/// rules.
pub struct Ruled {
    vocabulary: Vocabulary,
    text: Text,
    tokenizer: Arc<Tokenizer>,
    marks: Arc<Marks>,
    /// Reads along until the answer itself begins.
    reading: Option<Answer>,
    /// What there may be besides.
    besides: Besides,
    /// Tokens that may open reasoning.
    openings: Vec<u32>,
    /// Whether a token has come.
    begun: bool,
}

impl Ruled {
    /// For an answer that `reading` reads along, if there is more in it than what `text` says: what
    /// it thinks, and what there may be `besides`.
    pub fn new(
        vocabulary: &Vocabulary,
        tokenizer: &Arc<Tokenizer>,
        marks: &Arc<Marks>,
        text: Text,
        reading: Option<Answer>,
        besides: Besides,
    ) -> Ruled {
        let openings = tokenizer.openings(&marks.reasoning);
        Ruled {
            vocabulary: vocabulary.clone(),
            text,
            tokenizer: Arc::clone(tokenizer),
            marks: Arc::clone(marks),
            reading,
            besides,
            openings,
            begun: false,
        }
    }

    /// Every token, or all but those that end the answer.
    fn anything(&self, ends: bool) -> Vec<u32> {
        let mut all = vec![u32::MAX; self.vocabulary.size.div_ceil(32)];
        for end in self.tokenizer.ends().filter(|_| !ends) {
            if let Some(word) = all.get_mut(end as usize / 32) {
                *word &= !(1 << (end % 32));
            }
        }
        all
    }

    /// Tokens with which a mark may begin, or go on.
    fn marks(&self, place: Place) -> Vec<u32> {
        let Place::Opening { reasoning, calls, within } = place else { return Vec::new() };
        let calls = calls.into_iter().filter(|_| !matches!(self.besides, Besides::Nothing));
        let going_on = reasoning.into_iter().filter(|_| within).chain(calls);
        let going_on = going_on.flat_map(|rest| self.vocabulary.beginnings(rest));
        self.openings.iter().copied().filter(|_| !self.begun).chain(going_on).collect()
    }

    /// Goes on by a token of the answer itself; false if the rules have no place for it.
    fn follow(&mut self, id: u32) -> Result<bool> {
        if self.tokenizer.is_end(id) {
            return Ok(true);
        }
        match &mut self.text {
            Text::Free => Ok(true),
            Text::Held(ready) => Ok(ready.try_consume_tokens(&[id]).map_err(|e| broken(&e))? == 1),
            Text::Over => Ok(false),
        }
    }

    /// Goes on within a call, whose mark may have ended amid a token; that one is taken as it is if
    /// the rules have no place for what else it has.
    fn call(&mut self) -> Result<()> {
        let Besides::Ruled(mut calls) = mem::replace(&mut self.besides, Besides::Nothing) else {
            return Ok(());
        };
        let begun = self.reading.as_ref().map_or("", Answer::begun);
        let begun = self.vocabulary.spell(begun);
        if calls.try_consume_tokens(&begun).map_err(|e| broken(&e))? == begun.len() {
            (self.text, self.reading) = (Text::Held(calls), None);
        }
        Ok(())
    }
}

impl Constraint for Ruled {
    fn allowed(&mut self) -> Result<Vec<u32>> {
        let place = self.reading.as_ref().map_or(Place::Text, Answer::place);
        if matches!(place, Place::Reasoning | Place::Call) {
            return Ok(self.anything(place == Place::Call));
        }
        let mut allowed = match &mut self.text {
            Text::Free => return Ok(self.anything(true)),
            Text::Held(ready) => {
                ready.compute_mask_or_eos().map_err(|e| broken(&e))?.as_slice().to_vec()
            }
            Text::Over => self.vocabulary.nothing(),
        };
        for id in self.marks(place) {
            if let Some(word) = allowed.get_mut(id as usize / 32) {
                *word |= 1 << (id % 32);
            }
        }
        Ok(allowed)
    }

    fn push(&mut self, id: u32) -> Result<()> {
        self.begun = true;
        let mut place = Place::Text;
        if let Some(reading) = &mut self.reading {
            let free = matches!(reading.place(), Place::Reasoning | Place::Call);
            reading.push(id, &self.tokenizer, &self.marks);
            place = reading.place();
            if free || place == Place::Reasoning {
                return Ok(());
            }
        }
        let is_free = matches!(self.text, Text::Free);
        match (self.follow(id)?, place) {
            (true, Place::Call) if is_free => self.call()?,
            (true, Place::Opening { .. }) => {}
            (true, _) if is_free => {}
            // A call in the form that the rules themselves want is an answer.
            (true, _) => self.reading = None,
            (false, Place::Opening { .. }) => self.text = Text::Over,
            (false, Place::Call) => {
                self.text = Text::Over;
                self.call()?;
            }
            (false, _) => return Err(broken(&"nothing may come next")),
        }
        Ok(())
    }
}
