//! Environment of chat templates: the functions, filters and Python methods that transformers
//! provides.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{AutoEscape, Environment, Error as Fault, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use serde_json::ser::Serializer;

use super::json_dumps::Layout;
use super::limited::Limited;
use super::markup;

/// Largest indent, in columns.
const MAX_INDENT: usize = 256;

/// Bytes of data that are worth one fuel, as in minijinja.
const BYTES: usize = 64;

type Result<T> = std::result::Result<T, Fault>;

/// Marker of errors that a template raises itself, by `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("refused by the chat template")]
pub struct Refusal;

/// Environment with the settings of transformers, without limits.
pub fn environment() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("indent", indent);
    environment.add_filter("markup_escape", |text: String| markup::escape(&text));
    environment.add_filter("tojson", tojson);
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    Ok(environment)
}

/// Replaces `{% generation %}`, which marks answers for training and is no part of Jinja, by a
/// scope.
pub fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        let end = tag.find("%}").unwrap_or(tag.len());
        let (inside, after) = tag.split_at(end);
        let word = inside.trim_matches(['-', '+']).trim();
        out.push_str(&match word {
            "generation" => inside.replacen(word, "with", 1),
            "endgeneration" => inside.replacen(word, "endwith", 1),
            _ => inside.to_owned(),
        });
        rest = after;
    }
    out + rest
}

fn raise_exception(message: String) -> Result<Value> {
    Err(failed(message).with_source(Refusal))
}

fn strftime_now(format: String) -> Result<String> {
    jiff::fmt::strtime::format(&format, &jiff::Zoned::now()).map_err(failed)
}

/// Methods of Python's strings and lists that minijinja's own table lacks.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value> {
    let parts = |parts: [&str; 3]| Ok(Value::from(Tuple::from(parts.map(Value::from))));
    let text = value.as_str().unwrap_or_default();
    match (value.kind(), name) {
        (ValueKind::String, "removeprefix") => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        (ValueKind::String, "removesuffix") => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        (ValueKind::String, "partition") => {
            let (by,): (&str,) = from_args(args)?;
            parts(text.split_once(by).map_or([text, "", ""], |(a, b)| [a, by, b]))
        }
        (ValueKind::String, "rpartition") => {
            let (by,): (&str,) = from_args(args)?;
            parts(text.rsplit_once(by).map_or(["", "", text], |(a, b)| [a, by, b]))
        }
        (ValueKind::String, "rsplit") => {
            let (by, most): (&str, Option<usize>) = from_args(args)?;
            afford(state, text.len())?;
            let most = most.map_or(usize::MAX, |most| most.saturating_add(1));
            let mut parts: Vec<Value> = text.rsplitn(most, by).map(Value::from).collect();
            parts.reverse();
            Ok(Value::from(parts))
        }
        (ValueKind::Seq, "index") => {
            let (item,): (&Value,) = from_args(args)?;
            state.consume_fuel(value.len().unwrap_or(0) as u64)?;
            let at = value.try_iter()?.position(|other| other == *item);
            at.map(Value::from).ok_or_else(|| failed(format!("{item} is not in the list")))
        }
        _ => unknown_method_callback(state, value, name, args),
    }
}

/// Filter `indent` of Jinja; minijinja's drops line ends at the end.
fn indent(
    state: &State,
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    options: Kwargs,
) -> Result<String> {
    let option = |name: &str| options.get::<Option<bool>>(name);
    let first = first.or(option("first")?).unwrap_or(false);
    let blank = option("blank")?.unwrap_or(false);
    let width =
        width.map_or_else(|| options.get::<Option<Value>>("width"), |width| Ok(Some(width)))?;
    options.assert_all_used()?;
    let indent = match width {
        None => " ".repeat(4),
        Some(width) if width.as_str().is_some() => width.to_string(),
        Some(width) => " ".repeat(width.as_usize().unwrap_or(0).min(MAX_INDENT)),
    };
    afford(state, text.len() + indent.len() * text.split('\n').count())?;
    let lines = text.split('\n').enumerate().map(|(number, line)| match (number, line) {
        (0, _) if first => format!("{indent}{line}"),
        (0, _) => line.to_owned(),
        (_, "") if !blank => String::new(),
        _ => format!("{indent}{line}"),
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Filter `tojson` of transformers: Python's `json.dumps` without HTML escapes.
fn tojson(state: &State, value: Value, options: Kwargs) -> Result<String> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let layout = Layout::new(indent, ascii == Some(true), separators.as_deref());
    let room = state.fuel_levels().map_or(usize::MAX, |(_, left)| bytes(left));
    let mut out = Limited::new(room);
    let mut serializer = Serializer::with_formatter(&mut out, layout);
    let written = match sorted {
        Some(true) => {
            serde_json::to_value(&value).map(sort).and_then(|v| v.serialize(&mut serializer))
        }
        _ => value.serialize(&mut serializer),
    };
    written.map_err(|e| if e.is_io() { ErrorKind::OutOfFuel.into() } else { failed(e) })?;
    String::from_utf8(out.into_bytes()).map_err(failed)
}

fn sort(mut value: serde_json::Value) -> serde_json::Value {
    value.sort_all_objects();
    value
}

/// Checks that there is fuel for `size` bytes of data, which are charged when they are made.
fn afford(state: &State, size: usize) -> Result<()> {
    match state.fuel_levels() {
        Some((_, left)) if bytes(left) < size => Err(ErrorKind::OutOfFuel.into()),
        _ => Ok(()),
    }
}

/// Bytes of data that `fuel` is worth.
fn bytes(fuel: u64) -> usize {
    usize::try_from(fuel).unwrap_or(usize::MAX).saturating_mul(BYTES)
}

fn failed(e: impl std::fmt::Display) -> Fault {
    Fault::new(ErrorKind::InvalidOperation, e.to_string())
}
