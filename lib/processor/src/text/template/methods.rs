//! Methods of Python's strings, lists, dicts and numbers, without those that change their value.

use std::sync::Arc;

use minijinja::State;
use minijinja::value::{Object, ObjectRepr, Value};

use super::arguments::{Arguments, required, span};
use super::compare::{equal, hashable};
use super::operators;
use super::string_methods;
use super::values::{
    Number, Of, Result, Type, View, failed, items, number, pairs, tuple, type_name, type_of,
};

/// Methods that change a list or dict, which a template must not.
const CHANGING: [&str; 12] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "discard",
];

const STR: [&str; 45] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const LIST: [&str; 3] = ["copy", "count", "index"];
const TUPLE: [&str; 2] = ["count", "index"];
const DICT: [&str; 5] = ["copy", "get", "items", "keys", "values"];
const FLOAT: [&str; 1] = ["is_integer"];
const INT: [&str; 1] = ["bit_length"];

/// True if some type has a method with this name, or calls of it are checked here.
pub fn known(name: &str) -> bool {
    name == "cycle"
        || [&STR[..], &LIST, &DICT, &FLOAT, &INT, &CHANGING]
            .iter()
            .any(|names| names.contains(&name))
}

/// True if the value has a method with this name that a template may call.
fn has(value: &Value, name: &str) -> bool {
    let names: &[&str] = match type_of(value) {
        Type::Str => &STR,
        Type::List => &LIST,
        Type::Tuple => &TUPLE,
        Type::Dict => &DICT,
        Type::Float => &FLOAT,
        Type::Int | Type::Bool => &INT,
        Type::View
            if matches!(
                value.downcast_object_ref::<View>(),
                Some(View { of: Of::Range(..), .. })
            ) =>
        {
            &TUPLE
        }
        _ => &[],
    };
    names.contains(&name)
}

/// True if the method changes its value, so that the sandbox hides it.
fn hidden(value: &Value, name: &str) -> bool {
    let of = type_of(value);
    CHANGING.contains(&name) && matches!(of, Type::List | Type::Dict)
}

/// Method of a value that is not called yet.
#[derive(Debug)]
struct Bound {
    value: Value,
    name: String,
}

impl Object for Bound {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value> {
        call(state, &self.value, &self.name, args)
    }
}

/// Attribute of a value: a method, or else an item; undefined if it has neither.
///
/// # Errors
/// If the value is undefined.
pub fn attribute(value: &Value, name: &str) -> Result<Value> {
    if hidden(value, name) || name.starts_with("__") && value.is_undefined() {
        return Ok(Value::UNDEFINED);
    }
    match has(value, name) {
        true => Ok(Value::from_object(Bound { value: value.clone(), name: name.to_owned() })),
        false => Ok(match type_of(value) {
            Type::Tuple | Type::Object => value.get_attr(name).unwrap_or_default(),
            _ => operators::item(value, &Value::from(name))?.unwrap_or_default(),
        }),
    }
}

/// Item of a value, or else the attribute with that name; undefined if it has neither.
///
/// # Errors
/// If the value is undefined.
pub fn item(value: &Value, key: &Value) -> Result<Value> {
    match (operators::item(value, key)?, key.as_str()) {
        (Some(item), _) => Ok(item),
        (None, Some(name)) => attribute(value, name),
        (None, None) => Ok(Value::UNDEFINED),
    }
}

/// Calls a method.
///
/// # Errors
/// If the value has no such method, or the arguments do not suit it.
pub fn call(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value> {
    if hidden(value, name) {
        return Err(failed(format!("`{name}` would change a {}", type_name(value))));
    }
    if !has(value, name) {
        return match type_of(value) {
            Type::Dict => operators::item(value, &Value::from(name))?
                .ok_or_else(|| failed(format!("dict has no method `{name}`")))?
                .call(state, args),
            // minijinja divides by the number of the values.
            Type::Object if name == "cycle" && args.is_empty() => {
                Err(failed("there are no values to cycle through"))
            }
            Type::Object => value.call_method(state, name, args),
            _ => Err(failed(format!("{} has no method `{name}`", type_name(value)))),
        };
    }
    let args = Arguments::new(args);
    match type_of(value) {
        Type::Str => string_methods::call(value, name, args, &lookup),
        Type::Dict => of_dict(value, name, args),
        Type::Float | Type::Int | Type::Bool => {
            let [] = args.bind([])?;
            Ok(match number(value) {
                Some(Number::Float(float)) => {
                    Value::from(float.is_finite() && float.fract() == 0.0)
                }
                Some(Number::Int(int)) => Value::from(128 - int.unsigned_abs().leading_zeros()),
                None => Value::UNDEFINED,
            })
        }
        _ => of_list(value, name, args),
    }
}

fn of_list(value: &Value, name: &str, args: Arguments) -> Result<Value> {
    let all = items(value)?;
    if name == "copy" {
        let [] = args.bind([])?;
        return Ok(Value::from(all));
    }
    if name == "count" {
        let [wanted] = args.bind([""])?;
        let wanted = required(wanted)?;
        return Ok(Value::from(all.iter().filter(|item| equal(item, &wanted)).count()));
    }
    let [wanted, start, stop] = args.bind(["", "", ""])?;
    let wanted = required(wanted)?;
    let (start, stop) = span(start, stop, all.len())?;
    let found = (start..stop).find(|at| equal(&all[*at], &wanted));
    found.map(Value::from).ok_or_else(|| failed("the item is not in the list"))
}

fn of_dict(value: &Value, name: &str, args: Arguments) -> Result<Value> {
    if name == "get" {
        let [key, default] = args.bind(["", ""])?;
        let key = required(key)?;
        if !hashable(&key) {
            return Err(failed(format!("{} cannot be a key", type_name(&key))));
        }
        let found = value.as_object().and_then(|dict| dict.get_value(&key));
        return Ok(found.or(default).unwrap_or_else(|| Value::from(())));
    }
    let [] = args.bind([])?;
    let pairs = pairs(value)?;
    let (of, items) = match name {
        "copy" => return Ok(Value::from_pairs(pairs)),
        "keys" => (Of::Keys, pairs.into_iter().map(|(key, _)| key).collect()),
        "values" => (Of::Values, pairs.into_iter().map(|(_, value)| value).collect()),
        _ => (Of::Items, pairs.into_iter().map(|(key, value)| tuple(vec![key, value])).collect()),
    };
    Ok(Value::from_object(View { of, items }))
}

/// Item or attribute of a value, for `str.format`.
fn lookup(value: &Value, key: &Value, by_attribute: bool) -> Result<Value> {
    let found = match (by_attribute, key.as_str()) {
        (true, Some(name)) => match type_of(value) {
            Type::Object => attribute(value, name)?,
            _ => item(value, key)?,
        },
        _ => item(value, key)?,
    };
    Ok(found)
}
