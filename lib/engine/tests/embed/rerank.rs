//! Scores of pairs are those of the reference's cross encoders and rerankers.

use std::fs;
use std::path::Path;

use mlxk_core::{Inspected, Task};
use mlxk_engine::Reranker;
use mlxk_processor::Pair;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cases::{cases, expected, inspected, texts};
use crate::model::{self, Draft, Tensor};
use crate::quantized::quantized;

#[test]
fn scores_of_pairs_are_those_of_the_reference() {
    let near = |got: &[f32], want: &Value, what: &str| {
        let want: Vec<f32> = serde_json::from_value(want.clone()).unwrap();
        assert_eq!(got.len(), want.len());
        let apart = got.iter().zip(&want).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(apart < 1e-4, "{what}: {apart} apart, {got:?} for {want:?}");
    };
    let scored = |reranker: &Reranker, pairs: &[Pair]| -> Vec<f32> {
        reranker.scores(pairs).into_iter().map(Result::unwrap).collect()
    };
    for path in cases(Task::Rerank, false) {
        let expected = expected(&path);
        let [queries, documents] = ["queries", "documents"].map(|key| texts(&expected[key]));
        for on_cpu in [true, false] {
            let Inspected { facts, plan, .. } = inspected(&path);
            let reranker = Reranker::load_for(&facts, &plan, on_cpu).unwrap();
            let pairs = queries.iter().flat_map(|query| documents.iter().map(move |d| (query, d)));
            let pairs = pairs.map(|(query, d)| reranker.pair(query, d, true).unwrap());
            let pairs: Vec<Pair> = pairs.collect();
            for (place, pair) in pairs.iter().enumerate() {
                // The ids of an empty document are not those that its score was made of.
                if !documents[place % documents.len()].is_empty() {
                    assert_eq!(json!(pair.ids), expected["ids"][place]);
                    assert_eq!(json!(pair.types), expected["token_type_ids"][place]);
                }
            }
            near(&scored(&reranker, &pairs), &expected["scores"], "bert");
            near(&scored(&reranker, &pairs[..1]), &json!([expected["scores"][0]]), "alone");
        }
    }
    let cases = cases(Task::Rerank, true);
    assert!(cases.len() >= 5);
    for path in cases {
        let (dir, expected) = (Draft::at(&path).write(), expected(&path));
        let [ids, types] = ["ids", "types"]
            .map(|key| serde_json::from_value::<Vec<Vec<u32>>>(expected[key].clone()).unwrap());
        let pairs = ids.into_iter().zip(types);
        let pairs = pairs.map(|(ids, types)| Pair { ids, types, truncated: false });
        let pairs: Vec<Pair> = pairs.collect();
        for on_cpu in [true, false] {
            let Inspected { facts, plan, .. } = inspected(dir.path());
            let reranker = Reranker::load_for(&facts, &plan, on_cpu).unwrap();
            assert!(reranker.sigmoid());
            let logits: Vec<f32> =
                reranker.logits(&pairs).into_iter().map(Result::unwrap).collect();
            near(&logits, &expected["logits"], &path.display().to_string());
            let alone = pairs.iter().flat_map(|pair| reranker.logits(std::slice::from_ref(pair)));
            let alone: Vec<f32> = alone.map(Result::unwrap).collect();
            near(&alone, &expected["logits"], "alone");
        }
    }
}

#[test]
fn a_language_model_judges_by_the_logits_of_its_answers() {
    let root = TempDir::new().unwrap();
    let dir = root.path().join("tiny-reranker");
    fs::create_dir(&dir).unwrap();
    Draft::of("qwen3").with("architectures", json!(["Qwen3ForCausalLM"])).write_in(&dir);
    let tokenizer = fs::read_to_string(dir.join("tokenizer.json")).unwrap();
    let answers = tokenizer.replace("\"w5\":", "\"yes\":").replace("\"w6\":", "\"no\":");
    let Inspected { facts, plan, .. } = inspected(&dir);
    assert_eq!(plan.task, Task::Rerank);
    let refused = Reranker::load_for(&facts, &plan, true).err().unwrap();
    assert_eq!(refused.message, "it has no tokens for yes and no");
    fs::write(dir.join("tokenizer.json"), answers).unwrap();
    let Inspected { facts, plan, .. } = inspected(&dir);
    let ids: [&[u32]; 3] = [&[1, 9, 30], &[7, 2, 3, 4, 100, 200], &[8]];
    let pair =
        |ids: &[u32]| Pair { types: vec![0; ids.len()], ids: ids.to_vec(), truncated: false };
    let pairs = ids.map(pair);
    for on_cpu in [true, false] {
        let reranker = Reranker::load_for(&facts, &plan, on_cpu).unwrap();
        let mut model = model::load_for(&dir, on_cpu).unwrap();
        for (ids, got) in ids.iter().zip(reranker.scores(&pairs)) {
            let logits = model.logits(ids).unwrap();
            let want = logits[5].exp() / (logits[5].exp() + logits[6].exp());
            assert!((got.unwrap() - want).abs() < 1e-5);
        }
    }
}

#[test]
fn a_head_in_place_of_the_answers_scores_the_same() {
    let root = TempDir::new().unwrap();
    let [judge, scorer] = ["qwen3-reranker", "qwen3-reranker-seq-cls"].map(|name| {
        let dir = root.path().join(name);
        fs::create_dir(&dir).unwrap();
        dir
    });
    let draft = Draft::of("qwen3").with("architectures", json!(["Qwen3ForCausalLM"]));
    draft.write_in(&judge);
    let tokenizer = fs::read_to_string(judge.join("tokenizer.json")).unwrap();
    let answers = tokenizer.replace("\"w5\":", "\"yes\":").replace("\"w6\":", "\"no\":");
    // The head is the row of one answer less that of the other, as the model is converted.
    let rows =
        draft.tensors.get("lm_head.weight").unwrap_or(&draft.tensors["model.embed_tokens.weight"]);
    let (size, rows) = (rows.shape[1], rows.elements());
    let head: Vec<f32> = (0..size).map(|i| rows[5 * size + i] - rows[6 * size + i]).collect();
    let mut scored = draft
        .clone()
        .with("architectures", json!(["Qwen3ForSequenceClassification"]))
        .with("id2label", json!({"0": "LABEL_0"}));
    scored.tensors.remove("lm_head.weight");
    scored.tensors.insert("score.weight".to_owned(), Tensor::of(&[1, size], head));
    scored.write_in(&scorer);
    for dir in [&judge, &scorer] {
        fs::write(dir.join("tokenizer.json"), &answers).unwrap();
    }
    let packed = quantized(&scorer, root.path());
    for on_cpu in [true, false] {
        let load = |dir: &Path| {
            let Inspected { facts, plan, .. } = inspected(dir);
            assert_eq!((plan.task, &plan.runnable), (Task::Rerank, &Ok(())));
            Reranker::load_for(&facts, &plan, on_cpu).unwrap()
        };
        let [judge, scorer, packed] = [&judge, &scorer, &packed].map(|dir| load(dir));
        let pairs = ["w1 w2", "w9"].map(|text| judge.pair("w3", text, false).unwrap());
        let again = scorer.pair("w3", "w1 w2", false).unwrap();
        assert_eq!(again.ids, pairs[0].ids);
        let scores = [&judge, &scorer, &packed].map(|model| {
            model.scores(&pairs).into_iter().map(Result::unwrap).collect::<Vec<f32>>()
        });
        for (place, want) in scores[0].iter().enumerate() {
            assert!((scores[1][place] - want).abs() < 1e-5, "{scores:?}");
            assert!((scores[2][place] - want).abs() < 0.05, "{scores:?}");
        }
    }
}
