//! Tokens of a Whisper model that have a meaning of their own, and those that are never written.

use mlxk_core::{Error, Facts, Kind, Result};
use mlxk_processor::{Tokenizer, WHISPER_LANGUAGES, whisper_tokenizer};
use serde_json::Value;

/// Marks that are written for what is no speech.
const MARKS: &str = "\" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 << >> <<< >>> -- --- -( -[ \
                     (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";

/// Notes, of which the first token alone is never written.
const NOTES: &str = "♩ ♪ ♫ ♬ ♭ ♮ ♯";

/// Tokenizer of a model, and the ids of its special tokens.
pub struct Vocabulary {
    /// Tokenizer.
    pub tokenizer: Tokenizer,
    /// End of a text.
    pub end: u32,
    /// Start of what is written of a window.
    pub start: u32,
    /// Request to write the speech in its own language.
    pub transcribe: u32,
    /// Request to write the speech in English.
    pub translate: u32,
    /// Start of the text before a window.
    pub previous: u32,
    /// Statement that a window has no speech.
    pub no_speech: u32,
    /// Request to write no times.
    pub no_timestamps: u32,
    /// The time 0; those after it have the ids after it, each of 0.02 seconds more.
    pub time: u32,
    /// Codes of the languages, each with its token; empty if the model knows English alone.
    pub languages: Vec<(&'static str, u32)>,
    /// Tokens that are never written.
    pub suppressed: Vec<u32>,
    /// Tokens that are not the first ones.
    pub not_first: Vec<u32>,
}

impl Vocabulary {
    /// Vocabulary of the model of `facts`, which knows `size` tokens: that of its tokenizer.json, or
    /// else the one that OpenAI published with models of this size.
    ///
    /// # Errors
    /// If tokenizer.json is malformed or lacks a special token, or there is no such vocabulary.
    pub fn read(facts: &Facts, size: usize) -> Result<Vocabulary> {
        let tokenizer = match facts.tokenizer() {
            Some(_) => Tokenizer::read(facts)?,
            None => whisper_tokenizer(size)?,
        };
        let find = |name: &str| tokenizer.id(&format!("<|{name}|>"));
        let need = |name: &str| {
            let missing = || format!("the token <|{name}|> of Whisper is missing");
            find(name).ok_or_else(|| Error::new(Kind::InvalidModel, "tokenizer.json", missing()))
        };
        let stated = facts.generation_config.get("is_multilingual");
        let multilingual = stated.and_then(|stated| stated.as_bool()).unwrap_or(size != ENGLISH);
        let codes = WHISPER_LANGUAGES.iter().filter(|_| multilingual);
        let languages = codes.filter_map(|&code| Some((code, find(code)?))).collect();
        let no_timestamps = need("notimestamps")?;
        let mut vocabulary = Vocabulary {
            end: need("endoftext")?,
            start: need("startoftranscript")?,
            transcribe: need("transcribe")?,
            translate: need("translate")?,
            previous: need("startofprev")?,
            // The name in older files.
            no_speech: find("nospeech").map_or_else(|| need("nocaptions"), Ok)?,
            no_timestamps,
            time: no_timestamps + 1,
            languages,
            suppressed: Vec::new(),
            not_first: Vec::new(),
            tokenizer,
        };
        vocabulary.suppressed =
            vocabulary.unspoken(&facts.generation_config.get("suppress_tokens"))?;
        let first = ids(&facts.generation_config.get("begin_suppress_tokens"));
        vocabulary.not_first = match first {
            Some(first) => first,
            None => [vocabulary.tokenizer.encode_part(" ")?, vec![vocabulary.end]].concat(),
        };
        Ok(vocabulary)
    }

    /// Tokens that are never written: those that the model's files state, or else marks of what is no
    /// speech; and requests.
    fn unspoken(&self, stated: &Option<Value>) -> Result<Vec<u32>> {
        let mut all = match ids(stated) {
            Some(stated) => stated,
            None => self.marks()?,
        };
        let start_of_text = self.tokenizer.id("<|startoflm|>");
        all.extend([self.transcribe, self.translate, self.start, self.previous, self.no_speech]);
        all.extend(start_of_text);
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Tokens of marks of what is no speech.
    fn marks(&self) -> Result<Vec<u32>> {
        let mut all = Vec::new();
        // Hyphens and quotes are written within words, but not before them.
        for text in [" -", " '"] {
            all.extend(self.tokenizer.encode_part(text)?.first());
        }
        let marks = MARKS.split(' ').map(|mark| (mark, false));
        for (mark, note) in marks.chain(NOTES.split(' ').map(|mark| (mark, true))) {
            for text in [mark.to_owned(), format!(" {mark}")] {
                let tokens = self.tokenizer.encode_part(&text)?;
                all.extend(tokens.first().filter(|_| note || tokens.len() == 1));
            }
        }
        Ok(all)
    }

    /// Text of `tokens`, without special ones.
    pub fn text(&self, tokens: &[u32]) -> String {
        let spoken = tokens.iter().filter(|&&token| token < self.end);
        let bytes: Vec<u8> = spoken.flat_map(|&token| self.tokenizer.bytes(token)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// True if the token is a time.
    pub fn is_time(&self, token: u32) -> bool {
        token >= self.time
    }

    /// Token of a language by its code.
    ///
    /// # Errors
    /// If the model does not know the language.
    pub fn language(&self, code: &str) -> Result<Option<u32>> {
        let code = code.to_lowercase();
        if self.languages.is_empty() {
            return match code.as_str() {
                "en" => Ok(None),
                _ => Err(Error::validation(format!("the model knows English, not {code:?}"))),
            };
        }
        let known = self.languages.iter().find(|(known, _)| *known == code);
        known.map(|(_, token)| Some(*token)).ok_or_else(|| {
            let codes: Vec<&str> = self.languages.iter().map(|(code, _)| *code).collect();
            Error::validation(format!("the model knows no language {code:?}"))
                .hint(format!("languages have codes: {}", codes.join(", ")))
        })
    }
}

/// Tokens of the vocabulary of the models for English.
const ENGLISH: usize = 51_864;

/// List of ids in a file.
fn ids(value: &Option<Value>) -> Option<Vec<u32>> {
    let list = value.as_ref()?.as_array()?;
    list.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}
