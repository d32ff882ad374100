//! Checks of config.json, and errors that name its fields.

use mlxk_core::{Error, Kind, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Bound of the number of layers; more in a file is a mistake or an attack.
const MOST_LAYERS: usize = 10_000;
/// Bound of dimensions in MLX.
const LARGEST: usize = i32::MAX as usize;

/// Error of kind [`Kind::RuntimeIncompatible`] for a value of config.json that is not supported.
pub fn unknown(message: String) -> Error {
    Error::new(Kind::RuntimeIncompatible, "config.json", message)
}

/// Deserialises `config` to `T`. Errors name the field that is missing or of another type.
pub fn fields<T: DeserializeOwned>(config: &Value) -> Result<T> {
    serde_path_to_error::deserialize(config).map_err(|e| match e.path().iter().next() {
        None => invalid(e.inner().to_string()),
        Some(_) => invalid(format!("`{}`: {}", e.path(), e.inner())),
    })
}

/// Errors if `count` exceeds the bound of layers.
pub fn most_layers(count: usize) -> Result<()> {
    match count > MOST_LAYERS {
        true => Err(invalid(format!("`num_hidden_layers` cannot be {count}"))),
        false => Ok(()),
    }
}

/// Errors with the name of the first size that is zero or too large for MLX.
pub fn positive(sizes: &[(&str, usize)]) -> Result<()> {
    match sizes.iter().find(|&&(_, n)| n == 0 || n > LARGEST) {
        Some((name, size)) => Err(invalid(format!("`{name}` cannot be {size}"))),
        None => Ok(()),
    }
}

/// Errors unless `heads` query heads are a multiple of `kv_heads` key heads.
pub fn even(heads: usize, kv_heads: usize) -> Result<()> {
    match heads.is_multiple_of(kv_heads) {
        true => Ok(()),
        false => Err(invalid(format!("{heads} query heads cannot share {kv_heads} key heads"))),
    }
}

/// Error of kind [`Kind::InvalidModel`] about config.json.
pub fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidModel, "config.json", message)
}
