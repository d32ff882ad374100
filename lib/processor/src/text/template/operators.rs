//! Operators of Python: arithmetic, comparison, containment, items and slices.

use std::cmp::Ordering;

use minijinja::State;
use minijinja::value::Value;

use super::compare::{compare, equal, hashable};
use super::fuel::charge_deep;
use super::markup::escape;
use super::printf::printf;
use super::repr::text;
use super::values::{
    Number, Of, Result, Type, View, failed, index, items, length, marked, number, string, tuple,
    type_name, type_of, within_items, within_size,
};

fn unsupported(operator: &str, a: &Value, b: &Value) -> minijinja::Error {
    failed(format!("`{operator}` is not possible with {} and {}", type_name(a), type_name(b)))
}

/// Integers or floats of an arithmetic operation, and its result.
fn arithmetic(
    operator: &str,
    (a, b): (&Value, &Value),
    ints: impl Fn(i128, i128) -> Option<i128>,
    floats: impl Fn(f64, f64) -> f64,
) -> Result<Value> {
    match (number(a), number(b)) {
        (Some(Number::Int(x)), Some(Number::Int(y))) => ints(x, y)
            .map(Value::from)
            .ok_or_else(|| failed(format!("{x} {operator} {y} is too large or has no result"))),
        (Some(x), Some(y)) => Ok(Value::from(floats(x.float(), y.float()))),
        _ => Err(unsupported(operator, a, b)),
    }
}

pub fn add(a: &Value, b: &Value) -> Result<Value> {
    match (type_of(a), type_of(b)) {
        (Type::Str, Type::Str) => {
            let safe = a.is_safe() || b.is_safe();
            let part = |v: &Value| if safe { escape(v) } else { text(v) };
            let (a, b) = (part(a), part(b));
            within_size(a.len() + b.len())?;
            Ok(marked(a + &b, safe))
        }
        (x @ (Type::List | Type::Tuple), y) if x == y => {
            let (mut all, more) = (items(a)?, items(b)?);
            within_items(all.len() + more.len())?;
            all.extend(more);
            Ok(if x == Type::List { Value::from(all) } else { tuple(all) })
        }
        _ => arithmetic("+", (a, b), i128::checked_add, |x, y| x + y),
    }
}

pub fn subtract(a: &Value, b: &Value) -> Result<Value> {
    arithmetic("-", (a, b), i128::checked_sub, |x, y| x - y)
}

pub fn multiply(a: &Value, b: &Value) -> Result<Value> {
    let (sequence, count) = match (type_of(a), type_of(b)) {
        (Type::Str | Type::List | Type::Tuple, Type::Int | Type::Bool) => (a, b),
        (Type::Int | Type::Bool, Type::Str | Type::List | Type::Tuple) => (b, a),
        _ => return arithmetic("*", (a, b), i128::checked_mul, |x, y| x * y),
    };
    let count = index(count)?.max(0) as usize;
    if let Some(text) = sequence.as_str() {
        within_size(text.len().saturating_mul(count))?;
        return Ok(marked(text.repeat(count), sequence.is_safe()));
    }
    let all = items(sequence)?;
    within_items(all.len().saturating_mul(count))?;
    let all: Vec<_> = std::iter::repeat_n(all, count).flatten().collect();
    Ok(if type_of(sequence) == Type::List { Value::from(all) } else { tuple(all) })
}

pub fn divide(a: &Value, b: &Value) -> Result<Value> {
    match (number(a), number(b)) {
        (Some(_), Some(y)) if y.float() == 0.0 => Err(failed("division by zero")),
        (Some(x), Some(y)) => Ok(Value::from(x.float() / y.float())),
        _ => Err(unsupported("/", a, b)),
    }
}

pub fn floor_divide(a: &Value, b: &Value) -> Result<Value> {
    refuse_zero(a, b)?;
    let floor = |x: i128, y: i128| {
        let quotient = x.checked_div(y)?;
        Some(quotient - i128::from(x % y != 0 && (x < 0) != (y < 0)))
    };
    arithmetic("//", (a, b), floor, |x, y| divmod(x, y).0)
}

/// Remainder of numbers, or a string that is formatted.
pub fn modulo(a: &Value, b: &Value) -> Result<Value> {
    if let Some(format) = a.as_str() {
        return printf(format, b, a.is_safe()).map(|text| marked(text, a.is_safe()));
    }
    refuse_zero(a, b)?;
    let remainder = |x: i128, y: i128| {
        let rest = x.checked_rem(y)?;
        Some(if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest })
    };
    arithmetic("%", (a, b), remainder, |x, y| divmod(x, y).1)
}

fn refuse_zero(a: &Value, b: &Value) -> Result<()> {
    let zero = number(b).is_some_and(|b| b.float() == 0.0);
    if zero && number(a).is_some() { Err(failed("division by zero")) } else { Ok(()) }
}

/// Floored quotient and remainder, as CPython computes them.
fn divmod(x: f64, y: f64) -> (f64, f64) {
    let mut rest = x % y;
    let mut quotient = (x - rest) / y;
    if rest == 0.0 {
        rest = 0f64.copysign(y);
    } else if (rest < 0.0) != (y < 0.0) {
        rest += y;
        quotient -= 1.0;
    }
    let floor = quotient.floor();
    let floor = if quotient - floor > 0.5 { floor + 1.0 } else { floor };
    (if quotient == 0.0 { 0f64.copysign(x / y) } else { floor }, rest)
}

pub fn power(a: &Value, b: &Value) -> Result<Value> {
    let floats = |x: f64, y: f64| {
        if x == 0.0 && y < 0.0 {
            return Err(failed("division by zero"));
        }
        let result = x.powf(y);
        let lost = !result.is_finite() && x.is_finite() && y.is_finite();
        if lost { Err(failed("the power is not a finite number")) } else { Ok(Value::from(result)) }
    };
    match (number(a), number(b)) {
        (Some(Number::Int(x)), Some(Number::Int(y))) if y >= 0 => {
            let exact = u32::try_from(y).ok().and_then(|y| x.checked_pow(y));
            exact.map(Value::from).ok_or_else(|| failed(format!("{x} ** {y} is too large")))
        }
        (Some(x), Some(y)) => floats(x.float(), y.float()),
        _ => Err(unsupported("**", a, b)),
    }
}

pub fn negate(a: &Value) -> Result<Value> {
    match number(a) {
        Some(Number::Int(x)) if x != i128::MIN => Ok(Value::from(-x)),
        Some(Number::Float(x)) => Ok(Value::from(-x)),
        _ => Err(failed(format!("`-` is not possible with {}", type_name(a)))),
    }
}

pub fn plus(a: &Value) -> Result<Value> {
    match number(a) {
        Some(Number::Int(x)) => Ok(Value::from(x)),
        Some(Number::Float(x)) => Ok(Value::from(x)),
        None => Err(failed(format!("`+` is not possible with {}", type_name(a)))),
    }
}

/// Chain of comparisons: `1 < 2 <= 3` has the rest `["<", 2, "<=", 3]`.
pub fn comparisons(state: &State, first: &Value, rest: &[Value]) -> Result<Value> {
    let mut left = first;
    for pair in rest.chunks_exact(2) {
        let (operator, right) = (string(&pair[0])?, &pair[1]);
        if !holds(state, left, operator, right)? {
            return Ok(Value::from(false));
        }
        left = right;
    }
    Ok(Value::from(true))
}

/// Result of one comparison.
///
/// # Errors
/// If the values cannot be compared, or their size takes more fuel than there is.
pub fn holds(state: &State, a: &Value, operator: &str, b: &Value) -> Result<bool> {
    let through = match (operator, type_of(b)) {
        ("in" | "not in", Type::Dict) => &[a][..],
        ("in" | "not in", _) => &[b],
        (_, of) if of == type_of(a) => &[a, b],
        _ => &[],
    };
    charge_deep(state, through)?;
    Ok(match operator {
        "==" => equal(a, b),
        "!=" => !equal(a, b),
        "in" => contains(b, a)?,
        "not in" => !contains(b, a)?,
        _ => match (compare(a, b)?, operator) {
            (None, _) => false,
            (Some(order), "<") => order == Ordering::Less,
            (Some(order), "<=") => order != Ordering::Greater,
            (Some(order), ">") => order == Ordering::Greater,
            (Some(order), _) => order != Ordering::Less,
        },
    })
}

fn contains(container: &Value, item: &Value) -> Result<bool> {
    match type_of(container) {
        Type::Str => Ok(string(container)?.contains(string(item)?)),
        Type::Dict => match hashable(item) {
            true => Ok(container.as_object().is_some_and(|dict| dict.get_value(item).is_some())),
            false => Err(failed(format!("{} cannot be a key", type_name(item)))),
        },
        _ => Ok(items(container)?.iter().any(|other| equal(other, item))),
    }
}

/// Item of a list, string or dict; none if it has no such item.
///
/// # Errors
/// If the value is undefined.
pub fn item(value: &Value, key: &Value) -> Result<Option<Value>> {
    let position = |length: usize| {
        let at = match type_of(key) {
            Type::Int | Type::Bool => index(key).ok()?,
            _ => return None,
        };
        let at = if at < 0 { at + i64::try_from(length).ok()? } else { at };
        usize::try_from(at).ok().filter(|at| *at < length)
    };
    Ok(match type_of(value) {
        Type::Undefined => return Err(failed("an undefined value has no items")),
        Type::Str => {
            let text = string(value)?;
            let at = match type_of(key) {
                Type::Int | Type::Bool => index(key).ok(),
                _ => None,
            };
            let distance = |at: i64| usize::try_from(at).unwrap_or(usize::MAX);
            at.and_then(|at| match at < 0 {
                true => text.chars().nth_back(distance(-(at + 1))),
                false => text.chars().nth(distance(at)),
            })
            .map(|c| marked(c.to_string(), value.is_safe()))
        }
        Type::List | Type::Tuple => {
            let at = position(length(value).unwrap_or(0));
            at.and_then(|at| value.as_object()?.get_value(&Value::from(at)))
        }
        Type::View => {
            let view = value.downcast_object::<View>();
            let range = view.filter(|view| matches!(view.of, Of::Range(..)));
            range.and_then(|view| view.items.get(position(view.items.len())?).cloned())
        }
        Type::Dict if !hashable(key) => None,
        Type::Dict | Type::Object => value.as_object().and_then(|object| object.get_value(key)),
        _ => None,
    })
}

/// Slice of a string, list, tuple or range.
///
/// # Errors
/// If the value has no slices, a bound is no integer, or the step is 0.
pub fn slice(value: &Value, bounds: [&Value; 3]) -> Result<Value> {
    let bound = |v: &Value| if v.is_none() { Ok(None) } else { index(v).map(Some) };
    let [start, stop, step] = bounds;
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(failed("a slice has the step 0"));
    }
    let chosen = |length: usize| {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
        let clamp = |at: i64| if at < 0 { (at + length).max(low) } else { at.min(high) };
        let first = start.map_or(if step > 0 { low } else { high }, clamp);
        let last = stop.map_or(if step > 0 { high } else { low }, clamp);
        let inside = move |at: &i64| if step > 0 { *at < last } else { *at > last };
        let next = move |at: &i64| at.checked_add(step);
        std::iter::successors(Some(first), next).take_while(inside).map(|at| at as usize)
    };
    match type_of(value) {
        Type::Str => {
            let text = string(value)?;
            let chars: Vec<char> = text.chars().collect();
            let part = chosen(chars.len()).filter_map(|at| chars.get(at)).collect();
            Ok(marked(part, value.is_safe()))
        }
        of @ (Type::List | Type::Tuple) => {
            let all = items(value)?;
            let part: Vec<_> = chosen(all.len()).filter_map(|at| all.get(at).cloned()).collect();
            Ok(if of == Type::List { Value::from(part) } else { tuple(part) })
        }
        Type::View => {
            let Some(view) = value.downcast_object::<View>() else { return Ok(Value::UNDEFINED) };
            let Of::Range(from, _, stride) = view.of else {
                return Err(failed("a view of a dict has no slices"));
            };
            let length = view.items.len() as i64;
            let part: Vec<_> =
                chosen(view.items.len()).filter_map(|at| view.items.get(at).cloned()).collect();
            let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
            let clamp = |at: i64| if at < 0 { (at + length).max(low) } else { at.min(high) };
            let first = start.map_or(if step > 0 { low } else { high }, clamp);
            let last = stop.map_or(if step > 0 { high } else { low }, clamp);
            let of = Of::Range(from + first * stride, from + last * stride, stride * step);
            Ok(Value::from_object(View { of, items: part }))
        }
        _ => Err(failed(format!("{} has no slices", type_name(value)))),
    }
}
