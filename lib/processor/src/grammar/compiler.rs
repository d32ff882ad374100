//! Compiler of rules: JSON schemas, grammars and the schemas of tools become the state of a grammar.

use std::sync::Arc;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use mlxk_core::{Error, Kind, Result};
use serde_json::Value;

use super::calls::{self, Call};
use super::fault::{CANCELLED, TOO_MANY_WAYS, why};
use super::matcher::Matcher;
use super::rules::{Rules, SchemaFields, json_schema, named};
use super::vocabulary::Vocabulary;
use crate::cancel::Cancel;
use crate::parser::Pair;
use crate::stack::run_on_stack;
use crate::tools;
use crate::weight::weights;

/// Size of the stack for compiling, in bytes: each definition that a schema or a grammar refers to
/// may take some tens of kilobytes.
const STACK: usize = 256 << 20;

/// Largest size of rules in bytes, twice the largest JSON schema in use (FHIR).
const MAX_RULES: usize = 16 << 20;

/// Maximum number of calls that are compiled each alone to find the one that cannot be.
const MAX_ALONE: usize = 32;

/// Largest size in bytes of the rules of which calls are compiled each alone.
const MAX_ALONE_SIZE: usize = 256 << 10;

/// Result of a step of compiling, or the reason why there is none.
pub type Compilation<T> = std::result::Result<T, String>;

/// Compiled grammar.
pub struct Compiled {
    /// State of the grammar.
    pub matcher: Matcher,
    /// What the grammar leaves to the model, of tools that are not strict.
    pub unheld: Vec<String>,
}

/// Tools whose calls a grammar describes.
#[derive(Clone, Copy)]
pub struct Tools<'a> {
    /// Tools.
    pub tools: &'a [Value],
    /// All tools of the request.
    pub all: &'a [Value],
    /// Fields of the request.
    pub fields: &'a SchemaFields,
}

impl Tools<'_> {
    fn field(&self, tool: &Value) -> String {
        tools::field(self.all, tool, &self.fields.tools)
    }
}

/// Compiler of rules for a vocabulary.
#[derive(Clone, Copy)]
pub struct Compiler<'a> {
    vocabulary: &'a Vocabulary,
    /// True once nobody waits for the result.
    gone: &'a dyn Fn() -> bool,
}

impl<'a> Compiler<'a> {
    /// Compiler of rules for a `vocabulary`, which ends its work with an error once `gone` is true.
    pub fn new(vocabulary: &'a Vocabulary, gone: &'a dyn Fn() -> bool) -> Compiler<'a> {
        Compiler { vocabulary, gone }
    }

    /// Vocabulary of the grammars.
    pub fn vocabulary(&self) -> &'a Vocabulary {
        self.vocabulary
    }

    /// Compiles the rules of a text, in whose place there may be a call of one of `tools` as JSON
    /// without markers.
    ///
    /// # Errors
    /// [`Kind::Validation`] if the rules are malformed, cannot be followed, or are too large.
    pub fn compile(&self, rules: &Rules, tools: &Tools) -> Result<Compiled> {
        let mut compiled =
            self.compile_with(rules, tools, |calls, cancel| rules.grammar(calls, cancel))?;
        if let Some(schema) = rules.unique_items().filter(|_| tools.tools.is_empty()) {
            compiled.matcher.compare_items(schema.clone(), self.vocabulary.factory().tok_env());
        }
        Ok(compiled)
    }

    /// Compiles the grammar of JSON calls of `tools` between markers, from behind the first opening
    /// marker on.
    ///
    /// # Errors
    /// [`Kind::Validation`] if a schema is malformed, cannot be followed, or is too large.
    pub fn compile_calls(&self, tools: &Tools, (open, close): Pair) -> Result<Compiled> {
        let terminal = |marker: &str| match self.vocabulary.special(marker) {
            Some(id) => format!("<[{id}]>"),
            None => format!("\"{marker}\""),
        };
        // These markers surround each call by itself.
        let single = open == "<tool_call>";
        let (open, close) = (terminal(open), terminal(close));
        let block = format!("SPACE? @calls SPACE? {close}");
        let text = format!("start: {block} (SPACE? {open} {block})*\nSPACE: /[ \\n]{{1,2}}/");
        self.compile_with(&Rules::Strict, tools, |calls, cancel| {
            let schema = match single {
                true => calls::schema(calls, "arguments"),
                false => calls::schema_of_list(calls),
            };
            let calls = named("calls", json_schema(schema, cancel)?);
            let grammars = vec![GrammarWithLexer::from_lark(text.clone()), calls];
            Ok(TopLevelGrammar { grammars, max_tokens: None })
        })
    }

    /// Compiles a grammar of the text's `rules` and of calls of `tools`. If it cannot be compiled,
    /// the tools whose schemas are the reason are left to the model, unless they are strict.
    ///
    /// # Errors
    /// [`Kind::Validation`] if the rules, or the schema of a strict tool, are malformed, cannot be
    /// followed, or are too large.
    pub fn compile_with(
        &self,
        rules: &Rules,
        tools: &Tools,
        grammar: impl Fn(&[Call], &Arc<Cancel>) -> Compilation<TopLevelGrammar> + Sync,
    ) -> Result<Compiled> {
        let own = match rules {
            // Its tools are those of `tools`.
            Rules::Call(_) => 0,
            rules => rules.weight(),
        };
        let size = own + weights(tools.tools);
        let mut calls = self.calls(tools, size)?;
        let field = match rules {
            Rules::Schema(_) => tools.fields.text,
            Rules::Grammar(_) => "grammar",
            Rules::Call(_) | Rules::Strict => "tools",
        };
        let compile =
            |calls: &[Call]| self.compile_grammar(field, size, |cancel| grammar(calls, cancel));
        let matcher = match compile(&calls) {
            Err(e) if e.kind == Kind::Validation && !calls.is_empty() => {
                self.free((rules, field), size, &mut calls, e)?;
                compile(&calls)?
            }
            other => other?,
        };
        let unheld = calls.into_iter().flat_map(|call| call.unheld).collect();
        Ok(Compiled { matcher, unheld })
    }

    /// Calls of `tools`, with the schemas of their arguments lowered.
    fn calls(&self, tools: &Tools, size: usize) -> Result<Vec<Call>> {
        if tools.tools.is_empty() {
            return Ok(Vec::new());
        }
        let each = |cancel: &Arc<Cancel>| {
            let all = tools.tools.iter().enumerate();
            all.map(|(number, tool)| Call::new(tool, tools.field(tool), number, cancel)).collect()
        };
        let calls: Compilation<Vec<Call>> = self.bounded("tools", size, each)?;
        calls.map_err(|why| Error::new(Kind::Validation, "", why))
    }

    /// Leaves the arguments of those `calls` to the model whose schemas cannot be compiled: of all
    /// that are not strict, if none is found to be the reason of `error`.
    fn free(
        &self,
        (rules, field): (&Rules, &str),
        size: usize,
        calls: &mut [Call],
        error: Error,
    ) -> Result<()> {
        if let Rules::Schema(_) | Rules::Grammar(_) = rules {
            self.compile_grammar(field, rules.weight(), |cancel| rules.grammar(&[], cancel))?;
        }
        let mut found = false;
        let few = calls.len() <= MAX_ALONE && size <= MAX_ALONE_SIZE;
        for call in calls.iter_mut().filter(|_| few) {
            let schema = call.arguments();
            let alone = self.compile_grammar(&call.field, 0, |cancel| {
                Ok(TopLevelGrammar::from_grammar(json_schema(schema, cancel)?))
            });
            match alone {
                Err(e) if call.strict || e.kind != Kind::Validation => return Err(e),
                Err(e) => {
                    let field = format!("`{}`: ", call.field);
                    call.free(e.message.strip_prefix(&field).unwrap_or(&e.message));
                    found = true;
                }
                Ok(_) => {}
            }
        }
        let mut rest = calls.iter_mut().filter(|call| !call.strict).peekable();
        match rest.peek() {
            _ if found => Ok(()),
            None => Err(error),
            Some(_) => {
                rest.for_each(|call| call.free(&error.message));
                Ok(())
            }
        }
    }

    /// Compiles a grammar. The field it comes from and its size in bytes are known before it is
    /// made.
    ///
    /// # Errors
    /// [`Kind::Validation`] if the grammar is malformed, cannot be followed, or is too large.
    pub fn compile_grammar(
        &self,
        field: &str,
        size: usize,
        grammar: impl FnOnce(&Arc<Cancel>) -> Compilation<TopLevelGrammar> + Send,
    ) -> Result<Matcher> {
        let vocabulary = self.vocabulary;
        let matcher = self.bounded(field, size, |cancel| {
            let factory = vocabulary.factory();
            let grammar = grammar(cancel)?;
            if cancel.is_requested() {
                return Err(CANCELLED.to_owned());
            }
            let parser = factory.create_parser(grammar).map_err(|e| why(&e))?;
            // The first token would be refused.
            if parser.parser_stats().all_items > factory.limits().max_items_in_row {
                return Err(TOO_MANY_WAYS.to_owned());
            }
            let mut matcher = Matcher::new(parser, vocabulary.watch());
            cancel.forward(matcher.cancellation());
            try_out(vocabulary, &mut matcher).map_err(|e| why(&e))?;
            Ok(matcher)
        })?;
        matcher.map_err(|why| refused(field, &why))
    }

    /// Runs work on rules of `size` bytes from `field` on a large stack.
    fn bounded<T: Send>(
        &self,
        field: &str,
        size: usize,
        work: impl FnOnce(&Arc<Cancel>) -> T + Send,
    ) -> Result<T> {
        match size > MAX_RULES {
            true => Err(refused(field, "too large")),
            false => run_on_stack(STACK, self.gone, work),
        }
    }
}

/// Takes the first steps of a grammar, which show whether it is too large to be followed.
fn try_out(vocabulary: &Vocabulary, matcher: &mut Matcher) -> Compilation<()> {
    let mask = matcher.compute_mask_or_eos()?;
    for bracket in ["{", "["].map(|bracket| vocabulary.tokenize(bracket)) {
        if bracket.iter().all(|&token| mask.is_allowed(token)) {
            matcher.clone().try_consume_tokens(&bracket)?;
        }
    }
    Ok(())
}

fn refused(field: &str, why: &str) -> Error {
    Error::new(Kind::Validation, "", format!("`{field}`: {why}"))
}
