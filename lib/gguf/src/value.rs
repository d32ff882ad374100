//! Values of GGUF metadata, borrowed from the file.

/// Metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Integer of any width.
    Integer(i128),
    /// Float; an F32 is converted by its shortest decimal form, so that 1e-5 stays 1e-5.
    Float(f64),
    /// Boolean.
    Bool(bool),
    /// String.
    Str(&'a str),
    /// Array.
    Array(Array<'a>),
}

/// Array of values of one type.
#[derive(Clone, Debug, PartialEq)]
pub enum Array<'a> {
    /// Integers of any width, and booleans as 0 and 1.
    Integers(Vec<i64>),
    /// Floats of either width.
    Floats(Vec<f64>),
    /// Strings.
    Strings(Vec<&'a str>),
}

impl<'a> Value<'a> {
    /// Kind of the value with its article, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Bool(_) => "a bool",
            Value::Str(_) => "a string",
            Value::Array(Array::Integers(_)) => "a list of integers",
            Value::Array(Array::Floats(_)) => "a list of floats",
            Value::Array(Array::Strings(_)) => "a list of strings",
        }
    }
}

/// Type that a metadata value can be read as.
pub trait FromValue<'g, 'a>: Sized {
    /// Name of the type with its article, for messages.
    const EXPECTED: &'static str;

    /// The value as this type; `None` if it has another.
    fn from_value(value: &'g Value<'a>) -> Option<Self>;
}

macro_rules! from_value {
    ($type:ty, $wanted:literal, $pattern:pat => $value:expr) => {
        impl<'g, 'a> FromValue<'g, 'a> for $type {
            const EXPECTED: &'static str = $wanted;

            fn from_value(value: &'g Value<'a>) -> Option<Self> {
                match value {
                    $pattern => $value,
                    _ => None,
                }
            }
        }
    };
}

from_value!(usize, "a whole number", Value::Integer(n) => (*n).try_into().ok());
from_value!(bool, "a bool", Value::Bool(b) => Some(*b));
from_value!(&'a str, "a string", Value::Str(text) => Some(text));
from_value!(&'g [i64], "a list of integers", Value::Array(Array::Integers(list)) => Some(list));
from_value!(&'g [f64], "a list of floats", Value::Array(Array::Floats(list)) => Some(list));
from_value!(&'g [&'a str], "a list of strings", Value::Array(Array::Strings(list)) => Some(list));

impl<'g, 'a> FromValue<'g, 'a> for f64 {
    const EXPECTED: &'static str = "a number";

    fn from_value(value: &'g Value<'a>) -> Option<f64> {
        match value {
            Value::Float(x) if x.is_finite() => Some(*x),
            Value::Integer(n) => Some(*n as f64),
            _ => None,
        }
    }
}

/// Value as an f64 with the same shortest decimal form.
pub fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}
