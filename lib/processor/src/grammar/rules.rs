//! Rules of a completion, and their grammars.

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use mlxk_core::Result;
use serde_json::{Value, json};

use super::{bounds, cost, endless};
use crate::fields::invalid;
use crate::tools;
use crate::weight::{weight, weights};

/// Reason to refuse rules whose patterns cannot be combined.
const TOO_WIDE: &str = "its patterns are too many for one text";

/// Pattern of white space between JSON tokens; it is bounded, as small models might otherwise
/// generate white space without end.
const SPACE: &str = r" |\n[ \t]{0,40}";

/// Rules that a completion follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Rules {
    /// JSON schema of the text.
    Schema(Value),
    /// Grammar of the text, in the variant of Lark that llguidance reads.
    Grammar(String),
    /// Required call of one of these tools.
    Call(Vec<Value>),
    /// Free text, with tool calls that follow the schemas of their tools.
    Strict,
}

impl Rules {
    /// Rules of the fields `json_schema` and `grammar`, if one of them is present.
    ///
    /// # Errors
    /// [`Kind::Validation`](mlxk_core::Kind::Validation) if both are present, or the schema is
    /// neither an object nor a boolean.
    pub fn parse(schema: Option<&Value>, grammar: Option<&str>) -> Result<Option<Rules>> {
        match (schema, grammar) {
            (Some(_), Some(_)) => Err(invalid("both a `json_schema` and a `grammar`")),
            (Some(schema @ (Value::Object(_) | Value::Bool(_))), None) => {
                Ok(Some(Rules::Schema(schema.clone())))
            }
            (Some(_), None) => Err(invalid("`json_schema` is not an object")),
            (None, grammar) => Ok(grammar.map(|text| Rules::Grammar(text.to_owned()))),
        }
    }

    /// Field of a request that the rules come from.
    pub fn field(&self) -> &'static str {
        match self {
            Rules::Schema(_) => "json_schema",
            Rules::Grammar(_) => "grammar",
            Rules::Call(_) | Rules::Strict => "tools",
        }
    }

    /// Approximate size in memory, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Rules::Schema(schema) => weight(schema),
            Rules::Grammar(text) => text.len(),
            Rules::Call(tools) => weights(tools),
            Rules::Strict => 0,
        }
    }

    /// Grammar of the text, or of a call of one of `tools` as JSON in its place.
    pub fn grammar(self, tools: &[Value]) -> std::result::Result<TopLevelGrammar, String> {
        let text = self.text()?;
        if tools.is_empty() {
            return Ok(TopLevelGrammar::from_grammar(text));
        }
        let call = json_schema(tools::schema(tools, "parameters"))?;
        let either = GrammarWithLexer::from_lark("start: @text | @call".to_owned());
        let grammars = vec![either, named("text", text), named("call", call)];
        Ok(TopLevelGrammar { grammars, max_tokens: None })
    }

    /// Grammar of the text alone.
    pub fn text(self) -> std::result::Result<GrammarWithLexer, String> {
        Ok(match self {
            Rules::Schema(schema) => json_schema(schema)?,
            Rules::Grammar(text) => lark(text)?,
            Rules::Call(tools) => json_schema(tools::schema(&tools, "arguments"))?,
            Rules::Strict => GrammarWithLexer::from_lark("start: /(?s:.*)/".to_owned()),
        })
    }
}

/// Grammar that other grammars refer to by `name`.
pub fn named(name: &str, grammar: GrammarWithLexer) -> GrammarWithLexer {
    GrammarWithLexer { name: Some(name.to_owned()), ..grammar }
}

/// Grammar of a JSON schema.
///
/// # Errors
/// If the schema is too large, its patterns cannot be combined, or no instance is finite.
pub fn json_schema(mut schema: Value) -> std::result::Result<GrammarWithLexer, String> {
    check(&schema)?;
    if schema == true {
        schema = json!({});
    }
    if let Value::Object(fields) = &mut schema {
        fields.entry("x-guidance").or_insert(json!({"whitespace_pattern": SPACE}));
    }
    Ok(GrammarWithLexer::from_json_schema(schema))
}

/// Grammar of a text in the variant of Lark.
fn lark(text: String) -> std::result::Result<GrammarWithLexer, String> {
    bounds::check_grammar(&text)?;
    for schema in bounds::schemas(&text) {
        check(&schema)?;
    }
    match cost::is_wide_grammar(&text) {
        true => Err(TOO_WIDE.to_owned()),
        false => Ok(GrammarWithLexer::from_lark(text)),
    }
}

fn check(schema: &Value) -> std::result::Result<(), String> {
    bounds::check_schema(schema)?;
    if endless::is_endless(schema) {
        return Err("it demands something of itself without end".to_owned());
    }
    if cost::is_wide(schema) {
        return Err(TOO_WIDE.to_owned());
    }
    Ok(())
}
