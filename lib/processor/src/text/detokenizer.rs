//! Detokenizer: tokens to text, piece by piece. All pieces together are, byte for byte, the text
//! that decoding all tokens at once gives.
//!
//! The `decoder` of a tokenizer.json is a chain of steps, each of which maps pieces to pieces. Here
//! a step holds back what is not certain yet: the bytes of an incomplete character, or a run of
//! byte tokens, which are text only if the whole run is UTF-8.

use mlxk_core::{Error, Kind, Result};
use serde_json::Value;

/// Decoder of one text, token by token.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    steps: Vec<Step>,
}

impl Detokenizer {
    /// Decoder of the `decoder` of a tokenizer.json; without one, tokens are words with spaces
    /// between.
    ///
    /// # Errors
    /// [`Kind::NotImplemented`] if the decoder has a step, or an order of steps, that no model for
    /// text uses.
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

    /// Advances by a token, and returns the text that is certain.
    pub fn push(&mut self, token: &str) -> String {
        let mut text = String::new();
        feed(&mut self.steps, token, &mut text);
        text
    }

    /// Bytes that a token adds to a text, perhaps a part of a character.
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

    /// Ends the text, and returns the rest.
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
    /// Space before each piece but the first.
    Join { first: bool },
    /// Replacement of a string within a piece.
    Replace { pattern: String, content: String },
    /// Bytes from pieces of the form `<0xE4>`; each byte of a run that is not UTF-8 becomes U+FFFD.
    ByteFallback { run: Vec<u8> },
    /// Bytes from characters, by the table of GPT-2.
    Bytes { rest: Vec<u8> },
    /// Spaces from a replacement character; the first piece has one too many.
    Metaspace { replacement: char, drop: bool },
    /// Concatenation of all pieces.
    Fuse,
    /// Removal of up to `left` times `content` from the front.
    Strip { content: char, left: usize },
}

/// Feeds a piece through all steps.
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

/// Byte of a token of the form `<0xE4>`.
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

/// Passes on the complete characters; the bytes of an incomplete one stay.
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

/// Bytes of the characters by GPT-2's byte table; the UTF-8 bytes of the text if a character is not
/// in the table.
fn bytes_of(piece: &str) -> Vec<u8> {
    let bytes = piece.chars().map(byte_of).collect::<Option<Vec<u8>>>();
    bytes.unwrap_or_else(|| piece.as_bytes().to_vec())
}

/// Byte of a character in GPT-2's table: printable bytes are the characters of the same number, the
/// others are numbered from U+0100 on.
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
