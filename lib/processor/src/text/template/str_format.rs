//! Python's `str.format`, with its format specifications.

use minijinja::value::Value;

use super::formatting::{
    Spec, ascii, character, digits, exponential, grouped, integer, padded, real, signed,
};
use super::repr::{float_text, repr, scientific, text};
use super::values::{Number, Result, Type, failed, number, type_name, type_of, within_size};

/// Function that gives the item of a value or, if its third argument is true, an attribute.
pub type Lookup<'a> = &'a dyn Fn(&Value, &Value, bool) -> Result<Value>;

/// Text of `format.format(*given, **named)`; `lookup` gets an item or attribute by its name.
///
/// # Errors
/// If the format is malformed, or does not suit the values.
pub fn str_format(
    format: &str,
    given: &[Value],
    named: &[(String, Value)],
    lookup: Lookup,
) -> Result<String> {
    let mut fields = Fields { given, named, lookup, next: 0, numbered: None };
    fields.render(format, 2)
}

struct Fields<'a> {
    given: &'a [Value],
    named: &'a [(String, Value)],
    lookup: Lookup<'a>,
    /// Number of the next field without a name.
    next: usize,
    /// True if fields have numbers, false if they are counted.
    numbered: Option<bool>,
}

impl Fields<'_> {
    fn render(&mut self, format: &str, depth: usize) -> Result<String> {
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(failed("the format has a single `}`"));
            }
            let end = closing(after).ok_or_else(|| failed("the format has a single `{`"))?;
            out.push_str(&self.field(&after[..end], depth)?);
            within_size(out.len())?;
            rest = &after[end + 1..];
        }
        Ok(out + rest)
    }

    fn field(&mut self, field: &str, depth: usize) -> Result<String> {
        let depth = depth.checked_sub(1).ok_or_else(|| failed("fields are nested too deeply"))?;
        let name_end = {
            let mut inside = false;
            let end = field.char_indices().find(|(_, c)| {
                inside = *c == '[' || inside && *c != ']';
                !inside && matches!(c, ':' | '!')
            });
            end.map_or(field.len(), |(at, _)| at)
        };
        let (name, rest) = field.split_at(name_end);
        let mut value = self.value(name)?;
        let (conversion, spec) = match rest.strip_prefix('!') {
            Some(rest) => {
                let (conversion, spec) = rest.split_once(':').unwrap_or((rest, ""));
                (conversion, spec)
            }
            None => ("", rest.strip_prefix(':').unwrap_or("")),
        };
        value = match (rest.starts_with('!'), conversion) {
            (false, _) => value,
            (_, "s") => Value::from(text(&value)),
            (_, "r") => Value::from(repr(&value)),
            (_, "a") => Value::from(ascii(&repr(&value))),
            _ => return Err(failed(format!("`!{conversion}` is no conversion"))),
        };
        let spec = if spec.contains('{') { self.render(spec, depth)? } else { spec.to_owned() };
        format_value(&value, &spec)
    }

    /// Value that a field names: `0`, `name`, `name.attribute`, `name[item]`.
    fn value(&mut self, name: &str) -> Result<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut path) = name.split_at(end);
        let by_number = first.is_empty() || first.bytes().all(|b| b.is_ascii_digit());
        let missing = || failed(format!("the format has no value for `{first}`"));
        let mut value = if by_number {
            if *self.numbered.get_or_insert(!first.is_empty()) == first.is_empty() {
                return Err(failed("the format mixes counted and numbered fields"));
            }
            let at = if first.is_empty() { self.next } else { first.parse().map_err(failed)? };
            self.next += 1;
            self.given.get(at).cloned().ok_or_else(missing)?
        } else {
            let found = self.named.iter().find(|(name, _)| name == first);
            found.map(|(_, value)| value.clone()).ok_or_else(missing)?
        };
        while !path.is_empty() {
            let (key, attribute, rest) = match path.strip_prefix('.') {
                Some(rest) => {
                    let end = rest.find(['.', '[']).unwrap_or(rest.len());
                    (&rest[..end], true, &rest[end..])
                }
                None => {
                    let (key, rest) = path
                        .strip_prefix('[')
                        .and_then(|rest| rest.split_once(']'))
                        .ok_or_else(|| failed("the format has a `[` without its `]`"))?;
                    (key, false, rest)
                }
            };
            if key.is_empty() {
                return Err(failed("the format has an empty name"));
            }
            let number = key.parse::<i64>().ok().filter(|_| !attribute);
            let key = number.map_or_else(|| Value::from(key), Value::from);
            value = (self.lookup)(&value, &key, attribute)?;
            path = rest;
        }
        Ok(value)
    }
}

/// Place of the brace that closes the open one.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1;
    text.char_indices().find_map(|(at, c)| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        (depth == 0).then_some(at)
    })
}

/// Text of `format(value, spec)`.
fn format_value(value: &Value, spec: &str) -> Result<String> {
    let of = type_of(value);
    if spec.is_empty() {
        return Ok(text(value));
    }
    let parsed = parse(spec)?;
    let wrong = || failed(format!("the format {spec:?} does not suit {}", type_name(value)));
    match (number(value), of) {
        (Some(Number::Float(float)), _) => format_float(&parsed, float).ok_or_else(wrong),
        (Some(Number::Int(int)), _) => match parsed.kind {
            None if of == Type::Bool => Ok(format_int(&parsed, int, value).unwrap_or_default()),
            Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => {
                format_float(&parsed, int as f64).ok_or_else(wrong)
            }
            _ => format_int(&parsed, int, value).ok_or_else(wrong),
        },
        (None, Type::Str) => {
            let numeric = parsed.sign.is_some() || parsed.alternate || parsed.group.is_some();
            if numeric || parsed.align == Some('=') || !matches!(parsed.kind, None | Some('s')) {
                return Err(wrong());
            }
            let whole = text(value);
            let part: String = whole.chars().take(parsed.precision.unwrap_or(usize::MAX)).collect();
            let fill = if parsed.zero { '0' } else { ' ' };
            Ok(padded(&parsed, "", &part, '<', fill))
        }
        _ => Err(wrong()),
    }
}

fn format_int(spec: &Spec, int: i128, value: &Value) -> Option<String> {
    let (base, prefix) = match spec.kind {
        None | Some('d' | 'n') => (10, ""),
        Some('x' | 'X') => (16, "0x"),
        Some('b') => (2, "0b"),
        Some('o') => (8, "0o"),
        Some('c') if spec.sign.is_none() && !spec.alternate => {
            return Some(padded(spec, "", &character(value).ok()?.to_string(), '<', ' '));
        }
        _ => return None,
    };
    if spec.precision.is_some() || (spec.group == Some(',') && base != 10) {
        return None;
    }
    let done = integer(spec, int, base, if spec.alternate { prefix } else { "" }, None);
    Some(if spec.kind == Some('X') { done.to_uppercase() } else { done })
}

fn format_float(spec: &Spec, float: f64) -> Option<String> {
    let size = float.abs();
    let digits = match (spec.kind, spec.precision) {
        (None, None) => float_text(size),
        (None, Some(precision)) => {
            let precision = precision.max(1);
            let (_, exponent) = scientific(&format!("{size:.*e}", precision.min(400) - 1))
                .1
                .checked_add(0)
                .map(|exponent| ((), exponent))?;
            match exponent {
                -4.. if i64::from(exponent) < precision as i64 - 1 => {
                    let digits = real(size, 'g', precision, spec.alternate);
                    if digits.contains('.') { digits } else { digits + ".0" }
                }
                _ => {
                    let digits = real(size, 'g', precision, spec.alternate);
                    if digits.contains('e') { digits } else { exponential_of(size, precision) }
                }
            }
        }
        (Some(kind @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')), precision) => {
            real(size, kind, precision.unwrap_or(6), spec.alternate)
        }
        (Some('n'), precision) => real(size, 'g', precision.unwrap_or(6), spec.alternate),
        _ => return None,
    };
    let negative = float.is_sign_negative() && !float.is_nan();
    Some(signed(spec, negative, "", &grouped(spec, digits, 3), ' '))
}

/// Shortest exponential layout of a number with `precision` digits.
fn exponential_of(float: f64, precision: usize) -> String {
    let whole = exponential(float, precision - 1, false);
    let (digits, exponent) = whole.split_once('e').unwrap_or((&whole, "+00"));
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    };
    format!("{digits}e{exponent}")
}

fn parse(spec: &str) -> Result<Spec> {
    let wrong = || failed(format!("the format {spec:?} is malformed"));
    let mut parsed = Spec::default();
    let mut chars = spec.chars().peekable();
    let all: Vec<char> = spec.chars().take(2).collect();
    let is_align = |c: &char| "<>=^".contains(*c);
    if all.get(1).is_some_and(is_align) {
        (parsed.fill, parsed.align) = (chars.next(), chars.next());
    } else if all.first().is_some_and(is_align) {
        parsed.align = chars.next();
    }
    parsed.sign = chars.next_if(|c| "+- ".contains(*c));
    chars.next_if_eq(&'z');
    parsed.alternate = chars.next_if_eq(&'#').is_some();
    parsed.zero = chars.next_if_eq(&'0').is_some();
    if parsed.zero && parsed.align.is_some() && parsed.fill.is_none() {
        parsed.fill = Some('0');
    }
    let size = |n: i64| within_size(usize::try_from(n).unwrap_or(usize::MAX));
    parsed.width = size(digits(&mut chars).unwrap_or(0))?;
    parsed.group = chars.next_if(|c| ",_".contains(*c));
    if chars.next_if_eq(&'.').is_some() {
        parsed.precision = Some(size(digits(&mut chars).ok_or_else(wrong)?)?);
    }
    parsed.kind = chars.next();
    if chars.next().is_some() { Err(wrong()) } else { Ok(parsed) }
}
