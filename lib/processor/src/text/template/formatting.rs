//! Conversions that both ways of formatting of Python share: sign, padding, groups and digits.

use minijinja::value::Value;

use super::repr::{escaped, scientific};
use super::values::{Result, failed, index};

/// Flags, width, precision and type of a conversion.
#[derive(Default)]
pub struct Spec {
    /// Character that fills the width.
    pub fill: Option<char>,
    /// Alignment: `<`, `>`, `^` or `=`.
    pub align: Option<char>,
    /// Sign of positive numbers.
    pub sign: Option<char>,
    /// True for the alternate form (`#`).
    pub alternate: bool,
    /// True if zeros fill the width.
    pub zero: bool,
    /// Least width in characters.
    pub width: usize,
    /// Separator between groups of digits.
    pub group: Option<char>,
    /// Number of digits, or of characters.
    pub precision: Option<usize>,
    /// Type of the conversion.
    pub kind: Option<char>,
}

/// Integer in a base, with sign, prefix and padding.
pub fn integer(spec: &Spec, int: i128, base: u32, prefix: &str, least: Option<usize>) -> String {
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
pub fn grouped(spec: &Spec, digits: String, size: usize) -> String {
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
pub fn signed(spec: &Spec, negative: bool, prefix: &str, digits: &str, fill: char) -> String {
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

/// Text padded to the width of a format, between `head` and `body` if the alignment is `=`.
pub fn padded(spec: &Spec, head: &str, body: &str, default: char, fill: char) -> String {
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
pub fn real(float: f64, kind: char, precision: usize, alternate: bool) -> String {
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

/// Float with an exponent of two digits or more.
pub fn exponential(float: f64, precision: usize, point: bool) -> String {
    let whole = format!("{float:.precision$e}");
    let (digits, exponent) = scientific(&whole);
    let point = if point && precision == 0 { "." } else { "" };
    format!("{digits}{point}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// Float in the format g: with an exponent if it is very large or small.
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

/// Character of a code.
///
/// # Errors
/// If the value is no code of a character.
pub fn character(value: &Value) -> Result<char> {
    let code = u32::try_from(index(value)?).ok().and_then(char::from_u32);
    code.ok_or_else(|| failed("not the code of a character"))
}

/// Text with escapes in place of characters that are not ASCII.
pub fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() { c.to_string() } else { escaped(c) }).collect()
}

/// Number at the start of a text, if there is one.
pub fn digits(chars: &mut std::iter::Peekable<std::str::Chars>) -> Option<i64> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        number = Some(number.unwrap_or(0i64).saturating_mul(10).saturating_add(digit.into()));
    }
    number
}
