//! Tensor parallelism: the share of a layer that a rank computes.
//!
//! A rank keeps some outputs of the matrices that lead inward (queries, keys, values, gate, up) and
//! the matching inputs of the matrix that leads back (output, down); the sum over ranks is the
//! layer's output. A layer that cannot be split is computed whole by every rank.

use std::ops::Range;

use mlxk_core::Result;

use crate::checkpoint::cursor::Cursor;

/// Cuts the attention layer at `w` to this rank's heads: kv heads with all their query heads.
/// Returns the query heads and kv heads that remain.
pub fn heads(
    w: &mut Cursor,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
) -> Result<(usize, usize)> {
    let all = (heads, kv_heads);
    let whole = kv_heads == 0
        || !heads.is_multiple_of(kv_heads)
        || norm_spans_heads(w, heads, kv_heads, head_dim);
    let Some(share) = w.share().filter(|_| !whole) else { return Ok(all) };
    let each = heads / kv_heads;
    let group = w.group("o_proj", heads * head_dim);
    let lot = group / gcd(group, each * head_dim);
    let Some(kv) = share.of(kv_heads, lot) else { return Ok(all) };
    let own = kv.start * each..kv.end * each;
    let elements = |heads: &Range<usize>| heads.start * head_dim..heads.end * head_dim;
    for name in ["q_proj", "gate_proj"] {
        w.keep_rows(name, 0, elements(&own))?;
    }
    for name in ["k_proj", "v_proj"] {
        w.keep_rows(name, 0, elements(&kv))?;
    }
    w.keep_columns("o_proj", heads * head_dim, elements(&own), share.rank == 0)?;
    w.keep("sinks", 0, own.clone())?;
    for (name, of, heads) in [("q_norm", &own, heads), ("k_norm", &kv, kv_heads)] {
        let mut norm = w.at(name);
        if norm.has("weight") && norm.form("weight")?.0 == [heads, head_dim] {
            norm.keep("weight", 0, of.clone())?;
        }
    }
    Ok((own.len(), kv.len()))
}

/// True if a norm spans several heads, so that a rank cannot compute it from its own heads.
fn norm_spans_heads(w: &mut Cursor, heads: usize, kv_heads: usize, head_dim: usize) -> bool {
    let spans = |mut norm: Cursor, heads: usize| {
        let form = norm.form("weight").map(|(shape, _)| shape);
        form.is_ok_and(|shape| heads > 1 && shape == [heads * head_dim])
            || norm.at("norms").has("0.weight")
    };
    w.at("attn_sub_norm").has("weight")
        || spans(w.at("q_norm"), heads)
        || spans(w.at("k_norm"), kv_heads)
}

/// Cuts the feed-forward layer at `w`, `inner` elements wide, to this rank's elements. Returns
/// their number.
pub fn inner(w: &mut Cursor, inner: usize) -> Result<usize> {
    match w.at("ffn_sub_norm").has("weight") {
        true => Ok(inner),
        false => columns(w, inner, 0),
    }
}

/// Cuts each expert at `w`, `inner` elements wide, to this rank's elements. Returns their number.
pub fn experts(w: &mut Cursor, inner: usize) -> Result<usize> {
    columns(w, inner, 1)
}

/// Cuts the outputs of `gate_proj` and `up_proj` along `axis`, and the inputs of `down_proj`.
fn columns(w: &mut Cursor, inner: usize, axis: usize) -> Result<usize> {
    let Some(share) = w.share() else { return Ok(inner) };
    let own = share.of(inner, w.group("down_proj", inner));
    let Some(own) = own else { return Ok(inner) };
    for name in ["gate_proj", "up_proj"] {
        w.keep_rows(name, axis, own.clone())?;
    }
    w.keep_columns("down_proj", inner, own.clone(), share.rank == 0)?;
    Ok(own.len())
}

/// Greatest common divisor.
fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
