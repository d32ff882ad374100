//! Filters of Jinja for texts and numbers.

use std::fmt::Write;

use minijinja::State;
use minijinja::value::Value;

use super::arguments::{Arguments, flag, integer, required};
use super::formatting::printf;
use super::fuel::afford;
use super::json_dumps::Layout;
use super::markup::{escape, escape_text, strip_tags};
use super::methods::{self, lines};
use super::values::{
    Number, Result, Type, failed, hashable, index, items, length, marked, number, pairs, repr,
    sorted, string, text, tuple, type_name, type_of, within_size,
};
use super::wrap::wrap;

/// Memory that a text takes while its lines are wrapped, for each of its bytes.
const CHUNK: usize = 32;

/// Filter: the value before the bar, and the arguments.
pub type Filter = fn(&mut State, &Value, Arguments) -> Result<Value>;

/// Filters by name.
const FILTERS: [(&str, Filter); 37] = [
    ("abs", abs),
    ("attr", attr),
    ("capitalize", capitalize),
    ("center", center),
    ("count", count),
    ("d", default),
    ("default", default),
    ("e", escaped),
    ("escape", escaped),
    ("filesizeformat", file_size),
    ("float", float),
    ("forceescape", force_escape),
    ("format", format),
    ("indent", indent),
    ("int", int),
    ("length", count),
    ("lower", lower),
    ("pprint", pretty),
    ("replace", replace),
    ("round", round),
    ("safe", safe),
    ("string", soft),
    ("striptags", striptags),
    ("title", title),
    ("tojson", tojson),
    ("trim", trim),
    ("truncate", truncate),
    ("upper", upper),
    ("urlencode", url_encode),
    ("urlize", links),
    ("wordcount", word_count),
    ("wordwrap", word_wrap),
    ("xmlattr", xml_attributes),
    ("__print__", printed),
    ("__refuse__", refuse),
    ("__concat__", concat),
    ("__key__", key),
];

/// All filters with their names.
pub fn all() -> impl Iterator<Item = (&'static str, Filter)> {
    FILTERS.into_iter()
}

/// Text that a filter makes of any value, which keeps the mark of a safe string.
fn same(value: &Value, new: String) -> Result<Value> {
    Ok(marked(new, value.is_safe()))
}

fn printed(_: &mut State, _: &Value, args: Arguments) -> Result<Value> {
    let [value] = args.bind([""])?;
    required(value)
}

fn refuse(_: &mut State, value: &Value, _: Arguments) -> Result<Value> {
    Err(failed(format!("`{}` is not possible in a chat template", text(value))))
}

fn concat(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let mut all = text(value);
    for value in &args.given {
        all.push_str(&text(value));
        within_size(all.len())?;
    }
    Ok(Value::from(all))
}

/// Key of a dict.
fn key(_: &mut State, value: &Value, _: Arguments) -> Result<Value> {
    match hashable(value) {
        true => Ok(value.clone()),
        false => Err(failed(format!("{} cannot be a key", type_name(value)))),
    }
}

fn abs(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    match number(value) {
        Some(Number::Int(int)) => Ok(Value::from(int.saturating_abs())),
        Some(Number::Float(float)) => Ok(Value::from(float.abs())),
        None => Err(failed(format!("{} has no absolute value", type_name(value)))),
    }
}

fn attr(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [name] = args.bind(["name"])?;
    let name = text(&required(name)?);
    let found = methods::attribute(value, &name)?;
    // An item of a dict is no attribute.
    let is_item = type_of(value) == Type::Dict && !matches!(type_of(&found), Type::Object);
    Ok(if is_item { Value::UNDEFINED } else { found })
}

fn capitalize(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    same(value, methods::capitalize(&text(value)))
}

fn center(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [width] = args.bind(["width"])?;
    let width = usize::try_from(integer(width, 80)?).unwrap_or(0);
    same(value, methods::justify(&text(value), "center", width, ' ')?)
}

fn count(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    let length = length(value).ok_or_else(|| failed(format!("{} has no length", type_name(value))));
    length.map(Value::from)
}

fn default(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [default, boolean] = args.bind(["default_value", "boolean"])?;
    let missing = value.is_undefined() || flag(boolean) && !value.is_true();
    Ok(if missing { default.unwrap_or_else(|| Value::from("")) } else { value.clone() })
}

fn escaped(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    Ok(Value::from_safe_string(escape(value)))
}

fn force_escape(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    Ok(Value::from_safe_string(escape_text(&text(value))))
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
    let text = text.trim_matches(methods::whitespace);
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
    let digit =
        |c: char| match c.is_ascii() || !methods::is(c.encode_utf8(&mut [0; 4]), "isdecimal") {
            true => c,
            // Digits of a script follow each other from a place that is aligned in most of them.
            false => {
                let code = c as u32;
                let zero = (0..10).map(|back| code - back).take_while(|code| {
                    char::from_u32(*code)
                        .is_some_and(|c| methods::is(c.encode_utf8(&mut [0; 4]), "isdecimal"))
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
    let text = decimal_digits(text.trim_matches(methods::whitespace));
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

fn format(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let Arguments { given, named } = args;
    let values = match (given.is_empty(), named.is_empty()) {
        (false, false) => return Err(failed("positional and named values for one format")),
        (_, true) => tuple(given),
        _ => Value::from_pairs(named),
    };
    printf(&text(value), &values, value.is_safe()).and_then(|text| same(value, text))
}

fn indent(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [width, first, blank] = args.bind(["width", "first", "blank"])?;
    let (first, blank) = (flag(first), flag(blank));
    let indent = match width {
        Some(width) if width.as_str().is_some() => text(&width),
        width => " ".repeat(within_size(usize::try_from(integer(width, 4)?).unwrap_or(0))?),
    };
    let mut whole = string(value)?.to_owned();
    whole.push('\n');
    let lines = lines(&whole, false);
    within_size(whole.len() + lines.len().saturating_mul(indent.len()))?;
    let lines = lines.iter().enumerate().map(|(number, line)| match (number, *line) {
        (0, line) if first => format!("{indent}{line}"),
        (0, line) => line.to_owned(),
        (_, "") if !blank => String::new(),
        (_, line) => format!("{indent}{line}"),
    });
    same(value, lines.collect::<Vec<_>>().join("\n"))
}

fn lower(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    same(value, text(value).to_lowercase())
}

fn upper(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    same(value, text(value).to_uppercase())
}

fn pretty(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    let keyed = |pairs: Vec<(Value, Value)>| {
        let keyed = pairs.into_iter().map(|(key, value)| (key.clone(), tuple(vec![key, value])));
        sorted(keyed.collect(), false)
    };
    if type_of(value) != Type::Dict {
        return Ok(Value::from(repr(value)));
    }
    let all = keyed(pairs(value)?)?;
    let pairs = all.iter().map(|pair| Ok((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?)));
    Ok(Value::from(repr(&Value::from_pairs(pairs.collect::<Result<Vec<_>>>()?))))
}

fn replace(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [old, new, count] = args.bind(["old", "new", "count"])?;
    let (old, new) = (text(&required(old)?), text(&required(new)?));
    let count = integer(count.filter(|count| !count.is_none()), -1)?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    methods::replace(&text(value), &old, &new, count).map(Value::from)
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

fn safe(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    Ok(Value::from_safe_string(text(value)))
}

fn soft(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    same(value, text(value))
}

fn striptags(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    Ok(Value::from(strip_tags(&text(value))))
}

/// Filter `title`, which takes other borders of words than `str.title`.
fn title(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    let text = text(value);
    let border = |c: char| methods::whitespace(c) || "-({[<".contains(c);
    let mut out = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = rest.find(border).unwrap_or(rest.len());
        out.push_str(&methods::capitalize_upper(&rest[..end]));
        let after = rest[end..].find(|c| !border(c)).map_or(rest.len(), |at| at + end);
        out.push_str(&methods::capitalize_upper(&rest[end..after]));
        rest = &rest[after..];
    }
    same(value, out)
}

/// Filter `tojson` of transformers: Python's `json.dumps` without HTML escapes.
fn tojson(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [ascii, indent, separators, sorted] =
        args.bind(["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => {
                let width = usize::try_from(index(&indent)?).unwrap_or(0);
                " ".repeat(within_size(width)?)
            }
        }),
    };
    let separators = match separators.filter(|separators| !separators.is_none()) {
        None => None,
        Some(separators) => match &items(&separators)?[..] {
            [comma, colon] => Some([string(comma)?.to_owned(), string(colon)?.to_owned()]),
            _ => return Err(failed("`separators` are two strings")),
        },
    };
    let layout = Layout { indent, ascii: flag(ascii), separators, sorted: flag(sorted) };
    layout.dumps(value).map(Value::from)
}

fn trim(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [chars] = args.bind(["chars"])?;
    let chars = chars.filter(|chars| !chars.is_none());
    let chars = chars.as_ref().map(string).transpose()?;
    same(value, methods::strip(&text(value), chars, "strip").to_owned())
}

fn truncate(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [most, kill, end, leeway] = args.bind(["length", "killwords", "end", "leeway"])?;
    let most = integer(most, 255)?;
    let end = end.map_or(Ok("...".to_owned()), |end| string(&end).map(str::to_owned))?;
    let leeway = integer(leeway.filter(|leeway| !leeway.is_none()), 5)?;
    let room = most - end.chars().count() as i64;
    if room < 0 || leeway < 0 {
        return Err(failed("the text is cut to less than its end"));
    }
    let length =
        length(value).ok_or_else(|| failed(format!("{} has no length", type_name(value))))?;
    if length as i64 <= most.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let kept: String = string(value)?.chars().take(room as usize).collect();
    let kept = if flag(kill) { &kept } else { kept.rsplit_once(' ').map_or(&kept[..], |(a, _)| a) };
    same(value, format!("{kept}{end}"))
}

fn url_encode(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    let pair = |key: &Value, value: &Value| format!("{}={}", quote(key, true), quote(value, true));
    let all: Vec<String> = match type_of(value) {
        Type::Dict => pairs(value)?.iter().map(|(key, value)| pair(key, value)).collect(),
        Type::Str => return Ok(Value::from(quote(value, false))),
        _ => match items(value) {
            Err(_) => return Ok(Value::from(quote(value, false))),
            Ok(all) => {
                let parts = all.iter().map(|item| match &items(item)?[..] {
                    [key, value] => Ok(pair(key, value)),
                    _ => Err(failed("not a list of pairs")),
                });
                parts.collect::<Result<_>>()?
            }
        },
    };
    Ok(Value::from(all.join("&")))
}

fn quote(value: &Value, query: bool) -> String {
    let mut out = String::new();
    for byte in text(value).bytes() {
        let _ = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.write_char(byte.into())
            }
            b'/' if !query => out.write_char('/'),
            b' ' if query => out.write_char('+'),
            byte => write!(out, "%{byte:02X}"),
        };
    }
    out
}

/// Filter `urlize` for texts without addresses, which it only escapes.
fn links(_: &mut State, value: &Value, _: Arguments) -> Result<Value> {
    let escaped = escape(value);
    let marks = ["www.", "://", "@", ".com", ".net", ".org", "mailto:"];
    match marks.iter().any(|mark| escaped.contains(mark)) {
        true => Err(failed("`urlize` of a text with addresses is not supported")),
        false => Ok(Value::from_safe_string(escaped)),
    }
}

fn word_count(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    let inside = |c: char| c == '_' || c.is_alphanumeric();
    let text = text(value);
    Ok(Value::from(text.split(|c| !inside(c)).filter(|word| !word.is_empty()).count()))
}

fn word_wrap(state: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [width, long, between, hyphens] =
        args.bind(["width", "break_long_words", "wrapstring", "break_on_hyphens"])?;
    let width = usize::try_from(integer(width, 79)?).unwrap_or(0);
    if width == 0 {
        return Err(failed("the width is not positive"));
    }
    let long = long.is_none_or(|long| long.is_true());
    let hyphens = hyphens.is_none_or(|hyphens| hyphens.is_true());
    let between = between.filter(|between| between.is_true());
    let between = between.as_ref().map_or(Ok("\n"), string)?;
    let lines = lines(string(value)?, false);
    // A long word is copied for each line of it.
    let words = lines.iter().flat_map(|line| line.split(methods::whitespace));
    let longest = words.map(str::len).max().unwrap_or(0);
    afford(state, longest.saturating_mul(longest / width + CHUNK))?;
    let wrapped = lines.iter().map(|line| wrap(line, width, long, hyphens).join(between));
    let wrapped: Vec<String> = wrapped.collect();
    same(value, wrapped.join(between))
}

fn xml_attributes(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [space] = args.bind(["autospace"])?;
    let mut out = String::new();
    for (name, value) in pairs(value)? {
        if value.is_none() || value.is_undefined() {
            continue;
        }
        if string(&name)?.contains(|c: char| methods::whitespace(c) || "/>=".contains(c)) {
            return Err(failed("the name of an attribute has a character that it cannot have"));
        }
        let space = if out.is_empty() { "" } else { " " };
        let _ = write!(out, "{space}{}=\"{}\"", escape(&name), escape(&value));
    }
    let space = space.is_none_or(|space| space.is_true()) && !out.is_empty();
    Ok(Value::from(if space { format!(" {out}") } else { out }))
}
