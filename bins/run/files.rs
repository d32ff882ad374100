//! Values of flags that are files or pairs.

use std::fs;
use std::path::{Path, PathBuf};

use mlxk_core::{Error, Kind, Result};
use mlxk_processor::Image;
use mlxk_processor::request::Rules;
use serde_json::{Map, Value};

/// Rules of an answer: the JSON schema in a file, or the grammar in one.
///
/// # Errors
/// If a file cannot be read, or the schema is not JSON.
pub fn rules(schema: Option<&Path>, grammar: Option<&Path>) -> Result<Option<Rules>> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|e| Error::io(path, e));
    if let Some(path) = schema {
        let schema = serde_json::from_str(&read(path)?).map_err(|e| {
            let message = format!("not a JSON schema: {e}");
            Error::new(Kind::Validation, path.display().to_string(), message)
        })?;
        return Ok(Some(Rules::Schema(schema)));
    }
    grammar.map(read).transpose().map(|text| text.map(Rules::Grammar))
}

/// Pictures in files.
///
/// # Errors
/// If a file cannot be read.
pub fn images(paths: &[PathBuf]) -> Result<Vec<Image>> {
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
        Ok(Image { name: path.display().to_string(), bytes: bytes.into() })
    };
    paths.iter().map(read).collect()
}

/// Variables of pairs `NAME=VALUE`, where a value that is not JSON is text.
///
/// # Errors
/// If a pair has no name.
pub fn variables(pairs: &[String]) -> Result<Map<String, Value>> {
    let pair = |pair: &String| match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            Ok((name.to_owned(), value))
        }
        _ => Err(Error::new(Kind::Command, "", format!("{pair:?} is not NAME=VALUE"))),
    };
    pairs.iter().map(pair).collect()
}
