//! Tokens back to text, piece by piece: what is known is let out, and all pieces together are the
//! text that decoding all tokens at once would give, byte for byte.
//!
//! The `decoder` of a tokenizer.json is a chain of steps, each of which takes pieces and gives
//! pieces. Here a step keeps what it cannot decide yet: the bytes of half a character, or a run of
//! byte tokens, which are text only if the whole run is.

use mlxk_core::{Error, Kind, Result};
use serde_json::Value;

/// Decodes one text, token by token.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    steps: Vec<Step>,
}

impl Detokenizer {
    /// For the `decoder` of a tokenizer.json; without one tokens are words with spaces between.
    ///
    /// # Errors
    /// If it is of a kind that no model which writes text uses, or has steps in an unusual order.
    pub fn new(decoder: &Value) -> Result<Detokenizer> {
        let mut steps = Vec::new();
        match decoder {
            Value::Null => steps.push(Step::Join { first: true }),
            decoder => add(decoder, &mut steps)?,
        }
        let fused = steps.iter().position(|step| matches!(step, Step::Fuse | Step::Bytes { .. }));
        let after = fused.map_or(&[][..], |at| &steps[at + 1..]);
        if after.iter().any(|step| !matches!(step, Step::Fuse | Step::Strip { .. })) {
            return Err(unsupported("steps after the pieces are joined"));
        }
        if fused.is_none() && steps.iter().any(|step| matches!(step, Step::Strip { .. })) {
            return Err(unsupported("Strip before the pieces are joined"));
        }
        Ok(Detokenizer { steps })
    }

    /// The text that the next token settles.
    pub fn push(&mut self, token: &str) -> String {
        let mut text = String::new();
        feed(&mut self.steps, token, &mut text);
        text
    }

    /// What `token` stands for within a text, which may be half a character.
    pub fn bytes(&self, token: &str) -> Vec<u8> {
        let mut piece = token.to_owned();
        for step in &self.steps {
            match step {
                Step::Join { .. } => piece.insert(0, ' '),
                Step::Replace { pattern, content } => {
                    piece = piece.replace(pattern.as_str(), content)
                }
                Step::Metaspace { replacement, .. } => piece = piece.replace(*replacement, " "),
                Step::ByteFallback { .. } => {
                    if let Some(byte) = byte_token(&piece) {
                        return vec![byte];
                    }
                }
                Step::Bytes { .. } => return bytes_of(&piece),
                Step::Fuse | Step::Strip { .. } => {}
            }
        }
        piece.into_bytes()
    }

    /// The rest of the text, when no more tokens come.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        let mut steps = &mut self.steps[..];
        while let Some((step, rest)) = steps.split_first_mut() {
            step.finish(&mut |piece| feed(rest, piece, &mut text));
            steps = rest;
        }
        text
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A space before each piece but the first.
    Join { first: bool },
    /// One string for another, within a piece.
    Replace { pattern: String, content: String },
    /// Pieces of the form `<0xE4>` are bytes; a run that is not UTF-8 is a U+FFFD for each.
    ByteFallback { run: Vec<u8> },
    /// Every character stands for a byte (the table of GPT-2).
    Bytes { rest: Vec<u8> },
    /// A character that stands for a space, which the first piece has too many.
    Metaspace { replacement: char, drop: bool },
    /// From here on there is but one piece.
    Fuse,
    /// Up to `left` times `content` is taken from the front.
    Strip { content: char, left: usize },
}

/// Sends a piece through all steps.
fn feed(steps: &mut [Step], piece: &str, text: &mut String) {
    match steps.split_first_mut() {
        None => text.push_str(piece),
        Some((step, rest)) => step.take(piece, &mut |piece| feed(rest, piece, text)),
    }
}

impl Step {
    fn take(&mut self, piece: &str, give: &mut dyn FnMut(&str)) {
        match self {
            Step::Join { first } => {
                if !std::mem::take(first) {
                    give(" ");
                }
                give(piece);
            }
            Step::Replace { pattern, content } => give(&piece.replace(pattern.as_str(), content)),
            Step::ByteFallback { run } => match byte_token(piece) {
                Some(byte) => run.push(byte),
                None => {
                    give_run(run, give);
                    give(piece);
                }
            },
            Step::Bytes { rest } => {
                rest.extend(bytes_of(piece));
                give_characters(rest, give);
            }
            Step::Metaspace { replacement, drop } => {
                let space = if std::mem::take(drop) { "" } else { " " };
                give(&piece.replace(*replacement, space));
            }
            Step::Fuse => give(piece),
            Step::Strip { content, left } => {
                let mut piece = piece;
                while *left > 0 && !piece.is_empty() {
                    match piece.strip_prefix(*content) {
                        Some(rest) => (piece, *left) = (rest, *left - 1),
                        None => *left = 0,
                    }
                }
                give(piece);
            }
        }
    }

    fn finish(&mut self, give: &mut dyn FnMut(&str)) {
        match self {
            Step::ByteFallback { run } => give_run(run, give),
            Step::Bytes { rest } => {
                give(&String::from_utf8_lossy(rest));
                rest.clear();
            }
            _ => {}
        }
    }
}

/// The byte of a token `<0xE4>`.
fn byte_token(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let byte = u8::from_str_radix(digits, 16).ok();
    byte.filter(|_| digits.len() == 2)
}

fn give_run(run: &mut Vec<u8>, give: &mut dyn FnMut(&str)) {
    match str::from_utf8(run) {
        Ok("") => {}
        Ok(text) => give(text),
        Err(_) => run.iter().for_each(|_| give("\u{fffd}")),
    }
    run.clear();
}

/// Gives the whole characters; what may become one stays.
fn give_characters(bytes: &mut Vec<u8>, give: &mut dyn FnMut(&str)) {
    let unfinished = match bytes.utf8_chunks().last() {
        Some(last) => match str::from_utf8(last.invalid()) {
            Err(e) if e.error_len().is_none() => last.invalid().len(),
            _ => 0,
        },
        None => 0,
    };
    let rest = bytes.split_off(bytes.len() - unfinished);
    give(&String::from_utf8_lossy(bytes));
    *bytes = rest;
}

/// The bytes that the characters stand for; they themselves, if one stands for none.
fn bytes_of(piece: &str) -> Vec<u8> {
    let bytes = piece.chars().map(byte_of).collect::<Option<Vec<u8>>>();
    bytes.unwrap_or_else(|| piece.as_bytes().to_vec())
}

/// The byte that a character stands for: itself if it can be seen, else the next free from U+0100.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        c @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(c).ok(),
        c @ 0x100..=0x120 => u8::try_from(c - 0x100).ok(),
        c @ 0x121..=0x142 => u8::try_from(c - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

fn add(decoder: &Value, steps: &mut Vec<Step>) -> Result<()> {
    let character = |key: &str| decoder[key].as_str().and_then(|text| text.chars().next());
    let step = match decoder["type"].as_str().unwrap_or_default() {
        "Sequence" => {
            let parts = decoder["decoders"].as_array().into_iter().flatten();
            return parts.into_iter().try_for_each(|part| add(part, steps));
        }
        "ByteLevel" => Step::Bytes { rest: Vec::new() },
        "ByteFallback" => Step::ByteFallback { run: Vec::new() },
        "Fuse" => Step::Fuse,
        "Replace" => match (decoder["pattern"]["String"].as_str(), decoder["content"].as_str()) {
            (Some(pattern), Some(content)) => {
                Step::Replace { pattern: pattern.into(), content: content.into() }
            }
            _ => return Err(unsupported("Replace of a pattern")),
        },
        "Metaspace" => Step::Metaspace {
            replacement: character("replacement").unwrap_or('▁'),
            drop: decoder["prepend_scheme"] != "never",
        },
        "Strip" => match (character("content"), decoder["start"].as_u64(), &decoder["stop"]) {
            (Some(content), Some(left), stop) if stop == 0 => {
                Step::Strip { content, left: usize::try_from(left).unwrap_or(usize::MAX) }
            }
            _ => return Err(unsupported("Strip at the end")),
        },
        kind => return Err(unsupported(kind)),
    };
    steps.push(step);
    Ok(())
}

fn unsupported(what: &str) -> Error {
    let message = format!("a decoder that cannot write text: {what}");
    Error::new(Kind::NotImplemented, "tokenizer.json", message)
}
