//! Methods of Python's strings.

use minijinja::value::Value;

use super::arguments::{Arguments, integer, required, span};
use super::markup::escape;
use super::str_format::{Lookup, str_format};
use super::strings::{
    capitalize, casefold, expand_tabs, is, justify, lines, replace, split, strip, swap_case, title,
    zfill,
};
use super::values::{
    Result, Type, failed, index, items, marked, pairs, string, tuple, type_of, within_size,
};

/// Calls a method of a string, in groups by the shape of its arguments.
pub fn call(value: &Value, name: &str, args: Arguments, lookup: Lookup) -> Result<Value> {
    let text = string(value)?;
    let safe = value.is_safe();
    let same = |text: String| marked(text, safe);
    match name {
        "format" => return str_format(text, &args.given, &args.named, lookup).map(same),
        "format_map" => {
            let [dict] = args.bind([""])?;
            let named = pairs(&required(dict)?)?;
            let named: Vec<_> =
                named.into_iter().filter_map(|(k, v)| Some((k.as_str()?.to_owned(), v))).collect();
            return str_format(text, &[], &named, lookup).map(same);
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
