//! Expressions, whose operators become filters.

use std::fmt::Write;

use super::code::{Code, MAX_CHAIN, literal};
use super::parser::{Parser, Result};
use crate::text::template::lexer::Token;
use crate::text::template::methods;

/// Largest depth of nested expressions.
const MAX_DEPTH: usize = 60;

impl Parser<'_> {
    pub fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.name()?;
        while self.skip(".") {
            name = name + "." + &self.name()?;
        }
        Ok(name)
    }

    /// Expression, or a tuple without parentheses.
    pub fn tuple(&mut self, conditional: bool) -> Result<String> {
        let one = |this: &mut Self| match conditional {
            true => this.expression(),
            false => this.or().map(|code| code.text),
        };
        let first = one(self)?;
        if !self.is(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip(",") {
            if self.peek().is_none() || self.is_name("if") || self.is_name("recursive") {
                break;
            }
            items.push(one(self)?);
        }
        Ok(format!("({},)", items.join(", ")))
    }

    /// Expression with `if` and `else`.
    pub fn expression(&mut self) -> Result<String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("expressions are nested deeper than {MAX_DEPTH}"));
        }
        let mut text = self.or()?.text;
        let mut chosen = false;
        while self.skip_name("if") {
            if chosen {
                text = format!("({text})");
            }
            chosen = true;
            let condition = self.or()?.text;
            text = match self.skip_name("else") {
                true => format!("{text} if {condition} else {}", self.expression()?),
                false => format!("{text} if {condition}"),
            };
        }
        self.depth -= 1;
        Ok(text)
    }

    fn or(&mut self) -> Result<Code> {
        self.joined("or", Self::and)
    }

    fn and(&mut self) -> Result<Code> {
        self.joined("and", Self::not)
    }

    fn joined(&mut self, word: &str, below: fn(&mut Self) -> Result<Code>) -> Result<Code> {
        let mut left = below(self)?;
        while self.skip_name(word) {
            let right = below(self)?;
            let _ = write!(left.text, " {word} {}", right.text);
            left = Code { text: left.text, plain: false, chain: left.chain + 1 };
            if left.chain > MAX_CHAIN {
                return Err(format!("an expression with more than {MAX_CHAIN} operators in a row"));
            }
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Code> {
        let mut count = 0;
        while self.skip_name("not") {
            count += 1;
        }
        let code = self.comparison()?;
        Ok(match count {
            0 => code,
            // An even number of negations gives the truth of the value.
            _ if count % 2 == 0 => {
                Code { text: format!("not (not {})", code.text), plain: false, ..code }
            }
            _ => Code { text: format!("not {}", code.text), plain: false, ..code },
        })
    }

    fn comparison(&mut self) -> Result<Code> {
        let mut pairs = Vec::new();
        let first = self.sum()?;
        loop {
            let operator = match self.peek() {
                Some(Token::Operator(op @ ("==" | "!=" | "<" | "<=" | ">" | ">="))) => op,
                Some(Token::Name(name)) if name == "in" => "in",
                Some(Token::Name(name)) if name == "not" => match self.tokens.get(self.at + 1) {
                    Some(Token::Name(name)) if name == "in" => "not in",
                    _ => break,
                },
                _ => break,
            };
            self.at += operator.split(' ').count();
            pairs.push((operator, self.sum()?.text));
        }
        match &pairs[..] {
            [] => Ok(first),
            // `a < b < c` compares b twice, unless it is long.
            [rest @ .., _] if pairs.len() > 1 && rest.iter().all(|(_, text)| text.len() < 200) => {
                let lefts = std::iter::once(&first.text).chain(rest.iter().map(|(_, text)| text));
                let each = lefts
                    .zip(&pairs)
                    .map(|(left, (op, right))| format!("{left}|__compare__(\"{op}\", {right})"));
                Ok(Code::plain(format!("({})", each.collect::<Vec<_>>().join(" and "))))
            }
            pairs => {
                let rest = pairs.iter().map(|(op, text)| format!("\"{op}\", {text}"));
                first.filter("__compare__", &rest.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Operators of one precedence, which are grouped from the left.
    fn binary(
        &mut self,
        operators: &[(&str, &str)],
        below: fn(&mut Self) -> Result<Code>,
    ) -> Result<Code> {
        let mut left = below(self)?;
        while let Some((_, filter)) = operators.iter().find(|(operator, _)| self.is(operator)) {
            self.at += 1;
            let right = below(self)?;
            left = left.filter(filter, &right.text)?;
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Code> {
        self.binary(&[("+", "__add__"), ("-", "__sub__")], Self::concatenation)
    }

    fn concatenation(&mut self) -> Result<Code> {
        let first = self.product()?;
        let mut rest = Vec::new();
        while self.skip("~") {
            rest.push(self.product()?.text);
        }
        if rest.is_empty() { Ok(first) } else { first.filter("__concat__", &rest.join(", ")) }
    }

    fn product(&mut self) -> Result<Code> {
        let operators =
            [("*", "__mul__"), ("/", "__div__"), ("//", "__floordiv__"), ("%", "__mod__")];
        self.binary(&operators, Self::power)
    }

    fn power(&mut self) -> Result<Code> {
        self.binary(&[("**", "__pow__")], |this| this.unary(true))
    }

    fn unary(&mut self, with_filters: bool) -> Result<Code> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("expressions are nested deeper than {MAX_DEPTH}"));
        }
        let variables = self.variables;
        let code = if self.skip("-") {
            self.unary(false)?.filter("__neg__", "")?
        } else if self.skip("+") {
            self.unary(false)?.filter("__pos__", "")?
        } else {
            self.primary()?
        };
        let mut code = self.postfix(code, variables)?;
        if with_filters {
            code = self.filters_and_tests(code)?;
        }
        self.depth -= 1;
        Ok(code)
    }

    fn primary(&mut self) -> Result<Code> {
        let Some(token) = self.peek().cloned() else {
            return Err(self.unexpected("an expression"));
        };
        self.at += 1;
        match token {
            Token::Name(name)
                if ["not", "and", "or", "in", "is", "if", "else"].contains(&&*name) =>
            {
                self.at -= 1;
                Err(self.unexpected("an expression"))
            }
            Token::Name(name) => Ok(self.variable(name)),
            Token::Integer(digits) => Ok(Code::plain(digits)),
            Token::Float(text) => match text.contains(['e', 'E']) {
                true => Code::plain(format!("\"{text}\"")).filter("float", ""),
                false => Ok(Code::plain(text)),
            },
            Token::Text(mut text) => {
                while let Some(Token::Text(more)) = self.peek() {
                    text.push_str(more);
                    self.at += 1;
                }
                Ok(Code::plain(literal(&text)))
            }
            Token::Operator("(") => self.parentheses(),
            Token::Operator("[") => Ok(Code::plain(format!("[{}]", self.list("]")?.join(", ")))),
            Token::Operator("{") => {
                let mut pairs = Vec::new();
                while !self.skip("}") {
                    if !pairs.is_empty() {
                        self.expect(",")?;
                        if self.skip("}") {
                            break;
                        }
                    }
                    let key = self.expression()?;
                    self.expect(":")?;
                    pairs.push(format!("({key})|__key__: {}", self.expression()?));
                }
                Ok(Code::plain(format!("{{{}}}", pairs.join(", "))))
            }
            _ => {
                self.at -= 1;
                Err(self.unexpected("an expression"))
            }
        }
    }

    fn variable(&mut self, name: String) -> Code {
        let constant = ["true", "false", "none", "True", "False", "None"].contains(&name.as_str());
        self.variables += usize::from(!constant);
        if name == "varargs" || name == "kwargs" {
            let open = self.macros.open.last_mut();
            if let Some(open) = open.filter(|open| !open.parameters.contains(&name)) {
                open.variadic = true;
            }
        }
        Code::plain(name)
    }

    fn parentheses(&mut self) -> Result<Code> {
        if self.skip(")") {
            return Ok(Code::plain("()"));
        }
        let first = self.expression()?;
        if self.skip(")") {
            return Ok(Code::plain(format!("({first})")));
        }
        self.expect(",")?;
        let rest: String = self.list(")")?.iter().map(|item| format!("{item}, ")).collect();
        Ok(Code::plain(format!("({first}, {rest})")))
    }

    /// Expressions up to a closing bracket.
    fn list(&mut self, close: &str) -> Result<Vec<String>> {
        let mut items = Vec::new();
        while !self.skip(close) {
            if !items.is_empty() {
                self.expect(",")?;
                if self.skip(close) {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        Ok(items)
    }

    /// Attributes, items and calls of an expression, before which there were some variables.
    fn postfix(&mut self, mut code: Code, variables: usize) -> Result<Code> {
        loop {
            if self.skip(".") {
                code = self.attribute(code)?;
            } else if self.skip("[") {
                code = self.subscript(code, variables)?;
            } else if self.is("(") {
                code = self.call(code)?;
            } else {
                return Ok(code);
            }
        }
    }

    fn attribute(&mut self, mut code: Code) -> Result<Code> {
        let name = match self.peek().cloned() {
            Some(Token::Integer(digits)) => {
                self.at += 1;
                return code.filter("__item__", &digits);
            }
            _ => self.name()?,
        };
        if methods::known(&name) {
            let name = literal(&name);
            return match self.skip("(") {
                true => {
                    let arguments = self.arguments()?;
                    let comma = if arguments.is_empty() { "" } else { ", " };
                    code.filter("__method__", &format!("{name}{comma}{arguments}"))
                }
                false => code.filter("__attribute__", &name),
            };
        }
        let simple = code.plain && !code.text.starts_with(['"', '(', '[', '{']);
        if simple && code.chain < 8 && name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let _ = write!(code.text, ".{name}");
            code.chain += 1;
            return Ok(code);
        }
        code.filter("__attribute__", &literal(&name))
    }

    fn subscript(&mut self, code: Code, variables: usize) -> Result<Code> {
        let mut arguments = Vec::new();
        let mut sliced = false;
        while !self.skip("]") {
            if !arguments.is_empty() {
                self.expect(",")?;
                if self.skip("]") {
                    return Err("a slice within a tuple".into());
                }
            }
            let mut bounds = vec![];
            let mut bound = None;
            loop {
                if self.is("]") || self.is(",") {
                    break;
                }
                if self.skip(":") {
                    bounds.push(bound.take().unwrap_or_else(|| "none".into()));
                    sliced = true;
                } else if bound.is_none() {
                    bound = Some(self.expression()?);
                } else {
                    return Err(self.unexpected("`]`"));
                }
            }
            match bounds.is_empty() {
                true => arguments.push(bound.ok_or_else(|| self.unexpected("an expression"))?),
                false => {
                    bounds.push(bound.unwrap_or_else(|| "none".into()));
                    bounds.resize(3.max(bounds.len()), "none".into());
                    if bounds.len() > 3 {
                        return Err(self.unexpected("`]`"));
                    }
                    arguments.push(bounds.join(", "));
                }
            }
        }
        match (arguments.len(), sliced) {
            (0, _) => Err(self.unexpected("an expression")),
            // Jinja computes what has no variables when it compiles, and takes it for undefined if
            // it cannot be sliced.
            (1, true) if self.variables == variables => {
                code.filter("__slice__", &format!("{}, true", arguments[0]))
            }
            (1, true) => code.filter("__slice__", &arguments[0]),
            (1, false) => code.filter("__item__", &arguments[0]),
            (_, true) => code.filter("__refuse__", ""),
            _ => code.filter("__item__", &format!("({})", arguments.join(", "))),
        }
    }

    fn call(&mut self, mut code: Code) -> Result<Code> {
        self.expect("(")?;
        let arguments = self.arguments()?;
        if let Some(parameters) = self.variadic(&code.text) {
            let names: String = parameters.iter().map(|name| literal(name) + ", ").collect();
            return code.filter("__variadic__", &format!("[{names}], {arguments}"));
        }
        if !code.plain || code.text.starts_with(['"', '[', '{']) {
            code.text = format!("({})", code.text);
        }
        let _ = write!(code.text, "({arguments})");
        code.plain = true;
        code.chain += 1;
        if code.chain > MAX_CHAIN {
            return Err(format!("an expression with more than {MAX_CHAIN} operators in a row"));
        }
        Ok(code)
    }

    /// Parameters of a macro that takes any arguments.
    fn variadic(&self, name: &str) -> Option<Vec<String>> {
        let open = self.macros.open.iter().find(|open| open.variadic && open.name == name);
        open.map(|open| &open.parameters).or_else(|| self.macros.variadic.get(name)).cloned()
    }

    /// Arguments up to the closing parenthesis.
    pub fn arguments(&mut self) -> Result<String> {
        let mut all = Vec::new();
        let (mut named, mut spread) = (false, false);
        while !self.skip(")") {
            if !all.is_empty() {
                self.expect(",")?;
                if self.skip(")") {
                    break;
                }
            }
            let wrong = "a positional argument after a named one";
            let is_named = matches!(self.tokens.get(self.at + 1), Some(Token::Operator("=")));
            if self.skip("*") {
                if spread || named {
                    return Err(wrong.into());
                }
                all.push(format!("*({})", self.expression()?));
            } else if self.skip("**") {
                spread = true;
                all.push(format!("**({})", self.expression()?));
            } else if let (Some(Token::Name(name)), true) = (self.peek().cloned(), is_named) {
                if spread {
                    return Err(wrong.into());
                }
                self.at += 2;
                named = true;
                all.push(format!("{name}={}", self.expression()?));
            } else if named || spread {
                return Err(wrong.into());
            } else {
                all.push(self.expression()?);
            }
        }
        Ok(all.join(", "))
    }

    fn filters_and_tests(&mut self, mut code: Code) -> Result<Code> {
        loop {
            if self.skip("|") {
                let name = self.dotted_name()?;
                let arguments = if self.skip("(") { self.arguments()? } else { String::new() };
                code = code.filter(&name, &arguments)?;
            } else if self.skip_name("is") {
                code = self.test(code)?;
            } else if self.is("(") {
                code = self.call(code)?;
            } else {
                return Ok(code);
            }
        }
    }

    fn test(&mut self, code: Code) -> Result<Code> {
        let filter = if self.skip_name("not") { "__is_not__" } else { "__is__" };
        let mut arguments = literal(&self.dotted_name()?);
        let takes = match self.peek() {
            Some(Token::Name(name)) => !["else", "or", "and"].contains(&name.as_str()),
            Some(Token::Operator(operator)) => ["(", "[", "{"].contains(operator),
            Some(_) => true,
            None => false,
        };
        if self.skip("(") {
            let more = self.arguments()?;
            if !more.is_empty() {
                let _ = write!(arguments, ", {more}");
            }
        } else if takes {
            if self.is_name("is") {
                return Err("tests cannot be chained with `is`".into());
            }
            let argument = self.primary()?;
            let variables = self.variables;
            let argument = self.postfix(argument, variables)?;
            let _ = write!(arguments, ", {}", argument.text);
        }
        code.filter(filter, &arguments)
    }
}
