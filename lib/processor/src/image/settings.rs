//! Image settings in a checkpoint's configuration files.

use std::ops::RangeInclusive;

use mlxk_core::{Error, Kind, Result};
use serde_json::{Map, Value};

use super::resize::Filter;
use super::rgb::Size;

/// Sides of pictures, in pixels.
const SIDE: RangeInclusive<usize> = 1..=1 << 16;

/// The settings of an image processor, by source file.
pub struct Settings {
    /// Image processor: `preprocessor_config.json`, and over it the `image_processor` of
    /// `processor_config.json`.
    pub image: Section,
    /// Processor: the other keys of `processor_config.json`.
    pub processor: Section,
    /// Model: `config.json`.
    pub model: Section,
}

impl Settings {
    /// Settings of the three files; a file that is not there is null.
    ///
    /// Fails with [`Kind::InvalidModel`] if a file, or `image_processor`, is not an object.
    pub fn new(config: &Value, preprocessor: &Value, processor: &Value) -> Result<Self> {
        let mut image = object("preprocessor_config.json", preprocessor)?;
        let mut processor = object("processor_config.json", processor)?;
        let over = processor.remove("image_processor").unwrap_or_default();
        image.extend(object("image_processor", &over)?);
        Ok(Settings {
            image: Section(image),
            processor: Section(processor),
            model: Section(object("config.json", config)?),
        })
    }

    /// The side of a patch in pixels: the tower's, else the image processor's or the processor's.
    pub fn patch_size(&self, default: usize) -> Result<usize> {
        for (section, key) in [
            (&self.model, "vision_config.patch_size"),
            (&self.image, "patch_size.height"),
            (&self.image, "patch_size"),
            (&self.processor, "patch_size"),
        ] {
            if let Some(side) = section.whole(key, 1..=1024)? {
                return Ok(side);
            }
        }
        Ok(default)
    }
}

/// An object of settings. A key that is missing or null has the family's default; a key within an
/// object is written as a path such as `size.height`.
///
/// Every method fails with [`Kind::InvalidModel`], naming the key, if the value is of another kind.
pub struct Section(Map<String, Value>);

impl Section {
    /// The whole number at `key`.
    pub fn whole(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        self.find(key).map(|value| whole(key, value, range)).transpose()
    }

    /// The size whose `height` and `width` are in the object at `key`.
    pub fn size(&self, key: &str) -> Result<Option<Size>> {
        let height = self.whole(&format!("{key}.height"), SIDE)?;
        let width = self.whole(&format!("{key}.width"), SIDE)?;
        Ok(height.zip(width).map(|(height, width)| Size { width, height }))
    }

    /// The side at `key`, or at `name` in the object at `key`.
    pub fn side(&self, key: &str, name: &str) -> Result<Option<usize>> {
        match self.find(key).is_some_and(Value::is_object) {
            true => self.whole(&format!("{key}.{name}"), SIDE),
            false => self.whole(key, SIDE),
        }
    }

    /// The text at `key`.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.find(key)?.as_str()
    }

    /// The text of the token at `key`, which may be in an object that describes it.
    pub fn token(&self, key: &str, default: &str) -> String {
        let stated = self.text(key).or_else(|| self.find(key)?.get("content")?.as_str());
        stated.unwrap_or(default).to_owned()
    }

    /// The flag at `key`.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        let read = |value: &Value| value.as_bool().ok_or_else(|| invalid(key, "is not a boolean"));
        self.find(key).map(read).transpose()
    }

    /// The number at `key`.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        let read = |value: &Value| value.as_f64().ok_or_else(|| invalid(key, "is not a number"));
        self.find(key).map(read).transpose()
    }

    /// A number for each channel at `key`; one number is that of all three.
    pub fn channels(&self, key: &str) -> Result<Option<[f64; 3]>> {
        let read = |value: &Value| {
            let list = match value {
                Value::Array(list) => list.iter().map(Value::as_f64).collect(),
                value => value.as_f64().map(|number| vec![number; 3]),
            };
            let three = list.and_then(|list: Vec<f64>| list.try_into().ok());
            three.ok_or_else(|| invalid(key, "is not three numbers"))
        };
        self.find(key).map(read).transpose()
    }

    /// The filter whose number is at `resample`.
    pub fn filter(&self, default: Filter) -> Result<Filter> {
        let read = |value: &Value| {
            let filter = value.as_u64().and_then(Filter::numbered);
            filter.ok_or_else(|| invalid("resample", "is not 0, 1, 2 or 3"))
        };
        self.find("resample").map_or(Ok(default), read)
    }

    /// The sizes in the list at `key`, each a height and a width.
    pub fn sizes(&self, key: &str) -> Result<Option<Vec<Size>>> {
        let size = |value: &Value| match value.as_array().map(Vec::as_slice) {
            Some([height, width]) => {
                Ok(Size { width: whole(key, width, SIDE)?, height: whole(key, height, SIDE)? })
            }
            _ => Err(invalid(key, "is not a list of heights and widths")),
        };
        let read = |value: &Value| match value.as_array() {
            Some(list) if !list.is_empty() => list.iter().map(size).collect(),
            _ => Err(invalid(key, "is not a list of heights and widths")),
        };
        self.find(key).map(read).transpose()
    }

    fn find(&self, path: &str) -> Option<&Value> {
        let mut keys = path.split('.');
        let value = self.0.get(keys.next()?)?;
        keys.try_fold(value, |value, key| value.get(key)).filter(|value| !value.is_null())
    }
}

/// The error of an invalid setting.
pub fn invalid(key: &str, what: &str) -> Error {
    Error::new(Kind::InvalidModel, "image processor", format!("{key} {what}"))
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
