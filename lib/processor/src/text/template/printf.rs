//! Formatting of Python by the `%` of strings.

use minijinja::value::Value;

use super::formatting::{Spec, ascii, character, digits, integer, padded, real, signed};
use super::markup::escape;
use super::repr::{repr, text};
use super::values::{
    Number, Of, Result, Type, View, failed, index, items, number, pairs, type_name, type_of,
    within_size,
};

/// Text of `format % value`; strings are escaped if `safe`.
///
/// # Errors
/// If the format is malformed, or does not suit the value.
pub fn printf(format: &str, value: &Value, safe: bool) -> Result<String> {
    let mut given: Vec<Value> = match type_of(value) {
        Type::Tuple => items(value)?,
        _ => vec![value.clone()],
    };
    given.reverse();
    let too_few = || failed("there are too few values for the format");
    let (mut out, mut chars, mut by_name) = (String::new(), format.chars().peekable(), false);
    while let Some(c) = chars.next() {
        if c != '%' || chars.next_if_eq(&'%').is_some() {
            out.push(c);
            continue;
        }
        let mut named = None;
        if chars.next_if_eq(&'(').is_some() {
            let name = balanced(&mut chars)?;
            let dict = if type_of(value) == Type::Dict { pairs(value)? } else { Vec::new() };
            let found = dict.into_iter().find(|(key, _)| key.as_str() == Some(&name));
            named = Some(found.ok_or_else(|| failed(format!("no value for `{name}`")))?.1);
            by_name = true;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.next_if(|c| "#0- +".contains(*c)) {
            match flag {
                '#' => spec.alternate = true,
                '0' => spec.zero = true,
                '-' => spec.align = Some('<'),
                '+' => spec.sign = Some('+'),
                _ => spec.sign = spec.sign.or(Some(' ')),
            }
        }
        let mut size =
            |chars: &mut std::iter::Peekable<std::str::Chars>| match chars.next_if_eq(&'*') {
                Some(_) => match given.pop().map(|v| (type_of(&v), v)) {
                    Some((Type::Int | Type::Bool, v)) => index(&v).map(Some),
                    _ => Err(failed("`*` wants an integer")),
                },
                None => Ok(digits(chars)),
            };
        let width = size(&mut chars)?.unwrap_or(0);
        if width < 0 {
            spec.align = Some('<');
        }
        spec.width = within_size(usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX))?;
        if chars.next_if_eq(&'.').is_some() {
            let precision = size(&mut chars)?.unwrap_or(0).max(0);
            spec.precision = Some(within_size(usize::try_from(precision).unwrap_or(usize::MAX))?);
        }
        chars.next_if(|c| "hlL".contains(*c));
        let kind = chars.next().ok_or_else(|| failed("the format ends within a conversion"))?;
        let argument = match named {
            Some(named) => named,
            None => given.pop().ok_or_else(too_few)?,
        };
        spec.kind = Some(kind);
        let piece = conversion(&spec, kind, &argument)?;
        out.push_str(&if safe && !argument.is_safe() {
            escape(&Value::from(piece))
        } else {
            piece
        });
        within_size(out.len())?;
    }
    let range = value.downcast_object_ref::<View>().is_some_and(|v| matches!(v.of, Of::Range(..)));
    let takes_any = range || matches!(type_of(value), Type::Dict | Type::List | Type::Undefined);
    let unused = !given.is_empty() && !by_name && !takes_any;
    if unused { Err(failed("not all values are used by the format")) } else { Ok(out) }
}

/// Text up to the parenthesis that closes the open one.
fn balanced(chars: &mut impl Iterator<Item = char>) -> Result<String> {
    let (mut name, mut depth) = (String::new(), 1);
    for c in chars {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if depth == 0 {
            return Ok(name);
        }
        name.push(c);
    }
    Err(failed("the format has a `(` without its `)`"))
}

/// One conversion of `%`.
fn conversion(spec: &Spec, kind: char, value: &Value) -> Result<String> {
    let wants = |what: &str| failed(format!("%{kind} wants {what}, not {}", type_name(value)));
    match kind {
        's' | 'r' | 'a' => {
            let whole = match kind {
                's' => text(value),
                'r' => repr(value),
                _ => ascii(&repr(value)),
            };
            let part: String = whole.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
            Ok(padded(spec, "", &part, '>', ' '))
        }
        'c' => {
            let c = match (value.as_str(), type_of(value)) {
                (Some(text), _) if text.chars().count() == 1 => text.to_owned(),
                (None, Type::Int | Type::Bool) => character(value)?.to_string(),
                _ => return Err(wants("a character")),
            };
            Ok(padded(spec, "", &c, '>', ' '))
        }
        'd' | 'i' | 'u' => {
            let int = match number(value).ok_or_else(|| wants("a number"))? {
                Number::Int(int) => int,
                Number::Float(float) if float.is_finite() => float.trunc() as i128,
                Number::Float(_) => return Err(wants("a finite number")),
            };
            Ok(integer(spec, int, 10, "", spec.precision))
        }
        'x' | 'X' | 'o' => match number(value) {
            Some(Number::Int(int)) => {
                let prefix = match (spec.alternate, kind) {
                    (false, _) => "",
                    (_, 'o') => "0o",
                    _ => "0x",
                };
                let done =
                    integer(spec, int, if kind == 'o' { 8 } else { 16 }, prefix, spec.precision);
                Ok(if kind == 'X' { done.to_uppercase() } else { done })
            }
            _ => Err(wants("an integer")),
        },
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let float = number(value).ok_or_else(|| wants("a number"))?.float();
            let digits = real(float.abs(), kind, spec.precision.unwrap_or(6), spec.alternate);
            Ok(signed(spec, float.is_sign_negative() && !float.is_nan(), "", &digits, ' '))
        }
        _ => Err(failed(format!("%{kind} is no conversion"))),
    }
}
