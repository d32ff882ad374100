//! Vocabulary of a model, prepared for grammars.

use std::sync::Arc;
use std::thread;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use mlxk_core::{Error, Kind, Result};
use serde_json::Value;

use super::rules::{Rules, json_schema, named};
use crate::parser::Pair;
use crate::text::tokenizer::{SPECIAL, Tokenizer};
use crate::tools;
use crate::weight::weights;

/// Size of the stack for compiling, in bytes: each definition that a schema or a grammar refers to
/// may take some tens of kilobytes. Only what is used takes memory.
const STACK: usize = 256 << 20;

/// Largest size of rules in bytes, twice the largest JSON schema in use (FHIR).
const MAX_RULES: usize = 16 << 20;

/// Maximum number of states of a grammar's lexer, each of one or two kilobytes.
const MAX_STATES: usize = 20_000;

/// Longest token that a grammar can use, in bytes.
const MAX_TOKEN: usize = 255;

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
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
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
    pub fn compile(&self, rules: &Rules, tools: &[Value]) -> Result<Matcher> {
        let size = rules.weight() + weights(tools);
        let (field, rules, tools) = (rules.field(), rules.clone(), tools.to_vec());
        self.compile_grammar(field, size, move || rules.grammar(&tools))
    }

    /// Compiles the grammar of JSON calls of `tools` between markers, from behind the first opening
    /// marker on.
    ///
    /// # Errors
    /// [`Kind::Validation`] if a schema is malformed, cannot be followed, or is too large.
    pub fn compile_calls(&self, tools: &[Value], (open, close): Pair) -> Result<Matcher> {
        let terminal = |marker: &str| match self.special(marker) {
            Some(id) => format!("<[{id}]>"),
            None => format!("\"{marker}\""),
        };
        // These markers surround each call by itself.
        let single = open == "<tool_call>";
        let (open, close) = (terminal(open), terminal(close));
        let block = format!("SPACE? @calls SPACE? {close}");
        let text = format!("start: {block} (SPACE? {open} {block})*\nSPACE: /[ \\n]{{1,2}}/");
        let tools = tools.to_vec();
        self.compile_grammar("tools", weights(&tools), move || {
            let schema = match single {
                true => tools::schema(&tools, "arguments"),
                false => tools::schema_of_calls(&tools),
            };
            let calls = named("calls", json_schema(schema)?);
            let grammars = vec![GrammarWithLexer::from_lark(text), calls];
            Ok(TopLevelGrammar { grammars, max_tokens: None })
        })
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
        grammar: impl FnOnce() -> std::result::Result<TopLevelGrammar, String> + Send,
    ) -> Result<Matcher> {
        let refused = |why: String| Error::new(Kind::Validation, "", format!("`{field}`: {why}"));
        if size > MAX_RULES {
            return Err(refused("too large".to_owned()));
        }
        let compile = || {
            let mut matcher = Matcher::new(self.factory.create_parser(grammar()?));
            // The first mask shows whether the grammar is too large.
            matcher.compute_mask().map(|_| matcher).map_err(|e| why(&e))
        };
        let compiled = thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, compile);
            let thread =
                thread.map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
            thread.join().map_or_else(|panic| std::panic::resume_unwind(panic), Ok)
        })?;
        compiled.map_err(refused)
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
