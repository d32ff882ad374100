//! Lexer of Jinja: the text, comments and tags of a template, and the tokens of a tag.

use super::repr::escaped;

/// Part of a template.
pub enum Part<'t> {
    /// Text, comments and raw blocks, which stay as they are.
    Text(&'t str),
    /// Tag with its delimiters, such as `{{-` and `}}`.
    Tag { open: &'t str, tokens: Vec<Token>, close: &'t str, lines: usize },
}

/// Token of a tag.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Name(String),
    /// Integer, in decimal digits.
    Integer(String),
    Float(String),
    Text(String),
    Operator(&'static str),
}

/// What is wrong with a template, and in which line.
#[derive(Debug)]
pub struct Malformed {
    pub line: usize,
    pub message: String,
}

/// Operators, longer ones before their beginnings.
const OPERATORS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";", "!",
];

/// Parts of a template, whose newlines are `\n`.
///
/// # Errors
/// If a tag does not end, or has an unknown character.
pub fn parts(source: &str) -> Result<Vec<Part<'_>>, Malformed> {
    let (mut parts, mut rest) = (Vec::new(), source);
    let malformed = |rest: &str, message: String| {
        let line = source[..source.len() - rest.len()].matches('\n').count() + 1;
        Malformed { line, message }
    };
    while let Some(at) = tag_start(rest) {
        let (text, tag) = rest.split_at(at);
        parts.push(Part::Text(text));
        let unclosed = |what: &str| malformed(tag, format!("{what} has no end"));
        let whole = match (tag.starts_with("{#"), raw_start(tag)) {
            (true, _) => Some(tag.find("#}").ok_or_else(|| unclosed("a comment"))? + 2),
            (_, Some(start)) => {
                let end = raw_end(&tag[start..]).ok_or_else(|| unclosed("a raw block"))?;
                Some(start + end)
            }
            _ => None,
        };
        if let Some(end) = whole {
            parts.push(Part::Text(&tag[..end]));
            rest = &tag[end..];
            continue;
        }
        let head = if tag[2..].starts_with(['-', '+']) { 3 } else { 2 };
        let mut lexer = Lexer {
            rest: &tag[head..],
            variable: tag.starts_with("{{"),
            brackets: Vec::new(),
            dot: false,
        };
        let mut tokens = Vec::new();
        let close = loop {
            match lexer.next() {
                Ok(Lexed::Token(token)) => tokens.push(token),
                Ok(Lexed::End(close)) => break close,
                Err(message) => return Err(malformed(lexer.rest, message)),
            }
        };
        let lines = tag[..tag.len() - lexer.rest.len()].matches('\n').count();
        parts.push(Part::Tag { open: &tag[..head], tokens, close, lines });
        rest = lexer.rest;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

fn tag_start(text: &str) -> Option<usize> {
    let opens = |pair: &[u8]| pair[0] == b'{' && matches!(pair[1], b'{' | b'%' | b'#');
    text.as_bytes().windows(2).position(opens)
}

/// Length of the tag `{% raw %}` at the start of the text.
fn raw_start(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("{%")?;
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).trim_start();
    let rest = rest.strip_prefix("raw")?.trim_start();
    let rest = rest.strip_prefix('-').unwrap_or(rest).strip_prefix("%}")?;
    Some(text.len() - rest.len())
}

/// Place after the first `{% endraw %}`.
fn raw_end(text: &str) -> Option<usize> {
    text.match_indices("{%").find_map(|(at, _)| {
        let rest = &text[at + 2..];
        let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).trim_start();
        let rest = rest.strip_prefix("endraw")?.trim_start();
        let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
        Some(text.len() - rest.len())
    })
}

enum Lexed<'t> {
    Token(Token),
    End(&'t str),
}

struct Lexer<'t> {
    rest: &'t str,
    /// True within `{{ }}`, false within `{% %}`.
    variable: bool,
    brackets: Vec<char>,
    /// True after a dot, where a number is no float.
    dot: bool,
}

impl<'t> Lexer<'t> {
    fn next(&mut self) -> Result<Lexed<'t>, String> {
        self.rest = self.rest.trim_start();
        let ends: &[&str] = if self.variable { &["-}}", "}}"] } else { &["-%}", "+%}", "%}"] };
        let end = ends.iter().find(|end| self.rest.starts_with(**end));
        if let Some(end) = end.filter(|_| self.brackets.is_empty()) {
            return Ok(Lexed::End(self.take(end.len())));
        }
        let Some(first) = self.rest.chars().next() else { return Err("a tag has no end".into()) };
        let token = match first {
            '"' | '\'' => Token::Text(self.string(first)?),
            '0'..='9' => self.number()?,
            c if c == '_' || c.is_alphanumeric() => {
                let name = |c: char| c == '_' || c.is_alphanumeric();
                let end = self.rest.find(|c| !name(c)).unwrap_or(self.rest.len());
                Token::Name(self.take(end).to_owned())
            }
            c => {
                let operator = OPERATORS.iter().find(|operator| self.rest.starts_with(**operator));
                let operator = operator.ok_or_else(|| format!("unexpected character {c:?}"))?;
                self.take(operator.len());
                self.bracket(operator)?;
                Token::Operator(operator)
            }
        };
        self.dot = token == Token::Operator(".");
        Ok(Lexed::Token(token))
    }

    fn take(&mut self, length: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn bracket(&mut self, operator: &str) -> Result<(), String> {
        match operator {
            "(" => self.brackets.push(')'),
            "[" => self.brackets.push(']'),
            "{" => self.brackets.push('}'),
            ")" | "]" | "}"
                if self.brackets.pop().map(String::from).as_deref() != Some(operator) =>
            {
                return Err(format!("unexpected `{operator}`"));
            }
            _ => {}
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Token, String> {
        let digits = |text: &str| -> usize {
            let end = text.find(|c: char| c != '_' && !c.is_ascii_digit()).unwrap_or(text.len());
            // An underscore stands only between digits.
            let run = &text[..end];
            let end = run.find("__").unwrap_or(end);
            run[..end].trim_end_matches('_').len()
        };
        let bytes = self.rest.as_bytes();
        let base = match (bytes[0], bytes.get(1).map(u8::to_ascii_lowercase)) {
            (b'0', Some(b'x')) => 16,
            (b'0', Some(b'o')) => 8,
            (b'0', Some(b'b')) => 2,
            _ => 10,
        };
        if base != 10 {
            let end = self.rest[2..].find(|c: char| c != '_' && !c.is_digit(base));
            let text = self.take(end.map_or(self.rest.len(), |end| end + 2));
            let number = i128::from_str_radix(&text[2..].replace('_', ""), base);
            return number.map(|n| Token::Integer(n.to_string())).map_err(|e| e.to_string());
        }
        let whole = digits(self.rest);
        let mut end = whole;
        if !self.dot
            && bytes.get(end) == Some(&b'.')
            && bytes.get(end + 1).is_some_and(u8::is_ascii_digit)
        {
            end += 1 + digits(&self.rest[end + 1..]);
        }
        if !self.dot && bytes.get(end).is_some_and(|b| b.eq_ignore_ascii_case(&b'e')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(&self.rest[end + 1 + sign..]);
            if exponent > 0 {
                end += 1 + sign + exponent;
            }
        }
        let text = self.take(end).replace('_', "");
        match end > whole {
            true => Ok(Token::Float(text)),
            false
                if text.len() > 1
                    && text.starts_with('0')
                    && !text.trim_matches('0').is_empty() =>
            {
                Err(format!("the number {text} starts with 0"))
            }
            false => {
                Ok(Token::Integer(text.parse::<i128>().map_err(|e| e.to_string())?.to_string()))
            }
        }
    }

    /// String with Python's escapes.
    fn string(&mut self, quote: char) -> Result<String, String> {
        let mut escape = false;
        let end = self.rest[1..].find(|c| {
            let ends = c == quote && !escape;
            escape = c == '\\' && !escape;
            ends
        });
        let end = end.ok_or("a string has no end")?;
        let text = &self.take(end + 2)[1..=end];
        let mut chars = text.chars();
        let mut out = String::new();
        while let Some(c) = chars.next() {
            if c != '\\' {
                out.push(c);
                continue;
            }
            let wrong = || "a string has a malformed escape".to_owned();
            if let Some(length) = code_length(chars.clone().next()) {
                chars.next();
                let digits: String = chars.by_ref().take(length).collect();
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == length);
                out.push(code.and_then(char::from_u32).ok_or_else(wrong)?);
                continue;
            }
            match chars.next() {
                Some('\n') => {}
                Some(c @ ('\\' | '\'' | '"')) => out.push(c),
                Some('a') => out.push('\u{7}'),
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('v') => out.push('\u{b}'),
                Some('N') => return Err("names of characters in strings are not supported".into()),
                Some(first @ '0'..='7') => {
                    let more =
                        chars.as_str().bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b));
                    let more = more.count();
                    let digits: String =
                        [first].into_iter().chain(chars.by_ref().take(more)).collect();
                    let code = u32::from_str_radix(&digits, 8).ok().and_then(char::from_u32);
                    out.push(code.ok_or_else(wrong)?);
                }
                // As Python does, which takes the bytes of other characters for an escape.
                Some(c) if c.is_ascii() => out.extend(['\\', c]),
                Some(c) => out.push_str(&escaped(c)),
                None => return Err(wrong()),
            }
        }
        Ok(out)
    }
}

/// Number of hexadecimal digits after `\x`, `\u` and `\U`.
fn code_length(kind: Option<char>) -> Option<usize> {
    match kind? {
        'x' => Some(2),
        'u' => Some(4),
        'U' => Some(8),
        _ => None,
    }
}
