//! Statements: what stands in `{% ... %}`, and the whole of `{{ ... }}`.

use std::fmt::Write;

use super::parser::{Macro, Parser, Result};
use crate::text::template::lexer::Token;

/// Parameters of a macro.
struct Parameters {
    text: String,
    names: Vec<String>,
    /// Tags that set defaults which use other parameters.
    later: String,
}

impl Parser<'_> {
    /// Expression that is printed.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn print(&mut self) -> Result<String> {
        let value = self.tuple(true)?;
        self.end()?;
        Ok(value)
    }

    /// Statement that begins at the place `at` of the output.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn statement(&mut self, at: usize) -> Result<String> {
        let keyword = self.name()?;
        let text = match keyword.as_str() {
            "if" | "elif" => format!("{keyword} {}", self.tuple(false)?),
            "for" => self.for_statement()?,
            "set" => self.set_statement()?,
            "with" => self.with_statement()?,
            "macro" => self.macro_statement(at)?,
            "endmacro" => {
                let done = self.macros.open.pop().filter(|done| done.variadic);
                if let Some(done) = done {
                    let comma = if done.parameters.is_empty() { "" } else { ", " };
                    let text = format!("{comma}varargs=(), kwargs={{}}");
                    self.macros.finished = Some((done.end, text));
                    self.macros.variadic.insert(done.name, done.parameters);
                }
                self.skip_any_name();
                keyword
            }
            "call" => self.call_statement()?,
            "filter" => format!("filter {}", self.filters()?),
            "print" => format!("filter __print__({}) %}}{{% endfilter", self.tuple(true)?),
            "autoescape" => format!("autoescape {}", self.expression()?),
            "include" | "import" | "from" | "extends" => {
                self.at = self.tokens.len();
                format!("set __none__ = \"{keyword}\"|__refuse__")
            }
            "block" => {
                let name = self.name()?;
                let scoped = if self.skip_name("scoped") { " scoped" } else { "" };
                let required = if self.skip_name("required") { " required" } else { "" };
                format!("block {name}{scoped}{required}")
            }
            "generation" => "with".into(),
            "endgeneration" => "endwith".into(),
            "endblock" => {
                self.skip_any_name();
                keyword
            }
            "else" | "endif" | "endfor" | "endset" | "endwith" | "endcall" | "endfilter"
            | "endautoescape" | "break" | "continue" => keyword,
            _ => return Err(format!("unknown tag `{keyword}`")),
        };
        self.end()?;
        Ok(text)
    }

    fn skip_any_name(&mut self) {
        self.at += usize::from(matches!(self.peek(), Some(Token::Name(_))));
    }

    fn for_statement(&mut self) -> Result<String> {
        let (target, several) = self.targets(false)?;
        if !self.skip_name("in") {
            return Err(self.unexpected("`in`"));
        }
        let iterable = self.tuple(false)?;
        let rows = if several { "__rows__" } else { "__iterable__" };
        let mut text = format!("for {target} in ({iterable})|{rows}");
        if self.skip_name("if") {
            let _ = write!(text, " if ({})", self.expression()?);
        }
        if self.skip_name("recursive") {
            text.push_str(" recursive");
        }
        Ok(text)
    }

    fn set_statement(&mut self) -> Result<String> {
        let (target, several) = self.targets(true)?;
        if self.skip("=") {
            let row = if several { "|__row__" } else { "" };
            return Ok(format!("set {target} = ({}){row}", self.tuple(true)?));
        }
        match self.skip("|") {
            true => Ok(format!("set {target} | {}", self.filters()?)),
            false => Ok(format!("set {target}")),
        }
    }

    fn with_statement(&mut self) -> Result<String> {
        let (mut names, mut values) = (Vec::new(), Vec::new());
        while self.peek().is_some() {
            if !names.is_empty() {
                self.expect(",")?;
            }
            names.push(self.targets(false)?.0);
            self.expect("=")?;
            values.push(self.expression()?);
        }
        // Values are those of the outer scope, so that all are set at once.
        Ok(match names.len() {
            0 => "with".into(),
            1 => format!("with {} = ({})", names[0], values[0]),
            _ => format!("with ({}) = ({})", names.join(", "), values.join(", ")),
        })
    }

    fn macro_statement(&mut self, at: usize) -> Result<String> {
        let name = self.name()?;
        let Parameters { text, names, later } = self.parameters()?;
        let head = format!("macro {name}({text}");
        let end = at + 1 + head.len();
        self.macros.open.push(Macro { name, parameters: names, end, variadic: false });
        Ok(format!("{head}){later}"))
    }

    /// Parameters of a macro or call block, with their defaults.
    fn parameters(&mut self) -> Result<Parameters> {
        let (mut text, mut later, mut names) = (String::new(), String::new(), Vec::new());
        self.expect("(")?;
        while !self.skip(")") {
            if !names.is_empty() {
                self.expect(",")?;
                text.push_str(", ");
            }
            let name = self.name()?;
            text.push_str(&name);
            if self.skip("=") {
                let start = self.at;
                let default = self.expression()?;
                let is_parameter =
                    |token: &Token| matches!(token, Token::Name(name) if names.contains(name));
                let _ = match self.tokens[start..self.at].iter().any(is_parameter) {
                    false => write!(text, "=({default})"),
                    // minijinja does not know the other parameters in a default.
                    true => write!(
                        later,
                        " %}}{{% if {name}|__is__(\"undefined\") %}}{{% set {name} = ({default}) %}}{{% endif"
                    ),
                };
            }
            names.push(name);
        }
        Ok(Parameters { text, names, later })
    }

    fn call_statement(&mut self) -> Result<String> {
        let parameters = match self.is("(") {
            true => format!("({})", self.parameters()?.text),
            false => String::new(),
        };
        Ok(format!("call{parameters} {}", self.expression()?))
    }

    /// Targets of an assignment; true if there are several.
    fn targets(&mut self, attributes: bool) -> Result<(String, bool)> {
        let (mut text, mut several) = (String::new(), false);
        loop {
            if self.skip("(") {
                let (inner, _) = self.targets(attributes)?;
                self.expect(")")?;
                let _ = write!(text, "({inner})");
                several = true;
            } else {
                let name = self.name()?;
                if ["true", "false", "none", "True", "False", "None"].contains(&name.as_str()) {
                    return Err(format!("`{name}` cannot be assigned"));
                }
                text.push_str(&name);
                if attributes && self.skip(".") {
                    let attribute = self.name()?;
                    if attribute.starts_with('_') {
                        return Err(format!("`{attribute}` begins with an underscore"));
                    }
                    let _ = write!(text, ".{attribute}");
                }
            }
            if !self.skip(",") {
                return Ok((text, several));
            }
            several = true;
            if self.is_name("in") || self.is("=") || self.is(")") || self.peek().is_none() {
                text.push(',');
                return Ok((text, several));
            }
            text.push_str(", ");
        }
    }

    /// Filters in a row, as blocks take them.
    fn filters(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            text.push_str(&self.dotted_name()?);
            if self.skip("(") {
                let _ = write!(text, "({})", self.arguments()?);
            }
            if !self.skip("|") {
                return Ok(text);
            }
            text.push('|');
        }
    }
}
