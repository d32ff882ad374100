//! Rewriting of Jinja for minijinja: operators become filters that have Python's semantics.
//!
//! `a + b` becomes `a|__add__(b)`, and so do comparisons, items, slices, tests and the methods of
//! Python's types. Statements keep their form, except for those of transformers and those that
//! need a loader. Lines keep their numbers.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::lexer::{Malformed, Part, Token, parts};
use super::methods;

/// Largest depth of nested expressions.
const MAX_DEPTH: usize = 60;

/// Largest number of operators in a row.
const MAX_CHAIN: usize = 200;

type Result<T> = std::result::Result<T, String>;

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

/// Macros of a template, for those that take any arguments.
#[derive(Default)]
struct Macros {
    /// Macros that are open, the innermost last.
    open: Vec<Macro>,
    /// Parameters of the macros that take any arguments, by name.
    variadic: BTreeMap<String, Vec<String>>,
    /// Text to insert at a place of the output, after the end of a macro.
    finished: Option<(usize, String)>,
}

struct Macro {
    name: String,
    parameters: Vec<String>,
    /// Place in the output of the end of its parameters.
    end: usize,
    /// True if it uses `varargs` or `kwargs`.
    variadic: bool,
}

/// Parameters of a macro.
struct Parameters {
    text: String,
    names: Vec<String>,
    /// Tags that set defaults which use other parameters.
    later: String,
}

/// Expression for minijinja.
struct Code {
    text: String,
    /// True if it is a name or a literal, or an attribute or a call of one.
    plain: bool,
    /// Number of its operators in a row.
    chain: usize,
}

impl Code {
    fn plain(text: impl Into<String>) -> Code {
        Code { text: text.into(), plain: true, chain: 0 }
    }

    /// Appends the filter `name` with arguments.
    fn filter(mut self, name: &str, arguments: &str) -> Result<Code> {
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

struct Parser<'t> {
    tokens: &'t [Token],
    at: usize,
    depth: usize,
    /// Number of variables before this place.
    variables: usize,
    macros: &'t mut Macros,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn is(&self, operator: &str) -> bool {
        matches!(self.peek(), Some(Token::Operator(found)) if *found == operator)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(found)) if found == name)
    }

    fn skip(&mut self, operator: &str) -> bool {
        let found = self.is(operator);
        self.at += usize::from(found);
        found
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, operator: &str) -> Result<()> {
        if self.skip(operator) { Ok(()) } else { Err(self.unexpected(&format!("`{operator}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> String {
        let found = match self.peek() {
            None => "the end of the tag".to_owned(),
            Some(Token::Name(text) | Token::Integer(text) | Token::Float(text)) => {
                format!("`{text}`")
            }
            Some(Token::Text(text)) => format!("{text:?}"),
            Some(Token::Operator(operator)) => format!("`{operator}`"),
        };
        format!("{found} instead of {wanted}")
    }

    fn name(&mut self) -> Result<String> {
        match self.peek() {
            Some(Token::Name(name)) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    fn end(&self) -> Result<()> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected("the end of the tag")) }
    }

    fn print(&mut self) -> Result<String> {
        let value = self.tuple(true)?;
        self.end()?;
        Ok(value)
    }

    /// Statement that begins at the place `at` of the output.
    fn statement(&mut self, at: usize) -> Result<String> {
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

    fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.name()?;
        while self.skip(".") {
            name = name + "." + &self.name()?;
        }
        Ok(name)
    }

    /// Expression, or a tuple without parentheses.
    fn tuple(&mut self, conditional: bool) -> Result<String> {
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
    fn expression(&mut self) -> Result<String> {
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
    fn arguments(&mut self) -> Result<String> {
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

/// String literal of minijinja.
fn literal(text: &str) -> String {
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
