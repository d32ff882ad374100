//! Embeddings of every family are those of sentence-transformers, alone and in batches.

use std::fs;

use mlxk_core::Task;
use mlxk_engine::EmbedOptions;
use mlxk_processor::engine::EmbedPrompt;
use serde_json::json;

use crate::cases::{
    case, cases, compare, copy, cut, embed, expected, load, near, of_ids, texts, vectors,
};
use crate::model::{Draft, Tensor};

#[test]
fn the_states_of_every_family_are_those_of_the_reference() {
    let cases = cases(Task::Embedding, true);
    assert!(cases.len() >= 8);
    for path in cases {
        let (dir, expected) = (Draft::at(&path).write(), expected(&path));
        let ids: Vec<Vec<u32>> = serde_json::from_value(expected["ids"].clone()).unwrap();
        let want = vectors(&expected["embeddings"]);
        for (on_cpu, together) in [(true, true), (true, false), (false, true), (false, false)] {
            let got = of_ids(&load(dir.path(), on_cpu).unwrap(), &ids, together);
            for (place, (got, want)) in got.iter().zip(&want).enumerate() {
                let (apart, _) = compare(got, want);
                let name = path.display();
                assert!(apart < 1e-4, "{name}, {place}, {on_cpu} {together}: {apart} apart");
            }
        }
    }
}

#[test]
fn vectors_are_those_of_the_reference() {
    let cases = cases(Task::Embedding, false);
    assert!(cases.len() >= 8);
    for path in cases {
        let name = path.display().to_string();
        let expected = expected(&path);
        let tolerance = &expected["tolerance"];
        for on_cpu in [true, false] {
            let embedder = load(&path, on_cpu).unwrap();
            if let Some(most) = expected["max_seq_length"].as_u64() {
                assert_eq!(embedder.max_length() as u64, most, "{path:?}");
            }
            let (options, texts) = (cut(), texts(&expected["texts"]));
            let ids: Vec<Vec<u32>> = serde_json::from_value(expected["ids"].clone()).unwrap();
            let inputs = texts.iter().map(|text| embedder.input(text, &options).unwrap());
            assert!(inputs.map(|input| input.ids).eq(ids), "{path:?}");
            let got = embed(&embedder, &texts, &options);
            near(&name, &got, &vectors(&expected["embeddings"]), tolerance);
            for prompt in expected["prompts"].as_array().into_iter().flatten() {
                let called = prompt["prompt_name"].as_str().unwrap();
                let named = EmbedPrompt::Named(called.to_owned());
                let prompted = embedder.prompt(&named, "").unwrap().to_owned();
                assert_eq!(prompted, prompt["prompt"]);
                let options = EmbedOptions { prompt: prompted, ..cut() };
                let got = embed(&embedder, &crate::cases::texts(&prompt["texts"]), &options);
                near(&name, &got, &vectors(&prompt["embeddings"]), tolerance);
            }
            if let Some(dimensions) = expected["truncated"]["dimensions"].as_u64() {
                let options = EmbedOptions { dimensions: Some(dimensions as usize), ..cut() };
                let got = embed(&embedder, &texts, &options);
                near(&name, &got, &vectors(&expected["truncated"]["embeddings"]), tolerance);
            }
        }
    }
}

#[test]
fn a_batch_is_what_its_texts_are_alone() {
    for (name, on_cpu) in [("bert-mean", true), ("bert-mean", false), ("bert-cls", true)] {
        let embedder = load(&case(name), on_cpu).unwrap();
        let some = texts(&expected(&case(name))["texts"]);
        // More than a batch of tokens.
        let many: Vec<String> = (0..40).flat_map(|_| some.clone()).collect();
        let together = embed(&embedder, &many, &cut());
        for (text, got) in many.iter().zip(&together).take(some.len()) {
            let alone = embed(&embedder, std::slice::from_ref(text), &cut());
            assert!(compare(got, &alone[0]).0 < 3e-6, "{name}: {text:?}");
        }
        for (again, first) in together.iter().zip(together.iter().take(some.len()).cycle()) {
            assert!(compare(again, first).0 < 3e-6, "{name}");
        }
    }
}

#[test]
fn other_names_of_the_same_tensors_are_known() {
    let dir = copy("bert-cls");
    let text = texts(&json!(["the cat sat"]));
    let want = embed(&load(dir.path(), true).unwrap(), &text, &cut());
    let mut draft = Draft::at(&case("bert-cls"));
    let older =
        |name: String| name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta");
    let named = draft.tensors.into_iter().map(|(name, t)| (format!("bert.{}", older(name)), t));
    draft.tensors = named.collect();
    draft.tensors.insert("cls.predictions.bias".to_owned(), Tensor::of(&[320], [0.0; 320]));
    draft.write_in(dir.path());
    fs::copy(case("bert-cls").join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    assert_eq!(embed(&load(dir.path(), true).unwrap(), &text, &cut()), want);
    draft.tensors.insert("adapter.weight".to_owned(), Tensor::of(&[1, 32], [0.0; 32]));
    draft.write_in(dir.path());
    fs::copy(case("bert-cls").join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let refused = load(dir.path(), true).err().unwrap();
    assert_eq!(refused.subject, "adapter.weight");
}
