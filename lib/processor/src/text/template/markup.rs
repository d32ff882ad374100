//! Python's `Markup`: a string that is added to a `safe` string is escaped for HTML.
//!
//! Chat templates do not intend that, but models were trained on its output. minijinja keeps
//! strings safe but does not escape at `+`, so such sums are rewritten before they are compiled.

/// Rewrites each `{{ a | safe + b }}` of a template so that `b` is escaped.
pub fn escape_sums(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{{") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        let end = tag.find("}}").unwrap_or(tag.len());
        let (inside, after) = tag.split_at(end);
        match inside.contains("safe") {
            true => out.push_str(&sum(inside).unwrap_or_else(|| inside.to_owned())),
            false => out.push_str(inside),
        }
        rest = after;
    }
    out + rest
}

/// Escapes a string like Python's `markupsafe.escape`.
pub fn escape(text: &str) -> String {
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

/// Rewrites an expression that is a sum with a safe string; none if it is another one.
fn sum(expression: &str) -> Option<String> {
    let body = expression.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']);
    let start = expression.find(body)?;
    let terms = terms(body);
    let safe = |term: &str| term.rsplit('|').next().is_some_and(|last| last.trim() == "safe");
    if terms.len() < 2 || !terms.iter().any(|term| safe(term)) {
        return None;
    }
    let escaped = terms.iter().map(|term| match safe(term) {
        true => format!("({term})"),
        false => format!("(({term}) | markup_escape)"),
    });
    let sum = escaped.collect::<Vec<_>>().join(" ~ ");
    Some(format!("{} {sum} {}", &expression[..start], &expression[start + body.len()..]))
}

/// Terms of a sum: the parts between `+` outside of brackets and strings.
fn terms(expression: &str) -> Vec<&str> {
    let (mut terms, mut start, mut depth) = (Vec::new(), 0, 0);
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in expression.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth -= 1,
            (None, '+') if depth == 0 => {
                terms.push(&expression[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&expression[start..]);
    terms
}
