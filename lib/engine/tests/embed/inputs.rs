//! Texts become the inputs that the model takes: lengths, tokens and prompts.

use mlxk_core::{Inspected, Kind};
use mlxk_engine::EmbedOptions;
use mlxk_processor::engine::EmbedPrompt;
use serde_json::json;

use crate::cases::{case, compare, copy, cut, embed, inspected, load, texts, write};

#[test]
fn a_text_that_is_too_long_is_refused_or_cut() {
    let embedder = load(&case("bert-mean"), true).unwrap();
    let long = "the cat ".repeat(100_000);
    let refused = embedder.input(&long, &EmbedOptions::default()).unwrap_err();
    assert_eq!(refused.kind, Kind::ContextLengthExceeded);
    assert_eq!(refused.message, "the text has more than the 48 tokens of the model");
    let input = embedder.input(&long, &cut()).unwrap();
    assert_eq!((input.ids.len(), input.ids[0], input.ids[47], input.truncated), (48, 2, 3, true));
    assert!(!embedder.input("the cat", &cut()).unwrap().truncated);
    // A single word is one token, however long.
    let word = embedder.input(&"x".repeat(100_000), &EmbedOptions::default()).unwrap();
    assert_eq!(word.ids, [2, 1, 3]);
}

#[test]
fn tokens_are_taken_as_they_are() {
    let embedder = load(&case("bert-cls"), true).unwrap();
    let options = EmbedOptions::default();
    let text = embedder.input("the cat", &options).unwrap();
    let given = embedder.given(text.ids.clone(), &options).unwrap();
    let [a, b] = [text, given].map(|input| embedder.embed(&[input], &options));
    assert_eq!(a[0].as_ref().unwrap(), b[0].as_ref().unwrap());
    for (ids, message) in [
        (vec![320], "token 320 is not among the 320 that the model knows"),
        (vec![], "a text without tokens"),
        (vec![5; 65], "the text has more than the 64 tokens of the model"),
    ] {
        assert_eq!(embedder.given(ids, &options).unwrap_err().message, message);
    }
}

#[test]
fn what_the_model_does_not_have_is_refused() {
    let embedder = load(&case("bert-cls"), true).unwrap();
    let refused = embedder.prompt(&EmbedPrompt::Named("question".to_owned()), "").unwrap_err();
    assert_eq!(refused.hint.unwrap(), "its prompts are passage, query");
    for dimensions in [0, 33] {
        let options = EmbedOptions { dimensions: Some(dimensions), ..cut() };
        let message = format!("`dimensions` is {dimensions}, and the model's vectors have 32");
        assert_eq!(embedder.check(&options).unwrap_err().message, message);
    }
    let Inspected { facts, plan, .. } = inspected(&case("bert-cls"));
    let refused = mlxk_engine::load(&facts, &plan).err().unwrap();
    assert_eq!(refused.message, "an encoder, which writes no text");
}

#[test]
fn a_prompt_that_does_not_count_is_seen_but_not_pooled() {
    let dir = copy("bert-mean");
    let options = EmbedOptions { prompt: "the cat ".to_owned(), ..cut() };
    let text = texts(&json!(["sat on the mat"]));
    let counted = embed(&load(dir.path(), true).unwrap(), &text, &options);
    let pooling = json!({"pooling_mode_lasttoken": true, "include_prompt": false});
    write(dir.path(), "1_Pooling/config.json", &pooling);
    let last = embed(&load(dir.path(), true).unwrap(), &text, &options);
    let pooling = json!({"pooling_mode_mean_tokens": true, "include_prompt": false});
    write(dir.path(), "1_Pooling/config.json", &pooling);
    let left_out = embed(&load(dir.path(), true).unwrap(), &text, &options);
    assert!(compare(&left_out[0], &counted[0]).0 > 1e-3);
    assert!(compare(&left_out[0], &last[0]).0 > 1e-3);
    let alone = embed(&load(dir.path(), true).unwrap(), &text, &cut());
    assert!(compare(&left_out[0], &alone[0]).0 > 1e-3);
}

#[test]
fn a_side_of_a_search_has_the_prompt_of_the_model_or_of_its_family() {
    use EmbedPrompt::{Document, Query};
    let qwen = load(&case("qwen3-embedding"), true).unwrap();
    assert!(qwen.prompt(&Query, "x").unwrap().starts_with("Instruct: Given a web search query"));
    assert_eq!(qwen.prompt(&Document, "intfloat/e5-base-v2").unwrap(), "");
    let e5 = load(&case("xlm-roberta"), true).unwrap();
    assert_eq!(
        [Query, Document].map(|side| e5.prompt(&side, "x").unwrap().to_owned()),
        ["query: ", "passage: "]
    );
    let none = load(&case("bert-mean"), true).unwrap();
    let sides =
        |name: &str| [Query, Document].map(|side| none.prompt(&side, name).unwrap().to_owned());
    assert_eq!(sides("intfloat/e5-base-v2"), ["query: ", "passage: "]);
    assert_eq!(sides("BAAI/bge-m3"), ["", ""]);
    assert!(sides("mlx-community/bge-small-en-v1.5-4bit/")[0].starts_with("Represent this"));
    assert_eq!(sides("sentence-transformers/all-MiniLM-L6-v2"), ["", ""]);
}
