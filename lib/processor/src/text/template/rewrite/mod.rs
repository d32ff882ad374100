//! Rewriting of Jinja for minijinja: operators become filters that have Python's semantics.
//!
//! `a + b` becomes `a|__add__(b)`, and so do comparisons, items, slices, tests and the methods of
//! Python's types. Statements keep their form, except for those of transformers and those that
//! need a loader. Lines keep their numbers.

mod code;
mod expressions;
mod parser;
mod statements;

use std::fmt::Write;

use self::parser::{Macros, Parser};
use super::lexer::{Malformed, Part, parts};

/// The template for minijinja.
///
/// # Errors
/// If the template is malformed.
pub fn rewrite(source: &str) -> std::result::Result<String, Malformed> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() * 2);
    let (mut line, mut macros) = (1, Macros::default());
    for part in parts(&source)? {
        match part {
            Part::Text(text) => {
                line += text.matches('\n').count();
                out.push_str(text);
            }
            Part::Tag { open, tokens, close, lines } => {
                let mut parser =
                    Parser { tokens: &tokens, at: 0, depth: 0, variables: 0, macros: &mut macros };
                let inside = match open.starts_with("{{") {
                    true => parser.print(),
                    false => parser.statement(out.len() + open.len()),
                };
                let inside = inside.map_err(|message| Malformed { line, message })?;
                let breaks = "\n".repeat(lines);
                let _ = write!(out, "{open} {inside} {breaks}{close}");
                if let Some((at, parameters)) = macros.finished.take() {
                    out.insert_str(at, &parameters);
                }
                line += lines;
            }
        }
    }
    Ok(out)
}
