//! Vocabulary of a model, prepared for grammars.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use mlxk_core::{Error, Kind, Result};

use super::fault::first_line;
use super::watch::Watch;
use crate::text::tokenizer::{SPECIAL, Tokenizer};

/// Maximum number of states of a grammar's lexer, each of one or two kilobytes.
const MAX_STATES: usize = 20_000;

/// Maximum number of symbols in the productions of a grammar; the largest JSON schema in use (FHIR)
/// needs four fifths.
const MAX_SYMBOLS: usize = 250_000;

/// Longest token that a grammar can use, in bytes.
const MAX_TOKEN: usize = 255;

/// Vocabulary of a model, prepared for grammars.
#[derive(Clone)]
pub struct Vocabulary {
    factory: Arc<ParserFactory>,
    /// Clock of the steps of its grammars.
    watch: Arc<Watch>,
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
        limits.max_grammar_size = MAX_SYMBOLS;
        Ok(Vocabulary { factory: Arc::new(factory), watch: Arc::new(Watch::start()?), size })
    }

    /// Maker of parsers of grammars.
    pub fn factory(&self) -> &ParserFactory {
        &self.factory
    }

    /// Clock of the steps of grammars.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Number of token ids.
    pub fn size(&self) -> usize {
        self.size
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
