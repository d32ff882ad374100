//! Imported weights, to the bit, and configurations; files that are refused.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod gguf;

use std::fs::{self, File};

use gguf::{Builder, f32s, float, integer};
use half::{bf16, f16};
use mlxk_core::Progress;
use mlxk_core::tensors::{Dtype, Entry, Header};
use mlxk_core::{Error, Kind, Places, Result};
use mlxk_gguf::{Float, ImportOptions, Quantized, Source, Type, dequantize};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Directory of an imported model.
struct Imported(TempDir);

impl Imported {
    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.0.path().join(name)).unwrap()).unwrap()
    }

    fn tensor(&self, name: &str) -> (Dtype, Vec<usize>, Vec<u8>) {
        let path = self.0.path().join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let header = Header::read(&mut File::open(path).unwrap(), bytes.len() as u64).unwrap();
        let tensor = header.tensors.into_iter().find(|tensor| tensor.name == name).unwrap();
        let range = tensor.range.start as usize..tensor.range.end as usize;
        (tensor.dtype, tensor.shape, bytes[range].to_vec())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let (dtype, _, bytes) = self.tensor(name);
        let kind = match dtype {
            Dtype::F16 => Type::F16,
            Dtype::BF16 => Type::BF16,
            _ => Type::F32,
        };
        let mut out = vec![0.0; bytes.len() / kind.bytes()];
        dequantize(kind, &bytes, &mut out);
        out
    }

    /// Weights of a quantized matrix, dequantized as MLX does.
    fn affine(&self, module: &str, bits: usize) -> Vec<f32> {
        let (_, _, codes) = self.tensor(&format!("{module}.weight"));
        let scales = self.floats(&format!("{module}.scales"));
        let biases = self.floats(&format!("{module}.biases"));
        let code = |i: usize| match bits {
            8 => codes[i],
            _ => codes[i / 2] >> (i % 2 * 4) & 15,
        };
        let weight = |i: usize| scales[i / 32] * f32::from(code(i)) + biases[i / 32];
        (0..scales.len() * 32).map(weight).collect()
    }
}

fn import(file: &Builder, dtype: Option<Float>) -> Result<Imported> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("tiny.gguf");
    fs::write(&path, file.bytes()).unwrap();
    let source = Source::open(&path)?;
    source.plan(dtype, Quantized::Keep)?.write(directory.path(), |_| Ok(()))?;
    Ok(Imported(directory))
}

fn refused(file: Builder) -> String {
    import(&file, None).err().unwrap().message
}

/// `count` blocks of varying bytes with the f16 `scale`; Q4_1 also has a quarter of it as minimum.
fn blocks(dtype: Type, count: usize, scale: f32) -> Vec<u8> {
    let block = |number: usize| {
        let mut block: Vec<u8> = (0..dtype.bytes()).map(|i| (i * 37 + number * 11) as u8).collect();
        block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        if dtype == Type::Q4_1 {
            block[2..4].copy_from_slice(&f16::from_f32(scale / 4.0).to_le_bytes());
        }
        block
    };
    (0..count).flat_map(block).collect()
}

fn dequantized(dtype: Type, blocks: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; blocks.len() / dtype.bytes() * dtype.block()];
    dequantize(dtype, blocks, &mut out);
    out
}

#[test]
fn repacking_keeps_quantized_weights() {
    for (dtype, number, bits) in [(Type::Q4_0, 2, 4), (Type::Q4_1, 3, 4), (Type::Q8_0, 8, 8)] {
        let data = blocks(dtype, 64 * 32 / 32, 0.0123);
        let file = Builder::llama().tensor("blk.0.ffn_up.weight", &[64, 32], number, data.clone());
        let written = import(&file, None).unwrap();
        let got = written.affine("model.layers.0.mlp.up_proj", bits);
        assert_eq!(got, dequantized(dtype, &data), "{}", dtype.name());
        let config = written.json("config.json");
        let table = json!({ "group_size": 32, "bits": bits, "mode": "affine" });
        assert_eq!(config["quantization"], table);
        assert_eq!(config["quantization_config"], table);
        let norm = written.tensor("model.norm.weight").0;
        assert_eq!(norm, Dtype::F16, "vectors are of the type of the scales");
    }
}

#[test]
fn rotary_pairs_are_deinterleaved_in_every_component() {
    let data = blocks(Type::Q4_1, 32, 0.5);
    let file = |architecture| {
        Builder::of(architecture).tensor("blk.0.attn_q.weight", &[32, 32], 3, data.clone())
    };
    let rows = |weights: Vec<f32>| weights.chunks(32).map(<[_]>::to_vec).collect::<Vec<_>>();
    let before = rows(dequantized(Type::Q4_1, &data));
    let after = |architecture| {
        let written = import(&file(architecture), None).unwrap();
        rows(written.affine("model.layers.0.self_attn.q_proj", 4))
    };
    // A head has 8 rows: the pairs 0 1, 2 3, 4 5, 6 7 become the halves 0 2 4 6 and 1 3 5 7.
    let order = [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15];
    for (row, from) in order.into_iter().enumerate() {
        assert_eq!(after("llama")[row], before[from], "row {row}");
    }
    assert_eq!(after("qwen2"), before, "this architecture has halves already");
}

#[test]
fn rows_and_biases_are_reordered_alike() {
    let bias: Vec<f32> = (0..16).map(|i| i as f32).collect();
    let file = Builder::llama().tensor("blk.0.attn_k.bias", &[16], 0, f32s(&bias));
    let written = import(&file, None).unwrap();
    let name = |field| format!("model.layers.0.self_attn.k_proj.{field}");
    let order = [0., 2., 4., 6., 1., 3., 5., 7., 8., 10., 12., 14., 9., 11., 13., 15.];
    assert_eq!(written.floats(&name("bias")), order);
    let firsts: Vec<_> =
        written.floats(&name("weight")).chunks(32).map(|row| row[0] / 32.).collect();
    assert_eq!(firsts, order);
    assert_eq!(written.json("config.json")["attention_bias"], false, "k alone is not all");
}

#[test]
fn float_matrices_are_kept_and_set_the_type_of_vectors() {
    let halves: Vec<u8> = (0..8192).flat_map(|i| bf16::from_f32(i as f32).to_le_bytes()).collect();
    let file = Builder::llama().tensor("token_embd.weight", &[256, 32], 30, halves.clone());
    let written = import(&file, None).unwrap();
    let (dtype, shape, bytes) = written.tensor("model.embed_tokens.weight");
    assert_eq!((dtype, shape, bytes), (Dtype::BF16, vec![256, 32], halves));
    assert_eq!(written.tensor("model.norm.weight").0, Dtype::BF16);
    assert_eq!(written.tensor("model.layers.0.mlp.up_proj.weight").0, Dtype::BF16);
    assert_eq!(written.json("config.json")["torch_dtype"], "bfloat16");
    assert_eq!(written.json("config.json").get("quantization"), None);
}

#[test]
fn other_types_are_dequantized_to_the_requested_type() {
    let data = blocks(Type::Q5_0, 64, 0.01);
    let file = Builder::llama().tensor("blk.0.ffn_up.weight", &[64, 32], 6, data.clone());
    let name = "model.layers.0.mlp.up_proj.weight";
    let expected = dequantized(Type::Q5_0, &data);
    let written = import(&file, Some(Float::F32)).unwrap();
    assert_eq!(written.floats(name), expected);
    let written = import(&file, Some(Float::BF16)).unwrap();
    let rounded: Vec<_> = expected.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
    assert_eq!(written.tensor(name).0, Dtype::BF16);
    assert_eq!(written.floats(name), rounded);
}

#[test]
fn modules_with_another_mode_are_listed() {
    let mut file = Builder::llama();
    for name in ["ffn_up", "ffn_gate"] {
        let name = format!("blk.0.{name}.weight");
        file = file.tensor(&name, &[64, 32], 3, blocks(Type::Q4_1, 64, 0.1));
    }
    file = file.tensor("token_embd.weight", &[8, 32], 8, blocks(Type::Q8_0, 8, 0.1));
    let config = import(&file, None).unwrap().json("config.json");
    let wide = json!({ "group_size": 32, "bits": 8, "mode": "affine" });
    assert_eq!(config["quantization"]["bits"], 4);
    assert_eq!(config["quantization"]["model.embed_tokens"], wide);
    assert_eq!(config["tie_word_embeddings"], true);
}

#[test]
fn numbers_that_do_not_fit_the_type_are_refused() {
    let scale = |scale| {
        let data = blocks(Type::Q8_0, 64, scale);
        import(&Builder::llama().tensor("blk.0.ffn_up.weight", &[64, 32], 8, data), None)
    };
    assert!(scale(511.5).is_ok());
    for large in [512.0, f32::INFINITY, f32::NAN] {
        let error = scale(large).err().unwrap().message;
        assert!(error.contains("blk.0.ffn_up.weight") && error.contains("as f16"), "{error}");
    }
    let norm = Builder::llama().tensor("output_norm.weight", &[32], 0, f32s(&[70000.0; 32]));
    assert!(import(&norm, Some(Float::F16)).err().unwrap().message.contains("does not fit f16"));
    assert!(import(&norm, Some(Float::BF16)).is_ok());
}

#[test]
fn architectures_have_their_own_fields() {
    let norm = |file: Builder, name: &str| file.tensor(name, &[8], 0, f32s(&[1.0; 8]));
    let bare = Builder::of("qwen3");
    let whole = norm(norm(bare, "blk.0.attn_q_norm.weight"), "blk.0.attn_k_norm.weight");
    let written = import(&whole, None).unwrap();
    assert_eq!(written.json("config.json")["model_type"], "qwen3");
    assert_eq!(written.floats("model.layers.0.self_attn.q_norm.weight"), [1.0; 8]);
    let smollm = import(&Builder::of("smollm3"), None).unwrap().json("config.json");
    assert_eq!(smollm["no_rope_layers"], json!([1]));
    let embedding = vec![0; 8 * 32 * 4];
    let untied = Builder::of("qwen2").tensor("output.weight", &[8, 32], 0, embedding);
    assert_eq!(import(&untied, None).unwrap().json("config.json")["tie_word_embeddings"], false);
}

#[test]
fn rope_scaling_is_recovered() {
    let linear = Builder::llama()
        .set("llama.rope.scaling.type", gguf::string("linear"))
        .set("llama.rope.scaling.factor", float(4.0));
    let scaling =
        |file: &Builder| import(file, None).unwrap().json("config.json")["rope_scaling"].clone();
    assert_eq!(scaling(&linear), json!({ "rope_type": "linear", "factor": 4.0 }));
    // Waves of 6, 63, 628 and 6283 positions.
    let smooth = (64.0 / 62.831_85 - 1.0) / 3.0;
    let blend = 1.0 / ((1.0 - smooth) / 8.0 + smooth);
    let factors = f32s(&[1.0, blend, 8.0, 8.0]);
    let llama3 = Builder::llama().tensor("rope_freqs.weight", &[4], 0, factors);
    assert_eq!(scaling(&llama3)["rope_type"], "llama3");
    assert_eq!(scaling(&llama3)["original_max_position_embeddings"], 64);
    let odd = Builder::llama().tensor("rope_freqs.weight", &[4], 0, f32s(&[1.0, 5.0, 2.0, 8.0]));
    assert!(refused(odd).contains("not Llama 3's"));
}

#[test]
fn unsupported_architectures_are_refused() {
    assert!(
        refused(Builder::of("bitnet")).contains("\"bitnet\" cannot be imported: it stands for")
    );
    assert!(refused(Builder::of("bert")).contains("cannot be imported; these can: apertus, "));
}

#[test]
fn contradictory_metadata_is_refused() {
    let llama = Builder::llama;
    let extra = llama().tensor("blk.1.attn_q.weight", &[32, 32], 0, vec![0; 4096]);
    assert!(refused(extra).contains("\"blk.1.attn_q.weight\" has no place"));
    let rows = llama().tensor("blk.0.attn_q.weight", &[30, 32], 0, vec![0; 30 * 32 * 4]);
    assert!(refused(rows).contains("30 rows are no whole heads of 8"));
    let zero = llama().set("llama.embedding_length", integer(0));
    assert!(refused(zero).contains("impossible `llama.embedding_length`: 0"));
    let kind = llama().set("llama.block_count", gguf::string("one"));
    assert!(refused(kind).contains("`llama.block_count` is a string, not a whole number"));
    let many = llama().set("llama.block_count", integer(1 << 28));
    assert!(refused(many).contains("268435456 layers are impossible"));
    let few = llama().set("llama.block_count", integer(2));
    assert!(refused(few).contains("there are 2 layers, but no tensors of layer 1"));
    let experts = llama().set("llama.expert_count", integer(8));
    assert!(refused(experts).contains("`llama.expert_used_count` is missing"));
    let vector = llama().tensor("output_norm.weight", &[32], 8, blocks(Type::Q8_0, 1, 1.0));
    assert!(refused(vector).contains("model.norm.weight: a vector is packed"));
    let heads = llama().set("llama.attention.head_count_kv", integer(3));
    assert!(refused(heads).contains("4 heads"));
    let end = llama().set("tokenizer.ggml.eos_token_id", integer(6));
    assert!(refused(end).contains("`tokenizer.ggml.eos_token_id` is 6, but there are 6 tokens"));
}

#[test]
fn planning_a_mutated_file_never_panics() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mutated.gguf");
    let valid = Builder::llama().bytes();
    let head = 2048;
    arbtest::arbtest(|random| {
        let mut bytes = valid.clone();
        for _ in 0..random.int_in_range(1..=3)? {
            let at = random.int_in_range(24..=head)?;
            bytes[at] = random.arbitrary()?;
        }
        fs::write(&path, &bytes).unwrap();
        if let Err(error) = Source::open(&path).unwrap().plan(None, Quantized::Keep) {
            assert!(!error.message.contains('\n') && error.subject.ends_with("mutated.gguf"));
        }
        Ok(())
    })
    .budget_ms(1000);
}

#[test]
fn a_stopped_import_leaves_nothing_behind() {
    let root = TempDir::new().unwrap();
    let source = root.path().join("tiny.gguf");
    fs::write(&source, Builder::llama().bytes()).unwrap();
    let target = root.path().join("made");
    let hub = root.path().join("hf/hub");
    let places = Places { root: root.path().join("hf"), hub, workspaces: None };
    let mut tensors = 0;
    let stop = |progress: Progress| {
        tensors += usize::from(matches!(progress, Progress::Read(_)));
        match tensors {
            5 => Err(Error::new(Kind::Execution, "", "interrupted")),
            _ => Ok(()),
        }
    };
    let any = |_: &Value, _: &[Entry]| -> Result<()> { Ok(()) };
    let kept = ImportOptions { dtype: None, quantized: Quantized::Keep, check: true };
    let error = mlxk_gguf::convert(&source, &target, kept, &places, &any, stop).unwrap_err();
    assert_eq!(error.message, "interrupted");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "only the source is there");
    let refused = |_: &Value, _: &[Entry]| Err(Error::new(Kind::InvalidModel, "", "no model"));
    let error = mlxk_gguf::convert(&source, &target, kept, &places, &refused, |_| Ok(()));
    assert!(error.unwrap_err().message.ends_with("no model"));
    mlxk_gguf::convert(&source, &target, kept, &places, &any, |_| Ok(())).unwrap();
    assert!(target.join("model.safetensors").is_file());
}

#[test]
fn a_file_that_changes_during_the_import_fails_it() {
    let root = TempDir::new().unwrap();
    let source = root.path().join("m.gguf");
    let places =
        Places { root: root.path().join("hf"), hub: root.path().join("hf/hub"), workspaces: None };
    let any = |_: &Value, _: &[Entry]| -> Result<()> { Ok(()) };
    let options = ImportOptions { dtype: None, quantized: Quantized::Keep, check: true };
    let bytes = Builder::llama().bytes();
    // While the first tensor is read, and while the last one is.
    for when in [1, 11] {
        fs::write(&source, &bytes).unwrap();
        let mut tensors = 0;
        let change = |progress: Progress| {
            tensors += usize::from(matches!(progress, Progress::Read(_)));
            if tensors == when {
                fs::write(&source, &bytes).unwrap();
            }
            Ok(())
        };
        let target = root.path().join("made");
        let error =
            mlxk_gguf::convert(&source, &target, options, &places, &any, change).unwrap_err();
        assert!(error.to_string().ends_with("m.gguf: changed while it was read"), "{error}");
        assert_eq!(tensors, when, "no other is read");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "only the source is there");
    }
}
