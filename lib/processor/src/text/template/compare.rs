//! Equality and order of Python's values.

use std::cmp::Ordering;

use minijinja::value::Value;

use super::values::{
    MAX_DEPTH, Number, Of, Result, Type, View, failed, items, number, pairs, type_name, type_of,
};

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
