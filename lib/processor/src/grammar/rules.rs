//! Rules of a completion, and their grammars.

use std::collections::BTreeMap;
use std::sync::Arc;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use mlxk_core::Result;
use serde_json::{Value, json};

use super::calls::{self, Call};
use super::{bounds, cost, endless};
use crate::cancel::Cancel;
use crate::fields::invalid;
use crate::schema::lower;
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

/// Fields of a client's request that hold JSON schemas.
#[derive(Clone, Debug, PartialEq)]
pub struct SchemaFields {
    /// Field with the schema of the text.
    pub text: &'static str,
    /// Fields with the schemas of the arguments of tools, by the tools' names, where they differ from
    /// those that the tools have in the request.
    pub tools: BTreeMap<String, String>,
}

impl Default for SchemaFields {
    fn default() -> SchemaFields {
        SchemaFields { text: "json_schema", tools: BTreeMap::new() }
    }
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

    /// Approximate size in memory, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Rules::Schema(schema) => weight(schema),
            Rules::Grammar(text) => text.len(),
            Rules::Call(tools) => weights(tools),
            Rules::Strict => 0,
        }
    }

    /// Grammar of the text, or of one of `calls` as JSON in its place. If a call is required,
    /// `calls` are those that may be made.
    pub fn grammar(
        &self,
        calls: &[Call],
        cancel: &Arc<Cancel>,
    ) -> std::result::Result<TopLevelGrammar, String> {
        if let Rules::Call(_) = self {
            let call = json_schema(calls::schema(calls, "arguments"), cancel)?;
            return Ok(TopLevelGrammar::from_grammar(call));
        }
        let text = self.text(calls.is_empty(), cancel)?;
        if calls.is_empty() {
            return Ok(TopLevelGrammar::from_grammar(text));
        }
        let call = json_schema(calls::schema(calls, "parameters"), cancel)?;
        let either = GrammarWithLexer::from_lark("start: @text | @call".to_owned());
        let grammars = vec![either, named("text", text), named("call", call)];
        Ok(TopLevelGrammar { grammars, max_tokens: None })
    }

    /// Schema of a text that is JSON as a whole, if it says that the items of an array differ.
    pub fn unique_items(&self) -> Option<&Value> {
        match self {
            Rules::Schema(schema) => Some(schema).filter(|schema| has_unique_items(schema)),
            Rules::Grammar(_) | Rules::Call(_) | Rules::Strict => None,
        }
    }

    /// Grammar of a text without calls. If `remembers` is true, its items are compared beside it.
    pub fn text(
        &self,
        remembers: bool,
        cancel: &Arc<Cancel>,
    ) -> std::result::Result<GrammarWithLexer, String> {
        Ok(match self {
            Rules::Schema(schema) => {
                bounds::check_schema(schema)?;
                let lowered = lower(schema, "", remembers, cancel)?;
                if let Some(unheld) = lowered.unheld.first() {
                    return Err(unheld.to_string());
                }
                json_schema(lowered.document(), cancel)?
            }
            Rules::Grammar(text) => lark(text, cancel)?,
            Rules::Call(_) | Rules::Strict => {
                GrammarWithLexer::from_lark("start: /(?s:.*)/".to_owned())
            }
        })
    }
}

fn has_unique_items(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields.iter().any(|(keyword, value)| {
            keyword == "uniqueItems" && *value == true || has_unique_items(value)
        }),
        Value::Array(items) => items.iter().any(has_unique_items),
        _ => false,
    }
}

/// Grammar that other grammars refer to by `name`.
pub fn named(name: &str, grammar: GrammarWithLexer) -> GrammarWithLexer {
    GrammarWithLexer { name: Some(name.to_owned()), ..grammar }
}

/// Grammar of a JSON schema whose keywords a grammar holds.
///
/// # Errors
/// If the schema is too large, its patterns cannot be combined, or no instance is finite.
pub fn json_schema(
    mut schema: Value,
    cancel: &Cancel,
) -> std::result::Result<GrammarWithLexer, String> {
    check(&schema, cancel)?;
    match schema {
        Value::Bool(true) => schema = json!({}),
        Value::Bool(false) => return Err("no value can follow it".to_owned()),
        _ => {}
    }
    if let Value::Object(fields) = &mut schema {
        fields.entry("x-guidance").or_insert(json!({"whitespace_pattern": SPACE}));
    }
    Ok(GrammarWithLexer::from_json_schema(schema))
}

/// Grammar of a text in the variant of Lark.
fn lark(text: &str, cancel: &Cancel) -> std::result::Result<GrammarWithLexer, String> {
    bounds::check_grammar(text)?;
    for schema in bounds::schemas(text) {
        check(&schema, cancel)?;
    }
    match cost::is_wide_grammar(text) {
        true => Err(TOO_WIDE.to_owned()),
        false => Ok(GrammarWithLexer::from_lark(text.to_owned())),
    }
}

fn check(schema: &Value, cancel: &Cancel) -> std::result::Result<(), String> {
    bounds::check_schema(schema)?;
    if endless::is_endless(schema) {
        return Err("it demands something of itself without end".to_owned());
    }
    if cost::is_wide(schema, cancel) {
        return Err(TOO_WIDE.to_owned());
    }
    Ok(())
}
