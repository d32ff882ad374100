//! Vocabulary of a model, prepared for grammars.

use std::sync::Arc;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher as Grammar, ParserFactory};
use mlxk_core::{Error, Kind, Result};
use serde_json::Value;

use super::calls::{self, Call};
use super::matcher::Matcher;
use super::rules::{Rules, SchemaFields, json_schema, named};
use crate::parser::Pair;
use crate::stack::run_on_stack;
use crate::text::tokenizer::{SPECIAL, Tokenizer};
use crate::tools;
use crate::weight::weights;

/// Size of the stack for compiling, in bytes: each definition that a schema or a grammar refers to
/// may take some tens of kilobytes.
const STACK: usize = 256 << 20;

/// Largest size of rules in bytes, twice the largest JSON schema in use (FHIR).
const MAX_RULES: usize = 16 << 20;

/// Maximum number of states of a grammar's lexer, each of one or two kilobytes.
const MAX_STATES: usize = 20_000;

/// Longest token that a grammar can use, in bytes.
const MAX_TOKEN: usize = 255;

/// Maximum number of calls that are compiled each alone to find the one that cannot be.
const MAX_ALONE: usize = 32;

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
        tools::field(self.all, tool, self.fields.parameters)
    }
}

/// Vocabulary of a model, prepared for grammars.
#[derive(Clone)]
pub struct Vocabulary {
    factory: Arc<ParserFactory>,
    /// Number of token ids.
    size: usize,
}

impl Vocabulary {
    /// Vocabulary of a tokenizer.
    ///
    /// # Errors
    /// [`Kind::CapabilityNotSupported`] if no token ends a text.
    pub fn new(tokenizer: &Tokenizer) -> Result<Vocabulary> {
        let words = tokenizer.words()?;
        let words: Vec<Vec<u8>> = words.into_iter().map(usable).collect();
        let ends: Vec<u32> = tokenizer.ends().filter(|&id| (id as usize) < words.len()).collect();
        let Some(&end) = ends.first() else {
            let message = "no token ends an answer, and rules need one";
            return Err(Error::new(Kind::CapabilityNotSupported, "", message));
        };
        let size = words.len();
        let info = TokRxInfo::new(u32::try_from(size).unwrap_or(u32::MAX), end);
        Vocabulary::of(TokTrie::from(&info, &words).with_eos_tokens(&ends))
    }

    /// Vocabulary of prepared tokens.
    pub fn of(trie: TokTrie) -> Result<Vocabulary> {
        let size = trie.vocab_size();
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let capabilities = InferenceCapabilities::default();
        let mut factory = ParserFactory::new(&environment, capabilities, &slices)
            .map_err(|e| Error::new(Kind::Internal, "", first_line(&e)))?;
        let limits = factory.quiet().limits_mut();
        limits.verbose_errors = false;
        limits.max_lexer_states = MAX_STATES;
        Ok(Vocabulary { factory: Arc::new(factory), size })
    }

    /// Number of token ids.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Compiles the rules of a text, in whose place there may be a call of one of `tools` as JSON
    /// without markers.
    ///
    /// # Errors
    /// [`Kind::Validation`] if the rules are malformed, cannot be followed, or are too large.
    pub fn compile(&self, rules: &Rules, tools: &Tools) -> Result<Compiled> {
        let mut compiled = self.compile_with(rules, tools, |calls| rules.grammar(calls))?;
        if let Some(schema) = rules.unique_items().filter(|_| tools.tools.is_empty()) {
            compiled.matcher.compare_items(schema.clone(), self.factory.tok_env());
        }
        Ok(compiled)
    }

    /// Compiles the grammar of JSON calls of `tools` between markers, from behind the first opening
    /// marker on.
    ///
    /// # Errors
    /// [`Kind::Validation`] if a schema is malformed, cannot be followed, or is too large.
    pub fn compile_calls(&self, tools: &Tools, (open, close): Pair) -> Result<Compiled> {
        let terminal = |marker: &str| match self.special(marker) {
            Some(id) => format!("<[{id}]>"),
            None => format!("\"{marker}\""),
        };
        // These markers surround each call by itself.
        let single = open == "<tool_call>";
        let (open, close) = (terminal(open), terminal(close));
        let block = format!("SPACE? @calls SPACE? {close}");
        let text = format!("start: {block} (SPACE? {open} {block})*\nSPACE: /[ \\n]{{1,2}}/");
        self.compile_with(&Rules::Strict, tools, |calls| {
            let schema = match single {
                true => calls::schema(calls, "arguments"),
                false => calls::schema_of_list(calls),
            };
            let calls = named("calls", json_schema(schema)?);
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
        grammar: impl Fn(&[Call]) -> Compilation<TopLevelGrammar> + Sync,
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
        let compile = |calls: &[Call]| self.compile_grammar(field, size, || grammar(calls));
        let matcher = match compile(&calls) {
            Err(e) if e.kind == Kind::Validation && !calls.is_empty() => {
                self.free(rules, field, &mut calls, e)?;
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
        let each = || {
            let all = tools.tools.iter().enumerate();
            all.map(|(number, tool)| Call::new(tool, tools.field(tool), number)).collect()
        };
        let calls: Compilation<Vec<Call>> = bounded("tools", size, each)?;
        calls.map_err(|why| Error::new(Kind::Validation, "", why))
    }

    /// Leaves the arguments of those `calls` to the model whose schemas cannot be compiled: of all
    /// that are not strict, if none is found to be the reason of `error`.
    fn free(&self, rules: &Rules, field: &str, calls: &mut [Call], error: Error) -> Result<()> {
        if let Rules::Schema(_) | Rules::Grammar(_) = rules {
            self.compile_grammar(field, rules.weight(), || rules.grammar(&[]))?;
        }
        let mut found = false;
        let few = calls.len() <= MAX_ALONE;
        for call in calls.iter_mut().filter(|_| few) {
            let schema = call.arguments();
            let alone = self.compile_grammar(&call.field, 0, || {
                Ok(TopLevelGrammar::from_grammar(json_schema(schema)?))
            });
            match alone {
                Err(e) if call.strict => return Err(e),
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
        grammar: impl FnOnce() -> Compilation<TopLevelGrammar> + Send,
    ) -> Result<Matcher> {
        let matcher = bounded(field, size, || {
            let mut grammar = Grammar::new(self.factory.create_parser(grammar()?));
            // The first mask shows whether the grammar is too large.
            grammar.compute_mask().map(|_| Matcher::new(grammar)).map_err(|e| why(&e))
        })?;
        matcher.map_err(|why| refused(field, &why))
    }

    /// Tokens that `text` may begin with: the token that is the whole text if there is one,
    /// otherwise those that are a prefix of it.
    pub fn beginnings(&self, text: &str) -> Vec<u32> {
        let trie = self.factory.tok_env().tok_trie();
        let special = [&[SPECIAL], text.as_bytes()].concat();
        let all = [text.as_bytes(), &special].map(|text| trie.token_id_at_bytes(text));
        match all.into_iter().flatten().collect::<Vec<_>>() {
            none if none.is_empty() => {
                [text.as_bytes(), &special].map(|text| trie.all_prefixes(text)).concat()
            }
            all => all,
        }
    }

    /// Id of a special token.
    pub fn special(&self, token: &str) -> Option<u32> {
        let trie = self.factory.tok_env().tok_trie();
        trie.token_id_at_bytes(&[&[SPECIAL], token.as_bytes()].concat())
    }

    /// Token ids of a text, by the longest tokens.
    pub fn tokenize(&self, text: &str) -> Vec<u32> {
        self.factory.tok_env().tok_trie().greedy_tokenize(text.as_bytes())
    }

    /// Mask without any token.
    pub fn nothing(&self) -> Vec<u32> {
        vec![0; self.size.div_ceil(32)]
    }
}

/// Runs work on rules of `size` bytes from `field` on a large stack.
fn bounded<T: Send>(field: &str, size: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    match size > MAX_RULES {
        true => Err(refused(field, "too large")),
        false => run_on_stack(STACK, work),
    }
}

fn refused(field: &str, why: &str) -> Error {
    Error::new(Kind::Validation, "", format!("`{field}`: {why}"))
}

/// Bytes of a token; none if it is too long for a grammar.
fn usable(word: Vec<u8>) -> Vec<u8> {
    if word.len() > MAX_TOKEN { Vec::new() } else { word }
}

/// Error about rules that a completion cannot follow any further.
pub fn broken(e: &impl std::fmt::Display) -> Error {
    Error::new(Kind::Validation, "", format!("the rules for the answer: {}", why(e)))
}

/// Reason why rules cannot be followed.
fn why(e: &impl std::fmt::Display) -> String {
    match first_line(e) {
        why if why.starts_with("NoExtension") => "nothing may come next".to_owned(),
        why => why,
    }
}

/// First line of an error, with the last one if the first ends with a colon; the lines between are
/// details of the grammar's parser.
fn first_line(e: &impl std::fmt::Display) -> String {
    let text = e.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let all = match lines.next_back() {
        Some(last) if first.ends_with(':') => format!("{first} {last}"),
        _ => first.to_owned(),
    };
    all.chars().take(300).collect()
}
