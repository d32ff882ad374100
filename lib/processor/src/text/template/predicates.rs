//! Tests of Jinja: what `is` and filters such as `select` ask of a value.

use minijinja::value::{Value, ValueKind};
use minijinja::{ErrorKind, State};

use super::arguments::{Arguments, required};
use super::compare::{equal, hashable};
use super::fuel::charge_deep;
use super::operators::{holds, modulo};
use super::repr::text;
use super::strings;
use super::values::{Of, Result, Type, View, failed, string, type_name, type_of};

/// Names of the tests.
const NAMES: [&str; 39] = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

/// Result of a test.
///
/// # Errors
/// If there is no such test, or it does not suit the value.
pub fn is(state: &mut State, name: &str, value: &Value, args: Arguments) -> Result<bool> {
    let of = type_of(value);
    let same_bool = |wanted: bool| of == Type::Bool && value.is_true() == wanted;
    let operator = match name {
        "eq" | "equalto" | "==" => "==",
        "ne" | "!=" => "!=",
        "lt" | "lessthan" | "<" => "<",
        "le" | "<=" => "<=",
        "gt" | "greaterthan" | ">" => ">",
        "ge" | ">=" => ">=",
        "in" => "in",
        _ => "",
    };
    if !operator.is_empty() {
        let [other] = args.bind([""])?;
        return holds(state, value, operator, &required(other)?);
    }
    if name == "sameas" {
        let [other] = args.bind(["other"])?;
        let other = required(other)?;
        charge_deep(state, &[value, &other])?;
        return Ok(of != Type::Undefined && of == type_of(&other) && equal(value, &other));
    }
    if name == "divisibleby" {
        let [number] = args.bind(["num"])?;
        return Ok(equal(&modulo(value, &required(number)?)?, &Value::from(0)));
    }
    let [] = args.bind([])?;
    if matches!(name, "lower" | "upper") {
        charge_deep(state, &[value])?;
    }
    Ok(match name {
        "boolean" => of == Type::Bool,
        "callable" => {
            of == Type::Undefined
                || of == Type::Object
                    && value.kind() != ValueKind::Iterable
                    && !value
                        .as_object()
                        .is_some_and(|object| object.type_name().ends_with("Namespace"))
        }
        "defined" => of != Type::Undefined,
        "undefined" => of == Type::Undefined,
        "escaped" => value.is_safe(),
        "even" => equal(&modulo(value, &Value::from(2))?, &Value::from(0)),
        "odd" => equal(&modulo(value, &Value::from(2))?, &Value::from(1)),
        "true" => same_bool(true),
        "false" => same_bool(false),
        "float" => of == Type::Float,
        "integer" => of == Type::Int,
        "number" => matches!(of, Type::Int | Type::Float | Type::Bool),
        "iterable" => items_are_there(value),
        "sequence" => {
            matches!(of, Type::Undefined | Type::Str | Type::List | Type::Tuple | Type::Dict)
                || value
                    .downcast_object_ref::<View>()
                    .is_some_and(|view| matches!(view.of, Of::Range(..)))
        }
        "mapping" => of == Type::Dict,
        "none" => of == Type::None,
        "string" => of == Type::Str,
        "lower" => strings::is(&text(value), "islower"),
        "upper" => strings::is(&text(value), "isupper"),
        "filter" | "test" if value.as_str().is_none() => match hashable(value) {
            true => false,
            false => return Err(failed(format!("{} is no name", type_name(value)))),
        },
        "filter" => {
            let name = string(value)?;
            // A filter that is there fails in another way without a value.
            let called = state.apply_filter(name, &[]);
            let unknown = called.is_err_and(|e| e.kind() == ErrorKind::UnknownFilter);
            !name.starts_with("__") && !unknown
        }
        "test" => NAMES.contains(&string(value)?),
        _ => return Err(failed(format!("no test named `{name}`"))),
    })
}

/// True if the value can be iterated; an iterator is not consumed.
fn items_are_there(value: &Value) -> bool {
    match type_of(value) {
        Type::Object => value.kind() == ValueKind::Iterable,
        Type::None | Type::Bool | Type::Int | Type::Float => false,
        _ => value.try_iter().is_ok(),
    }
}
