//! Forms of the values of options: the JSON type of a value, and its range.

use std::collections::BTreeMap;

use serde_json::Value;

/// Form of an option's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// Number of this range.
    Number {
        /// Smallest value.
        min: f32,
        /// Largest value.
        max: f32,
    },
    /// Integer of this range.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: u64,
    },
    /// Object of numbers by token id.
    Biases,
    /// List of token ids.
    Tokens,
    /// String or list of strings.
    Texts,
}

impl Form {
    /// Any finite number.
    pub const ANY: Form = Form::Number { min: f32::MIN, max: f32::MAX };

    /// Number of a range.
    pub const fn number(min: f32, max: f32) -> Form {
        Form::Number { min, max }
    }

    /// Integer from `min` on.
    pub const fn integer(min: i64) -> Form {
        Form::Integer { min, max: u64::MAX }
    }

    /// True if several values make a list, false if a value replaces the one before it.
    pub fn is_list(self) -> bool {
        matches!(self, Form::Tokens | Form::Texts)
    }

    /// True if a value may begin with a minus sign.
    pub fn is_signed(self) -> bool {
        match self {
            Form::Number { min, .. } => min < 0.0,
            Form::Integer { min, .. } => min < 0,
            Form::Biases | Form::Tokens | Form::Texts => false,
        }
    }

    /// Form without its range, for errors.
    pub fn name(self) -> &'static str {
        match self {
            Form::Number { .. } => "a number",
            Form::Integer { min: ..0, .. } => "a whole number",
            Form::Integer { .. } => "a whole number from 0",
            Form::Biases => "an object of numbers by token",
            Form::Tokens => "a list of tokens",
            Form::Texts => "a text or a list of texts",
        }
    }

    /// Form with its range, for errors.
    pub fn range(self) -> String {
        match self {
            Form::Number { min: f32::MIN, max: f32::MAX } => "a number".to_owned(),
            Form::Number { min: f32::MIN_POSITIVE, .. } => "a number above 0".to_owned(),
            Form::Number { min, max: f32::MAX } => format!("a number from {min}"),
            Form::Number { min, max } => format!("a number from {min} to {max}"),
            Form::Integer { min, max: u64::MAX } => format!("a whole number from {min}"),
            Form::Integer { min, max } => format!("a whole number from {min} to {max}"),
            form => form.name().to_owned(),
        }
    }
}

/// Rust type of an option's value.
pub trait FieldValue: Sized {
    /// Reads a JSON value; nothing if it has another form.
    fn read(value: &Value) -> Option<Self>;

    /// True if the value is within the range of `form`.
    fn fits(&self, form: Form) -> bool;

    /// JSON value.
    fn write(&self) -> Value;
}

impl FieldValue for f32 {
    fn read(value: &Value) -> Option<f32> {
        value.as_f64().map(|value| value as f32)
    }

    fn fits(&self, form: Form) -> bool {
        matches!(form, Form::Number { min, max } if (min..=max).contains(self))
    }

    fn write(&self) -> Value {
        // The shortest decimal that is this number in single precision.
        self.to_string().parse::<f64>().ok().into()
    }
}

/// Counts that are too large for 32 bits are treated as the largest one.
impl FieldValue for u32 {
    fn read(value: &Value) -> Option<u32> {
        value.as_u64().map(|value| u32::try_from(value).unwrap_or(u32::MAX))
    }

    fn fits(&self, form: Form) -> bool {
        u64::from(*self).fits(form)
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

impl FieldValue for i32 {
    fn read(value: &Value) -> Option<i32> {
        let value = value.as_i64().or_else(|| value.as_u64().map(|_| i64::MAX))?;
        Some(i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX }))
    }

    fn fits(&self, form: Form) -> bool {
        matches!(form, Form::Integer { min, .. } if i64::from(*self) >= min)
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

impl FieldValue for u64 {
    fn read(value: &Value) -> Option<u64> {
        value.as_u64()
    }

    fn fits(&self, form: Form) -> bool {
        matches!(form, Form::Integer { min, max } if (min.max(0) as u64..=max).contains(self))
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

/// Biases by token id, each id once and in ascending order.
impl FieldValue for Vec<(u32, f32)> {
    fn read(value: &Value) -> Option<Self> {
        let bias = |(id, bias): (&String, &Value)| Some((id.parse().ok()?, bias.as_f64()? as f32));
        let biases: BTreeMap<u32, f32> =
            value.as_object()?.iter().map(bias).collect::<Option<_>>()?;
        Some(biases.into_iter().collect())
    }

    fn fits(&self, _: Form) -> bool {
        self.iter().all(|(_, bias)| bias.is_finite())
    }

    fn write(&self) -> Value {
        let biases = self.iter().map(|(id, bias)| (id.to_string(), bias.write()));
        Value::Object(biases.collect())
    }
}

impl FieldValue for Vec<u32> {
    fn read(value: &Value) -> Option<Self> {
        let token = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        value.as_array()?.iter().map(token).collect()
    }

    fn fits(&self, _: Form) -> bool {
        true
    }

    fn write(&self) -> Value {
        self.as_slice().into()
    }
}

impl FieldValue for Vec<String> {
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(all) => all.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
            _ => None,
        }
    }

    fn fits(&self, _: Form) -> bool {
        true
    }

    fn write(&self) -> Value {
        self.as_slice().into()
    }
}
