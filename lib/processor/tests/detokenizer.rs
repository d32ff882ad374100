//! Text that comes token by token: the same bytes as all tokens decoded at once.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use mlxk_processor::Tokenizer;
use serde_json::{Value, json};

/// A tokenizer of whole words with this decoder and vocabulary; the last entry is a special token.
fn tokenizer(decoder: &Value, vocabulary: &[&str]) -> (Vec<u8>, Tokenizer) {
    let ids = vocabulary.iter().zip(0..).map(|(&token, id)| (token.to_owned(), json!(id)));
    let end = vocabulary.len() - 1;
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": decoder,
        "added_tokens": [{"id": end, "content": vocabulary[end], "special": true, "lstrip": false,
            "rstrip": false, "normalized": false, "single_word": false}],
        "model": {"type": "WordLevel", "vocab": ids.collect::<serde_json::Map<_, _>>(),
            "unk_token": vocabulary[0]},
    });
    let bytes = serde_json::to_vec(&json).unwrap();
    let tokenizer = Tokenizer::new(&bytes, [], &[]).unwrap();
    (bytes, tokenizer)
}

fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut decoder = tokenizer.detokenizer().unwrap();
    let tokens = ids.iter().filter_map(|&id| tokenizer.text_token(id));
    let mut pieces: Vec<String> = tokens.map(|token| decoder.push(&token)).collect();
    pieces.push(decoder.finish());
    pieces
}

/// Numbers that look random, the same each time.
fn noise(seed: u64) -> impl Iterator<Item = u32> {
    let step =
        |x: &u64| Some(x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407));
    std::iter::successors(Some(seed), step).map(|x| (x >> 33) as u32)
}

#[test]
fn pieces_make_up_what_all_tokens_at_once_would_be() {
    let bytes =
        ["Ġ", "é", "å", "Ľ", "½", "ð", "Ł", "ĺ", "Ģ", "ÿ", "Hello", "Ġworld", "æĹ¥", "日", "</s>"];
    let spiece = [
        "▁", "▁▁a", "b▁", "<0xE4>", "<0xBD>", "<0xA0>", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>",
        "<0xFF>", "<0x41>", "<0xZZ>", "日", "<s>",
    ];
    let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let steps = |steps: &[Value]| json!({"type": "Sequence", "decoders": steps});
    let kind = |kind: &str| json!({"type": kind});
    let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
    let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    for (decoder, vocabulary) in [
        (byte_level.clone(), &bytes),
        (steps(&[byte_level]), &bytes),
        (Value::Null, &bytes),
        (steps(&[replace.clone(), kind("ByteFallback"), kind("Fuse"), strip]), &spiece),
        (steps(&[replace, kind("ByteFallback"), kind("Fuse")]), &spiece),
        (metaspace("always"), &spiece),
        (metaspace("never"), &spiece),
        (steps(&[kind("ByteFallback"), metaspace("first")]), &spiece),
    ] {
        let (json, ours) = tokenizer(&decoder, vocabulary);
        let theirs = tokenizers::Tokenizer::from_bytes(json).unwrap();
        for seed in 0..500 {
            let ids: Vec<u32> = noise(seed).take(1 + seed as usize % 24).map(|x| x % 15).collect();
            let whole = theirs.decode(&ids, true).unwrap();
            assert_eq!(pieces(&ours, &ids).concat(), whole, "{decoder} {ids:?}");
        }
    }
}

#[test]
fn a_character_is_let_out_with_its_last_byte() {
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let (_, tokenizer) = tokenizer(&decoder, &["a", "ð", "Ł", "ĺ", "Ģ", "</s>"]);
    assert_eq!(
        pieces(&tokenizer, &[0, 1, 2, 3, 4, 0, 1]),
        ["a", "", "", "", "😀", "a", "", "\u{fffd}"]
    );
}

#[test]
fn a_decoder_that_writes_no_text_is_refused_when_text_is_wanted() {
    let decoder = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    let (_, tokenizer) = tokenizer(&decoder, &["a", "</s>"]);
    let e = tokenizer.detokenizer().unwrap_err();
    assert_eq!(e.to_string(), "tokenizer.json: a decoder that cannot write text: WordPiece");
}
