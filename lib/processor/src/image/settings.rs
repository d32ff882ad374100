//! What a checkpoint's files say of its pictures: `preprocessor_config.json`, and over it the
//! `image_processor` of `processor_config.json`.

use std::ops::RangeInclusive;

use mlxk_core::{Error, Kind, Result};
use serde_json::{Map, Value};

use super::resize::Filter;

/// The settings of an image processor. A key that is missing or null has the family's default.
pub struct Settings {
    image: Map<String, Value>,
}

impl Settings {
    /// Settings of the two files; a file that is not there is null.
    ///
    /// Fails with [`Kind::InvalidModel`] if a file, or `image_processor`, is not an object.
    pub fn new(preprocessor: &Value, processor: &Value) -> Result<Self> {
        let mut image = object("preprocessor_config.json", preprocessor)?;
        let mut processor = object("processor_config.json", processor)?;
        let over = processor.remove("image_processor").unwrap_or_default();
        image.extend(object("image_processor", &over)?);
        Ok(Settings { image })
    }

    /// The whole number at `key`, or within an object by a path such as `size.height`.
    pub fn whole(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        self.find(key).map(|value| whole(key, value, range)).transpose()
    }

    /// The flag at `key`.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let read = |value: &Value| value.as_bool().ok_or_else(|| invalid(key, "is not a boolean"));
        self.find(key).map_or(Ok(default), read)
    }

    /// The number at `key`.
    pub fn number(&self, key: &str, default: f64) -> Result<f64> {
        let read = |value: &Value| value.as_f64().ok_or_else(|| invalid(key, "is not a number"));
        self.find(key).map_or(Ok(default), read)
    }

    /// A number for each channel at `key`; one number is that of all three.
    pub fn channels(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3]> {
        let Some(value) = self.find(key) else { return Ok(default) };
        let list = match value {
            Value::Array(list) => list.iter().map(Value::as_f64).collect(),
            value => value.as_f64().map(|number| vec![number; 3]),
        };
        let three = list.and_then(|list: Vec<f64>| list.try_into().ok());
        three.ok_or_else(|| invalid(key, "is not three numbers"))
    }

    /// A number for each channel at `key`, none of which is 0.
    pub fn divisors(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3]> {
        let channels = self.channels(key, default)?;
        match channels.iter().any(|&number| number as f32 == 0.0) {
            true => Err(invalid(key, "is 0")),
            false => Ok(channels),
        }
    }

    /// The filter whose number is at `resample`.
    pub fn filter(&self, default: Filter) -> Result<Filter> {
        let read = |value: &Value| {
            let filter = value.as_u64().and_then(Filter::numbered);
            filter.ok_or_else(|| invalid("resample", "is not 0, 1, 2 or 3"))
        };
        self.find("resample").map_or(Ok(default), read)
    }

    fn find(&self, path: &str) -> Option<&Value> {
        let (first, inner) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
        let value = self.image.get(first)?;
        inner.map_or(Some(value), |inner| value.get(inner)).filter(|value| !value.is_null())
    }
}

fn object(name: &str, value: &Value) -> Result<Map<String, Value>> {
    match value {
        Value::Object(object) => Ok(object.clone()),
        Value::Null => Ok(Map::new()),
        _ => Err(invalid(name, "is not an object")),
    }
}

fn whole(key: &str, value: &Value, range: RangeInclusive<usize>) -> Result<usize> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        let (low, high) = range.into_inner();
        invalid(key, &format!("is not a whole number from {low} to {high}"))
    })
}

fn invalid(key: &str, what: &str) -> Error {
    Error::new(Kind::InvalidModel, "image processor", format!("{key} {what}"))
}
