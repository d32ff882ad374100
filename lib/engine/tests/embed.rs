//! Embeddings are those of sentence-transformers, and scores of pairs those of its cross encoders, on
//! tiny models of each form, alone and in batches.
//!
//! A case is a folder of `tests/data/embed`; `EMBED=DIR` names a folder of further ones. Cases whose
//! names end in `-drawn` have token ids in place of texts, and weights that are drawn.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::fs;
use std::path::{Path, PathBuf};

use mlxk_core::Places;
use mlxk_core::quantization::Mode;
use mlxk_core::{Found, Inspected, Kind, Origin, Task, inspect};
use mlxk_engine::{EmbedOptions, Embedder, Input, Reranker, Side};
use mlxk_models::convert::{Change, Quantize, Recipe, convert};
use mlxk_processor::Pair;
use model::{Draft, Tensor};
use serde_json::{Value, json};
use tempfile::TempDir;

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/embed").join(name)
}

fn inspected(path: &Path) -> Inspected {
    let name = path.display().to_string();
    let (path, origin) = (path.to_owned(), Origin::Workspace);
    inspect(&Found { name, path, revision: None, origin }).unwrap()
}

fn load(path: &Path, on_cpu: bool) -> mlxk_core::Result<Embedder> {
    let Inspected { facts, plan, .. } = inspected(path);
    Embedder::load_for(&facts, &plan, on_cpu, None)
}

/// A copy of a case, to change.
fn copy(name: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    ] {
        fs::copy(case(name).join(file), dir.path().join(file)).unwrap();
    }
    dir
}

fn write(dir: &Path, file: &str, value: &Value) {
    fs::write(dir.join(file), value.to_string()).unwrap();
}

fn expected(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path.join("expected.json")).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

fn vectors(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).unwrap()
}

fn cut() -> EmbedOptions {
    EmbedOptions { truncate: true, ..EmbedOptions::default() }
}

/// Vectors of texts that share batches.
fn embed(embedder: &Embedder, texts: &[String], options: &EmbedOptions) -> Vec<Vec<f32>> {
    let inputs: Vec<_> = texts.iter().map(|text| embedder.input(text, options).unwrap()).collect();
    embedder.embed(&inputs, options).into_iter().map(Result::unwrap).collect()
}

/// Largest difference of two vectors relative to the largest element of `want`, and their cosine.
fn compare(got: &[f32], want: &[f32]) -> (f32, f32) {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0f32, |most, x| most.max(x.abs()));
    let apart = got.iter().zip(want).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    (apart / largest, dot(got, want) / (dot(got, got) * dot(want, want)).sqrt())
}

#[track_caller]
fn near(name: &str, got: &[Vec<f32>], want: &[Vec<f32>], tolerance: &Value) {
    assert_eq!(got.len(), want.len());
    for (place, (got, want)) in got.iter().zip(want).enumerate() {
        if want.iter().all(|&x| x == 0.0) {
            assert_eq!(got, want);
            continue;
        }
        let (apart, cosine) = compare(got, want);
        let allowed = tolerance["max_abs"].as_f64().unwrap() as f32;
        assert!(apart <= allowed && cosine >= 0.99999, "{name}, {place}: {apart} apart, {cosine}");
    }
}

/// The cases with models of this task, whose weights are drawn or stored.
fn cases(task: Task, drawn: bool) -> Vec<PathBuf> {
    let more = std::env::var_os("EMBED").map(PathBuf::from);
    let folders = [Some(case("")), more].into_iter().flatten();
    let entries = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let fits = |path: &PathBuf| {
        path.is_dir()
            && path.to_string_lossy().ends_with("-drawn") == drawn
            && inspected(path).plan.task == task
    };
    paths.filter(fits).collect()
}

/// Vectors of sequences of token ids, which share batches or are alone.
fn of_ids(embedder: &Embedder, ids: &[Vec<u32>], together: bool) -> Vec<Vec<f32>> {
    let given = |ids: &Vec<u32>| embedder.given(ids.clone(), &cut()).unwrap();
    let inputs: Vec<Input> = ids.iter().map(given).collect();
    let batches = inputs.chunks(if together { ids.len() } else { 1 });
    let vectors = batches.flat_map(|batch| embedder.embed(batch, &cut()));
    vectors.map(Result::unwrap).collect()
}

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
fn every_family_is_quantized_and_computes_nearly_the_same() {
    let home = TempDir::new().unwrap();
    for (number, path) in cases(Task::Embedding, true).iter().enumerate() {
        let dir = Draft::at(path).write();
        let ids: Vec<Vec<u32>> = serde_json::from_value(expected(path)["ids"].clone()).unwrap();
        let want = vectors(&expected(path)["embeddings"]);
        for (bits, least) in [("8", 0.999), ("4", 0.9)] {
            let target = home.path().join(format!("{number}-{bits}"));
            quantized_as(dir.path(), &target, bits);
            for on_cpu in [true, false] {
                let got = of_ids(&load(&target, on_cpu).unwrap(), &ids, true);
                for (got, want) in got.iter().zip(&want) {
                    let (apart, cosine) = compare(got, want);
                    let name = path.display();
                    assert!(cosine > least && apart > 1e-4, "{name} {bits} bits: {cosine}");
                }
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
                let prompted = embedder.prompt(called).unwrap().to_owned();
                assert_eq!(prompted, prompt["prompt"]);
                let options = EmbedOptions { prompt: prompted, ..cut() };
                let got = embed(&embedder, &self::texts(&prompt["texts"]), &options);
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
    let refused = embedder.prompt("question").unwrap_err();
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
fn both_dialects_of_modules_say_the_same() {
    let dir = copy("bert-mean");
    let root = dir.path();
    let want = embed(&load(root, true).unwrap(), &texts(&json!(["the cat"])), &cut());
    let modules = json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.base.modules.normalize.Normalize"},
    ]);
    write(root, "modules.json", &modules);
    for mode in [json!("mean"), json!(["mean"]), Value::Null] {
        write(
            root,
            "1_Pooling/config.json",
            &json!({"embedding_dimension": 32, "pooling_mode": mode}),
        );
        assert_eq!(embed(&load(root, true).unwrap(), &texts(&json!(["the cat"])), &cut()), want);
    }
    write(root, "1_Pooling/config.json", &json!({"pooling_mode": ["lasttoken", "cls"]}));
    assert_eq!(load(root, true).unwrap().dimensions(), 64);
    write(root, "1_Pooling/config.json", &json!({"pooling_mode": "median"}));
    let refused = load(root, true).err().unwrap();
    assert_eq!(refused.message, "no way to pool is called `median`");
    fs::remove_file(root.join("1_Pooling/config.json")).unwrap();
    assert_eq!(load(root, true).err().unwrap().message, "the file is missing");
    fs::remove_file(root.join("modules.json")).unwrap();
    let mut plain = embed(&load(root, true).unwrap(), &texts(&json!(["the cat"])), &cut());
    mlxk_models::encoder::pooling::normalize(&mut plain[0]);
    assert!(compare(&plain[0], &want[0]).0 < 1e-6, "without files: the mean, as it is");
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

/// Writes a quantised copy of the model in `source` to `root`, and returns its folder.
fn quantized(source: &Path, root: &Path) -> PathBuf {
    let target = root.join("packed");
    quantized_as(source, &target, "8");
    target
}

/// Writes a copy of the model in `source` with weights of `bits` to `target`.
fn quantized_as(source: &Path, target: &Path, bits: &str) {
    let quantize = Quantize::new(Mode::Affine, bits.parse().unwrap(), Some(32)).unwrap();
    let recipe = Recipe { change: Change::Quantize(quantize), ..Recipe::default() };
    let hub = target.with_extension("hub");
    let places = Places { root: hub.clone(), hub: hub.join("hub"), workspaces: None };
    convert(source, target, &recipe, true, &places, |_| Ok(())).unwrap();
}

#[test]
fn a_dense_layer_follows_the_pooling() {
    type Apply = fn(f32) -> f32;
    let (dir, home) = (copy("bert-mean"), TempDir::new().unwrap());
    let root = dir.path();
    let text = texts(&json!(["the cat sat", "a"]));
    write(
        root,
        "modules.json",
        &json!([
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]),
    );
    let pooled = embed(&load(root, true).unwrap(), &text, &cut());
    write(
        root,
        "modules.json",
        &json!([
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"path": "2_Dense", "type": "sentence_transformers.models.Dense"},
        ]),
    );
    let dense = |config: Value| {
        fs::create_dir_all(root.join("2_Dense")).unwrap();
        write(root, "2_Dense/config.json", &config);
    };
    dense(json!({"in_features": 32, "out_features": 2, "bias": true}));
    assert_eq!(load(root, true).err().unwrap().message, "the file is missing");
    // The first two elements, each with a summand.
    let weight = (0..64).map(|i| f32::from(i == 0 || i == 33));
    let weights = Draft {
        config: serde_json::Map::new(),
        tensors: [
            ("linear.weight".to_owned(), Tensor::of(&[2, 32], weight)),
            ("linear.bias".to_owned(), Tensor::of(&[2], [0.25, -0.5])),
        ]
        .into(),
    };
    let layer = weights.write();
    let file = "2_Dense/model.safetensors";
    fs::copy(layer.path().join("model.safetensors"), root.join(file)).unwrap();
    let cases: [(Value, Apply); 2] =
        [(json!("torch.nn.modules.linear.Identity"), |x| x), (Value::Null, f32::tanh)];
    for (activation, apply) in cases {
        let mut config = json!({"in_features": 32, "out_features": 2, "bias": true});
        if !activation.is_null() {
            config["activation_function"] = activation;
        }
        dense(config);
        for on_cpu in [true, false] {
            let got = embed(&load(root, on_cpu).unwrap(), &text, &cut());
            for (got, pooled) in got.iter().zip(&pooled) {
                let want = [apply(pooled[0] + 0.25), apply(pooled[1] - 0.5)];
                assert!(compare(got, &want).0 < 1e-5, "{got:?} {want:?}");
            }
        }
    }
    let packed = quantized(root, home.path());
    assert_eq!(fs::read(packed.join(file)).unwrap(), fs::read(root.join(file)).unwrap());
    assert_eq!(load(&packed, true).unwrap().dimensions(), 2);
    dense(json!({"in_features": 16, "out_features": 2}));
    assert_eq!(load(root, true).err().unwrap().message, "takes 16 elements, and 32 come");
    dense(
        json!({"in_features": 32, "out_features": 2, "activation_function": "torch.nn.Softsign"}),
    );
    let refused = load(root, true).err().unwrap();
    assert_eq!(refused.message, "the activation `torch.nn.Softsign` cannot run");
}

#[test]
fn a_quantized_encoder_computes_nearly_the_same() {
    let (dir, home) = (copy("bert-mean"), TempDir::new().unwrap());
    let target = quantized(dir.path(), home.path());
    let expected = expected(&case("bert-mean"));
    for on_cpu in [true, false] {
        let got = embed(&load(&target, on_cpu).unwrap(), &texts(&expected["texts"]), &cut());
        for (got, want) in got.iter().zip(vectors(&expected["embeddings"])) {
            let (_, cosine) = compare(got, &want);
            assert!((0.999..0.999_999).contains(&cosine), "{cosine}");
        }
    }
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
fn vectors_are_normalized_when_that_is_said() {
    let length = |vector: &Vec<f32>| vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    for (case, normalizes) in [("bert-mean", true), ("bert-cls", false)] {
        let embedder = load(&self::case(case), true).unwrap();
        let text = texts(&json!(["the cat sat"]));
        let lengths = [None, Some(true), Some(false)].map(|normalize| {
            let options = EmbedOptions { normalize, ..cut() };
            length(&embed(&embedder, &text, &options)[0])
        });
        let one = lengths.map(|length| (length - 1.0).abs() < 1e-5);
        assert_eq!(one, [normalizes, true, false], "{case}: {lengths:?}");
        let options = EmbedOptions { normalize: Some(false), dimensions: Some(8), ..cut() };
        let cut_off = embed(&embedder, &text, &options);
        let options = EmbedOptions { normalize: Some(false), ..cut() };
        assert_eq!(cut_off[0], embed(&embedder, &text, &options)[0][..8]);
    }
}

#[test]
fn a_side_of_a_search_has_the_prompt_of_the_model_or_of_its_family() {
    let qwen = load(&case("qwen3-embedding"), true).unwrap();
    assert!(qwen.side(Side::Query, "x").starts_with("Instruct: Given a web search query"));
    assert_eq!(qwen.side(Side::Document, "intfloat/e5-base-v2"), "");
    let e5 = load(&case("xlm-roberta"), true).unwrap();
    assert_eq!((e5.side(Side::Query, "x"), e5.side(Side::Document, "x")), ("query: ", "passage: "));
    let none = load(&case("bert-mean"), true).unwrap();
    let sides = |name: &str| [Side::Query, Side::Document].map(|side| none.side(side, name));
    assert_eq!(sides("intfloat/e5-base-v2"), ["query: ", "passage: "]);
    assert_eq!(sides("BAAI/bge-m3"), ["", ""]);
    assert!(sides("mlx-community/bge-small-en-v1.5-4bit/")[0].starts_with("Represent this"));
    assert_eq!(sides("sentence-transformers/all-MiniLM-L6-v2"), ["", ""]);
}

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

#[test]
fn the_adapter_of_a_task_is_added_to_the_weights() {
    let draft = Draft::at(&case("jina-drawn"));
    let ids = [vec![5, 9, 70, 3]];
    // Two tasks, of rank 2; the second adds to a matrix and to the table of tokens.
    let mut adapted =
        draft.clone().with("lora_adaptations", json!(["one", "two"])).with("lora_alpha", 4);
    let mut summed = draft.clone();
    for layer in ["encoder.layers.0.mlp.fc1", "embeddings.word_embeddings"] {
        let weight = summed.tensors.get_mut(&format!("{layer}.weight")).unwrap();
        let &[rows, columns] = weight.shape.as_slice() else { panic!("no matrix") };
        let rows_of = |n: usize, task: usize| {
            (0..2 * n).map(move |i| if i < n { 9.0 } else { task as f32 * 0.01 * (i % 7) as f32 })
        };
        let (left, right): (Vec<f32>, Vec<f32>) =
            (rows_of(rows * 2, 1).collect(), rows_of(columns * 2, 2).collect());
        let sum = weight.elements().into_iter().enumerate().map(|(i, x)| {
            let (row, column) = (i / columns, i % columns);
            let product =
                |k: usize| left[2 * rows + 2 * row + k] * right[2 * columns + k * columns + column];
            x + 2.0 * (product(0) + product(1))
        });
        let sum: Vec<f32> = sum.collect();
        let (left, right) = (Tensor::of(&[2, rows, 2], left), Tensor::of(&[2, 2, columns], right));
        let (a, b) = if layer.contains("embeddings") { (left, right) } else { (right, left) };
        let name = |end: &str| format!("{layer}.parametrizations.weight.{end}");
        let original = adapted.tensors.remove(&format!("{layer}.weight")).unwrap();
        adapted.tensors.insert(name("original"), original);
        adapted.tensors.insert(name("0.lora_A"), a);
        adapted.tensors.insert(name("0.lora_B"), b);
        *weight = Tensor::of(&[rows, columns], sum);
    }
    let (adapted, summed, plain) = (adapted.write(), summed.write(), draft.write());
    let Inspected { facts, plan, .. } = inspected(adapted.path());
    assert_eq!(Embedder::tasks(&facts).unwrap(), ["one", "two"]);
    for on_cpu in [true, false] {
        let load_for = |task| Embedder::load_for(&facts, &plan, on_cpu, task).unwrap();
        let want = of_ids(&load(summed.path(), on_cpu).unwrap(), &ids, true);
        assert!(compare(&of_ids(&load_for(Some("two")), &ids, true)[0], &want[0]).0 < 1e-5);
        let want = of_ids(&load(plain.path(), on_cpu).unwrap(), &ids, true);
        assert!(compare(&of_ids(&load_for(None), &ids, true)[0], &want[0]).0 < 1e-6);
    }
    let refused = Embedder::load_for(&facts, &plan, true, Some("three")).err().unwrap();
    assert_eq!(refused.message, "the model has no adapter for \"three\"");
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
