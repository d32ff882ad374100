//! What listings say of a model is what the model does, and what is missing is said before it is loaded.

use std::fs;

use mlxk_core::{Inspected, Task};
use mlxk_engine::Reranker;
use serde_json::{Value, json};

use crate::cases::{case, cases, copy, inspected, load, write};
use crate::model::Draft;

#[test]
fn sizes_and_lengths_in_listings_are_those_of_the_model() {
    for drawn in [false, true] {
        for path in cases(Task::Embedding, drawn) {
            let dir = drawn.then(|| Draft::at(&path).write());
            let path = dir.as_ref().map_or(path.as_path(), |dir| dir.path());
            let encoder = inspected(path).plan.encoder.unwrap();
            let embedder = load(path, true).unwrap();
            assert_eq!(encoder.dimensions, Some(embedder.dimensions()), "{path:?}");
            let longest = encoder.max_length.map_or(usize::MAX, |length| length as usize);
            assert_eq!(longest, embedder.max_length(), "{path:?}");
        }
        for path in cases(Task::Rerank, drawn) {
            let dir = drawn.then(|| Draft::at(&path).write());
            let path = dir.as_ref().map_or(path.as_path(), |dir| dir.path());
            let Inspected { facts, plan, .. } = inspected(path);
            let reranker = Reranker::load_for(&facts, &plan, true).unwrap();
            let longest = plan.encoder.unwrap().max_length.unwrap();
            assert_eq!(longest as usize, reranker.max_length(), "{path:?}");
        }
    }
}

#[test]
fn what_is_missing_or_cannot_run_is_said_before_a_weight_is_read() {
    let transformer = json!({"path": "", "type": "sentence_transformers.models.Transformer"});
    let with = |others: &[(&str, &str)]| {
        let entry = |(path, kind): &(&str, &str)| json!({"path": path, "type": kind});
        Value::from_iter([transformer.clone()].into_iter().chain(others.iter().map(entry)))
    };
    let pooling = ("1_Pooling", "sentence_transformers.models.Pooling");
    let dense = ("2_Dense", "sentence_transformers.models.Dense");
    let prompts = "config_sentence_transformers.json";
    let sizes = json!({"in_features": 32, "out_features": 4, "activation_function": "a.Softsign"});
    let unhealthy: [(&str, Value, &str); 7] = [
        (
            "1_Pooling/config.json",
            json!({"pooling_mode": "median"}),
            "no way to pool is called `median`",
        ),
        (
            "1_Pooling/config.json",
            json!({"pooling_mode_median_tokens": true}),
            "no way to pool is called `pooling_mode_median_tokens`",
        ),
        ("modules.json", with(&[pooling, dense]), "2_Dense/model.safetensors: the file is missing"),
        ("modules.json", with(&[]), "expected one Pooling, after the Transformer"),
        ("modules.json", json!({}), "modules.json: invalid type"),
        (prompts, json!({"default_prompt_name": "absent"}), "no prompt is called so"),
        (prompts, json!({"similarity_fn_name": "hamming"}), "no similarity is called `hamming`"),
    ];
    let unsupported = [
        (
            "modules.json",
            with(&[("1", "sentence_transformers.sparse_encoder.models.SpladePooling")]),
            "Sparse embeddings (SPLADE) not supported",
        ),
        (
            "modules.json",
            with(&[("1_Dense", "pylate.models.Dense.Dense")]),
            "Late interaction (ColBERT) not supported",
        ),
        (
            prompts,
            json!({"similarity_fn_name": "MaxSim"}),
            "Late interaction (ColBERT) not supported",
        ),
        (
            "modules.json",
            with(&[pooling, ("2", "sentence_transformers.models.LSTM")]),
            "not supported (modules.json: sentence_transformers.models.LSTM)",
        ),
    ];
    let healths = unhealthy.iter().map(|case| (case, false));
    for ((file, value, reason), healthy) in
        healths.chain(unsupported.iter().map(|case| (case, true)))
    {
        let dir = copy("bert-mean");
        fs::create_dir(dir.path().join("2_Dense")).unwrap();
        write(dir.path(), "2_Dense/config.json", &sizes);
        write(dir.path(), file, value);
        let Inspected { health, plan, .. } = inspected(dir.path());
        assert_eq!(health.healthy, healthy, "{reason}: {}", health.reason);
        let said = plan.runnable.clone().unwrap_err();
        assert!(said.contains(reason), "{said}");
        assert_eq!(load(dir.path(), true).err().unwrap().message, said);
    }
}

#[test]
fn weights_of_a_module_that_do_not_fit_are_a_defect() {
    let folder = case("gemma3-embedding");
    assert!(inspected(&folder).health.healthy);
    let dir = tempfile::TempDir::new().unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let target = dir.path().join(path.file_name().unwrap());
        match path.is_dir() {
            false => drop(fs::copy(&path, target).unwrap()),
            true => {
                fs::create_dir(&target).unwrap();
                for entry in fs::read_dir(&path).unwrap() {
                    let path = entry.unwrap().path();
                    fs::copy(&path, target.join(path.file_name().unwrap())).unwrap();
                }
            }
        }
    }
    let config: Value =
        serde_json::from_slice(&fs::read(dir.path().join("2_Dense/config.json")).unwrap()).unwrap();
    for (key, reason) in [
        ("in_features", "2_Dense: takes "),
        ("out_features", "2_Dense/model.safetensors: linear.weight is "),
    ] {
        let mut changed = config.clone();
        changed[key] = json!(changed[key].as_u64().unwrap() + 1);
        write(dir.path(), "2_Dense/config.json", &changed);
        let health = inspected(dir.path()).health;
        assert!(!health.healthy && health.reason.starts_with(reason), "{}", health.reason);
    }
    write(dir.path(), "2_Dense/config.json", &config);
    fs::write(dir.path().join("3_Dense/model.safetensors"), "x").unwrap();
    let health = inspected(dir.path()).health;
    assert!(health.reason.starts_with("3_Dense/model.safetensors: "), "{}", health.reason);
}
