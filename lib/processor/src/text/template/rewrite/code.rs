//! Expressions for minijinja, in the making.

use std::fmt::Write;

use super::parser::Result;

/// Largest number of operators in a row.
pub const MAX_CHAIN: usize = 200;

/// Expression for minijinja.
pub struct Code {
    /// Text.
    pub text: String,
    /// True if it is a name or a literal, or an attribute or a call of one.
    pub plain: bool,
    /// Number of its operators in a row.
    pub chain: usize,
}

impl Code {
    /// Name or literal.
    pub fn plain(text: impl Into<String>) -> Code {
        Code { text: text.into(), plain: true, chain: 0 }
    }

    /// Appends the filter `name` with arguments.
    ///
    /// # Errors
    /// If there are too many operators in a row.
    pub fn filter(mut self, name: &str, arguments: &str) -> Result<Code> {
        if self.text.starts_with("not ") {
            self.text = format!("({})", self.text);
        }
        let _ = write!(self.text, "|{name}({arguments})");
        self.plain = false;
        self.chain += 1;
        if self.chain > MAX_CHAIN {
            return Err(format!("an expression with more than {MAX_CHAIN} operators in a row"));
        }
        Ok(self)
    }
}

/// String literal of minijinja.
pub fn literal(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            c if c < ' ' => write!(out, "\\u{:04x}", c as u32),
            c => out.write_char(c),
        };
    }
    out.push('"');
    out
}
