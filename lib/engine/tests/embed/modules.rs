//! The modules after the encoder: pooling, dense layers, normalization.

use std::fs;

use mlxk_engine::EmbedOptions;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cases::{case, compare, copy, cut, embed, load, texts, write};
use crate::model::{Draft, Tensor};
use crate::quantized::quantized;

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
    assert_eq!(refused.message, "1_Pooling/config.json: no way to pool is called `median`");
    fs::remove_file(root.join("1_Pooling/config.json")).unwrap();
    let missing = "1_Pooling/config.json: the file is missing";
    assert_eq!(load(root, true).err().unwrap().message, missing);
    fs::remove_file(root.join("modules.json")).unwrap();
    let mut plain = embed(&load(root, true).unwrap(), &texts(&json!(["the cat"])), &cut());
    mlxk_models::encoder::pooling::normalize(&mut plain[0]);
    assert!(compare(&plain[0], &want[0]).0 < 1e-6, "without files: the mean, as it is");
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
    let missing = "2_Dense/model.safetensors: the file is missing";
    assert_eq!(load(root, true).err().unwrap().message, missing);
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
    let cases: [(Value, Apply); 3] = [
        (json!("torch.nn.modules.linear.Identity"), |x| x),
        (json!("torch.nn.modules.activation.ReLU"), |x| x.max(0.0)),
        (Value::Null, f32::tanh),
    ];
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
                let near = got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5);
                assert!(near && got.len() == 2, "{got:?} {want:?}");
            }
        }
    }
    let packed = quantized(root, home.path());
    assert_eq!(fs::read(packed.join(file)).unwrap(), fs::read(root.join(file)).unwrap());
    assert_eq!(load(&packed, true).unwrap().dimensions(), 2);
    dense(json!({"in_features": 16, "out_features": 2}));
    let other = "2_Dense: takes 16 elements, and 32 come";
    assert_eq!(load(root, true).err().unwrap().message, other);
    dense(
        json!({"in_features": 32, "out_features": 2, "activation_function": "torch.nn.Softsign"}),
    );
    let refused = load(root, true).err().unwrap();
    assert_eq!(
        refused.message,
        "2_Dense/config.json: the activation `torch.nn.Softsign` cannot run"
    );
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
