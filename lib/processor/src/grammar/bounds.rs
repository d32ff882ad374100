//! Bounds of schemas and grammars, checked before they are compiled.
//!
//! Compiling cannot be interrupted. Its own limits end most of what takes long; these bounds are
//! for the rest: what takes the square of its size, and what recurses on the stack.

use std::collections::{HashMap, HashSet};

use serde_json::{Deserializer, Map, Value};

/// Largest size of the names, texts and patterns of a schema, in bytes. The largest schema in use
/// (FHIR) has a third.
const MAX_TEXT: usize = 1 << 20;

/// Largest size of a grammar, in bytes.
const MAX_GRAMMAR: usize = 128 << 10;

/// Maximum number of values in lists of values.
const MAX_LISTED: usize = 50_000;

/// Maximum number of schemas that references name, or of definitions in a grammar. Each may be
/// one more level of recursion.
const MAX_DEFINITIONS: usize = 2000;

/// Maximum number of properties of an object that need not be there. Their grammar takes the square
/// of their number to compile, and cannot be followed from half as many on.
const MAX_OPTIONAL: usize = 1000;

/// Maximum number of comparisons between patterns of property names.
const MAX_COMPARED: usize = 20_000;

/// Maximum sum of the squares of the widths of all patterns.
const MAX_SQUARES: usize = (8 << 10) * (8 << 10);

/// Fields of a schema that constrain nothing.
const ANNOTATIONS: [&str; 6] =
    ["$comment", "default", "deprecated", "description", "examples", "title"];

/// Checks that a schema can be compiled in bounded time and memory.
///
/// # Errors
/// What it has too much of.
pub fn check_schema(schema: &Value) -> Result<(), String> {
    let mut size = Size::default();
    size.schema(schema);
    let compared = size.names.len().pow(2).saturating_mul(size.merged);
    for (found, most, what) in [
        (size.text, MAX_TEXT, "bytes of names, texts and patterns"),
        (size.listed, MAX_LISTED, "values in `enum` and `const`"),
        (size.references.len(), MAX_DEFINITIONS, "schemas behind `$ref`"),
        (size.optional, MAX_OPTIONAL, "optional properties in one object"),
    ] {
        if found > most {
            return Err(format!("it has {found} {what}, and {most} are the most"));
        }
    }
    if size.compared.saturating_add(compared) > MAX_COMPARED {
        return Err("it has too many `patternProperties`".to_owned());
    }
    check_squares(size.squares)
}

/// Checks that a grammar in the variant of Lark can be compiled in bounded time and memory.
///
/// # Errors
/// What it has too much of.
pub fn check_grammar(text: &str) -> Result<(), String> {
    if text.len() > MAX_GRAMMAR {
        let size = text.len();
        return Err(format!("it has {size} bytes, and {MAX_GRAMMAR} are the most"));
    }
    let definitions = Definitions::read(text);
    if definitions.parametric {
        return Err("it has rules with parameters (`::`), whose number has no bound".to_owned());
    }
    if definitions.all.len() > MAX_DEFINITIONS {
        let count = definitions.all.len();
        return Err(format!("it has {count} definitions, and {MAX_DEFINITIONS} are the most"));
    }
    check_squares(definitions.squares())
}

/// Schemas within a grammar, behind `%json`.
pub fn schemas(text: &str) -> impl Iterator<Item = Value> {
    text.match_indices("%json").filter_map(|(at, word)| {
        let mut values = Deserializer::from_str(&text[at + word.len()..]).into_iter();
        values.next()?.ok()
    })
}

/// Number of byte sets that a pattern may allow: one for each letter, several for classes of
/// characters that have more than one byte.
pub fn width(pattern: &str) -> usize {
    let many = ["\\p", "\\P", "[^"].iter().map(|class| pattern.matches(class).count());
    pattern.len() + 10 * pattern.matches('.').count() + 60 * many.sum::<usize>()
}

/// Place of the closing `quote` of a literal, which is not escaped.
pub fn closing(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let ends = |&(_, c): &(usize, char)| {
        let end = !escaped && c == quote;
        escaped = !escaped && c == '\\';
        end
    };
    text.char_indices().find(ends).map_or(text.len(), |(at, _)| at)
}

fn check_squares(squares: usize) -> Result<(), String> {
    match squares > MAX_SQUARES {
        true => Err("its patterns are too long".to_owned()),
        false => Ok(()),
    }
}

/// Size of a schema.
#[derive(Default)]
struct Size<'a> {
    /// Bytes of names, texts and patterns.
    text: usize,
    /// Values in lists of values.
    listed: usize,
    references: HashSet<&'a str>,
    /// Most optional properties of an object.
    optional: usize,
    /// Patterns of property names.
    names: HashSet<&'a str>,
    /// Comparisons between the patterns of one object.
    compared: usize,
    /// Places where patterns of different objects may come together.
    merged: usize,
    /// Sum of the squares of the widths of all patterns.
    squares: usize,
}

impl<'a> Size<'a> {
    fn schema(&mut self, schema: &'a Value) {
        match schema {
            Value::Object(fields) => {
                self.optional = self.optional.max(optional(fields));
                for (name, value) in fields {
                    self.text += name.len();
                    self.field(name, value);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.schema(item)),
            Value::String(text) => self.text += text.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn field(&mut self, name: &'a str, value: &'a Value) {
        match (name, value) {
            (name, Value::String(_) | Value::Array(_)) if ANNOTATIONS.contains(&name) => return,
            ("pattern" | "whitespace_pattern", Value::String(pattern)) => self.pattern(pattern),
            ("$ref", Value::String(target)) => {
                self.references.insert(target);
                self.merged += 1;
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => self.merged += parts.len(),
            ("enum" | "const", value) => self.listed += values(value),
            ("patternProperties", Value::Object(patterns)) => {
                self.compared += patterns.len().pow(2);
                for pattern in patterns.keys() {
                    self.names.insert(pattern);
                    self.pattern(pattern);
                }
            }
            _ => {}
        }
        self.schema(value);
    }

    fn pattern(&mut self, pattern: &str) {
        self.squares = self.squares.saturating_add(width(pattern).saturating_pow(2));
    }
}

/// Number of properties of an object that it need not have.
fn optional(fields: &Map<String, Value>) -> usize {
    let properties = fields.get("properties").and_then(Value::as_object).map_or(0, Map::len);
    let required = fields.get("required").and_then(Value::as_array).map_or(0, Vec::len);
    properties.saturating_sub(required)
}

/// Number of values within a value, itself included.
fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(fields) => fields.values().map(values).sum(),
        _ => 0,
    }
}

/// Definitions of a grammar.
struct Definitions<'a> {
    /// Definitions by name.
    all: HashMap<&'a str, Definition<'a>>,
    /// Sum of the squares of the widths of literals outside terminals.
    squares: usize,
    /// True if a rule has a parameter: each value of it is one more rule.
    parametric: bool,
}

#[derive(Default)]
struct Definition<'a> {
    /// Width of the literals.
    width: usize,
    /// Terminals that it names.
    names: Vec<&'a str>,
}

impl<'a> Definitions<'a> {
    fn read(text: &'a str) -> Definitions<'a> {
        let mut read = Definitions { all: HashMap::new(), squares: 0, parametric: false };
        let (mut current, mut rest) = ("", text);
        while let Some(at) = rest.find(|c: char| is_word(c) || matches!(c, '"' | '/')) {
            let (word, after) = rest[at..].split_at(word_end(&rest[at..]));
            if word.is_empty() {
                rest = read.literal(current, after);
                continue;
            }
            read.parametric |= after.trim_start().starts_with("::");
            let definition = read.all.entry(current).or_default();
            if is_defined(after) && starts_line(text, text.len() - rest.len() + at) {
                current = word;
                read.all.entry(current).or_default();
            } else if is_terminal(word) {
                definition.names.push(word);
            }
            rest = after;
        }
        read
    }

    /// Reads the literal or comment at the start of `text`, and returns the text behind it.
    fn literal(&mut self, current: &'a str, text: &'a str) -> &'a str {
        let (quote, after) = text.split_at(1);
        if quote == "/" && after.starts_with('/') {
            return after.split_once('\n').map_or("", |(_, next)| next);
        }
        let end = closing(after, if quote == "/" { '/' } else { '"' });
        let width = if quote == "/" { width(&after[..end]) } else { end };
        match is_terminal(current) {
            true => self.all.entry(current).or_default().width += width,
            false if quote == "/" => {
                self.squares = self.squares.saturating_add(width.saturating_pow(2));
            }
            false => {}
        }
        after.get(end + 1..).unwrap_or_default()
    }

    /// Sum of the squares of the widths of all literals and terminals.
    fn squares(&self) -> usize {
        let mut known = HashMap::new();
        let terminals = self.all.keys().filter(|name| is_terminal(name));
        let widths = terminals.map(|name| self.expanded(name, &mut known).saturating_pow(2));
        widths.fold(self.squares, usize::saturating_add)
    }

    /// Width of a terminal with all terminals that it names in their places. One that names itself
    /// has none; the compiler refuses it.
    fn expanded(&self, name: &'a str, known: &mut HashMap<&'a str, usize>) -> usize {
        if let Some(&width) = known.get(name) {
            return width;
        }
        known.insert(name, 0);
        let Some(definition) = self.all.get(name) else { return 0 };
        let widths = definition.names.iter().map(|name| self.expanded(name, known));
        let width = widths.fold(definition.width, usize::saturating_add);
        known.insert(name, width);
        width
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word_end(text: &str) -> usize {
    text.find(|c| !is_word(c)).unwrap_or(text.len())
}

fn is_terminal(name: &str) -> bool {
    name.trim_start_matches('_').starts_with(char::is_uppercase)
}

/// True if the text behind a name shows that a definition begins with it.
fn is_defined(after: &str) -> bool {
    let mut rest = after.trim_start_matches([' ', '\t']);
    for (open, close) in [('[', ']'), ('{', '}'), ('.', ':')] {
        if let Some(inside) = rest.strip_prefix(open) {
            let end = inside.find(close).map_or(inside.len(), |at| at + usize::from(close != ':'));
            rest = inside[end..].trim_start_matches([' ', '\t']);
        }
    }
    rest.starts_with(':')
}

/// True if only white space and modifiers are before a place in its line.
fn starts_line(text: &str, at: usize) -> bool {
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    text[line..at].chars().all(|c| c.is_whitespace() || matches!(c, '?' | '!'))
}
