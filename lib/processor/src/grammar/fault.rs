//! Reasons why rules cannot be compiled or followed, in one line.

use mlxk_core::{Error, Kind};

/// Reason to refuse a grammar, or to end an answer, whose next token takes too long to find.
pub const TOO_MANY_WAYS: &str =
    "they allow too many ways to go on; fewer optional, repeated and ambiguous parts help";

/// Reason to end work on rules that nobody waits for.
pub const CANCELLED: &str = "nobody waits for it";

/// Beginnings of llguidance's errors, and what they mean.
const MEANINGS: [(&str, &str); 8] = [
    ("NoExtension", "nothing may come next"),
    ("operation cancelled", TOO_MANY_WAYS),
    ("parser error: Too many items", TOO_MANY_WAYS),
    ("Parser Error: Current row has", TOO_MANY_WAYS),
    ("lexer error: too many", "its patterns have too many states"),
    ("panic: assertion failed: grammar.symbols.len()", "too large"),
    ("grammar size (number of symbols)", "too large"),
    ("panic: CSymIdx out of range", "too large"),
];

/// Error about rules that a completion cannot follow any further.
pub fn broken(e: &impl std::fmt::Display) -> Error {
    Error::new(Kind::Validation, "", format!("the rules for the answer: {}", why(e)))
}

/// Reason why rules cannot be compiled or followed.
pub fn why(e: &impl std::fmt::Display) -> String {
    let line = first_line(e);
    let known = MEANINGS.iter().find(|(begins, _)| line.starts_with(begins));
    known.map_or(line, |(_, meaning)| (*meaning).to_owned())
}

/// First line of an error, with the last one if the first ends with a colon; the lines between are
/// details of the grammar's parser.
pub fn first_line(e: &impl std::fmt::Display) -> String {
    let text = e.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let all = match lines.next_back() {
        Some(last) if first.ends_with(':') => format!("{first} {last}"),
        _ => first.to_owned(),
    };
    all.chars().take(300).collect()
}
