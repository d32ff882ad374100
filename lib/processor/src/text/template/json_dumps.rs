//! JSON text as Python's `json.dumps` writes it.

use std::fmt::Write;

use minijinja::value::Value;

use super::compare::sorted;
use super::repr::float_text;
use super::values::{
    MAX_DEPTH, Result, Type, failed, items, pairs, string, tuple, type_name, type_of, within_size,
};

/// Layout of JSON text: the options of `json.dumps`.
pub struct Layout {
    /// Indent of each level; none writes all on one line.
    pub indent: Option<String>,
    /// True if characters other than ASCII are escaped.
    pub ascii: bool,
    /// Text between items, and between a name and its value.
    pub separators: Option<[String; 2]>,
    /// True if the names of an object are sorted.
    pub sorted: bool,
}

impl Layout {
    /// Text of a value.
    ///
    /// # Errors
    /// If the value has no form in JSON, or is too large.
    pub fn dumps(&self, value: &Value) -> Result<String> {
        let (comma, colon) = match &self.separators {
            Some([comma, colon]) => (comma.as_str(), colon.as_str()),
            None if self.indent.is_some() => (",", ": "),
            None => (", ", ": "),
        };
        let mut writer = Writer { layout: self, comma, colon, out: String::new() };
        writer.value(value, 0)?;
        Ok(writer.out)
    }
}

struct Writer<'l> {
    layout: &'l Layout,
    comma: &'l str,
    colon: &'l str,
    out: String,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, level: usize) -> Result<()> {
        if level > MAX_DEPTH {
            return Err(failed("the value is nested too deeply for JSON"));
        }
        within_size(self.out.len())?;
        match type_of(value) {
            Type::None => self.out.push_str("null"),
            Type::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            Type::Int => {
                let _ = write!(self.out, "{value}");
            }
            Type::Float => self.out.push_str(&float(value)),
            Type::Str => self.string(string(value)?),
            Type::List | Type::Tuple => {
                let items = items(value)?;
                self.filled('[', ']', items.len(), level, |this, at| {
                    this.value(&items[at], level + 1)
                })?;
            }
            Type::Dict => {
                let pairs = self.sorted(pairs(value)?)?;
                self.filled('{', '}', pairs.len(), level, |this, at| {
                    this.string(&name(&pairs[at].0)?);
                    this.out.push_str(this.colon);
                    this.value(&pairs[at].1, level + 1)
                })?;
            }
            _ => return Err(failed(format!("{} has no form in JSON", type_name(value)))),
        }
        Ok(())
    }

    fn sorted(&self, pairs: Vec<(Value, Value)>) -> Result<Vec<(Value, Value)>> {
        if !self.layout.sorted {
            return Ok(pairs);
        }
        let keyed = pairs.into_iter().map(|(key, value)| (key.clone(), tuple(vec![key, value])));
        let pairs = sorted(keyed.collect(), false)?;
        pairs
            .iter()
            .map(|pair| Ok((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?)))
            .collect()
    }

    /// Brackets around items, each on a line of its own if there is an indent.
    fn filled(
        &mut self,
        open: char,
        close: char,
        count: usize,
        level: usize,
        item: impl Fn(&mut Self, usize) -> Result<()>,
    ) -> Result<()> {
        self.out.push(open);
        for at in 0..count {
            if at > 0 {
                self.out.push_str(self.comma);
            }
            self.line(level + 1)?;
            item(self, at)?;
        }
        if count > 0 {
            self.line(level)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, level: usize) -> Result<()> {
        if let Some(indent) = &self.layout.indent {
            within_size(self.out.len() + indent.len().saturating_mul(level))?;
            self.out.push('\n');
            (0..level).for_each(|_| self.out.push_str(indent));
        }
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            let _ = match c {
                '"' => self.out.write_str("\\\""),
                '\\' => self.out.write_str("\\\\"),
                '\n' => self.out.write_str("\\n"),
                '\r' => self.out.write_str("\\r"),
                '\t' => self.out.write_str("\\t"),
                '\u{8}' => self.out.write_str("\\b"),
                '\u{c}' => self.out.write_str("\\f"),
                c if c < ' ' => write!(self.out, "\\u{:04x}", c as u32),
                c if self.layout.ascii && !(' '..='~').contains(&c) => {
                    let mut units = [0; 2];
                    c.encode_utf16(&mut units)
                        .iter()
                        .try_for_each(|unit| write!(self.out, "\\u{unit:04x}"))
                }
                c => self.out.write_char(c),
            };
        }
        self.out.push('"');
    }
}

fn float(value: &Value) -> String {
    match f64::try_from(value.clone()).unwrap_or(f64::NAN) {
        float if float.is_nan() => "NaN".into(),
        float if float.is_infinite() => if float > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        float => float_text(float),
    }
}

/// Name of an object's entry.
fn name(key: &Value) -> Result<String> {
    match type_of(key) {
        Type::Str => Ok(string(key)?.to_owned()),
        Type::None => Ok("null".into()),
        Type::Bool => Ok(if key.is_true() { "true" } else { "false" }.into()),
        Type::Int => Ok(key.to_string()),
        Type::Float => Ok(float(key)),
        _ => Err(failed(format!("{} cannot be a name in JSON", type_name(key)))),
    }
}
