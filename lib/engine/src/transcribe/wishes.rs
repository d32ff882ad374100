//! Wishes that a network cannot heed, each refused in one line that says what would do.

use mlxk_core::{Error, Kind, Result};
use mlxk_processor::transcript::{SpeechTask, TranscribeOptions};

/// Wish that some networks cannot heed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Speech written in English.
    Translation,
    /// Text that precedes the speech.
    Prompt,
    /// Words that are likely.
    Hotwords,
    /// A given language.
    Language,
    /// Times of words.
    Words,
    /// Sampling at a temperature.
    Temperature,
}

/// Errors if `options` state one of the wishes `cannot`.
pub fn refuse(options: &TranscribeOptions, cannot: &[Wish]) -> Result<()> {
    match cannot.iter().find(|wish| wish.stated(options)) {
        Some(wish) => Err(Error::new(Kind::CapabilityNotSupported, "", wish.refusal())),
        None => Ok(()),
    }
}

impl Wish {
    fn stated(self, options: &TranscribeOptions) -> bool {
        match self {
            Wish::Translation => options.task == SpeechTask::Translate,
            Wish::Prompt => options.prompt.is_some(),
            Wish::Hotwords => options.hotwords.is_some(),
            Wish::Language => options.language.is_some(),
            Wish::Words => options.words,
            Wish::Temperature => options.temperatures.first().is_some_and(|&first| first > 0.0),
        }
    }

    fn refusal(self) -> &'static str {
        match self {
            Wish::Translation => {
                "the model cannot translate: it writes speech in its own language only (a \
                 multilingual whisper translates to English)"
            }
            Wish::Prompt => "the model takes no prompt (whisper does)",
            Wish::Hotwords => "the model takes no hot words (whisper does)",
            Wish::Language => {
                "the model takes no language: it writes what it hears (leave the language out)"
            }
            Wish::Words => "the model tells no times of words (whisper and parakeet do)",
            Wish::Temperature => {
                "the model takes no temperature: it writes the likeliest text (leave it out, or 0)"
            }
        }
    }
}
