//! Reader of the tokens of a tag.

use std::collections::BTreeMap;

use crate::text::template::lexer::Token;

/// Result of reading a part of a tag, or what is wrong with it.
pub type Result<T> = std::result::Result<T, String>;

/// Macros of a template, for those that take any arguments.
#[derive(Default)]
pub struct Macros {
    /// Macros that are open, the innermost last.
    pub open: Vec<Macro>,
    /// Parameters of the macros that take any arguments, by name.
    pub variadic: BTreeMap<String, Vec<String>>,
    /// Text to insert at a place of the output, after the end of a macro.
    pub finished: Option<(usize, String)>,
}

/// Macro that is open.
pub struct Macro {
    /// Name.
    pub name: String,
    /// Names of its parameters.
    pub parameters: Vec<String>,
    /// Place in the output of the end of its parameters.
    pub end: usize,
    /// True if it uses `varargs` or `kwargs`.
    pub variadic: bool,
}

/// Reader of a tag.
pub struct Parser<'t> {
    /// Tokens of the tag.
    pub tokens: &'t [Token],
    /// Place of the next token.
    pub at: usize,
    /// Depth of nested expressions at this place.
    pub depth: usize,
    /// Number of variables before this place.
    pub variables: usize,
    /// Macros of the template so far.
    pub macros: &'t mut Macros,
}

impl Parser<'_> {
    /// Next token.
    pub fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    /// True if the next token is an operator.
    pub fn is(&self, operator: &str) -> bool {
        matches!(self.peek(), Some(Token::Operator(found)) if *found == operator)
    }

    /// True if the next token is a name.
    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(found)) if found == name)
    }

    /// Skips an operator; false if another token is next.
    pub fn skip(&mut self, operator: &str) -> bool {
        let found = self.is(operator);
        self.at += usize::from(found);
        found
    }

    /// Skips a name; false if another token is next.
    pub fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    /// Skips an operator.
    ///
    /// # Errors
    /// If another token is next.
    pub fn expect(&mut self, operator: &str) -> Result<()> {
        if self.skip(operator) { Ok(()) } else { Err(self.unexpected(&format!("`{operator}`"))) }
    }

    /// What is wrong with the next token, in whose place something else is `wanted`.
    pub fn unexpected(&self, wanted: &str) -> String {
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

    /// Takes a name.
    ///
    /// # Errors
    /// If another token is next.
    pub fn name(&mut self) -> Result<String> {
        match self.peek() {
            Some(Token::Name(name)) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// Checks that the tag ends here.
    ///
    /// # Errors
    /// If a token is left.
    pub fn end(&self) -> Result<()> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected("the end of the tag")) }
    }
}
