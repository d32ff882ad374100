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
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use gguf::{Builder, boolean, floats, integer, integers, string, strings};
use mlxk_gguf::{Gguf, Quantized, Source};
use mlxk_processor::Tokenizer;
use serde::Deserialize;
use serde_json::{Map, Value};
use tempfile::TempDir;

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

/// Architectures with the pre-tokenizers that published files of theirs name.
const PUBLISHED: [(&str, &str); 16] = [
    ("cohere2", "command-r"),
    ("deepseek_v2", "deepseek-llm"),
    ("deepseek_v3", "deepseek-v3"),
    ("exaone", "exaone"),
    ("exaone4", "exaone4"),
    ("falcon_h1", "falcon-h1"),
    ("glm", "chatglm-bpe"),
    ("glm4", "glm4"),
    ("glm4_moe", "glm4"),
    ("gpt_oss", "gpt-4o"),
    ("granite", "refact"),
    ("hunyuan", "hunyuan-dense"),
    ("lfm2", "lfm2"),
    ("llama", "superbpe"),
    ("llama3", "llama-bpe"),
    ("llama4", "llama4"),
];

#[test]
fn files_with_the_names_of_published_ones_are_imported_and_others_write_nothing() {
    for (architecture, name) in PUBLISHED {
        let written = import(architecture, name).unwrap_or_else(|e| panic!("{architecture}: {e}"));
        let json = fs::read(written.path().join("tokenizer.json")).unwrap();
        assert!(Tokenizer::new(&json, [], &[]).is_ok(), "{architecture}: {name}");
    }
    let refused = import("llama", "klingon").unwrap_err();
    assert!(refused.contains("the pre-tokenizer \"klingon\" is not known"), "{refused}");
}

/// The workspace that comes of the model of an architecture, whose pre-tokenizer has another name;
/// what is refused leaves nothing there.
fn import(architecture: &str, name: &str) -> Result<TempDir, String> {
    let packed = fs::File::open(format!("{DATA}/../gguf/{architecture}.gguf.gz")).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    let (folder, workspace) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = folder.path().join("model.gguf");
    fs::write(&file, renamed(&bytes, name)).unwrap();
    let source = Source::open(&file).unwrap();
    let plan = source.plan(None, Quantized::Keep).map_err(|e| e.to_string());
    let done =
        plan.and_then(|plan| plan.write(workspace.path(), |_| Ok(())).map_err(|e| e.to_string()));
    if done.is_err() {
        assert_eq!(fs::read_dir(workspace.path()).unwrap().count(), 0);
    }
    done.map(|_| workspace)
}

/// The file with another pre-tokenizer. A key with filler keeps the tensors in their places.
fn renamed(bytes: &[u8], name: &str) -> Vec<u8> {
    let key = b"tokenizer.ggml.pre";
    let at = bytes.windows(key.len()).position(|part| part == key).unwrap() + key.len() + 4;
    let old = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let filler = |size: usize| [gguf::text("filler"), string(&" ".repeat(size))].concat();
    let grown = name.len() + filler(0).len() + 32 - old;
    let filler = filler(32 - grown % 32);
    let (mut head, rest) = (bytes[..at].to_vec(), &bytes[at + 8 + old..]);
    let keys = u64::from_le_bytes(head[16..24].try_into().unwrap());
    head[16..24].copy_from_slice(&(keys + 1).to_le_bytes());
    [head, gguf::text(name), filler, rest.to_vec()].concat()
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
