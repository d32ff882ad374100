//! Texts of Python's `str` and `repr`.

use std::fmt::Write;

use minijinja::value::{DynObject, Value};
use unicode_general_category::{GeneralCategory, get_general_category};

use super::values::{Generator, MAX_DEPTH, Of, Type, View, is, items, pairs, type_of};

/// Text of a value, as `str` makes it.
pub fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_undefined() => String::new(),
        None => repr(value),
    }
}

/// Text of a value, as `repr` makes it.
pub fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(&mut out, value, MAX_DEPTH);
    out
}

fn write_repr(out: &mut String, value: &Value, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else { return out.push_str("...") };
    match type_of(value) {
        Type::Undefined => out.push_str("Undefined"),
        Type::None => out.push_str("None"),
        Type::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        Type::Float => {
            out.push_str(&f64::try_from(value.clone()).map_or(String::new(), float_text))
        }
        Type::Str if value.is_safe() => {
            let _ = write!(out, "Markup({})", quoted(value.as_str().unwrap_or_default()));
        }
        Type::Str => out.push_str(&quoted(value.as_str().unwrap_or_default())),
        Type::List => write_items(out, &items(value).unwrap_or_default(), ["[", "]"], depth),
        Type::Tuple => {
            let items = items(value).unwrap_or_default();
            let close = if items.len() == 1 { ",)" } else { ")" };
            write_items(out, &items, ["(", close], depth);
        }
        Type::Dict => write_pairs(out, &pairs(value).unwrap_or_default(), depth),
        Type::View => {
            let Some(view) = value.downcast_object::<View>() else { return };
            let name = match view.of {
                Of::Keys => "dict_keys([",
                Of::Values => "dict_values([",
                Of::Items => "dict_items([",
                Of::Range(start, stop, step) => {
                    let step = if step == 1 { String::new() } else { format!(", {step}") };
                    let _ = write!(out, "range({start}, {stop}{step})");
                    return;
                }
            };
            write_items(out, &view.items, [name, "])"], depth);
        }
        Type::Object => write_object(out, value, depth),
        Type::Int => {
            let _ = write!(out, "{value}");
        }
    }
}

fn write_items(out: &mut String, items: &[Value], brackets: [&str; 2], depth: usize) {
    out.push_str(brackets[0]);
    for (number, item) in items.iter().enumerate() {
        out.push_str(if number == 0 { "" } else { ", " });
        write_repr(out, item, depth);
    }
    out.push_str(brackets[1]);
}

fn write_pairs(out: &mut String, pairs: &[(Value, Value)], depth: usize) {
    out.push('{');
    for (number, (key, value)) in pairs.iter().enumerate() {
        out.push_str(if number == 0 { "" } else { ", " });
        write_repr(out, key, depth);
        out.push_str(": ");
        write_repr(out, value, depth);
    }
    out.push('}');
}

fn write_object(out: &mut String, value: &Value, depth: usize) {
    let name = value.as_object().map_or("", |object| object.type_name());
    match name.rsplit("::").next() {
        Some("Namespace") => {
            let pairs: Vec<_> = value
                .as_object()
                .and_then(DynObject::try_iter_pairs)
                .into_iter()
                .flatten()
                .collect();
            out.push_str("<Namespace ");
            write_pairs(out, &pairs, depth);
            out.push('>');
        }
        Some("Macro") => {
            let name = value.get_attr("name").unwrap_or_default();
            let _ = write!(out, "<Macro {}>", quoted(name.as_str().unwrap_or_default()));
        }
        Some("Loop") => {
            let at = |name| value.get_attr(name).unwrap_or_default();
            let _ = write!(out, "<LoopContext {}/{}>", at("index"), at("length"));
        }
        _ => {
            let _ =
                write!(out, "<{}>", if is::<Generator>(value) { "generator" } else { "function" });
        }
    }
}

/// String in quotes, with escapes for what cannot be printed.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        let _ = match c {
            '\\' => out.write_str("\\\\"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            c if c == quote => write!(out, "\\{c}"),
            c if printable(c) => out.write_char(c),
            c => out.write_str(&escaped(c)),
        };
    }
    out.push(quote);
    out
}

/// Escape of a character in a string of Python.
pub fn escaped(c: char) -> String {
    match c as u32 {
        code @ 0..=0xff => format!("\\x{code:02x}"),
        code @ 0x100..=0xffff => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}

/// True if `str.isprintable` is true of the character.
pub fn printable(c: char) -> bool {
    use GeneralCategory::*;
    c == ' '
        || !matches!(
            get_general_category(c),
            Control
                | Format
                | Surrogate
                | PrivateUse
                | Unassigned
                | LineSeparator
                | ParagraphSeparator
                | SpaceSeparator
        )
}

/// Shortest text that reads back as the number, in Python's layout.
pub fn float_text(float: f64) -> String {
    if !float.is_finite() {
        return if float.is_nan() { "nan".into() } else { format!("{float}") };
    }
    let whole = format!("{float:e}");
    let (digits, exponent) = scientific(&whole);
    if (-4..16).contains(&exponent) {
        return plain(float);
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// Digits and exponent of a number in the layout of Rust's `{:e}`.
pub fn scientific(text: &str) -> (&str, i32) {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    (digits, exponent.parse().unwrap_or(0))
}

fn plain(float: f64) -> String {
    let text = format!("{float}");
    if text.contains('.') { text } else { text + ".0" }
}
