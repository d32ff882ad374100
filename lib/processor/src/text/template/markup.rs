//! Python's `Markup`: strings that are marked as safe, and escapes of others for HTML.
//!
//! Chat templates escape nothing, but a few add to a `safe` string, which escapes what is added,
//! and models were trained on that.

use minijinja::value::Value;

use super::repr::text;

/// Text of a value, escaped like Python's `markupsafe.escape` unless it is safe.
pub fn escape(value: &Value) -> String {
    let whole = text(value);
    match value.is_safe() {
        true => whole,
        false => escape_text(&whole),
    }
}

/// Text with escapes for HTML.
pub fn escape_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Text without comments and tags, with single spaces, and without the common escapes.
pub fn strip_tags(text: &str) -> String {
    let without = |text: String, open: &str, close: &str| {
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some((start, end)) = rest
            .find(open)
            .and_then(|start| Some((start, start + rest[start..].find(close)? + close.len())))
        {
            out.push_str(&rest[..start]);
            rest = &rest[end..];
        }
        out + rest
    };
    let text = without(without(text.to_owned(), "<!--", "-->"), "<", ">");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&#34;", "\""),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(text, |text, (from, to)| text.replace(from, to))
}
