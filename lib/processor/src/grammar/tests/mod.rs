//! Grammars of rules as clients send them.

mod limits;
mod refusals;
mod schemas;

use llguidance::toktrie::{ApproximateTokEnv, TokenizerEnv};
use serde_json::Value;

use super::matcher::Matcher;
use super::{Compiler, Rules, SchemaFields, Tools, Vocabulary};

fn vocabulary() -> Vocabulary {
    Vocabulary::of(ApproximateTokEnv::single_byte().tok_trie().clone()).unwrap()
}

fn compiled(vocabulary: &Vocabulary, schema: &Value) -> Result<Matcher, String> {
    let fields = SchemaFields::default();
    let tools = Tools { tools: &[], all: &[], fields: &fields };
    let compiled =
        Compiler::new(vocabulary, &|| false).compile(&Rules::Schema(schema.clone()), &tools);
    compiled.map(|compiled| compiled.matcher).map_err(|e| e.message)
}

/// Token that ends an answer.
fn end() -> u32 {
    ApproximateTokEnv::single_byte().tok_trie().eos_token()
}

/// True if a grammar allows all of `text`, and the end behind it.
fn accepts(grammar: &Matcher, text: &str) -> bool {
    let mut matcher = grammar.clone();
    let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
    matcher.try_consume_tokens(&tokens).unwrap() == tokens.len()
        && matcher.compute_mask_or_eos().unwrap().is_allowed(end())
}
