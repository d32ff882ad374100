//! Methods of Python's strings, lists, dicts and numbers, without those that change their value.

use std::collections::HashSet;
use std::sync::Arc;

use minijinja::State;
use minijinja::value::{Object, ObjectRepr, Value};
use unicode_general_category::{GeneralCategory, get_general_category};

use super::arguments::{Arguments, integer, required};
use super::formatting::str_format;
use super::markup::escape;
use super::operators;
use super::values::{
    Number, Of, Result, Type, View, equal, failed, hashable, index, items, marked, number, pairs,
    printable, string, tuple, type_name, type_of, within_size,
};

/// Methods that change a list or dict, which a template must not.
const CHANGING: [&str; 12] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "discard",
];

const STR: [&str; 45] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const LIST: [&str; 3] = ["copy", "count", "index"];
const TUPLE: [&str; 2] = ["count", "index"];
const DICT: [&str; 5] = ["copy", "get", "items", "keys", "values"];
const FLOAT: [&str; 1] = ["is_integer"];
const INT: [&str; 1] = ["bit_length"];

/// True if some type has a method with this name, or calls of it are checked here.
pub fn known(name: &str) -> bool {
    name == "cycle"
        || [&STR[..], &LIST, &DICT, &FLOAT, &INT, &CHANGING]
            .iter()
            .any(|names| names.contains(&name))
}

/// True if the value has a method with this name that a template may call.
fn has(value: &Value, name: &str) -> bool {
    let names: &[&str] = match type_of(value) {
        Type::Str => &STR,
        Type::List => &LIST,
        Type::Tuple => &TUPLE,
        Type::Dict => &DICT,
        Type::Float => &FLOAT,
        Type::Int | Type::Bool => &INT,
        Type::View
            if matches!(
                value.downcast_object_ref::<View>(),
                Some(View { of: Of::Range(..), .. })
            ) =>
        {
            &TUPLE
        }
        _ => &[],
    };
    names.contains(&name)
}

/// True if the method changes its value, so that the sandbox hides it.
fn hidden(value: &Value, name: &str) -> bool {
    let of = type_of(value);
    CHANGING.contains(&name) && matches!(of, Type::List | Type::Dict)
}

/// Method of a value that is not called yet.
#[derive(Debug)]
struct Bound {
    value: Value,
    name: String,
}

impl Object for Bound {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value> {
        call(state, &self.value, &self.name, args)
    }
}

/// Attribute of a value: a method, or else an item; undefined if it has neither.
///
/// # Errors
/// If the value is undefined.
pub fn attribute(value: &Value, name: &str) -> Result<Value> {
    if hidden(value, name) || name.starts_with("__") && value.is_undefined() {
        return Ok(Value::UNDEFINED);
    }
    match has(value, name) {
        true => Ok(Value::from_object(Bound { value: value.clone(), name: name.to_owned() })),
        false => Ok(match type_of(value) {
            Type::Tuple | Type::Object => value.get_attr(name).unwrap_or_default(),
            _ => operators::item(value, &Value::from(name))?.unwrap_or_default(),
        }),
    }
}

/// Item of a value, or else the attribute with that name; undefined if it has neither.
///
/// # Errors
/// If the value is undefined.
pub fn item(value: &Value, key: &Value) -> Result<Value> {
    match (operators::item(value, key)?, key.as_str()) {
        (Some(item), _) => Ok(item),
        (None, Some(name)) => attribute(value, name),
        (None, None) => Ok(Value::UNDEFINED),
    }
}

/// Calls a method.
///
/// # Errors
/// If the value has no such method, or the arguments do not suit it.
pub fn call(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value> {
    if hidden(value, name) {
        return Err(failed(format!("`{name}` would change a {}", type_name(value))));
    }
    if !has(value, name) {
        return match type_of(value) {
            Type::Dict => operators::item(value, &Value::from(name))?
                .ok_or_else(|| failed(format!("dict has no method `{name}`")))?
                .call(state, args),
            // minijinja divides by the number of the values.
            Type::Object if name == "cycle" && args.is_empty() => {
                Err(failed("there are no values to cycle through"))
            }
            Type::Object => value.call_method(state, name, args),
            _ => Err(failed(format!("{} has no method `{name}`", type_name(value)))),
        };
    }
    let args = Arguments::new(args);
    match type_of(value) {
        Type::Str => of_string(value, name, args),
        Type::Dict => of_dict(value, name, args),
        Type::Float | Type::Int | Type::Bool => {
            let [] = args.bind([])?;
            Ok(match number(value) {
                Some(Number::Float(float)) => {
                    Value::from(float.is_finite() && float.fract() == 0.0)
                }
                Some(Number::Int(int)) => Value::from(128 - int.unsigned_abs().leading_zeros()),
                None => Value::UNDEFINED,
            })
        }
        _ => of_list(value, name, args),
    }
}

fn of_list(value: &Value, name: &str, args: Arguments) -> Result<Value> {
    let all = items(value)?;
    if name == "copy" {
        let [] = args.bind([])?;
        return Ok(Value::from(all));
    }
    if name == "count" {
        let [wanted] = args.bind([""])?;
        let wanted = required(wanted)?;
        return Ok(Value::from(all.iter().filter(|item| equal(item, &wanted)).count()));
    }
    let [wanted, start, stop] = args.bind(["", "", ""])?;
    let wanted = required(wanted)?;
    let (start, stop) = span(start, stop, all.len())?;
    let found = (start..stop).find(|at| equal(&all[*at], &wanted));
    found.map(Value::from).ok_or_else(|| failed("the item is not in the list"))
}

fn of_dict(value: &Value, name: &str, args: Arguments) -> Result<Value> {
    if name == "get" {
        let [key, default] = args.bind(["", ""])?;
        let key = required(key)?;
        if !hashable(&key) {
            return Err(failed(format!("{} cannot be a key", type_name(&key))));
        }
        let found = value.as_object().and_then(|dict| dict.get_value(&key));
        return Ok(found.or(default).unwrap_or_else(|| Value::from(())));
    }
    let [] = args.bind([])?;
    let pairs = pairs(value)?;
    let (of, items) = match name {
        "copy" => return Ok(Value::from_pairs(pairs)),
        "keys" => (Of::Keys, pairs.into_iter().map(|(key, _)| key).collect()),
        "values" => (Of::Values, pairs.into_iter().map(|(_, value)| value).collect()),
        _ => (Of::Items, pairs.into_iter().map(|(key, value)| tuple(vec![key, value])).collect()),
    };
    Ok(Value::from_object(View { of, items }))
}

/// Start and stop of a part, within a length.
fn span(start: Option<Value>, stop: Option<Value>, length: usize) -> Result<(usize, usize)> {
    let place = |at: Option<Value>, default: usize| match at.filter(|at| !at.is_none()) {
        None => Ok(default),
        Some(at) => index(&at).map(|at| {
            let at = if at < 0 { at.saturating_add(length as i64).max(0) } else { at };
            usize::try_from(at).unwrap_or(usize::MAX)
        }),
    };
    let (start, stop) = (place(start, 0)?, place(stop, length)?.min(length));
    Ok((start, stop))
}

/// Calls a method of a string, in groups by the shape of its arguments.
fn of_string(value: &Value, name: &str, args: Arguments) -> Result<Value> {
    let text = string(value)?;
    let safe = value.is_safe();
    let same = |text: String| marked(text, safe);
    match name {
        "format" => return str_format(text, &args.given, &args.named, &lookup).map(same),
        "format_map" => {
            let [dict] = args.bind([""])?;
            let named = pairs(&required(dict)?)?;
            let named: Vec<_> =
                named.into_iter().filter_map(|(k, v)| Some((k.as_str()?.to_owned(), v))).collect();
            return str_format(text, &[], &named, &lookup).map(same);
        }
        "split" | "rsplit" => {
            let [by, most] = args.bind(["sep", "maxsplit"])?;
            let by = by.filter(|by| !by.is_none());
            let by = by.as_ref().map(string).transpose()?;
            let most = usize::try_from(integer(most, -1)?).unwrap_or(usize::MAX);
            let parts = split(text, by, most, name == "rsplit")?;
            return Ok(parts.into_iter().map(|part| same(part.to_owned())).collect());
        }
        "splitlines" => {
            let [keep] = args.bind(["keepends"])?;
            let keep = keep.map_or(Ok(0), |keep| index(&keep))? != 0;
            return Ok(lines(text, keep).into_iter().map(|line| same(line.to_owned())).collect());
        }
        "join" => {
            let [parts] = args.bind([""])?;
            let parts = items(&required(parts)?)?;
            let part = |part: &Value| {
                if safe { Ok(escape(part)) } else { string(part).map(str::to_owned) }
            };
            let parts = parts.iter().map(part).collect::<Result<Vec<_>>>()?;
            within_size(parts.iter().map(|part| part.len() + text.len()).sum())?;
            return Ok(same(parts.join(text)));
        }
        "replace" => {
            let [old, new, count] = args.bind(["", "", ""])?;
            let (old, new) = (required(old)?, required(new)?);
            let count = usize::try_from(integer(count, -1)?).unwrap_or(usize::MAX);
            return replace(text, string(&old)?, string(&new)?, count).map(same);
        }
        "translate" => {
            let [table] = args.bind([""])?;
            return translate(text, &required(table)?).map(same);
        }
        "count" | "find" | "index" | "rfind" | "rindex" | "startswith" | "endswith" => {
            return search(text, name, args);
        }
        _ => {}
    }
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.bind([""])?;
            let chars = chars.filter(|chars| !chars.is_none());
            let chars = chars.as_ref().map(string).transpose()?;
            Ok(same(strip(text, chars, name).to_owned()))
        }
        "removeprefix" | "removesuffix" | "partition" | "rpartition" => {
            let [part] = args.bind([""])?;
            let part = required(part)?;
            let part = string(&part)?;
            let three = |[a, b, c]: [&str; 3]| {
                tuple([a, b, c].iter().map(|part| same((*part).to_owned())).collect())
            };
            match name {
                "removeprefix" => Ok(same(text.strip_prefix(part).unwrap_or(text).to_owned())),
                "removesuffix" => Ok(same(text.strip_suffix(part).unwrap_or(text).to_owned())),
                _ if part.is_empty() => Err(failed("the separator is empty")),
                "partition" => {
                    Ok(three(text.split_once(part).map_or([text, "", ""], |(a, b)| [a, part, b])))
                }
                _ => {
                    Ok(three(text.rsplit_once(part).map_or(["", "", text], |(a, b)| [a, part, b])))
                }
            }
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            let [width, fill] = args.bind(["", ""])?;
            let width = usize::try_from(index(&required(width)?)?.max(0)).unwrap_or(usize::MAX);
            if name == "zfill" {
                return fill.map_or_else(
                    || zfill(text, width).map(same),
                    |_| Err(failed("too many arguments")),
                );
            }
            let fill = fill.as_ref().map_or(Ok(" "), string)?;
            let mut chars = fill.chars();
            match (chars.next(), chars.next()) {
                (Some(fill), None) => justify(text, name, width, fill).map(same),
                _ => Err(failed("the fill is no single character")),
            }
        }
        "expandtabs" => {
            let [size] = args.bind(["tabsize"])?;
            expand_tabs(text, integer(size, 8)?).map(same)
        }
        _ => {
            let [] = args.bind([])?;
            Ok(match name {
                "capitalize" => same(capitalize(text)),
                "casefold" => same(casefold(text)),
                "lower" => same(text.to_lowercase()),
                "upper" => same(text.to_uppercase()),
                "swapcase" => same(swap_case(text)),
                "title" => same(title(text)),
                _ => Value::from(is(text, name)),
            })
        }
    }
}

/// Item or attribute of a value, for `str.format`.
fn lookup(value: &Value, key: &Value, by_attribute: bool) -> Result<Value> {
    let found = match (by_attribute, key.as_str()) {
        (true, Some(name)) => match type_of(value) {
            Type::Object => attribute(value, name)?,
            _ => item(value, key)?,
        },
        _ => item(value, key)?,
    };
    Ok(found)
}

/// Python's `str.split`, and `str.rsplit` if `from_end`.
pub fn split<'t>(
    text: &'t str,
    by: Option<&str>,
    most: usize,
    from_end: bool,
) -> Result<Vec<&'t str>> {
    let mut parts: Vec<&str> = match (by, from_end) {
        (Some(""), _) => return Err(failed("the separator is empty")),
        (Some(by), false) => text.splitn(most.saturating_add(1), by).collect(),
        (Some(by), true) => text.rsplitn(most.saturating_add(1), by).collect(),
        (None, _) => words(text, most, from_end),
    };
    if from_end {
        parts.reverse();
    }
    Ok(parts)
}

/// Parts between whitespace, from the start or the end; the last one after `most` is not split.
fn words(text: &str, most: usize, from_end: bool) -> Vec<&str> {
    let trim = |text: &'_ str| -> usize {
        match from_end {
            true => text.trim_end_matches(whitespace).len(),
            false => text.len() - text.trim_start_matches(whitespace).len(),
        }
    };
    let cut = |text: &str| if from_end { text[..trim(text)].len() } else { trim(text) };
    let (mut parts, mut rest) = (Vec::new(), text);
    loop {
        let at = cut(rest);
        rest = if from_end { &rest[..at] } else { &rest[at..] };
        if rest.is_empty() {
            return parts;
        }
        if parts.len() == most {
            parts.push(rest);
            return parts;
        }
        let part = match from_end {
            true => rest.rsplit(whitespace).next().unwrap_or(rest),
            false => rest.split(whitespace).next().unwrap_or(rest),
        };
        parts.push(part);
        rest = match from_end {
            true => &rest[..rest.len() - part.len()],
            false => &rest[part.len()..],
        };
    }
}

/// True if `str.isspace` is true of the character.
pub fn whitespace(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Python's `str.splitlines`.
pub fn lines(text: &str, keep: bool) -> Vec<&str> {
    let ends = |c: char| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let (mut lines, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let end = rest.find(ends).unwrap_or(rest.len());
        let width = match rest[end..].strip_prefix("\r\n") {
            Some(_) => 2,
            None => rest[end..].chars().next().map_or(0, char::len_utf8),
        };
        lines.push(&rest[..if keep { end + width } else { end }]);
        rest = &rest[end + width..];
    }
    lines
}

/// Python's `str.replace`; `count` is the most that are replaced.
pub fn replace(text: &str, old: &str, new: &str, count: usize) -> Result<String> {
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    within_size(text.len() + found.min(count).saturating_mul(new.len()))?;
    Ok(text.replacen(old, new, count))
}

/// Python's `str.strip`, or the named variant.
pub fn strip<'t>(text: &'t str, chars: Option<&str>, name: &str) -> &'t str {
    let set: Option<HashSet<char>> = chars.map(|chars| chars.chars().collect());
    let cut = |c: char| set.as_ref().map_or_else(|| whitespace(c), |set| set.contains(&c));
    let text = if name == "rstrip" { text } else { text.trim_start_matches(cut) };
    if name == "lstrip" { text } else { text.trim_end_matches(cut) }
}

fn search(text: &str, name: &str, args: Arguments) -> Result<Value> {
    let [part, start, stop] = args.bind(["", "", ""])?;
    let part = required(part)?;
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let (start, stop) = span(start, stop, places.len() - 1)?;
    // A start behind the stop finds nothing, not even an empty string.
    let inside = (start <= stop).then(|| &text[places[start]..places[stop]]);
    if matches!(name, "startswith" | "endswith") {
        let fits = |part: &Value| {
            let part = string(part)?;
            let fits = |text: &str| match name {
                "startswith" => text.starts_with(part),
                _ => text.ends_with(part),
            };
            Ok(inside.is_some_and(fits))
        };
        return match type_of(&part) {
            Type::Tuple => {
                for part in items(&part)? {
                    if fits(&part)? {
                        return Ok(Value::from(true));
                    }
                }
                Ok(Value::from(false))
            }
            _ => fits(&part).map(Value::from),
        };
    }
    let part = string(&part)?;
    if name == "count" {
        return Ok(Value::from(inside.map_or(0, |text| text.matches(part).count())));
    }
    let found = inside.and_then(|text| match name.starts_with('r') {
        true => text.rfind(part),
        false => text.find(part),
    });
    let at = found.and_then(|at| places.binary_search(&(places[start] + at)).ok());
    match at {
        Some(at) => Ok(Value::from(at)),
        None if name.ends_with("index") => Err(failed("the part is not in the string")),
        None => Ok(Value::from(-1)),
    }
}

fn translate(text: &str, table: &Value) -> Result<String> {
    let dict = table.as_object().ok_or_else(|| failed("the table is no dict"))?;
    let mut out = String::new();
    for c in text.chars() {
        match dict.get_value(&Value::from(c as u32)) {
            None => out.push(c),
            Some(to) if to.is_none() => {}
            Some(to) if to.as_str().is_some() => out.push_str(string(&to)?),
            Some(to) => {
                let code = u32::try_from(index(&to)?).ok().and_then(char::from_u32);
                out.push(code.ok_or_else(|| failed("not the code of a character"))?);
            }
        }
        within_size(out.len())?;
    }
    Ok(out)
}

/// Python's `center`, `ljust` and `rjust`.
pub fn justify(text: &str, name: &str, width: usize, fill: char) -> Result<String> {
    let length = text.chars().count();
    let missing = within_size(width)?.saturating_sub(length);
    let left = match name {
        "center" => missing / 2 + (missing & width & 1),
        "rjust" => missing,
        _ => 0,
    };
    let pad = |count: usize| fill.to_string().repeat(count);
    Ok(format!("{}{text}{}", pad(left), pad(missing - left)))
}

fn zfill(text: &str, width: usize) -> Result<String> {
    let missing = within_size(width)?.saturating_sub(text.chars().count());
    let sign = if text.starts_with(['+', '-']) { 1 } else { 0 };
    Ok(format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..]))
}

fn expand_tabs(text: &str, size: i64) -> Result<String> {
    let size = within_size(usize::try_from(size).unwrap_or(0))?;
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' if size > 0 => {
                let spaces = size - column % size;
                column += spaces;
                within_size(out.len() + spaces)?;
                out.push_str(&" ".repeat(spaces));
            }
            '\t' => {}
            c => {
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                out.push(c);
            }
        }
    }
    Ok(out)
}

/// Title case of a character: upper case, except for letters that are two in one.
fn title_char(c: char) -> String {
    match c {
        'Ǆ' | 'ǅ' | 'ǆ' => "ǅ".into(),
        'Ǉ' | 'ǈ' | 'ǉ' => "ǈ".into(),
        'Ǌ' | 'ǋ' | 'ǌ' => "ǋ".into(),
        'Ǳ' | 'ǲ' | 'ǳ' => "ǲ".into(),
        c => {
            let mut upper = c.to_uppercase();
            let first: String = upper.next().into_iter().collect();
            first + &upper.flat_map(char::to_lowercase).collect::<String>()
        }
    }
}

/// Python's `str.capitalize`.
pub fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| title_char(first) + &chars.as_str().to_lowercase())
}

/// Text with its first character in upper case and the others in lower case.
pub fn capitalize_upper(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    first + &chars.as_str().to_lowercase()
}

fn casefold(text: &str) -> String {
    let fold = |c: char| match c {
        'ß' | 'ẞ' => "ss".to_owned(),
        'ς' => "σ".to_owned(),
        'ŉ' => "ʼn".to_owned(),
        'ﬀ'..='ﬆ' => c.to_uppercase().flat_map(char::to_lowercase).collect(),
        c => c.to_lowercase().collect(),
    };
    text.chars().map(fold).collect()
}

fn swap_case(text: &str) -> String {
    let swap = |c: char| match c.is_uppercase() {
        true => c.to_lowercase().collect::<String>(),
        false => c.to_uppercase().collect(),
    };
    text.chars().map(swap).collect()
}

fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::new();
    for c in text.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out.push_str(&title_char(c)),
        }
        inside = cased(c);
    }
    out
}

fn cased(c: char) -> bool {
    c.is_uppercase() || c.is_lowercase() || title_letter(c)
}

fn title_letter(c: char) -> bool {
    get_general_category(c) == GeneralCategory::TitlecaseLetter
}

/// The predicates of `str`: `isalpha` and its like.
pub fn is(text: &str, name: &str) -> bool {
    use GeneralCategory::*;
    let category = get_general_category;
    let alpha = |c: char| {
        matches!(
            category(c),
            UppercaseLetter | LowercaseLetter | TitlecaseLetter | ModifierLetter | OtherLetter
        )
    };
    let decimal = |c: char| category(c) == DecimalNumber;
    let digit = |c: char| {
        decimal(c)
            || matches!(c, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉' | '①'..='⑨' | '⑴'..='⑼'
                | '⒈'..='⒐' | '⓪' | '⓵'..='⓽' | '⓿' | '❶'..='❾' | '➀'..='➈' | '➊'..='➒')
    };
    let numeric = |c: char| {
        matches!(category(c), DecimalNumber | LetterNumber | OtherNumber)
            || "一二三四五六七八九十百千万億兆零〇壹貳參肆伍陸柒捌玖拾佰仟".contains(c)
    };
    let all = |test: &dyn Fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    let some_cased = text.chars().any(cased);
    match name {
        "isalnum" => all(&|c| alpha(c) || numeric(c)),
        "isalpha" => all(&alpha),
        "isascii" => text.is_ascii(),
        "isdecimal" => all(&decimal),
        "isdigit" => all(&digit),
        "isnumeric" => all(&numeric),
        "isspace" => all(&whitespace),
        "isprintable" => text.chars().all(printable),
        "islower" => some_cased && !text.chars().any(|c| c.is_uppercase() || title_letter(c)),
        "isupper" => some_cased && !text.chars().any(|c| c.is_lowercase() || title_letter(c)),
        "isidentifier" => {
            all(&|c| c == '_' || c.is_alphanumeric())
                && text.starts_with(|c: char| c == '_' || c.is_alphabetic())
        }
        _ => {
            let mut before = false;
            let fits = |c: char| {
                let starts = c.is_uppercase() || title_letter(c);
                let fits = if starts { !before } else { !c.is_lowercase() || before };
                before = cased(c);
                fits
            };
            some_cased && text.chars().all(fits)
        }
    }
}
