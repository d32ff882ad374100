//! Formatting of Python: the `%` of strings, and `str.format` with its format specifications.

use minijinja::value::Value;

use super::markup::escape;
use super::values::{
    Number, Of, Result, Type, View, escaped, failed, float_text, index, items, number, pairs, repr,
    scientific, text, type_name, type_of, within_size,
};

/// Flags, width, precision and type of a conversion.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    group: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

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

fn digits(chars: &mut std::iter::Peekable<std::str::Chars>) -> Option<i64> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        number = Some(number.unwrap_or(0i64).saturating_mul(10).saturating_add(digit.into()));
    }
    number
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

fn character(value: &Value) -> Result<char> {
    let code = u32::try_from(index(value)?).ok().and_then(char::from_u32);
    code.ok_or_else(|| failed("not the code of a character"))
}

fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() { c.to_string() } else { escaped(c) }).collect()
}

/// Integer in a base, with sign, prefix and padding.
fn integer(spec: &Spec, int: i128, base: u32, prefix: &str, least: Option<usize>) -> String {
    let mut digits = match base {
        2 => format!("{:b}", int.unsigned_abs()),
        8 => format!("{:o}", int.unsigned_abs()),
        16 => format!("{:x}", int.unsigned_abs()),
        _ => int.unsigned_abs().to_string(),
    };
    if let Some(least) = least.filter(|least| *least > digits.len()) {
        digits.insert_str(0, &"0".repeat(least - digits.len()));
    }
    signed(spec, int < 0, prefix, &grouped(spec, digits, if base == 10 { 3 } else { 4 }), ' ')
}

/// Digits with a separator between groups.
fn grouped(spec: &Spec, digits: String, size: usize) -> String {
    let Some(separator) = spec.group else { return digits };
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(end);
    let mut out = String::new();
    for (at, c) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(size) {
            out.push(separator);
        }
        out.push(c);
    }
    out + rest
}

/// Number with its sign, padded between sign and digits if the format asks for zeros.
fn signed(spec: &Spec, negative: bool, prefix: &str, digits: &str, fill: char) -> String {
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        _ => "",
    };
    let head = format!("{sign}{prefix}");
    if spec.zero && spec.align.is_none() && digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        let spec = Spec { align: Some('='), fill: Some('0'), width: spec.width, ..Spec::default() };
        return padded(&spec, &head, digits, '>', '0');
    }
    padded(spec, &head, digits, '>', fill)
}

fn padded(spec: &Spec, head: &str, body: &str, default: char, fill: char) -> String {
    let width = head.chars().count() + body.chars().count();
    let (missing, fill) = (spec.width.saturating_sub(width), spec.fill.unwrap_or(fill));
    let pad = |count: usize| fill.to_string().repeat(count);
    match spec.align.unwrap_or(default) {
        '<' => format!("{head}{body}{}", pad(missing)),
        '^' => format!("{}{head}{body}{}", pad(missing / 2), pad(missing - missing / 2)),
        '=' => format!("{head}{}{body}", pad(missing)),
        _ => format!("{}{head}{body}", pad(missing)),
    }
}

/// Digits of a float that is not negative, in the formats e, f, g and %.
fn real(float: f64, kind: char, precision: usize, alternate: bool) -> String {
    let precision = precision.min(400);
    let done = match (float.is_finite(), kind.to_ascii_lowercase()) {
        (false, _) => {
            if float.is_nan() {
                "nan".into()
            } else {
                "inf".into()
            }
        }
        (_, 'e') => exponential(float, precision, alternate),
        (_, '%') => format!("{:.precision$}%", float * 100.0),
        (_, 'g') => general(float, precision.max(1), alternate),
        _ if alternate && precision == 0 => format!("{float:.0}."),
        _ => format!("{float:.precision$}"),
    };
    if kind.is_ascii_uppercase() { done.to_uppercase() } else { done }
}

fn exponential(float: f64, precision: usize, point: bool) -> String {
    let whole = format!("{float:.precision$e}");
    let (digits, exponent) = scientific(&whole);
    let point = if point && precision == 0 { "." } else { "" };
    format!("{digits}{point}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

fn general(float: f64, precision: usize, alternate: bool) -> String {
    let whole = format!("{float:.*e}", precision - 1);
    let (digits, exponent) = scientific(&whole);
    let trim = |text: &str| match text.contains('.') && !alternate {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    match exponent {
        -4.. if i64::from(exponent) < precision as i64 => {
            let after = (precision as i64 - 1 - i64::from(exponent)).max(0) as usize;
            let plain = format!("{float:.after$}");
            trim(&if alternate && after == 0 { plain + "." } else { plain })
        }
        _ => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", trim(digits), exponent.abs())
        }
    }
}

/// Text of `format.format(*given, **named)`; `lookup` gets an item or attribute by its name.
///
/// # Errors
/// If the format is malformed, or does not suit the values.
pub fn str_format(
    format: &str,
    given: &[Value],
    named: &[(String, Value)],
    lookup: &dyn Fn(&Value, &Value, bool) -> Result<Value>,
) -> Result<String> {
    let mut fields = Fields { given, named, lookup, next: 0, numbered: None };
    fields.render(format, 2)
}

struct Fields<'a> {
    given: &'a [Value],
    named: &'a [(String, Value)],
    lookup: &'a dyn Fn(&Value, &Value, bool) -> Result<Value>,
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
