//! Filters of Jinja for texts.

use std::fmt::Write;

use minijinja::State;
use minijinja::value::Value;

use super::arguments::{Arguments, flag, integer, required};
use super::compare::{hashable, sorted};
use super::fuel::afford;
use super::json_dumps::Layout;
use super::markup::{escape, escape_text, strip_tags};
use super::methods;
use super::printf::printf;
use super::repr::{repr, text};
use super::strings::{self, lines};
use super::values::{
    Result, Type, failed, index, items, length, marked, pairs, string, tuple, type_name, type_of,
    within_size,
};
use super::wrap::wrap;

/// Memory that a text takes while its lines are wrapped, for each of its bytes.
const CHUNK: usize = 32;

/// Filter: the value before the bar, and the arguments.
pub type Filter = fn(&mut State, &Value, Arguments) -> Result<Value>;

/// Filters by name.
const FILTERS: [(&str, Filter); 32] = [
    ("attr", attr),
    ("capitalize", capitalize),
    ("center", center),
    ("count", count),
    ("d", default),
    ("default", default),
    ("e", escaped),
    ("escape", escaped),
    ("forceescape", force_escape),
    ("format", format),
    ("indent", indent),
    ("length", count),
    ("lower", lower),
    ("pprint", pretty),
    ("replace", replace),
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
    same(value, strings::capitalize(&text(value)))
}

fn center(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [width] = args.bind(["width"])?;
    let width = usize::try_from(integer(width, 80)?).unwrap_or(0);
    same(value, strings::justify(&text(value), "center", width, ' ')?)
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
    strings::replace(&text(value), &old, &new, count).map(Value::from)
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
    let border = |c: char| strings::whitespace(c) || "-({[<".contains(c);
    let mut out = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = rest.find(border).unwrap_or(rest.len());
        out.push_str(&strings::capitalize_upper(&rest[..end]));
        let after = rest[end..].find(|c| !border(c)).map_or(rest.len(), |at| at + end);
        out.push_str(&strings::capitalize_upper(&rest[end..after]));
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
    same(value, strings::strip(&text(value), chars, "strip").to_owned())
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
    let words = lines.iter().flat_map(|line| line.split(strings::whitespace));
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
        if string(&name)?.contains(|c: char| strings::whitespace(c) || "/>=".contains(c)) {
            return Err(failed("the name of an attribute has a character that it cannot have"));
        }
        let space = if out.is_empty() { "" } else { " " };
        let _ = write!(out, "{space}{}=\"{}\"", escape(&name), escape(&value));
    }
    let space = space.is_none_or(|space| space.is_true()) && !out.is_empty();
    Ok(Value::from(if space { format!(" {out}") } else { out }))
}
