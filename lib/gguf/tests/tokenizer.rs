//! Reconstructed tokenizers, run by the crate `tokenizers`.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod gguf;

use gguf::{Builder, boolean, floats, integer, integers, string, strings};
use mlxk_gguf::Gguf;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer};

fn rebuilt(file: &Builder) -> Result<Tokenizer, String> {
    let bytes = file.bytes();
    let json = mlxk_gguf::tokenizer(&Gguf::parse(&bytes).unwrap())?;
    Ok(Tokenizer::from_bytes(json.to_string()).unwrap())
}

fn ids(tokenizer: &Tokenizer, text: &str, special: bool) -> Vec<u32> {
    tokenizer.encode(text, special).unwrap().get_ids().to_vec()
}

/// SentencePiece file in which `ab` has a better score than `bc`, with byte fallback.
fn sentencepiece() -> Builder {
    let bytes: Vec<_> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut tokens = vec!["<unk>", "<s>", "</s>"];
    tokens.extend(bytes.iter().map(String::as_str));
    let mut kinds = [vec![2, 3, 3], vec![6; 256]].concat();
    let mut scores = vec![0.0; tokens.len()];
    for (token, score) in [
        ("ab", -1.0),
        ("bc", -2.0),
        ("▁ab", -3.0),
        ("▁", -10.),
        ("a", -11.),
        ("b", -12.),
        ("c", -13.),
    ] {
        tokens.push(token);
        kinds.push(1);
        scores.push(score);
    }
    Builder::empty()
        .set("tokenizer.ggml.model", string("llama"))
        .set("tokenizer.ggml.tokens", strings(&tokens))
        .set("tokenizer.ggml.token_type", integers(&kinds))
        .set("tokenizer.ggml.scores", floats(&scores))
        .set("tokenizer.ggml.bos_token_id", integer(1))
        .set("tokenizer.ggml.eos_token_id", integer(2))
        .set("tokenizer.ggml.unknown_token_id", integer(0))
}

#[test]
fn byte_level_text_is_merged_and_special_tokens_are_not_split() {
    let tokenizer = rebuilt(&Builder::llama()).unwrap();
    assert_eq!(ids(&tokenizer, "ab ab", true), [4, 5]);
    assert_eq!(ids(&tokenizer, "ba<end> ab", true), [2, 1, 0, 5]);
    assert_eq!(tokenizer.decode(&[4, 5, 0], true).unwrap(), "ab ab");
    assert_eq!(tokenizer.decode(&[4, 5, 0], false).unwrap(), "ab ab<end>");
}

#[test]
fn the_bos_token_is_added_if_the_file_asks_for_it() {
    let file = Builder::llama().set("tokenizer.ggml.bos_token_id", integer(0));
    assert_eq!(ids(&rebuilt(&file).unwrap(), "ab", true), [4], "not with this splitting");
    let asked = file.clone().set("tokenizer.ggml.add_bos_token", boolean(true));
    assert_eq!(ids(&rebuilt(&asked).unwrap(), "ab", true), [0, 4]);
    assert_eq!(ids(&rebuilt(&asked).unwrap(), "ab", false), [4]);
    let llama3 = file.set("tokenizer.ggml.pre", string("llama-bpe"));
    assert_eq!(ids(&rebuilt(&llama3).unwrap(), "ab", true), [0, 4]);
    let refused = llama3.set("tokenizer.ggml.add_bos_token", boolean(false));
    assert_eq!(ids(&rebuilt(&refused).unwrap(), "ab", true), [4]);
}

/// Pieces of texts by the regexes of llama.cpp's src/llama-vocab.cpp, split by Python's regex module.
#[test]
fn each_pre_tokenizer_of_llama_cpp_splits_as_it_does_there() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/pretokenizers.json");
    let known: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let texts = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let (mut wrong, mut count) = (String::new(), 0);
    for group in known["splits"].as_array().unwrap() {
        for name in texts(&group["names"]) {
            let file = Builder::llama().set("tokenizer.ggml.pre", string(&name));
            let tokenizer = rebuilt(&file).unwrap_or_else(|e| panic!("{e}"));
            let splits = tokenizer.get_pre_tokenizer().unwrap();
            count += 1;
            for (text, pieces) in
                texts(&known["texts"]).iter().zip(group["pieces"].as_array().unwrap())
            {
                let mut split = PreTokenizedString::from(text.as_str());
                splits.pre_tokenize(&mut split).unwrap();
                let ranges = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
                let made: Vec<&str> = ranges.iter().map(|(_, (a, b), _)| &text[*a..*b]).collect();
                let pieces = texts(pieces);
                if made != pieces {
                    wrong += &format!("{name}: {made:?}\n  and should be {pieces:?}\n");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(count, 87);
}

#[test]
fn a_pre_tokenizer_says_what_else_comes_with_it() {
    let settings = |name: &str| {
        let file = Builder::llama()
            .set("tokenizer.ggml.bos_token_id", integer(0))
            .set("tokenizer.ggml.pre", string(name));
        let tokenizer = rebuilt(&file).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap();
        let merges = json["model"]["ignore_merges"].as_bool().unwrap();
        (merges, ids(&tokenizer, "ab", true) == [0, 4])
    };
    for name in ["lfm2", "llama-bpe", "falcon-h1", "tekken"] {
        assert_eq!(settings(name), (true, true), "{name}");
    }
    for name in ["glm4", "youtu", "minicpm5", "granite-embed-multi-97m"] {
        assert_eq!(settings(name), (true, false), "{name}");
    }
    for name in ["gpt-4o", "chatglm-bpe", "superbpe", "kimi-k2", "deepseek-v3", "qwen2"] {
        assert_eq!(settings(name), (false, false), "{name}");
    }
    assert_eq!(settings("chameleon"), (false, true));
}

#[test]
fn sentencepiece_merges_by_score_and_falls_back_to_bytes() {
    let tokenizer = rebuilt(&sentencepiece()).unwrap();
    let id = |token: &str| tokenizer.token_to_id(token).unwrap();
    assert_eq!(ids(&tokenizer, "abc", true), [1, id("▁ab"), id("c")]);
    assert_eq!(ids(&tokenizer, "é", false), [id("▁"), id("<0xC3>"), id("<0xA9>")]);
    assert_eq!(ids(&tokenizer, "</s>", false), [2]);
    for text in ["abc é ab", " ab\n", "日本"] {
        assert_eq!(tokenizer.decode(&ids(&tokenizer, text, true), true).unwrap(), text);
    }
    let bare = sentencepiece().set("tokenizer.ggml.add_space_prefix", boolean(false));
    assert_eq!(ids(&rebuilt(&bare).unwrap(), "ab", false), [id("ab")]);
}

#[test]
fn contradictory_lists_are_refused() {
    let refused = |key: &str, value| rebuilt(&Builder::llama().set(key, value)).unwrap_err();
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    assert!(refused(&key("model"), string("rwkv")).contains("\"rwkv\" cannot be imported"));
    assert!(refused(&key("pre"), string("klingon")).contains("\"klingon\" is not known"));
    assert!(refused(&key("token_type"), integers(&[1])).contains("6 tokens, but 1 token types"));
    assert!(refused(&key("merges"), strings(&["ab"])).contains("is no pair"));
    assert!(refused(&key("merges"), strings(&["a c"])).contains("is no token"));
    let twice = strings(&["<end>", "a", "a", "Ġ", "ab", "Ġab"]);
    assert!(refused(&key("tokens"), twice).contains("\"a\" is there twice: 1 and 2"));
    let scores = sentencepiece().set(&key("scores"), floats(&[1.0]));
    assert!(rebuilt(&scores).unwrap_err().contains("but 1 scores"));
}
