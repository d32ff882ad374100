//! Headers of npz files, and models that have such weights.

use std::io::{Cursor, Write};

use mlxk_core::tensors::{Dtype, Header};
use serde_json::json;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::model::Model;

/// An array in numpy's form, with what its description says of type, order and shape.
fn npy(descr: &str, by_columns: &str, shape: &str, data: usize) -> Vec<u8> {
    let text = format!("{{'descr': {descr}, 'fortran_order': {by_columns}, 'shape': {shape}, }}\n");
    let start = [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..]].concat();
    [start, text.into_bytes(), vec![7; data]].concat()
}

/// An npz of `members`.
fn npz(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn read(file: &[u8]) -> Result<Header, String> {
    Header::read_npz(Cursor::new(file))
}

#[test]
fn an_npz_says_where_each_array_lies() {
    let file = npz(&[
        ("b.weight.npy", npy("'<f2'", "False", "(2, 3, )", 12)),
        ("a.bias.npy", npy("'<f4'", "True", "(2,)", 8)),
        ("c.npy", npy("'V2'", "False", "(1, 1)", 2)),
        ("d.npy", npy("'<u4'", "False", "()", 4)),
    ]);
    let header = read(&file).unwrap();
    let all: Vec<_> =
        header.tensors.iter().map(|t| (t.name.as_str(), t.dtype, &*t.shape)).collect();
    assert_eq!(
        all,
        [
            ("b.weight", Dtype::F16, &[2, 3][..]),
            ("a.bias", Dtype::F32, &[2]),
            ("c", Dtype::BF16, &[1, 1]),
            ("d", Dtype::U32, &[]),
        ]
    );
    for tensor in &header.tensors {
        let range = tensor.range.start as usize..tensor.range.end as usize;
        assert!(file[range].iter().all(|&byte| byte == 7), "{}", tensor.name);
    }
}

#[test]
fn a_bad_npz_is_refused_with_the_array_and_the_reason() {
    let one = |array: Vec<u8>| npz(&[("w.npy", array)]);
    let good = one(npy("'<f2'", "False", "(2,)", 4));
    let mut packed = good.clone();
    // The method of compression, in the directory.
    let directory = packed.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    packed[directory + 10] = 8;
    let cases = [
        (good[..good.len() - 10].to_vec(), "not a complete npz"),
        (vec![], "not a complete npz"),
        (packed, r#"tensor "w" is compressed, and only stored arrays are read"#),
        (one(npy("'<f2'", "True", "(2, 2)", 8)), r#"tensor "w" is stored by columns"#),
        (one(npy("'|O'", "False", "(2,)", 8)), r#"tensor "w" has the unknown dtype "|O""#),
        (one(npy("[('a', '<f2')]", "False", "(2,)", 8)), r#"tensor "w" does not state its descr"#),
        (one(npy("'<f2'", "False", "(-2,)", 4)), r#"tensor "w" has the shape (-2,)"#),
        (one(npy("'<f2'", "False", "(3,)", 4)), r#"tensor "w" (F16 [3]) needs 6 bytes"#),
        (
            one(npy("'<f2'", "False", "(18446744073709551615, 2)", 4)),
            r#"tensor "w" has an impossible size"#,
        ),
        (one(b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec()), "has a description of 4294967295"),
        (one(b"not an array".to_vec()), r#"tensor "w" is no array of numpy"#),
        (one(b"\x93NUM".to_vec()), "cannot be read"),
    ];
    for (file, reason) in cases {
        let found = read(&file).unwrap_err();
        assert!(found.contains(reason), "{found:?} for {reason:?}");
    }
}

#[test]
fn whisper_in_the_form_of_mlx_runs_without_a_tokenizer_and_a_type() {
    let dims = json!({"n_mels": 80, "n_audio_state": 384, "n_text_state": 384, "n_vocab": 51_865});
    let weights = npz(&[("a.npy", npy("'<f2'", "False", "(2,)", 4))]);
    let model = Model::new()
        .without("tokenizer.json")
        .without("tokenizer_config.json")
        .without("model.safetensors")
        .json("config.json", dims)
        .file("weights.npz", weights.clone());
    assert_eq!(model.health().reason, "Model is healthy");
    let plan = model.plan();
    assert_eq!((plan.model_type, plan.runnable), ("audio", Ok(())));
    assert_eq!(plan.framework.name(), "MLX");
    let cut = model.file("weights.npz", &weights[..weights.len() - 4]);
    let reason = cut.health().reason;
    assert!(reason.starts_with("weights.npz: not a complete npz"), "{reason}");
}

#[test]
fn whisper_that_does_not_write_speech_is_refused() {
    let of = |class: &str| {
        let config = json!({"model_type": "whisper", "architectures": [class]});
        Model::new()
            .without("tokenizer.json")
            .without("tokenizer_config.json")
            .config(config)
            .plan()
    };
    assert_eq!(of("WhisperForConditionalGeneration").runnable, Ok(()));
    let refused = of("WhisperForAudioClassification").runnable.unwrap_err();
    let reason =
        "Architecture 'WhisperForAudioClassification' not supported: it does not write down speech";
    assert_eq!(refused, reason);
}
