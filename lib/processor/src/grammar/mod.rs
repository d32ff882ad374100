//! Rules that an answer has to follow: a JSON schema, or a grammar. What may come next is known
//! before each token.

use std::sync::Arc;
use std::time::Duration;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use mlxk_core::{Error, Kind, Result};
use serde_json::{Value, json};

use crate::parser::Pair;
use crate::sandbox::{self, Fenced, Share, Work};
use crate::text::tokenizer::{SPECIAL, Tokenizer};
use crate::tools;

mod constraint;
mod cost;
mod endless;
mod harmony;

pub use constraint::{Besides, Ruled, Text};

/// What the making of a grammar may take.
const SHARE: Share =
    Share { work: Work::Rules, memory: 128 << 20, own: 0, time: Duration::from_secs(20) };

/// Bytes of rules; a schema of all that a hospital writes down takes half of it.
const MAX_RULES: usize = 16 << 20;

/// States of an answer's lexer, of one or two kilobytes each.
const MAX_STATES: usize = 20_000;

/// Why rules are refused whose patterns cannot be brought together.
const TOO_WIDE: &str = "its patterns are too many for one text";

/// What may stand between the tokens of JSON: small models would go on with more of it without end.
const SPACE: &str = r" |\n[ \t]{0,40}";

/// The longest token that a grammar can use, in bytes.
const MAX_TOKEN: usize = 255;

/// Rules for an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Rules {
    /// A JSON schema.
    Schema(Value),
    /// A grammar, in the variant of Lark that llguidance reads.
    Grammar(String),
    /// That the answer is a call of one of these tools.
    Call(Vec<Value>),
    /// That what the model calls by itself follows the schemas of its tools; the text is free.
    Strict,
}

/// Rules, ready for one answer.
pub type Ready = Matcher;

/// The vocabulary of a model, made ready for rules.
#[derive(Clone)]
pub struct Vocabulary {
    factory: Arc<ParserFactory>,
    /// Ids below this are known.
    size: usize,
}

impl Vocabulary {
    /// Of `tokenizer`.
    ///
    /// # Errors
    /// If no token ends a text: then there is no way to end an answer.
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

    /// Makes `rules` ready. A call of one of the tools `besides`, as JSON alone, follows them too.
    ///
    /// # Errors
    /// [`Kind::Validation`] if they make no sense, cannot be followed, or are too large.
    pub fn ready(&self, rules: &Rules, besides: &[Value]) -> Result<Ready> {
        let own = rules.weight() + weight(besides);
        let (what, rules, besides) = (rules.field(), rules.clone(), besides.to_vec());
        self.made(what, own, move || rules.grammar(&besides))
    }

    /// Makes rules ready for what follows the mark with which calls of `tools` open, which are JSON.
    ///
    /// # Errors
    /// As [`ready`](Self::ready).
    pub fn calls(&self, tools: &[Value], (open, close): Pair) -> Result<Ready> {
        let mark = |mark: &str| match self.special(mark) {
            Some(id) => format!("<[{id}]>"),
            None => format!("\"{mark}\""),
        };
        // Each call has marks of its own between these.
        let single = open == "<tool_call>";
        let (open, close) = (mark(open), mark(close));
        let block = format!("SPACE? @calls SPACE? {close}");
        let text = format!("start: {block} (SPACE? {open} {block})*\nSPACE: /[ \\n]{{1,2}}/");
        let tools = tools.to_vec();
        self.made("tools", weight(&tools), move || {
            let schema = match single {
                true => tools::schema(&tools, "arguments"),
                false => tools::schema_of_calls(&tools),
            };
            let calls = named("calls", json_schema(schema)?);
            let grammars = vec![GrammarWithLexer::from_lark(text), calls];
            Ok(TopLevelGrammar { grammars, max_tokens: None })
        })
    }

    /// Makes a grammar that comes from the field `what` ready, and brings `own` bytes.
    fn made(
        &self,
        what: &str,
        own: usize,
        grammar: impl FnOnce() -> std::result::Result<TopLevelGrammar, String> + Send + 'static,
    ) -> Result<Ready> {
        let refused = |why: &str| Error::new(Kind::Validation, "", format!("`{what}`: {why}"));
        if own > MAX_RULES {
            return Err(refused("too large"));
        }
        let factory = Arc::clone(&self.factory);
        let made = sandbox::run(Share { own, ..SHARE }, move || {
            let grammar = grammar()?;
            let mut matcher = Matcher::new(factory.create_parser(grammar));
            // What is too large for a mask shows with the first one.
            matcher.compute_mask().map(|_| matcher).map_err(|e| why(&e))
        })?;
        match made {
            Fenced::Done(matcher) => matcher.map_err(|why| refused(&why)),
            Fenced::Memory | Fenced::Time => Err(refused("too large")),
        }
    }

    /// Tokens with which `text` may go on that is still to come: the one that is all of it, or
    /// those that are its beginning.
    fn beginnings(&self, text: &str) -> Vec<u32> {
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

    /// The special token that is `mark`.
    fn special(&self, mark: &str) -> Option<u32> {
        let trie = self.factory.tok_env().tok_trie();
        trie.token_id_at_bytes(&[&[SPECIAL], mark.as_bytes()].concat())
    }

    /// `text` in tokens.
    fn spell(&self, text: &str) -> Vec<u32> {
        self.factory.tok_env().tok_trie().greedy_tokenize(text.as_bytes())
    }

    /// No token.
    fn nothing(&self) -> Vec<u32> {
        vec![0; self.size.div_ceil(32)]
    }
}

impl Rules {
    /// The field of a request that they come from.
    fn field(&self) -> &'static str {
        match self {
            Rules::Schema(_) => "json_schema",
            Rules::Grammar(_) => "grammar",
            Rules::Call(_) | Rules::Strict => "tools",
        }
    }

    /// Bytes that they hold, about.
    fn weight(&self) -> usize {
        match self {
            Rules::Schema(schema) => sandbox::weight(schema),
            // Parsed, a letter takes about a hundred.
            Rules::Grammar(text) => text.len().saturating_mul(32),
            Rules::Call(tools) => weight(tools),
            Rules::Strict => 0,
        }
    }

    /// As a grammar, which calls of the tools `besides` follow too.
    fn grammar(self, besides: &[Value]) -> std::result::Result<TopLevelGrammar, String> {
        let own = self.own()?;
        if besides.is_empty() {
            return Ok(TopLevelGrammar::from_grammar(own));
        }
        let call = json_schema(tools::schema(besides, "parameters"))?;
        let either = GrammarWithLexer::from_lark("start: @own | @call".to_owned());
        let grammars = vec![either, named("own", own), named("call", call)];
        Ok(TopLevelGrammar { grammars, max_tokens: None })
    }

    /// As a grammar for the text alone.
    fn own(self) -> std::result::Result<GrammarWithLexer, String> {
        Ok(match self {
            Rules::Schema(schema) if endless::is_endless(&schema) => {
                return Err("it demands something of itself without end".to_owned());
            }
            Rules::Schema(schema) => json_schema(schema)?,
            Rules::Grammar(text) if cost::is_wide_grammar(&text) => {
                return Err(TOO_WIDE.to_owned());
            }
            Rules::Grammar(text) => GrammarWithLexer::from_lark(text),
            Rules::Call(demanded) => json_schema(tools::schema(&demanded, "arguments"))?,
            Rules::Strict => GrammarWithLexer::from_lark("start: /(?s:.*)/".to_owned()),
        })
    }
}

/// `grammar`, for others to refer to by `name`.
fn named(name: &str, grammar: GrammarWithLexer) -> GrammarWithLexer {
    GrammarWithLexer { name: Some(name.to_owned()), ..grammar }
}

/// A schema as a grammar.
fn json_schema(mut schema: Value) -> std::result::Result<GrammarWithLexer, String> {
    if cost::is_wide(&schema) {
        return Err(TOO_WIDE.to_owned());
    }
    if schema == true {
        schema = json!({});
    }
    if let Value::Object(fields) = &mut schema {
        fields.entry("x-guidance").or_insert(json!({"whitespace_pattern": SPACE}));
    }
    Ok(GrammarWithLexer::from_json_schema(schema))
}

/// Bytes that tools hold, about.
fn weight(tools: &[Value]) -> usize {
    tools.iter().map(sandbox::weight).sum()
}

/// The bytes of a token, if it is one that a grammar can use.
fn usable(word: Vec<u8>) -> Vec<u8> {
    if word.len() > MAX_TOKEN { Vec::new() } else { word }
}

fn broken(e: &impl std::fmt::Display) -> Error {
    Error::new(Kind::Validation, "", format!("the rules for the answer: {}", why(e)))
}

/// What is wrong with rules.
fn why(e: &impl std::fmt::Display) -> String {
    match first_line(e) {
        why if why.starts_with("NoExtension") => "nothing may come next".to_owned(),
        why => why,
    }
}

/// What an error says first, and what it comes to if that is only announced; the rest is for those
/// who write grammars' parsers.
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
