//! Up projection of latent keys and values in MLX's form: per head, a matrix that maps queries to
//! the latent space, and one that maps latent vectors to values.

use mlx_rs::Dtype;
use mlxk_core::Result;
use mlxk_core::quantization::{Mode, QuantSpec};
use mlxk_tensor::affine;
use mlxk_tensor::floats::{self, narrow, widen};

use super::checkpoint::{Checkpoint, invalid};
use crate::checkpoint::reshape;
use crate::checkpoint::tensor::{Bytes, Tensor};

/// Splits each `kv_b_proj` into `embed_q` and `unembed_out`; quantised ones are requantised.
pub fn split(all: &mut Checkpoint) -> Result<()> {
    let bases: Vec<String> = { all.tensors.keys() }
        .filter_map(|name| name.strip_suffix("kv_b_proj.weight").map(str::to_owned))
        .collect();
    if bases.is_empty() {
        return Ok(());
    }
    let sizes = Sizes {
        heads: all.number("num_attention_heads")?,
        plain: all.number("qk_nope_head_dim")?,
        value: all.number("v_head_dim")?,
        rank: all.number("kv_lora_rank")?,
    };
    for base in bases {
        let name = format!("{base}kv_b_proj");
        let (plain, form) = whole(all, &name, &sizes)?;
        let [heads, rank] = [sizes.heads, sizes.rank];
        let rows = sizes.plain + sizes.value;
        if plain.shape != [heads * rows, rank] {
            let message =
                format!("expected shape {:?}, found {:?}", [heads * rows, rank], plain.shape);
            return Err(invalid(&format!("{name}.weight"), message));
        }
        let part = |range: std::ops::Range<usize>| {
            let size = range.len();
            reshape::rows(&plain, heads, range).shaped(vec![heads, size, rank])
        };
        let keys = reshape::transposed(part(0..sizes.plain));
        for (to, tensor) in [("embed_q", keys), ("unembed_out", part(sizes.plain..rows))] {
            let to = format!("{base}{to}");
            all.alias(&to, &name);
            put(all, &to, tensor, form);
        }
    }
    Ok(())
}

struct Sizes {
    heads: usize,
    plain: usize,
    value: usize,
    rank: usize,
}

/// Dense matrix, and its former quantisation if it was quantised.
fn whole(all: &mut Checkpoint, name: &str, sizes: &Sizes) -> Result<(Tensor, Option<QuantSpec>)> {
    let weight = all.take(&format!("{name}.weight"))?;
    if !all.tensors.contains_key(&format!("{name}.scales")) {
        return Ok((weight, None));
    }
    let [scales, biases] = ["scales", "biases"].map(|part| all.take(&format!("{name}.{part}")));
    let (scales, biases) = (scales?, biases?);
    let last = |tensor: &Tensor| tensor.shape.last().copied().unwrap_or_default();
    let bits = last(&weight) * 32 / sizes.rank.max(1);
    let group_size = sizes.rank / last(&scales).max(1);
    let form = QuantSpec { mode: Mode::Affine, bits, group_size };
    let known = Mode::Affine.supported().any(|known| known == (bits, group_size))
        && weight.shape.len() == 2
        && weight.shape[0] * sizes.rank == scales.shape.iter().product::<usize>() * group_size
        && biases.shape == scales.shape;
    let Some(float) = floats::kind(scales.dtype).filter(|_| known) else {
        return Err(invalid(name, "packed in a form that MLX has not"));
    };
    let rows = weight.shape.first().copied().unwrap_or_default();
    let dtype = scales.dtype;
    let plain = Tensor::made(dtype, vec![rows, sizes.rank], move || {
        let numbers = |tensor: &Tensor| tensor.read(|bytes| widen(bytes, float));
        let (scales, biases) = (numbers(&scales)?, numbers(&biases)?);
        let mut weights = vec![0.0; scales.len() * group_size];
        weight.read(|codes| affine::dequantize(codes, &scales, &biases, bits, &mut weights))?;
        Bytes::of(&narrow(&weights, float))
    });
    Ok((plain, Some(form)))
}

/// Inserts the tensor [.., ins] as the matrix `name`, quantised as `form` if its rows fit the
/// groups.
fn put(all: &mut Checkpoint, name: &str, tensor: Tensor, form: Option<QuantSpec>) {
    let fits = |form: &QuantSpec| tensor.shape.last().is_some_and(|ins| ins % form.group_size == 0);
    let packs = form.filter(fits).zip(floats::kind(tensor.dtype));
    let Some((QuantSpec { bits, group_size, .. }, float)) = packs else {
        all.tensors.insert(format!("{name}.weight"), tensor);
        return;
    };
    let shape = |each: fn(usize, usize, usize) -> usize| {
        let mut shape = tensor.shape.clone();
        if let Some(ins) = shape.last_mut() {
            *ins = each(*ins, bits, group_size);
        }
        shape
    };
    let part =
        |dtype: Dtype, shape: Vec<usize>, part: fn(affine::Packed, mlxk_core::Float) -> Vec<u8>| {
            let tensor = tensor.clone();
            Tensor::made(dtype, shape, move || {
                let weights = tensor.read(|bytes| widen(bytes, float))?;
                Bytes::of(&part(affine::quantize(&weights, group_size, bits), float))
            })
        };
    let groups = shape(|ins, _, group_size| ins / group_size);
    let codes =
        part(Dtype::Uint32, shape(|ins, bits, _| ins * bits / 32), |packed, _| packed.codes);
    let scales = part(tensor.dtype, groups.clone(), |packed, float| narrow(&packed.scales, float));
    let biases = part(tensor.dtype, groups, |packed, float| narrow(&packed.biases, float));
    for (end, tensor) in [("weight", codes), ("scales", scales), ("biases", biases)] {
        all.tensors.insert(format!("{name}.{end}"), tensor);
    }
}
