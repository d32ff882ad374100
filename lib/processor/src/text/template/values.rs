//! Python's view of a template's values: types, equality, order, and the texts of `str` and `repr`.

use std::cmp::Ordering;
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Tuple, Value, ValueKind};
use minijinja::{Error as Fault, ErrorKind};
use unicode_general_category::{GeneralCategory, get_general_category};

/// Largest depth of nested lists that are compared or written.
pub const MAX_DEPTH: usize = 300;

/// Largest size of a text or list that one operation makes, in bytes.
const MAX_SIZE: usize = 16 << 20;

pub type Result<T> = std::result::Result<T, Fault>;

/// Type of a value in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Undefined,
    None,
    Bool,
    Int,
    Float,
    Str,
    List,
    Tuple,
    Dict,
    /// Range, or the keys, values or items of a dict: a [`View`].
    View,
    /// Anything else: iterators, functions, macros, namespaces, loops.
    Object,
}

/// Number; a bool is an integer.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub fn float(self) -> f64 {
        match self {
            Number::Int(int) => int as f64,
            Number::Float(float) => float,
        }
    }
}

/// Kind of a [`View`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Keys,
    Values,
    Items,
    /// Range with its start, stop and step.
    Range(i64, i64, i64),
}

/// Iterable with a length: what `range` and the methods `keys`, `values` and `items` give.
#[derive(Debug)]
pub struct View {
    pub of: Of,
    pub items: Vec<Value>,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }
}

/// Generator of Python: an iterator that gives each of its items once, and has no length.
#[derive(Debug)]
pub struct Generator(Mutex<std::vec::IntoIter<Value>>);

impl Generator {
    pub fn value(items: Vec<Value>) -> Value {
        Value::from_object(Generator(Mutex::new(items.into_iter())))
    }

    /// Items that are still to come.
    pub fn rest(&self) -> Vec<Value> {
        self.0.lock().map_or_else(|_| Vec::new(), |items| items.as_slice().to_vec())
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let this = Arc::clone(self);
        let next = move || this.0.lock().ok().and_then(|mut items| items.next());
        Enumerator::Iter(Box::new(std::iter::from_fn(next)))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
}

/// Group of the filter `groupby`: a pair with names.
#[derive(Debug)]
pub struct Group(pub [Value; 2]);

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str() {
            Some("grouper") => Some(self.0[0].clone()),
            Some("list") => Some(self.0[1].clone()),
            _ => self.0.get(key.as_usize()?).cloned(),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

/// Error of an operation.
pub fn failed(e: impl std::fmt::Display) -> Fault {
    Fault::new(ErrorKind::InvalidOperation, e.to_string())
}

pub fn type_of(value: &Value) -> Type {
    let named = |name: &str| value.as_object().is_some_and(|o| o.type_name().ends_with(name));
    match value.kind() {
        ValueKind::Undefined => Type::Undefined,
        ValueKind::None => Type::None,
        ValueKind::Bool => Type::Bool,
        ValueKind::Number if value.is_integer() => Type::Int,
        ValueKind::Number => Type::Float,
        ValueKind::String => Type::Str,
        ValueKind::Seq if value.is_tuple() || is::<Group>(value) => Type::Tuple,
        ValueKind::Seq => Type::List,
        ValueKind::Map if ["Namespace", "Loop", "Macro"].iter().any(|name| named(name)) => {
            Type::Object
        }
        ValueKind::Map => Type::Dict,
        _ if is::<View>(value) => Type::View,
        _ => Type::Object,
    }
}

fn is<T: 'static>(value: &Value) -> bool {
    value.downcast_object_ref::<T>().is_some()
}

/// Name of a value's type, for errors.
pub fn type_name(value: &Value) -> &'static str {
    match type_of(value) {
        Type::Undefined => "undefined",
        Type::None => "none",
        Type::Bool => "bool",
        Type::Int => "int",
        Type::Float => "float",
        Type::Str => "str",
        Type::List => "list",
        Type::Tuple => "tuple",
        Type::Dict => "dict",
        Type::View => "view",
        Type::Object => "object",
    }
}

pub fn number(value: &Value) -> Option<Number> {
    match type_of(value) {
        Type::Bool => Some(Number::Int(value.is_true().into())),
        Type::Int => i128::try_from(value.clone()).ok().map(Number::Int),
        Type::Float => f64::try_from(value.clone()).ok().map(Number::Float),
        _ => None,
    }
}

/// Integer, as an index takes it.
///
/// # Errors
/// If the value is no integer.
pub fn index(value: &Value) -> Result<i64> {
    match number(value) {
        Some(Number::Int(int)) => Ok(int.clamp(i64::MIN.into(), i64::MAX.into()) as i64),
        _ => Err(failed(format!("{} is no integer", type_name(value)))),
    }
}

/// Characters of a string.
///
/// # Errors
/// If the value is no string.
pub fn string(value: &Value) -> Result<&str> {
    value.as_str().ok_or_else(|| failed(format!("{} is no string", type_name(value))))
}

/// Items that iteration gives.
///
/// # Errors
/// If the value cannot be iterated.
pub fn items(value: &Value) -> Result<Vec<Value>> {
    match type_of(value) {
        Type::None => Err(failed("none is not iterable")),
        Type::Object if !matches!(value.kind(), ValueKind::Iterable) => {
            Err(failed(format!("{} is not iterable", text(value))))
        }
        _ => value.try_iter()?.checked().collect(),
    }
}

/// Number of items or characters; none if the value has no length.
pub fn length(value: &Value) -> Option<usize> {
    match type_of(value) {
        Type::Undefined => Some(0),
        Type::Str | Type::List | Type::Tuple | Type::Dict | Type::View => value.len(),
        _ => None,
    }
}

/// Pairs of a dict.
///
/// # Errors
/// If the value is no dict.
pub fn pairs(value: &Value) -> Result<Vec<(Value, Value)>> {
    match (type_of(value), value.as_object().and_then(DynObject::try_iter_pairs)) {
        (Type::Dict, Some(pairs)) => Ok(pairs.collect()),
        _ => Err(failed(format!("{} is no dict", type_name(value)))),
    }
}

pub fn tuple(items: Vec<Value>) -> Value {
    Value::from(Tuple::from(items))
}

/// The string `new`, marked as safe if `safe`.
pub fn marked(new: String, safe: bool) -> Value {
    if safe { Value::from_safe_string(new) } else { Value::from(new) }
}

/// Refuses a text that is too large to be made.
///
/// # Errors
/// If the size exceeds 16 MB.
pub fn within_size(size: usize) -> Result<usize> {
    match size <= MAX_SIZE {
        true => Ok(size),
        false => Err(ErrorKind::OutOfFuel.into()),
    }
}

/// Refuses a list that is too large to be made.
///
/// # Errors
/// If its items take more than 16 MB.
pub fn within_items(count: usize) -> Result<usize> {
    within_size(count.saturating_mul(size_of::<Value>())).map(|_| count)
}

/// True if the value can be a key.
pub fn hashable(value: &Value) -> bool {
    match type_of(value) {
        Type::List | Type::Dict => false,
        Type::View => value
            .downcast_object_ref::<View>()
            .is_some_and(|view| !matches!(view.of, Of::Keys | Of::Items)),
        Type::Tuple => items(value).is_ok_and(|items| items.iter().all(hashable)),
        _ => true,
    }
}

pub fn equal(a: &Value, b: &Value) -> bool {
    equal_within(a, b, MAX_DEPTH)
}

fn equal_within(a: &Value, b: &Value, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return compare_numbers(a, b) == Some(Ordering::Equal);
    }
    match (type_of(a), type_of(b)) {
        (Type::Undefined, Type::Undefined) | (Type::None, Type::None) => true,
        (Type::Str, Type::Str) => a.as_str() == b.as_str(),
        (Type::List, Type::List) | (Type::Tuple, Type::Tuple) => match (items(a), items(b)) {
            (Ok(a), Ok(b)) => {
                a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| equal_within(a, b, depth))
            }
            _ => false,
        },
        (Type::Dict, Type::Dict) => match (pairs(a), b.as_object()) {
            (Ok(pairs), Some(other)) => {
                let same = |(key, value): &(Value, Value)| {
                    other.get_value(key).is_some_and(|other| equal_within(value, &other, depth))
                };
                Some(pairs.len()) == b.len() && pairs.iter().all(same)
            }
            _ => false,
        },
        (Type::View, Type::View) => {
            let view = |v: &Value| v.downcast_object::<View>();
            matches!((view(a), view(b)), (Some(a), Some(b))
                if a.of != Of::Values && std::mem::discriminant(&a.of) == std::mem::discriminant(&b.of)
                    && a.items.len() == b.items.len()
                    && a.items.iter().zip(&b.items).all(|(a, b)| equal_within(a, b, depth)))
        }
        (Type::Object, Type::Object) => {
            let name = |v: &Value| v.as_object().map(|object| object.type_name());
            name(a) == name(b) && a == b
        }
        _ => false,
    }
}

fn compare_numbers(a: Number, b: Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        (a, b) => a.float().partial_cmp(&b.float()),
    }
}

/// Order of two values; none of numbers that have no order.
///
/// # Errors
/// If Python does not order values of these types.
pub fn compare(a: &Value, b: &Value) -> Result<Option<Ordering>> {
    compare_within(a, b, MAX_DEPTH)
}

fn compare_within(a: &Value, b: &Value, depth: usize) -> Result<Option<Ordering>> {
    let depth = depth.checked_sub(1).ok_or_else(|| failed("lists are nested too deeply"))?;
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return Ok(compare_numbers(a, b));
    }
    match (type_of(a), type_of(b)) {
        (Type::Str, Type::Str) => Ok(Some(a.as_str().cmp(&b.as_str()))),
        (Type::List, Type::List) | (Type::Tuple, Type::Tuple) => {
            let (a, b) = (items(a)?, items(b)?);
            let differ = a.iter().zip(&b).find(|(a, b)| !equal(a, b));
            differ.map_or(Ok(Some(a.len().cmp(&b.len()))), |(a, b)| compare_within(a, b, depth))
        }
        _ => Err(failed(format!("{} and {} have no order", type_name(a), type_name(b)))),
    }
}

/// Sorts values by keys, as Python's `sorted` does.
///
/// # Errors
/// If two keys have no order.
pub fn sorted(mut keyed: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<Value>> {
    let mut fault = None;
    keyed.sort_by(|(a, _), (b, _)| {
        let order = compare(a, b).unwrap_or_else(|e| {
            fault.get_or_insert(e);
            None
        });
        let order = order.unwrap_or(Ordering::Equal);
        if reverse { order.reverse() } else { order }
    });
    match fault {
        Some(fault) => Err(fault),
        None => Ok(keyed.into_iter().map(|(_, value)| value).collect()),
    }
}

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
