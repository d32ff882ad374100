//! Forms (multipart/form-data) with a file: the file, and the other fields as a JSON object.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::StatusCode;
use futures_util::stream;
use serde_json::{Map, Value};

use crate::body;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::held::HeldBody;
use crate::state::App;

/// Maximum size of all that a form has besides its file, in bytes.
const MAX_REST: usize = 256 << 10;

/// Maximum number of fields of a form.
const MAX_FIELDS: usize = 100;

/// A form with an audio file.
pub struct Form {
    /// Content of the file; it counts as long as `held` exists.
    pub audio: Arc<[u8]>,
    /// The other fields. A field whose name ends in `[]` is a list, one that ends in `[KEY]` an object;
    /// all values are texts.
    pub fields: Fields,
    /// Memory of the form.
    pub held: HeldBody,
}

/// Reads a form, whose file is called `file`.
///
/// # Errors
/// If the body is no such form, is too large, too late or broken off, or if other bodies take all
/// memory.
pub async fn read(app: &App, request: Request) -> Result<Form, ApiError> {
    let mut held = app.bodies.receive();
    let (parts, body) = request.into_parts();
    let (mut frames, limit) = (Vec::new(), app.settings.max_audio);
    body::receive(&app.settings, limit + MAX_REST, body, &mut held, |data| frames.push(data))
        .await
        .map_err(|e| match e.status {
            StatusCode::PAYLOAD_TOO_LARGE => large(limit),
            _ => e,
        })?;
    let frames = frames.into_iter().map(Ok::<Bytes, Infallible>);
    let mut request = Request::from_parts(parts, Body::from_stream(stream::iter(frames)));
    // The body is within its limit.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| {
        ApiError::invalid("the body is not a form (multipart/form-data), as curl -F sends it")
    })?;
    let (mut file, mut fields) = (None, Map::new());
    let mut rest = 0;
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            if file.replace(content(field).await?).is_some() {
                return Err(ApiError::invalid("`file` comes twice; send one file a request"));
            }
            continue;
        }
        if fields.len() == MAX_FIELDS {
            return Err(ApiError::invalid(format!("the form has more than {MAX_FIELDS} fields")));
        }
        let text = String::from_utf8(content(field).await?);
        let text = text.map_err(|_| ApiError::invalid_field(&name, "UTF-8 text"))?;
        rest += name.len() + text.len();
        if rest > MAX_REST {
            let message = format!("the form has more than {MAX_REST} bytes besides its file");
            return Err(ApiError::invalid(message));
        }
        insert(&mut fields, &name, text)?;
    }
    let audio = file.ok_or_else(|| ApiError::invalid("`file` is missing"))?;
    match audio.len() {
        0 => Err(ApiError::invalid("`file` is empty")),
        size if size > limit => Err(large(limit)),
        _ => {
            let fields = Fields::of_form(fields, app.settings.lenient);
            Ok(Form { audio: audio.into(), fields, held })
        }
    }
}

async fn content(mut field: Field<'_>) -> Result<Vec<u8>, ApiError> {
    let mut content = Vec::new();
    while let Some(part) = field.chunk().await.map_err(broken)? {
        content.extend_from_slice(&part);
    }
    Ok(content)
}

/// Adds a field; one without text counts as absent.
fn insert(fields: &mut Map<String, Value>, name: &str, text: String) -> Result<(), ApiError> {
    if text.is_empty() {
        return Ok(());
    }
    let mixed = || ApiError::invalid(format!("`{name}` comes twice, in different forms"));
    let key = name.split_once('[').and_then(|(name, key)| Some((name, key.strip_suffix(']')?)));
    match key {
        Some((name, "")) => match fields.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(list) => list.push(text.into()),
            _ => return Err(mixed()),
        },
        Some((name, key)) => {
            match fields.entry(name).or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(object) => drop(object.insert(key.to_owned(), text.into())),
                _ => return Err(mixed()),
            }
        }
        None => {
            if fields.insert(name.to_owned(), text.into()).is_some() {
                return Err(ApiError::invalid(format!("`{name}` comes twice")));
            }
        }
    }
    Ok(())
}

fn broken(_: MultipartError) -> ApiError {
    ApiError::invalid("the form is broken off, or its parts are not divided by its boundary")
}

fn large(limit: usize) -> ApiError {
    let message = format!("`file` has more than {limit} bytes; --max-audio allows more");
    let param = Some("file".to_owned());
    ApiError { param, ..ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message) }
}
