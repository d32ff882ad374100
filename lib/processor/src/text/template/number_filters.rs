//! Filters of Jinja for numbers.

use minijinja::State;
use minijinja::value::Value;

use super::arguments::{Arguments, flag, integer};
use super::filters::Filter;
use super::strings::{is, whitespace};
use super::values::{Number, Result, failed, number, string, type_name};

/// Filters by name.
const FILTERS: [(&str, Filter); 5] =
    [("abs", abs), ("filesizeformat", file_size), ("float", float), ("int", int), ("round", round)];

/// Filters of numbers with their names.
pub fn all() -> impl Iterator<Item = (&'static str, Filter)> {
    FILTERS.into_iter()
}

fn abs(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    match number(value) {
        Some(Number::Int(int)) => Ok(Value::from(int.saturating_abs())),
        Some(Number::Float(float)) => Ok(Value::from(float.abs())),
        None => Err(failed(format!("{} has no absolute value", type_name(value)))),
    }
}

fn file_size(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [binary] = args.bind(["binary"])?;
    let (base, units) = match flag(binary) {
        true => (1024f64, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]),
        false => (1000f64, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]),
    };
    let bytes = python_float(value)?.ok_or_else(|| failed("not a number of bytes"))?;
    if bytes == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::from(format!("{} Bytes", finite(bytes)? as i128)));
    }
    let (mut unit, mut name) = (base, units[0]);
    for (power, unit_name) in units.iter().enumerate() {
        (unit, name) = (base.powi(power as i32 + 2), unit_name);
        if bytes < unit {
            break;
        }
    }
    let size = base * bytes / unit;
    Ok(Value::from(if size.is_nan() { format!("nan {name}") } else { format!("{size:.1} {name}") }))
}

/// Number that `float` makes of a value; none where it raises an error that Jinja catches.
fn python_float(value: &Value) -> Result<Option<f64>> {
    if value.is_undefined() {
        return Err(failed("an undefined value is no number"));
    }
    let Some(text) = value.as_str() else { return Ok(number(value).map(Number::float)) };
    let text = text.trim_matches(whitespace);
    let joined = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    let beside_a_digit = text
        .as_bytes()
        .windows(3)
        .all(|w| w[1] != b'_' || w[0].is_ascii_digit() && w[2].is_ascii_digit());
    if joined || !beside_a_digit {
        return Ok(None);
    }
    Ok(decimal_digits(&text.replace('_', "")).parse().ok())
}

/// Text with the decimal digits of all scripts as ASCII digits.
fn decimal_digits(text: &str) -> String {
    let digit = |c: char| match c.is_ascii() || !is(c.encode_utf8(&mut [0; 4]), "isdecimal") {
        true => c,
        // Digits of a script follow each other from a place that is aligned in most of them.
        false => {
            let code = c as u32;
            let zero = (0..10).map(|back| code - back).take_while(|code| {
                char::from_u32(*code).is_some_and(|c| is(c.encode_utf8(&mut [0; 4]), "isdecimal"))
            });
            char::from_digit(zero.last().map_or(0, |zero| code - zero), 10).unwrap_or(c)
        }
    };
    text.chars().map(digit).collect()
}

fn float(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [default] = args.bind(["default"])?;
    let made = python_float(value)?.map(Value::from);
    Ok(made.or(default).unwrap_or_else(|| Value::from(0.0)))
}

fn int(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [default, base] = args.bind(["default", "base"])?;
    let base = integer(base, 10)?;
    let made = match (value.as_str(), number(value)) {
        (Some(text), _) => python_int(text, base),
        (None, Some(Number::Int(int))) => Some(int),
        (None, Some(Number::Float(float))) if float.is_infinite() => {
            return Err(failed("infinity is no integer"));
        }
        _ => None,
    };
    let made = made.or(match python_float(value)? {
        Some(float) if float.is_finite() => Some(float.trunc() as i128),
        _ => None,
    });
    Ok(made.map(Value::from).or(default).unwrap_or_else(|| Value::from(0)))
}

/// Number that `int(text, base)` makes.
fn python_int(text: &str, base: i64) -> Option<i128> {
    let text = decimal_digits(text.trim_matches(whitespace));
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefix = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find(|(p, b)| lower.starts_with(p) && (base == 0 || base == *b));
    let (digits, base) = match prefix {
        Some((prefix, base)) => {
            let digits = &lower[prefix.len()..];
            (digits.strip_prefix('_').unwrap_or(digits), base)
        }
        None if base == 0 => (&lower[..], 10),
        None => (&lower[..], base),
    };
    let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base))?;
    if digits.starts_with(['_', '+', '-']) || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    let number = i128::from_str_radix(&digits.replace('_', ""), base).ok()?;
    Some(if negative { -number } else { number })
}

fn round(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [precision, method] = args.bind(["precision", "method"])?;
    let precision = integer(precision, 0)?;
    let method = method.as_ref().map_or(Ok("common"), string)?;
    let given =
        number(value).ok_or_else(|| failed(format!("{} cannot be rounded", type_name(value))));
    let scale = 10f64.powi(precision.clamp(-400, 400) as i32);
    match (method, given?) {
        ("common", Number::Int(int)) if precision >= 0 => Ok(Value::from(int)),
        ("common", Number::Int(int)) => {
            let unit = u32::try_from(-precision).ok().and_then(|p| 10i128.checked_pow(p));
            let Some(unit) = unit else { return Ok(Value::from(0)) };
            let (down, rest) = (int.div_euclid(unit), int.rem_euclid(unit));
            let up = rest * 2 > unit || rest * 2 == unit && down % 2 != 0;
            Ok(Value::from((down + i128::from(up)) * unit))
        }
        ("common", Number::Float(float)) if !float.is_finite() => Ok(Value::from(float)),
        ("common", Number::Float(float)) if precision >= 0 => {
            let rounded = format!("{float:.*}", precision.min(400) as usize);
            rounded.parse::<f64>().map(Value::from).map_err(failed)
        }
        ("common", Number::Float(float)) => {
            let unit = 10f64.powi(-precision.max(-400) as i32);
            Ok(Value::from((float / unit).round_ties_even() * unit))
        }
        ("ceil", number) => finite(number.float() * scale).map(|f| Value::from(f.ceil() / scale)),
        ("floor", number) => finite(number.float() * scale).map(|f| Value::from(f.floor() / scale)),
        _ => Err(failed("the method is none of common, ceil and floor")),
    }
}

fn finite(float: f64) -> Result<f64> {
    if float.is_finite() { Ok(float) } else { Err(failed("not a finite number")) }
}
