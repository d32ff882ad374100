//! Listings tell what embedding models and rerankers make of texts, and each program names the one that
//! uses a model that it cannot.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::embed::copy;
use crate::env::Env;
use crate::schema::validate;

/// A home with an embedding model, a reranker, and a model that writes text.
fn home() -> Env {
    let env = Env::new();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for (name, case) in [
        ("gemma", "embed/gemma3-embedding"),
        ("rank", "embed/bert-rerank"),
        ("tiny", "parity/llama"),
    ] {
        copy(&data.join(case), &env.workspaces().join(name));
    }
    env
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The fields of an embedding model.
fn fields() -> Value {
    json!({
        "dimensions": 32, "pooling": ["mean"], "normalized": true, "max_length": 128,
        "similarity": "cosine", "prompts": ["Clustering", "STS", "document", "query"],
        "default_prompt": null,
    })
}

#[track_caller]
fn has(record: &Value, fields: &Value) {
    for (key, value) in fields.as_object().unwrap() {
        assert_eq!(&record[key], value, "{key}");
    }
}

#[test]
fn listings_say_what_an_embedding_model_makes_of_texts() {
    let env = home();
    let named = |records: Vec<Value>, name: &str| {
        let mut records = records.into_iter();
        records.find(|record| record["name"].as_str().unwrap().ends_with(name)).unwrap()
    };
    for program in ["mlxk-ls", "mlxk-health"] {
        let records = || env.run(program).records();
        has(&named(records(), "gemma"), &fields());
        has(&named(records(), "rank"), &json!({"max_length": 64, "dimensions": null}));
        assert!(named(records(), "tiny").get("max_length").is_none());
    }
    has(&env.run("mlxk-show").args(["gemma"]).records()[0], &fields());
    let shown = env.run("mlxk-show").args(["gemma"]).envelope(0);
    validate(&shown);
    has(&shown["data"]["model"], &fields());
    let listed = env.run("mlxk-ls").envelope(0);
    validate(&listed);
    let text = env.run("mlxk-show").args(["gemma", "--human"]).ok();
    let lines = "Dimensions: 32\nPooling: mean, normalized\nSimilarity: cosine\n\
                 Maximum length: 128 tokens\nPrompts: Clustering, STS, document, query\n";
    assert!(text.contains(lines), "{text}");
    let text = env.run("mlxk-show").args(["rank", "--human"]).ok();
    assert!(text.contains("Maximum length: 64 tokens\n") && !text.contains("Pooling"), "{text}");
    let text = env.run("mlxk-ls").args(["--human", "-v"]).ok();
    let cell = "| 32 mean cosine, 128 tokens, prompts Clustering STS document query";
    assert!(text.contains(cell), "{text}");
    let text = env.run("mlxk-health").args(["--human"]).ok();
    let line = "gemma — Model is healthy (embedding: 32 dimensions, mean pooling, cosine, 128 tokens, \
                prompts Clustering, STS, document, query)\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn what_is_missing_is_said_alike_by_listings_and_by_a_run() {
    let env = home();
    let model = env.workspaces().join("gemma");
    fs::remove_file(model.join("3_Dense/model.safetensors")).unwrap();
    let reason = "3_Dense/model.safetensors: the file is missing";
    let checked = env.run("mlxk-health").args(["gemma"]).end();
    assert_eq!(checked.status(), 1);
    let record: Value = serde_json::from_str(&checked.stdout()).unwrap();
    has(&record, &json!({"health": "unhealthy", "reason": reason, "dimensions": 32}));
    let said = env.run("mlxk-embed").args(["gemma"]).stdin("a\n").end();
    assert!(said.status() == 1 && said.stderr().contains(reason), "{said:?}");
    fs::write(model.join("1_Pooling/config.json"), r#"{"pooling_mode": "median"}"#).unwrap();
    let reason = "1_Pooling/config.json: no way to pool is called `median`";
    let record = &env.run("mlxk-ls").args(["gemma", "--all"]).records()[0];
    has(record, &json!({"health": "unhealthy", "reason": reason}));
    let said = env.run("mlxk-embed").args(["gemma"]).stdin("a\n").end().stderr();
    assert!(said.contains(reason), "{said}");
}

#[test]
fn a_model_for_something_else_is_refused_with_the_program_that_uses_it() {
    let env = home();
    for (program, args, refusal, hint) in [
        (
            "mlxk-run",
            &["gemma", "Hello"][..],
            "an embedding model",
            "mlxk-embed turns text into vectors",
        ),
        ("mlxk-run", &["rank", "Hello"], "a reranker", "mlxk-embed --rerank ranks texts"),
        (
            "mlxk-embed",
            &["tiny"],
            "not an embedding model",
            "mlxk-run lets it write text; with --pooling last or mean it embeds",
        ),
        ("mlxk-embed", &["rank"], "not an embedding model", "mlxk-embed --rerank ranks texts"),
        (
            "mlxk-embed",
            &["rank", "--pooling", "mean"],
            "not an embedding model",
            "mlxk-embed --rerank",
        ),
        ("mlxk-embed", &["tiny", "--rerank", "q"], "not a reranker", "mlxk-run lets it write text"),
        (
            "mlxk-embed",
            &["gemma", "--rerank", "q"],
            "not a reranker",
            "mlxk-embed turns text into vectors",
        ),
    ] {
        let ended = env.run(program).args(args).stdin("a\n").end();
        let said = ended.stderr();
        assert_eq!((ended.status(), said.lines().count()), (1, 2), "{said}");
        assert!(said.contains(refusal) && said.contains(&format!("hint: {hint}")), "{said}");
    }
}

#[test]
fn a_model_that_writes_text_embeds_if_it_is_said_how() {
    let env = home();
    let embed = |way: &str| {
        let run = env.run("mlxk-embed").args(["tiny", "--pooling", way]);
        run.stdin("{\"input\":[3,4,5]}\n{\"input\":[5]}\n").records()
    };
    let [last, mean, max, other] = ["last", "mean", "max", "lasttoken"].map(embed);
    let near = |a: &Value, b: &Value| {
        let pairs = numbers(&a["embedding"]).into_iter().zip(numbers(&b["embedding"]));
        pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4)
    };
    assert!(near(&last[0], &other[0]));
    // A single token is its own mean.
    assert!(near(&last[1], &mean[1]));
    assert!(!near(&last[0], &mean[0]) && !near(&max[0], &mean[0]));
    let said = env.run("mlxk-embed").args(["tiny", "--pooling", "median"]).end();
    assert!(
        said.status() == 2 && said.stderr().contains("the ways are last, cls, max"),
        "{said:?}"
    );
    let pooled = env.run("mlxk-embed").args(["gemma", "--pooling", "cls"]).stdin("a\n").records();
    let own = env.run("mlxk-embed").args(["gemma"]).stdin("a\n").records();
    assert_ne!(pooled[0]["embedding"], own[0]["embedding"]);
}

#[test]
fn scripts_of_mlx_knife_embed_as_before() {
    let env = home();
    let mlxk = |args: &[&str], input: &str| env.run("mlxk").args(args).stdin(input.to_owned());
    let one = |record: &Value, text: &str| {
        assert_eq!(record["text"], text);
        let (metadata, vector) = (&record["metadata"], numbers(&record["embedding"]));
        assert_eq!((&metadata["dimensions"], vector.len()), (&json!(32), 32));
        assert!(metadata["model"].is_string() && metadata["device"] == "cpu", "{metadata}");
    };
    one(&mlxk(&["embed", "gemma", "the cat\nsat"], "").records()[0], "the cat\nsat");
    one(&mlxk(&["embed", "gemma", "-"], "the cat\nsat\n\n").records()[0], "the cat\nsat");
    let batch =
        mlxk(&["embed", "gemma", "--batch"], "{\"id\":1,\"text\":\"a\"}\n\n{\"text\":\"b\"}\n");
    let batch = batch.records();
    one(&batch[0], "a");
    assert_eq!((batch.len(), &batch[0]["id"]), (2, &json!(1)));
    let task = mlxk(&["embed", "gemma", "--instruct", "Find it", "--cpu", "a"], "").records();
    let prompt = ["gemma", "--prompt-text", "Instruct: Find it\nQuery:"];
    let asked = env.run("mlxk-embed").args(prompt).stdin("a\n").records();
    assert_eq!(task[0]["embedding"], asked[0]["embedding"]);
    let ended = mlxk(&["embed", "tiny", "a"], "").envelope(1);
    assert_eq!(ended["error"]["type"], "NotAnEmbedder");
}
