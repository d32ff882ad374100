//! Tables of vectors are embedding models in all forms.

use std::fs;

use mlxk_core::{Inspected, Task};
use mlxk_engine::EmbedOptions;
use serde_json::json;
use tempfile::TempDir;

use crate::cases::{case, compare, cut, embed, inspected, load, of_ids, texts, write};
use crate::model::{Draft, Tensor};

#[test]
fn a_table_of_vectors_is_a_model_in_the_form_of_sentence_transformers_too() {
    let (from, dir) = (case("static"), TempDir::new().unwrap());
    let folder = dir.path().join("0_StaticEmbedding");
    fs::create_dir(&folder).unwrap();
    fs::copy(from.join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    let table = Draft::at(&from).tensors.remove("embeddings").unwrap();
    let tensors = [("embedding.weight".to_owned(), table)].into();
    let weights = Draft { config: serde_json::Map::new(), tensors }.write();
    fs::copy(weights.path().join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    let module = json!([{"path": "0_StaticEmbedding",
        "type": "sentence_transformers.models.StaticEmbedding"}]);
    write(dir.path(), "modules.json", &module);
    let Inspected { health, plan, .. } = inspected(dir.path());
    assert!(health.healthy, "{}", health.reason);
    assert_eq!((plan.task, plan.runnable), (Task::Embedding, Ok(())));
    let text = texts(&json!(["the cat sat", ""]));
    let plain = EmbedOptions { normalize: Some(false), ..cut() };
    for on_cpu in [true, false] {
        let got = embed(&load(dir.path(), on_cpu).unwrap(), &text, &cut());
        let want = embed(&load(&from, on_cpu).unwrap(), &text, &plain);
        assert!(compare(&got[0], &want[0]).0 < 1e-6);
        assert_eq!(got[1], vec![0.0; 32]);
    }
}

#[test]
fn a_table_of_bytes_with_weights_and_a_mapping_is_read() {
    use mlxk_core::tensors::Dtype;
    let dir = TempDir::new().unwrap();
    let mut draft = Draft::at(&case("static"));
    // Two rows; token 7 has the second, twice as heavy, and all others the first.
    draft.tensors = [
        ("embeddings", Dtype::I8, vec![2, 32], [1u8, 255].map(|byte| vec![byte; 32]).concat()),
        ("mapping", Dtype::I64, vec![360], places()),
        ("weights", Dtype::F64, vec![360], heavy()),
    ]
    .into_iter()
    .map(|(name, dtype, shape, bytes)| (name.to_owned(), Tensor { dtype, shape, bytes }))
    .collect();
    draft.config.insert("normalize".into(), false.into());
    // Some models of model2vec state no type.
    draft.config.remove("model_type");
    draft.config.remove("architectures");
    draft.write_in(dir.path());
    for on_cpu in [true, false] {
        let embedder = load(dir.path(), on_cpu).unwrap();
        let got = of_ids(&embedder, &[vec![3, 7], vec![7], vec![]], true);
        assert_eq!(got, [vec![-0.5; 32], vec![-2.0; 32], vec![0.0; 32]]);
    }
    fn places() -> Vec<u8> {
        (0..360i64).flat_map(|id| i64::from(id == 7).to_le_bytes()).collect()
    }
    fn heavy() -> Vec<u8> {
        (0..360).flat_map(|id| if id == 7 { 2f64 } else { 1.0 }.to_le_bytes()).collect()
    }
}
