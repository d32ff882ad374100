//! The values of GGUF metadata, borrowed from the file.

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Any integer type.
    Integer(i128),
    /// A float; an F32 is the shortest decimal that means it, so that 1e-5 stays 1e-5.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Str(&'a str),
    /// A list.
    Array(Array<'a>),
}

/// A list of values of one type.
#[derive(Clone, Debug, PartialEq)]
pub enum Array<'a> {
    /// Integers of any type, and truth values as 0 and 1.
    Integers(Vec<i64>),
    /// Floats of either type.
    Floats(Vec<f64>),
    /// Texts.
    Strings(Vec<&'a str>),
}

impl<'a> Value<'a> {
    /// What kind of value it is, for messages.
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

/// A type that a metadata key can be asked for.
pub trait Get<'g, 'a>: Sized {
    /// The name of the type in messages, with its article.
    const WANTED: &'static str;

    /// The value as this type, if it is one.
    fn get(value: &'g Value<'a>) -> Option<Self>;
}

macro_rules! get {
    ($type:ty, $wanted:literal, $pattern:pat => $value:expr) => {
        impl<'g, 'a> Get<'g, 'a> for $type {
            const WANTED: &'static str = $wanted;

            fn get(value: &'g Value<'a>) -> Option<Self> {
                match value {
                    $pattern => $value,
                    _ => None,
                }
            }
        }
    };
}

get!(usize, "a whole number", Value::Integer(n) => (*n).try_into().ok());
get!(bool, "a bool", Value::Bool(b) => Some(*b));
get!(&'a str, "a string", Value::Str(text) => Some(text));
get!(&'g [i64], "a list of integers", Value::Array(Array::Integers(list)) => Some(list));
get!(&'g [f64], "a list of floats", Value::Array(Array::Floats(list)) => Some(list));
get!(&'g [&'a str], "a list of strings", Value::Array(Array::Strings(list)) => Some(list));

impl<'g, 'a> Get<'g, 'a> for f64 {
    const WANTED: &'static str = "a number";

    fn get(value: &'g Value<'a>) -> Option<f64> {
        match value {
            Value::Float(x) if x.is_finite() => Some(*x),
            Value::Integer(n) => Some(*n as f64),
            _ => None,
        }
    }
}
