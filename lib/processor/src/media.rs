//! Pictures of a prompt: their pixels, and their placeholder tokens.

use std::ops::Range;
use std::sync::Arc;

use mlxk_core::{Error, Facts, Kind, Result};
use serde_json::{Map, Value};

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
    /// Tokens of the prompt from the first to the last that stands for the picture.
    pub tokens: Range<usize>,
    /// Runs of adjacent tokens among these whose embeddings the picture's features replace; between
    /// them are marks, such as those at the ends of rows.
    pub runs: Vec<Range<usize>>,
    /// Pixels as the tower takes them.
    pub pixels: Arc<Pixels>,
}

/// Picture half of a model's processor.
pub struct MediaProcessor {
    images: ImageProcessor,
    /// Text that stands for a picture in a chat template's output.
    placeholder: String,
    /// Text of the token for a row of features.
    image: String,
    /// Id of that token.
    token: u32,
}

impl MediaProcessor {
    /// Reads the processor of a model's pictures; the inner error says why the model takes none.
    ///
    /// # Errors
    /// [`Kind::InvalidModel`] if a file of the model is invalid.
    pub fn read(facts: &Facts, tokenizer: &Tokenizer) -> Result<Result<MediaProcessor>> {
        let none = || {
            Error::unsupported("the model takes no pictures")
                .hint("mlxk-show names the task of a model; pictures are for vision models")
        };
        let Some(config) = facts.config.object() else { return Ok(Err(none())) };
        let config: Value = config.read().map_err(|e| {
            let path = facts.path("config.json").display().to_string();
            Error::invalid_model(path, e.to_string())
        })?;
        let keys = ["image_token_id", "image_token_index"];
        let token = keys.iter().find_map(|key| config.get(*key)?.as_u64());
        let token = token.and_then(|id| u32::try_from(id).ok());
        match config.get("vision_config") {
            Some(Value::Object(_)) => {}
            Some(Value::Null) if token.is_some() => {
                let message = "the checkpoint has no vision tower, so it takes no pictures";
                return Ok(Err(Error::unsupported(message)));
            }
            _ => return Ok(Err(none())),
        }
        let kind = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let unknown = || {
            let message = format!("models of type `{kind}` take no pictures here yet");
            Err(Error::unsupported(message))
        };
        let file = |name: &str| read(facts, name);
        let preprocessor = file("preprocessor_config.json")?;
        let processor = with_tokens(file("processor_config.json")?, facts);
        let images = match ImageProcessor::new(&config, &preprocessor, &processor) {
            Err(e) if e.kind == Kind::CapabilityNotSupported && e.subject == kind => {
                return Ok(unknown());
            }
            Err(e) if e.kind == Kind::CapabilityNotSupported => return Ok(Err(e)),
            images => images?,
        };
        let token = token.or_else(|| tokenizer.added(images.token()?));
        let Some(token) = token else { return Ok(unknown()) };
        let image = tokenizer.token(token).ok_or_else(|| {
            let message = format!("image token {token} is not in the tokenizer");
            Error::invalid_model(facts.path("config.json").display().to_string(), message)
        })?;
        let placeholder = images.placeholder().unwrap_or(&image).to_owned();
        Ok(Ok(MediaProcessor { images, placeholder, image, token }))
    }

    /// Text that stands for a picture in a chat template's output.
    pub fn placeholder(&self) -> &str {
        &self.placeholder
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

    /// `text` of a prompt with the placeholder of each picture replaced by its image tokens and the
    /// marks around them.
    ///
    /// # Errors
    /// [`Kind::Validation`] if the number of placeholders differs from that of pictures.
    pub fn expand(&self, text: &str, pixels: &[Arc<Pixels>]) -> Result<String> {
        let parts: Vec<&str> = text.split(&self.placeholder).collect();
        if parts.len() != pixels.len() + 1 {
            let (found, count, placeholder) = (parts.len() - 1, pixels.len(), &self.placeholder);
            let message =
                format!("the prompt has {found} times `{placeholder}`, for {count} pictures");
            return Err(Error::validation(message));
        }
        let mut expanded = parts[0].to_owned();
        for (pixels, after) in pixels.iter().zip(&parts[1..]) {
            expanded.push_str(&self.images.text(&self.image, pixels));
            expanded.push_str(after);
        }
        Ok(expanded)
    }

    /// Pictures with their places among the tokens `ids` of an expanded prompt.
    ///
    /// # Errors
    /// [`Kind::Validation`] if the tokens are not those of the pictures.
    pub fn locate(&self, ids: &[u32], pixels: Vec<Arc<Pixels>>) -> Result<Vec<Media>> {
        let places = ids.iter().enumerate().filter(|(_, id)| **id == self.token);
        let places: Vec<usize> = places.map(|(place, _)| place).collect();
        let total = pixels.iter().map(|pixels| pixels.tokens).sum();
        if places.len() != total {
            return Err(self.miscounted(places.len(), total));
        }
        let mut rest = places.as_slice();
        let locate = |pixels: Arc<Pixels>| {
            let (own, after) = rest.split_at(pixels.tokens);
            rest = after;
            let runs = own.chunk_by(|place, next| place + 1 == *next);
            let runs: Vec<Range<usize>> = runs.map(|run| run[0]..run[0] + run.len()).collect();
            let ends = runs.first().zip(runs.last());
            let tokens = ends.map_or(0..0, |(first, last)| first.start..last.end);
            Media { tokens, runs, pixels }
        };
        Ok(pixels.into_iter().map(locate).collect())
    }

    fn miscounted(&self, found: usize, expected: usize) -> Error {
        let placeholder = &self.image;
        Error::validation(format!("the prompt has {found} times `{placeholder}`, not {expected}"))
    }
}

/// Settings of the `processor` with the names of tokens that `tokenizer_config.json` states.
fn with_tokens(mut processor: Value, facts: &Facts) -> Value {
    if processor.is_null() {
        processor = Value::Object(Map::new());
    }
    let Some(stated) = facts.tokenizer_config.object() else { return processor };
    let (Some(all), Ok(Value::Object(stated))) = (processor.as_object_mut(), stated.read()) else {
        return processor;
    };
    let further = stated.get("extra_special_tokens").and_then(Value::as_object);
    let further = further.into_iter().flatten();
    for (name, token) in stated.iter().chain(further).filter(|(name, _)| name.ends_with("_token")) {
        if all.get(name).is_none_or(Value::is_null) {
            all.insert(name.clone(), token.clone());
        }
    }
    processor
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
