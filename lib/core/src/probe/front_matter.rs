//! The front matter of a README: the subset of YAML that model cards use for their tags.
//!
//! A line that is not understood is skipped: model cards are written by hand, and a mistake in one
//! field must not hide the others, as it would with a parser of all YAML.

use std::iter::Peekable;
use std::str::Lines;

/// The fields of a model card that identify the framework.
#[derive(Debug, Default, PartialEq)]
pub struct FrontMatter {
    /// The `tags` of the model card.
    pub tags: Vec<String>,
    /// The `library_name` of the model card.
    pub library: Option<String>,
}

impl FrontMatter {
    /// Parses the block between two lines `---` at the start of the text; a block without an end
    /// extends to the end of the text. Comments and empty lines may be anywhere.
    pub fn parse(text: &str) -> FrontMatter {
        let mut lines = text.trim_start_matches('\u{feff}').lines().peekable();
        let mut card = FrontMatter::default();
        if lines.next().map(|line| without_comment(line).trim_end()) != Some("---") {
            return card;
        }
        while let Some(line) = next(&mut lines, |_| true) {
            // The keys of nested objects are indented.
            let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with(' ')) else {
                continue;
            };
            match scalar(key).as_str() {
                "library_name" => card.library = values(value, &mut lines).pop(),
                "tags" => card.tags = values(value, &mut lines),
                _ => {}
            }
        }
        card
    }
}

/// The next line of the block without its comment, if `wanted` is true for it; none at the end of the
/// block.
fn next<'a>(lines: &mut Peekable<Lines<'a>>, wanted: impl Fn(&str) -> bool) -> Option<&'a str> {
    loop {
        let line = without_comment(lines.peek()?).trim_end();
        let blank = line.is_empty();
        if line == "---" || line == "..." || !blank && !wanted(line) {
            return None;
        }
        lines.next();
        if !blank {
            return Some(line);
        }
    }
}

/// The items of a value that begins with `value` on the line of its key: a list in brackets, over any
/// number of lines; a list of lines `- item`; or one item.
fn values(value: &str, lines: &mut Peekable<Lines>) -> Vec<String> {
    let value = value.trim();
    let indented = |line: &str| line.starts_with([' ', '\t']);
    if value.starts_with('[') {
        let mut list = value.to_owned();
        while !list.contains(']') {
            let Some(line) = next(lines, |line| indented(line) || line.starts_with(']')) else {
                break;
            };
            list = format!("{list} {}", line.trim());
        }
        let list = list.trim_start_matches('[').split(']').next().unwrap_or_default();
        return list.split(',').map(scalar).filter(|item| !item.is_empty()).collect();
    }
    if !value.is_empty() {
        return vec![scalar(value)];
    }
    let mut items = Vec::new();
    while let Some(line) = next(lines, |line| indented(line) || line.starts_with('-')) {
        match line.trim_start().strip_prefix('-') {
            Some(item) => items.push(scalar(item)),
            // A value on the line after its key.
            None if items.is_empty() => return values(line, lines),
            None => {}
        }
    }
    items
}

/// The line up to a `#` that begins a comment: one at the start or after a space, not in quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') if before.is_whitespace() => return &line[..at],
            // An apostrophe inside a word begins no quotation.
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
        before = c;
    }
    line
}

fn scalar(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_library_are_found_in_every_form() {
        for yaml in [
            "library_name: mlx\ntags: [a, mlx]",
            "library_name: \"mlx\" # as such\ntags:\n- a # first\n# between\n\n- 'mlx'",
            "tags: # of the model\n  - a\n  - mlx\nlibrary_name: mlx",
            "tags: [a,\n  mlx]\nlibrary_name: mlx",
            "tags: [ # over lines\n  \"a\",\n  # one more\n  mlx,\n]\nlibrary_name:\n  mlx",
            "tags:\n  [a, mlx]\n'library_name': 'mlx'",
            "license: other's\ntags:\n-   a\n-   mlx\nwidget:\n- text: x\n  tags: no\nlibrary_name: mlx",
        ] {
            let text = format!("\u{feff}---\r\n{yaml}\n---\ntags: [pytorch]\n");
            let expected =
                FrontMatter { tags: vec!["a".into(), "mlx".into()], library: Some("mlx".into()) };
            assert_eq!(FrontMatter::parse(&text), expected, "{yaml}");
        }
        assert_eq!(FrontMatter::parse("tags: [mlx]\n"), FrontMatter::default());
    }
}
