//! Embeddings are those of sentence-transformers, on tiny models of each form, alone and in batches.
//!
//! A case is a folder of `tests/data/embed`; `EMBED=DIR` names a folder of further ones, of which
//! those that can run are checked.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::fs;
use std::path::{Path, PathBuf};

use mlxk_core::Places;
use mlxk_core::quantization::Mode;
use mlxk_core::{Found, Inspected, Kind, Origin, inspect};
use mlxk_engine::{EmbedOptions, Embedder};
use mlxk_models::convert::{Change, Quantize, Recipe, convert};
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
    Embedder::load_for(&facts, &plan, on_cpu)
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
fn near(got: &[Vec<f32>], want: &[Vec<f32>], tolerance: &Value) {
    assert_eq!(got.len(), want.len());
    for (place, (got, want)) in got.iter().zip(want).enumerate() {
        let (apart, cosine) = compare(got, want);
        let allowed = tolerance["max_abs"].as_f64().unwrap() as f32;
        assert!(apart <= allowed && cosine >= 0.9999, "{place}: {apart} apart, cosine {cosine}");
    }
}

fn cases() -> Vec<PathBuf> {
    let more = std::env::var_os("EMBED").map(PathBuf::from);
    let folders = [Some(case("")), more].into_iter().flatten();
    let entries = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_dir() && inspected(path).plan.runnable.is_ok()).collect()
}

#[test]
fn vectors_are_those_of_the_reference() {
    let cases = cases();
    assert!(cases.len() >= 2);
    for path in cases {
        let expected = expected(&path);
        let tolerance = &expected["tolerance"];
        for on_cpu in [true, false] {
            let embedder = load(&path, on_cpu).unwrap();
            assert_eq!(embedder.max_length() as u64, expected["max_seq_length"]);
            let (options, texts) = (cut(), texts(&expected["texts"]));
            let ids: Vec<Vec<u32>> = serde_json::from_value(expected["ids"].clone()).unwrap();
            let inputs = texts.iter().map(|text| embedder.input(text, &options).unwrap());
            assert!(inputs.map(|input| input.ids).eq(ids), "{path:?}");
            let got = embed(&embedder, &texts, &options);
            near(&got, &vectors(&expected["embeddings"]), tolerance);
            for prompt in expected["prompts"].as_array().into_iter().flatten() {
                let name = prompt["prompt_name"].as_str().unwrap();
                let prompted = embedder.prompt(name).unwrap().to_owned();
                assert_eq!(prompted, prompt["prompt"]);
                let options = EmbedOptions { prompt: prompted, ..cut() };
                let got = embed(&embedder, &self::texts(&prompt["texts"]), &options);
                near(&got, &vectors(&prompt["embeddings"]), tolerance);
            }
            if let Some(dimensions) = expected["truncated"]["dimensions"].as_u64() {
                let options = EmbedOptions { dimensions: Some(dimensions as usize), ..cut() };
                let got = embed(&embedder, &texts, &options);
                near(&got, &vectors(&expected["truncated"]["embeddings"]), tolerance);
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
    draft.tensors.insert("classifier.weight".to_owned(), Tensor::of(&[1, 32], [0.0; 32]));
    draft.write_in(dir.path());
    fs::copy(case("bert-cls").join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let refused = load(dir.path(), true).err().unwrap();
    assert_eq!(refused.subject, "classifier.weight");
}

/// Writes a quantised copy of the model in `source` to `root`, and returns its folder.
fn quantized(source: &Path, root: &Path) -> PathBuf {
    let quantize = Quantize::new(Mode::Affine, "8".parse().unwrap(), Some(32)).unwrap();
    let recipe = Recipe { change: Change::Quantize(quantize), ..Recipe::default() };
    let places = Places { root: root.join("hf"), hub: root.join("hf/hub"), workspaces: None };
    let target = root.join("packed");
    convert(source, &target, &recipe, true, &places, |_| Ok(())).unwrap();
    target
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
