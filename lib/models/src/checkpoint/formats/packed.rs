//! Conversion of weights quantised by other tools, in the forms that mlx-lm reads, to MLX's form.

use mlx_rs::Dtype;
use mlxk_core::{Error, Kind, Result, quantization};
use mlxk_tensor::floats::{self, narrow, widen};
use serde_json::{Value, json};

use super::arithmetic;
use super::checkpoint::{Checkpoint, invalid, is_float};
use crate::checkpoint::tensor::{Bytes, Tensor};

/// Converts quantised weights and their description in config.json to MLX's form. Weights of other
/// quantisation methods stay unchanged, for the architecture to handle.
pub fn unpack(all: &mut Checkpoint) -> Result<()> {
    if all.config.get("quantization").is_some_and(|table| !table.is_null()) {
        return Ok(());
    }
    let Some(settings) = all
        .config
        .get("quantization_config")
        .or_else(|| all.text().get("quantization_config"))
        .cloned()
    else {
        return Ok(());
    };
    let Some(method) = settings.get("quant_method").and_then(Value::as_str) else { return Ok(()) };
    let table = match method {
        "awq" | "gptq" => Some(awq(all, &settings)?),
        "compressed-tensors" => Some(compressed(all, &settings)?),
        "fp8" if of_powers(&settings) => {
            Some(json!({"group_size": 32, "bits": 8, "mode": "mxfp8"}))
        }
        "fp8" => {
            fp8(all, &settings)?;
            None
        }
        same if quantization::EQUIVALENT.contains(&same) => {
            let form =
                quantization::Mode::find(same).and_then(|packing| packing.supported().next());
            form.map(
                |(bits, group_size)| json!({"group_size": group_size, "bits": bits, "mode": same}),
            )
        }
        _ => return Ok(()),
    };
    if let Some(config) = all.config.as_object_mut() {
        config.remove("quantization_config");
        if let Some(table) = table {
            config.insert("quantization".into(), table.clone());
            config.insert("quantization_config".into(), table);
        }
    }
    Ok(())
}

/// Names of the tensors that end in `end`, without this suffix.
fn stems(all: &Checkpoint, end: &str) -> Vec<String> {
    all.tensors.keys().filter_map(|name| name.strip_suffix(end).map(str::to_owned)).collect()
}

fn unsupported(what: String) -> Error {
    Error::new(Kind::RuntimeIncompatible, "config.json", what)
}

/// Order of the eight 4-bit codes in a word of AWQ: output `i` is in the bits from `4 * ORDER[i]`
/// on.
const ORDER: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// AWQ (arXiv 2306.00978), and GPTQ (arXiv 2210.17323) in the same layout: words with the 4-bit
/// codes of eight outputs, [ins, outs / 8], and scales [groups, outs].
fn awq(all: &mut Checkpoint, settings: &Value) -> Result<Value> {
    let number = |key, usual| settings.get(key).and_then(Value::as_u64).unwrap_or(usual);
    let (bits, group_size) = (number("bits", 4), number("group_size", 128));
    if bits != 4 {
        return Err(unsupported(format!(
            "is packed by {bits} bits; of awq and gptq only 4 can run"
        )));
    }
    if let Some(name) = all.tensors.keys().find(|name| name.ends_with(".g_idx")) {
        return Err(invalid(name, "groups that are not contiguous cannot run"));
    }
    let mut float = None;
    for stem in stems(all, ".qweight") {
        let codes = all.take(&format!("{stem}.qweight"))?;
        let scales = all.take(&format!("{stem}.scales"))?;
        let zeros = all.tensors.remove(&format!("{stem}.qzeros"));
        let fits = codes.shape.len() == 2 && scales.shape.len() == 2 && is_float(scales.dtype);
        let fits = fits && codes.shape[0] % 8 == 0 && codes.shape[1] * 8 == scales.shape[1];
        let even = |zeros: &Tensor| zeros.shape == [scales.shape[0], codes.shape[1]];
        if !fits || !zeros.as_ref().is_none_or(even) {
            let message = format!("expected words of 8 codes, found shape {:?}", codes.shape);
            return Err(invalid(&format!("{stem}.qweight"), message));
        }
        float = Some(scales.dtype);
        let biases = biases(scales.clone(), zeros);
        let scales = crate::checkpoint::reshape::transposed(scales);
        for (part, tensor) in [("weight", repacked(codes)), ("scales", scales), ("biases", biases)]
        {
            all.tensors.insert(format!("{stem}.{part}"), tensor);
        }
    }
    if let Some(float) = float {
        all.change(|_| true, |tensor| arithmetic::cast(tensor, float));
    }
    Ok(json!({"group_size": group_size, "bits": bits}))
}

/// Repacks words [ins, outs / 8] as [outs, ins / 8].
fn repacked(words: Tensor) -> Tensor {
    let (ins, columns) = (words.shape[0], words.shape[1]);
    Tensor::made(Dtype::Uint32, vec![columns * 8, ins / 8], move || {
        words.read(|bytes| {
            let words = integers(bytes);
            let code =
                |out: usize, at: usize| words[at * columns + out / 8] >> (4 * ORDER[out % 8]) & 15;
            let word = |out: usize, at: usize| {
                (0..8).fold(0, |word, n| word | code(out, 8 * at + n) << (4 * n))
            };
            let all = (0..columns * 8).flat_map(|out| (0..ins / 8).map(move |at| (out, at)));
            Bytes::of(&all.flat_map(|(out, at)| word(out, at).to_le_bytes()).collect::<Vec<u8>>())
        })?
    })
}

/// Biases [outs, groups]: minus scale times zero point, which is 8 without `zeros`.
fn biases(scales: Tensor, zeros: Option<Tensor>) -> Tensor {
    let (groups, outs, dtype) = (scales.shape[0], scales.shape[1], scales.dtype);
    Tensor::made(dtype, vec![outs, groups], move || {
        let Some(float) = floats::kind(dtype) else { return Bytes::of(&[]) };
        let scales = scales.read(|bytes| widen(bytes, float))?;
        let zeros = zeros.as_ref().map(|zeros| zeros.read(integers)).transpose()?;
        let zero = |group: usize, out: usize| match &zeros {
            Some(zeros) => zeros[group * outs / 8 + out / 8] >> (4 * ORDER[out % 8]) & 15,
            None => 8,
        };
        let all = (0..outs).flat_map(|out| (0..groups).map(move |group| (group, out)));
        let bias = |(group, out)| -(zero(group, out) as f32) * scales[group * outs + out];
        Bytes::of(&narrow(&all.map(bias).collect::<Vec<f32>>(), float))
    })
}

fn integers(bytes: &[u8]) -> Vec<u32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// Symmetric 4-bit codes of compressed-tensors in MLX's word order: `weight_packed`,
/// `weight_scale`.
fn compressed(all: &mut Checkpoint, settings: &Value) -> Result<Value> {
    let format = settings.get("format").and_then(Value::as_str).unwrap_or("unknown");
    if format != "pack-quantized" {
        let what = format!("is quantised in the format `{format}` of compressed-tensors");
        return Err(unsupported(what).hint("the format that can run is pack-quantized"));
    }
    let mut group_size = 32;
    for stem in stems(all, ".weight_packed") {
        let codes = all.take(&format!("{stem}.weight_packed"))?;
        let scales = all.take(&format!("{stem}.weight_scale"))?;
        all.tensors.remove(&format!("{stem}.weight_shape"));
        let (&[outs, words], &[_, groups]) = (codes.shape.as_slice(), scales.shape.as_slice())
        else {
            let message = format!("expected a matrix, found shape {:?}", codes.shape);
            return Err(invalid(&format!("{stem}.weight_packed"), message));
        };
        group_size = words * 8 / groups.max(1);
        let biases = arithmetic::times(scales.clone(), vec![-8.0]);
        let codes = codes.viewed(Dtype::Uint32, vec![outs, words]);
        for (part, tensor) in [("weight", codes), ("scales", scales), ("biases", biases)] {
            all.tensors.insert(format!("{stem}.{part}"), tensor);
        }
    }
    Ok(json!({"group_size": group_size, "bits": 4, "mode": "affine"}))
}

/// True if 8-bit floats have power-of-two scales for blocks of 32 by 32, as small as MLX's groups;
/// these matrices stay quantised.
fn of_powers(settings: &Value) -> bool {
    settings.get("scale_fmt").is_some_and(|form| form == "ue8m0")
        && settings.get("weight_block_size").is_some_and(|sizes| *sizes == json!([32, 32]))
}

/// Converts 8-bit floats with a scale per block, or one per matrix, to bfloat16.
fn fp8(all: &mut Checkpoint, settings: &Value) -> Result<()> {
    let block =
        settings.get("weight_block_size").and_then(|sizes| sizes.get(0)).and_then(Value::as_u64);
    let block = block.unwrap_or(128).max(1) as usize;
    all.remove(|name| name.ends_with(".activation_scale"));
    for stem in stems(all, "_scale_inv") {
        let scales = all.take(&format!("{stem}_scale_inv"))?;
        let codes = all.take(&stem)?;
        let shape = codes.shape.clone();
        let expected = match shape.as_slice() {
            [rows, columns] if scales.shape.iter().product::<usize>() > 1 => {
                vec![rows.div_ceil(block), columns.div_ceil(block)]
            }
            _ if scales.shape.iter().product::<usize>() == 1 => scales.shape.clone(),
            _ => Vec::new(),
        };
        if codes.dtype != Dtype::Uint8 || !is_float(scales.dtype) || scales.shape != expected {
            let message = format!("expected scales {expected:?}, found shape {:?}", scales.shape);
            return Err(invalid(&stem, message));
        }
        let columns = shape.last().copied().unwrap_or(1).max(1);
        let make = move || {
            let Some(float) = floats::kind(scales.dtype) else { return Bytes::of(&[]) };
            let factors = scales.read(|bytes| widen(bytes, float))?;
            let across = if factors.len() > 1 { columns.div_ceil(block) } else { 1 };
            let place = |at: usize| match factors.len() {
                1 => 0,
                _ => at / columns / block * across + at % columns / block,
            };
            let number = |(at, code): (usize, &u8)| float_of_8_bits(*code) * factors[place(at)];
            let numbers: Vec<f32> =
                codes.read(|codes| codes.iter().enumerate().map(number).collect())?;
            Bytes::of(&narrow(&numbers, mlxk_core::Float::BF16))
        };
        all.tensors.insert(stem, Tensor::made(Dtype::Bfloat16, shape, make));
    }
    Ok(())
}

/// Value of an 8-bit float E4M3: a sign, 4 bits of exponent and 3 of fraction (arXiv 2209.05433).
fn float_of_8_bits(code: u8) -> f32 {
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction / 8.0 * 2f32.powi(-6),
        _ => (1.0 + fraction / 8.0) * 2f32.powi(exponent - 7),
    };
    if code & 0x80 == 0 { size } else { -size }
}
