//! Checks of config.json, and the errors that name its fields.

use mlxk_core::{Error, Kind, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// More than any model has; a larger number in a file is a mistake or an attack.
const MOST_LAYERS: usize = 10_000;
/// Larger dimensions do not fit MLX's shapes.
const LARGEST: usize = i32::MAX as usize;

/// A kind of something that config.json names and nothing here computes.
pub fn unknown(message: String) -> Error {
    Error::new(Kind::RuntimeIncompatible, "config.json", message)
}

/// The fields that `T` has of a configuration. Errors name the one that is missing or not of its type.
pub fn fields<T: DeserializeOwned>(config: &Value) -> Result<T> {
    serde_path_to_error::deserialize(config).map_err(|e| match e.path().iter().next() {
        None => invalid(e.inner().to_string()),
        Some(_) => invalid(format!("`{}`: {}", e.path(), e.inner())),
    })
}

/// Errors if no model has so many layers.
pub fn most_layers(count: usize) -> Result<()> {
    match count > MOST_LAYERS {
        true => Err(invalid(format!("`num_hidden_layers` cannot be {count}"))),
        false => Ok(()),
    }
}

/// Errors with the name of the first size that no model can have.
pub fn positive(sizes: &[(&str, usize)]) -> Result<()> {
    match sizes.iter().find(|&&(_, n)| n == 0 || n > LARGEST) {
        Some((name, size)) => Err(invalid(format!("`{name}` cannot be {size}"))),
        None => Ok(()),
    }
}

/// Errors unless each of `kv_heads` key heads has as many of the `heads` query heads.
pub fn even(heads: usize, kv_heads: usize) -> Result<()> {
    match heads.is_multiple_of(kv_heads) {
        true => Ok(()),
        false => Err(invalid(format!("{heads} query heads cannot share {kv_heads} key heads"))),
    }
}

/// An error about what config.json says.
pub fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidModel, "config.json", message)
}
