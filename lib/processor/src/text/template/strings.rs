//! Functions of Python's strings.

use std::collections::HashSet;

use unicode_general_category::{GeneralCategory, get_general_category};

use super::repr::printable;
use super::values::{Result, failed, within_size};

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

/// Python's `str.zfill`.
pub fn zfill(text: &str, width: usize) -> Result<String> {
    let missing = within_size(width)?.saturating_sub(text.chars().count());
    let sign = if text.starts_with(['+', '-']) { 1 } else { 0 };
    Ok(format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..]))
}

/// Python's `str.expandtabs`.
pub fn expand_tabs(text: &str, size: i64) -> Result<String> {
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

/// Python's `str.casefold`.
pub fn casefold(text: &str) -> String {
    let fold = |c: char| match c {
        'ß' | 'ẞ' => "ss".to_owned(),
        'ς' => "σ".to_owned(),
        'ŉ' => "ʼn".to_owned(),
        'ﬀ'..='ﬆ' => c.to_uppercase().flat_map(char::to_lowercase).collect(),
        c => c.to_lowercase().collect(),
    };
    text.chars().map(fold).collect()
}

/// Python's `str.swapcase`.
pub fn swap_case(text: &str) -> String {
    let swap = |c: char| match c.is_uppercase() {
        true => c.to_lowercase().collect::<String>(),
        false => c.to_uppercase().collect(),
    };
    text.chars().map(swap).collect()
}

/// Python's `str.title`.
pub fn title(text: &str) -> String {
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
