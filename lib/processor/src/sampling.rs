//! How tokens are chosen: the sampling parameters, what constrains a choice, and what is chosen.

use mlxk_core::{Error, Kind};

/// How to choose. All values are those of the caller: there are no defaults here.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token; above, the flatter the more random.
    pub temperature: f32,
    /// Keep the most likely tokens that together have this probability; 1 (or 0) keeps all.
    pub top_p: f32,
    /// Keep this many of the most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep tokens at least this likely in proportion to the most likely one; 0 keeps all.
    pub min_p: f32,
    /// How often to drop the most likely of the tokens above `xtc_threshold`, all but the last.
    pub xtc_probability: f32,
    /// See `xtc_probability`.
    pub xtc_threshold: f32,
    /// Tokens that `xtc_probability` drops never.
    pub xtc_spared: Vec<u32>,
    /// Divide (or, below zero, multiply) the logits of recent tokens by this; 1 is none.
    pub repetition_penalty: f32,
    /// Take this from the logits of recent tokens.
    pub presence_penalty: f32,
    /// Take this from the logits of recent tokens for every time they came.
    pub frequency_penalty: f32,
    /// How many of the last tokens, those of the prompt too, are recent.
    pub penalty_context: u32,
    /// Add to the logits of single tokens, each named once.
    pub logit_bias: Vec<(u32, f32)>,
    /// The same seed, prompt and settings give the same tokens.
    pub seed: u64,
    /// Tell of each token how likely it was, and of so many of the most likely ones.
    pub logprobs: Option<u32>,
}

impl Sampling {
    /// The most likely token, always.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        xtc_probability: 0.0,
        xtc_threshold: 0.1,
        xtc_spared: Vec::new(),
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        penalty_context: 20,
        logit_bias: Vec::new(),
        seed: 0,
        logprobs: None,
    };

    /// The most likely tokens that can be told of at most.
    pub const MOST_LOGPROBS: u32 = 20;

    /// Errors if a value is out of its range, and says which.
    pub fn check(&self) -> mlxk_core::Result<()> {
        let finite = f32::MIN..=f32::MAX;
        let numbers = [
            ("temperature", self.temperature, 0.0..=f32::MAX, "a number from 0"),
            ("top_p", self.top_p, 0.0..=1.0, "a number from 0 to 1"),
            ("min_p", self.min_p, 0.0..=1.0, "a number from 0 to 1"),
            ("xtc_probability", self.xtc_probability, 0.0..=1.0, "a number from 0 to 1"),
            ("xtc_threshold", self.xtc_threshold, 0.0..=0.5, "a number from 0 to 0.5"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                f32::MIN_POSITIVE..=f32::MAX,
                "a number above 0",
            ),
            ("presence_penalty", self.presence_penalty, finite.clone(), "a number"),
            ("frequency_penalty", self.frequency_penalty, finite.clone(), "a number"),
        ];
        let number = numbers.into_iter().find(|(_, value, range, _)| !range.contains(value));
        let wrong = match number {
            Some((name, _, _, what)) => Some((name, what)),
            None if self.penalty_context == 0 => Some(("penalty_context", "a whole number from 1")),
            None if self.logprobs.is_some_and(|n| n > Sampling::MOST_LOGPROBS) => {
                Some(("logprobs", "a whole number from 0 to 20"))
            }
            None if !self.logit_bias.iter().all(|(_, bias)| finite.contains(bias)) => {
                Some(("logit_bias", "made of numbers"))
            }
            None => None,
        };
        wrong.map_or(Ok(()), |(name, what)| {
            Err(Error::new(Kind::Validation, "", format!("`{name}` is not {what}")))
        })
    }

    /// Whether recent tokens are less likely than they would be.
    pub fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
    }

    /// What the most likely tokens have to have together, if that is not all.
    pub fn share(&self) -> Option<f32> {
        Some(self.top_p).filter(|&share| share > 0.0 && share < 1.0)
    }

    /// Whether only some of the tokens are chosen from.
    pub fn filters(&self) -> bool {
        self.share().is_some() || self.top_k > 0 || self.min_p > 0.0 || self.xtc_probability > 0.0
    }
}

/// What may come next in a text that has to follow rules.
pub trait Constraint {
    /// The tokens that may come next, a bit for each id, the lowest bit of the first word first.
    ///
    /// # Errors
    /// If the rules leave no way on.
    fn allowed(&mut self) -> mlxk_core::Result<Vec<u32>>;

    /// Goes on by the token that was chosen.
    ///
    /// # Errors
    /// If it may not come here.
    fn push(&mut self, id: u32) -> mlxk_core::Result<()>;
}

/// A token, and how likely it was if that was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its number.
    pub id: u32,
    /// See [`Sampling::logprobs`].
    pub logprobs: Option<Logprobs>,
}

/// Natural logarithms of probabilities, before any filter and temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the token itself.
    pub own: f32,
    /// Of the most likely ones, the likeliest first.
    pub top: Vec<(u32, f32)>,
}
