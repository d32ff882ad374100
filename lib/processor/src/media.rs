//! Pictures of a prompt: their pixels, and their placeholder tokens.

use std::ops::Range;
use std::sync::Arc;

use mlxk_core::{Error, Facts, Kind, Result};
use serde_json::Value;

use crate::image::{ImageProcessor, Pixels};
use crate::text::tokenizer::Tokenizer;

/// File of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Name in errors.
    pub name: String,
    /// Bytes of the file, in any supported format.
    pub bytes: Arc<[u8]>,
}

/// Picture in a prompt, ready for a vision tower.
#[derive(Clone, Debug, PartialEq)]
pub struct Media {
    /// Tokens of the prompt whose embeddings the picture's features replace.
    pub tokens: Range<usize>,
    /// Pixels as the tower takes them.
    pub pixels: Arc<Pixels>,
}

/// Picture half of a model's processor.
pub struct MediaProcessor {
    images: ImageProcessor,
    /// Text of the placeholder token for a row of features.
    placeholder: String,
    /// Id of that token.
    token: u32,
}

impl MediaProcessor {
    /// Reads the processor of a model's pictures; `None` if the model takes none.
    ///
    /// # Errors
    /// [`Kind::InvalidModel`] if a file of the model is invalid.
    pub fn read(facts: &Facts, tokenizer: &Tokenizer) -> Result<Option<MediaProcessor>> {
        let Some(config) = facts.config.object() else { return Ok(None) };
        let config: Value = config.read().map_err(|e| {
            let path = facts.path("config.json").display().to_string();
            Error::invalid_model(path, e.to_string())
        })?;
        let keys = ["image_token_id", "image_token_index"];
        let token = keys.iter().find_map(|key| config.get(*key)?.as_u64());
        let token = token.and_then(|id| u32::try_from(id).ok());
        let (Some(token), true) =
            (token, config.get("vision_config").is_some_and(Value::is_object))
        else {
            return Ok(None);
        };
        let file = |name: &str| read(facts, name);
        let preprocessor = file("preprocessor_config.json")?;
        let images = ImageProcessor::new(&config, &preprocessor, &file("processor_config.json")?);
        let images = match images {
            Err(e) if e.kind == Kind::CapabilityNotSupported => return Ok(None),
            images => images?,
        };
        let placeholder = tokenizer.token(token).ok_or_else(|| {
            let message = format!("image token {token} is not in the tokenizer");
            Error::invalid_model(facts.path("config.json").display().to_string(), message)
        })?;
        Ok(Some(MediaProcessor { images, placeholder, token }))
    }

    /// Pixels of pictures.
    ///
    /// # Errors
    /// [`Kind::Validation`] if one is not a picture, is too large, or has a shape that the model
    /// does not support.
    pub fn pixels(&self, images: &[Image]) -> Result<Vec<Arc<Pixels>>> {
        let pixels = |image: &Image| {
            let pixels = self.images.process(&image.bytes);
            pixels.map(Arc::new).map_err(|mut e| {
                e.subject.clone_from(&image.name);
                e
            })
        };
        images.iter().map(pixels).collect()
    }

    /// `text` of a prompt with the placeholder of each picture repeated once for each of its
    /// tokens.
    ///
    /// # Errors
    /// [`Kind::Validation`] if the number of placeholders differs from that of pictures.
    pub fn expand(&self, text: &str, pixels: &[Arc<Pixels>]) -> Result<String> {
        let parts: Vec<&str> = text.split(&self.placeholder).collect();
        if parts.len() != pixels.len() + 1 {
            return Err(self.miscounted(parts.len() - 1, pixels.len()));
        }
        let mut expanded = parts[0].to_owned();
        for (pixels, after) in pixels.iter().zip(&parts[1..]) {
            expanded.push_str(&self.placeholder.repeat(pixels.tokens));
            expanded.push_str(after);
        }
        Ok(expanded)
    }

    /// Pictures with their places among the tokens `ids` of an expanded prompt.
    ///
    /// # Errors
    /// [`Kind::Validation`] if the tokens are not those of the pictures.
    pub fn locate(&self, ids: &[u32], pixels: Vec<Arc<Pixels>>) -> Result<Vec<Media>> {
        let mut places =
            ids.iter().enumerate().filter(|(_, id)| **id == self.token).map(|(i, _)| i);
        let total = pixels.iter().map(|pixels| pixels.tokens).sum();
        let mut media = Vec::new();
        for pixels in pixels {
            let mut own = places.by_ref().take(pixels.tokens);
            let first = own.next().unwrap_or(ids.len());
            if own.count() + 1 != pixels.tokens {
                return Err(self.miscounted(ids.len(), total));
            }
            media.push(Media { tokens: first..first + pixels.tokens, pixels });
        }
        match places.next() {
            None => Ok(media),
            Some(_) => Err(self.miscounted(total + 1, total)),
        }
    }

    fn miscounted(&self, found: usize, expected: usize) -> Error {
        let placeholder = &self.placeholder;
        Error::validation(format!("the prompt has {found} times `{placeholder}`, not {expected}"))
    }
}

/// A JSON file of the model; null if there is none.
fn read(facts: &Facts, name: &str) -> Result<Value> {
    let path = facts.path(name);
    if !facts.has(name) {
        return Ok(Value::Null);
    }
    let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::invalid_model(path.display().to_string(), e.to_string()))
}
