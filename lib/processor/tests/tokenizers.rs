//! Tokenizers of real models against known tokens: llama.cpp's test cases (models/ggml-vocab-*), which
//! it takes from the models' own tokenizers.
//!
//! The vocabularies in tests/data hold the tokens that can come up in the cases, under their own
//! numbers. `MLXK_TEST_VOCABULARIES` names a folder with the whole ones: GGUF files, each with its
//! cases in `.inp` and `.out` beside it.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../../gguf/tests/gguf/mod.rs"]
mod gguf;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use gguf::{Builder, boolean, floats, integer, integers, string, strings};
use mlxk_gguf::Gguf;
use mlxk_processor::Tokenizer;
use serde::Deserialize;
use serde_json::{Map, Value};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/tokenizers");

/// What stands between the texts of a file of cases.
const BETWEEN: &str = "\n__ggml_vocab_test__\n";

/// A number that stands for no text.
const UNUSED: i32 = 5;

#[derive(Deserialize)]
struct Known {
    /// As in the GGUF file.
    settings: Map<String, Value>,
    /// How many tokens there are.
    size: usize,
    tokens: BTreeMap<usize, String>,
    /// Of the tokens that are not plain text.
    kinds: BTreeMap<usize, i32>,
    /// Of the tokens, in their order.
    scores: Option<Vec<f32>>,
    merges: Option<Vec<String>>,
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
}

impl Known {
    /// The GGUF file with nothing but this vocabulary.
    fn file(&self) -> Vec<u8> {
        let mut texts = vec![""; self.size];
        let mut kinds = vec![UNUSED; self.size];
        let mut scores = vec![0.0; self.size];
        for (n, (&id, text)) in self.tokens.iter().enumerate() {
            texts[id] = text;
            kinds[id] = self.kinds.get(&id).copied().unwrap_or(1);
            scores[id] = self.scores.as_ref().map_or(0.0, |scores| scores[n]);
        }
        let mut file = Builder::empty()
            .set("tokenizer.ggml.tokens", strings(&texts))
            .set("tokenizer.ggml.token_type", integers(&kinds))
            .set("tokenizer.ggml.scores", floats(&scores));
        if let Some(merges) = &self.merges {
            file = file.set("tokenizer.ggml.merges", strings(merges));
        }
        for (key, value) in &self.settings {
            let value = match value {
                Value::Bool(flag) => boolean(*flag),
                Value::String(text) => string(text),
                number => integer(number.as_u64().unwrap() as u32),
            };
            file = file.set(key, value);
        }
        file.bytes()
    }
}

#[test]
fn texts_become_the_known_tokens_and_these_the_texts_again() {
    let mut cases = 0;
    for entry in fs::read_dir(DATA).unwrap() {
        let path = entry.unwrap().path();
        let known: Known = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        check(&path, &known.file(), &known.texts, &known.ids);
        cases += known.texts.len();
    }
    assert_eq!(cases, 708);
}

#[test]
fn whole_vocabularies_give_the_known_tokens() {
    let Some(folder) = std::env::var_os("MLXK_TEST_VOCABULARIES") else {
        return println!("MLXK_TEST_VOCABULARIES names no folder: nothing to do");
    };
    let (mut files, mut cases) = (0, 0);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let read = |end: &str| fs::read_to_string(format!("{}.{end}", path.display()));
        if path.extension() != Some(OsStr::new("gguf")) {
            continue;
        }
        let (Ok(texts), Ok(ids)) = (read("inp"), read("out")) else { continue };
        let texts: Vec<String> = texts.split(BETWEEN).map(str::to_owned).collect();
        let numbers = |line: &str| line.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let ids: Vec<Vec<u32>> = ids.split('\n').take(texts.len()).map(numbers).collect();
        check(&path, &fs::read(&path).unwrap(), &texts, &ids);
        (files, cases) = (files + 1, cases + texts.len());
    }
    println!("{files} vocabularies, {cases} texts");
}

/// Tokenizers of all models in tests/data, with their texts.
fn all() -> impl Iterator<Item = (String, Tokenizer, Vec<String>)> {
    fs::read_dir(DATA).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let known: Known = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let json = mlxk_gguf::tokenizer(&Gguf::parse(&known.file()).unwrap()).unwrap();
        let tokenizer = Tokenizer::new(&serde_json::to_vec(&json).unwrap(), [], &[]).unwrap();
        (path.display().to_string(), tokenizer, known.texts)
    })
}

#[test]
fn a_long_text_has_the_same_tokens_in_pieces() {
    for (name, tokenizer, texts) in all() {
        for between in ["\n", " ", "", "  \n"] {
            let all = texts.join(between);
            let long = all.repeat((200 << 10) / all.len() + 1);
            let around = tokenizer.encode("").unwrap();
            let (before, after) = around.split_at(around.len().min(1));
            let whole = [before, &tokenizer.encode_part(&long).unwrap(), after].concat();
            assert!(tokenizer.encode(&long).unwrap() == whole, "{name}: {between:?}");
        }
    }
}

#[test]
fn a_text_with_too_many_tokens_is_not_read_to_its_end() {
    for (name, tokenizer, texts) in all() {
        let text = texts.concat().repeat(1000);
        let looks = Cell::new(0);
        let gone = || {
            looks.set(looks.get() + 1);
            false
        };
        assert_eq!(tokenizer.encode_up_to(&text, 100, &gone).unwrap(), None, "{name}");
        // An encoder's tokens have no text, and so no bytes to go by.
        assert_eq!(looks.get() > 0, tokenizer.detokenizer().is_err(), "{name}");
        assert_eq!(tokenizer.encode_up_to(&text, 50_000, &gone).unwrap(), None, "{name}");
        assert!(looks.get() < 20, "{name}: {}", looks.get());
        assert!(tokenizer.encode_up_to(&text, usize::MAX, &|| true).is_err());
    }
}

/// Checks the tokens of `texts` by the vocabulary in a GGUF file.
fn check(path: &Path, file: &[u8], texts: &[String], ids: &[Vec<u32>]) {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let json = mlxk_gguf::tokenizer(&Gguf::parse(file).unwrap()).unwrap();
    let writes = json["model"]["type"] == "BPE";
    let json = serde_json::to_vec(&json).unwrap();
    let ours = Tokenizer::new(&json, [], &[]).unwrap();
    let theirs = tokenizers::Tokenizer::from_bytes(&json).unwrap();
    // The cases have no tokens around their texts.
    let around = ours.encode("").unwrap();
    let (before, after) = around.split_at(around.len().min(1));
    assert_eq!(texts.len(), ids.len());
    for (text, known) in texts.iter().zip(ids) {
        let told = ours.encode(text).unwrap();
        assert_eq!(told, [before, known, after].concat(), "{name}: {text:?}");
        if writes {
            let whole = theirs.decode(known, true).unwrap();
            assert_eq!(streamed(&ours, known), whole, "{name}: {text:?}");
            assert!(whole == *text || composed(name, text), "{name}: {text:?} and {whole:?}");
        }
    }
}

/// The text of `ids`, token by token.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut decoder = tokenizer.detokenizer().unwrap();
    let tokens = ids.iter().filter_map(|&id| tokenizer.text_token(id));
    let pieces: String = tokens.map(|token| decoder.push(&token)).collect();
    pieces + &decoder.finish()
}

/// Whether the tokenizer composes characters of `text` (NFC), so that other bytes come back.
fn composed(name: &str, text: &str) -> bool {
    name.contains("qwen2") && text.contains('\u{301}')
}
