//! Rules that an answer has to follow: a JSON schema, or a grammar. What may come next is known
//! before each token.

use std::sync::Arc;
use std::time::Duration;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use mlxk_core::{Error, Kind, Result};
use serde_json::Value;

use crate::answer::Answer;
use crate::fence::{self, Fenced, Share, Work};
use crate::sample::Constraint;
use crate::{Processor, Tokenizer};

mod endless;

/// What the making of a grammar may take.
const SHARE: Share =
    Share { work: Work::Rules, memory: 128 << 20, own: 0, time: Duration::from_secs(20) };

/// Bytes of rules; a schema of all that a hospital writes down takes half of it.
const MAX_RULES: usize = 16 << 20;

/// States of an answer's lexer, of one or two kilobytes each.
const MAX_STATES: usize = 20_000;

/// The longest token that a grammar can use, in bytes.
const MAX_TOKEN: usize = 255;

/// Rules for an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Rules {
    /// A JSON schema.
    Schema(Value),
    /// A grammar, in the variant of Lark that llguidance reads.
    Grammar(String),
}

/// Rules, ready for one answer.
pub type Ready = Matcher;

/// The vocabulary of a model, made ready for rules.
#[derive(Clone)]
pub struct Vocabulary {
    factory: Arc<ParserFactory>,
    /// Ids below this are known.
    size: usize,
}

impl Vocabulary {
    /// Of `tokenizer`.
    ///
    /// # Errors
    /// If no token ends a text: then there is no way to end an answer.
    pub fn new(tokenizer: &Tokenizer) -> Result<Vocabulary> {
        let words = tokenizer.words()?;
        let words: Vec<Vec<u8>> = words.into_iter().map(usable).collect();
        let ends: Vec<u32> = tokenizer.ends().filter(|&id| (id as usize) < words.len()).collect();
        let Some(&end) = ends.first() else {
            let message = "no token ends an answer, and rules need one";
            return Err(Error::new(Kind::CapabilityNotSupported, "", message));
        };
        let size = words.len();
        let info = TokRxInfo::new(u32::try_from(size).unwrap_or(u32::MAX), end);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let capabilities = InferenceCapabilities::default();
        let mut factory = ParserFactory::new(&environment, capabilities, &slices)
            .map_err(|e| Error::new(Kind::Internal, "", first_line(&e)))?;
        let limits = factory.quiet().limits_mut();
        limits.verbose_errors = false;
        limits.max_lexer_states = MAX_STATES;
        Ok(Vocabulary { factory: Arc::new(factory), size })
    }

    /// Makes `rules` ready.
    ///
    /// # Errors
    /// [`Kind::Validation`] if they make no sense, cannot be followed, or are too large.
    pub fn ready(&self, rules: &Rules) -> Result<Ready> {
        let what = match rules {
            Rules::Schema(_) => "json_schema",
            Rules::Grammar(_) => "grammar",
        };
        let refused = |why: &str| Error::new(Kind::Validation, "", format!("`{what}`: {why}"));
        let own = match rules {
            Rules::Schema(schema) => fence::weight(schema),
            // Parsed, a letter takes about a hundred.
            Rules::Grammar(text) => text.len().saturating_mul(32),
        };
        if own > MAX_RULES {
            return Err(refused("too large"));
        }
        let (factory, rules) = (Arc::clone(&self.factory), rules.clone());
        let made = fence::run(Share { own, ..SHARE }, move || {
            let grammar = match rules {
                Rules::Schema(schema) if endless::is_endless(&schema) => {
                    return Err("it demands something of itself without end".to_owned());
                }
                Rules::Schema(schema) => TopLevelGrammar::from_json_schema(schema),
                Rules::Grammar(text) => TopLevelGrammar::from_lark(text),
            };
            let mut matcher = Matcher::new(factory.create_parser(grammar));
            // What is too large for a mask shows with the first one.
            matcher.compute_mask().map(|_| matcher).map_err(|e| why(&e))
        })?;
        match made {
            Fenced::Done(matcher) => matcher.map_err(|why| refused(&why)),
            Fenced::Memory | Fenced::Time => Err(refused("too large")),
        }
    }

    /// Ids below this are known.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// The rules for one answer. Reasoning before it is free, and so are calls.
pub struct Ruled {
    matcher: Matcher,
    processor: Arc<Processor>,
    /// Reads along until the answer itself begins.
    reading: Option<Answer>,
    /// Tokens that may open reasoning.
    openings: Vec<u32>,
    /// Whether a token has come.
    begun: bool,
    size: usize,
}

impl Ruled {
    /// For an answer that `reading` reads along.
    pub fn new(
        vocabulary: &Vocabulary,
        matcher: Matcher,
        processor: &Arc<Processor>,
        reading: Answer,
    ) -> Ruled {
        let processor = Arc::clone(processor);
        let openings = processor.tokenizer.openings(&processor.marks);
        let (reading, size) = (Some(reading), vocabulary.size());
        Ruled { matcher, processor, reading, openings, begun: false, size }
    }

    /// Every token, those that end the answer only within a call.
    fn anything(&self, within_call: bool) -> Vec<u32> {
        let mut all = vec![u32::MAX; self.size.div_ceil(32)];
        for end in self.processor.tokenizer.ends().filter(|_| !within_call) {
            if let Some(word) = all.get_mut(end as usize / 32) {
                *word &= !(1 << (end % 32));
            }
        }
        all
    }
}

impl Constraint for Ruled {
    fn allowed(&mut self) -> Result<Vec<u32>> {
        if let Some(reading) = self.reading.as_ref().filter(|reading| reading.reasons()) {
            return Ok(self.anything(reading.in_call()));
        }
        let mask = self.matcher.compute_mask_or_eos();
        let mut allowed = mask.map_err(|e| broken(&e))?.as_slice().to_vec();
        if !self.begun {
            for &mark in &self.openings {
                if let Some(word) = allowed.get_mut(mark as usize / 32) {
                    *word |= 1 << (mark % 32);
                }
            }
        }
        Ok(allowed)
    }

    fn push(&mut self, id: u32) -> Result<()> {
        self.begun = true;
        if let Some(reading) = &mut self.reading {
            let reasoned = reading.reasons();
            reading.push(id, &self.processor.tokenizer, &self.processor.marks);
            if reasoned || reading.reasons() {
                return Ok(());
            }
            self.reading = None;
        }
        match self.processor.tokenizer.is_end(id) {
            true => Ok(()),
            false => self.matcher.consume_token(id).map_err(|e| broken(&e)),
        }
    }
}

/// The bytes of a token, if it is one that a grammar can use.
fn usable(word: Vec<u8>) -> Vec<u8> {
    if word.len() > MAX_TOKEN { Vec::new() } else { word }
}

fn broken(e: &impl std::fmt::Display) -> Error {
    Error::new(Kind::Validation, "", format!("the rules for the answer: {}", why(e)))
}

/// What is wrong with rules.
fn why(e: &impl std::fmt::Display) -> String {
    match first_line(e) {
        why if why.starts_with("NoExtension") => "nothing may come next".to_owned(),
        why => why,
    }
}

/// What an error says first; the rest is for those who write grammars' parsers.
fn first_line(e: &impl std::fmt::Display) -> String {
    let text = e.to_string();
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}
