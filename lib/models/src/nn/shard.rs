//! Tensor parallelism: the share of a layer that a rank computes.
//!
//! A rank keeps some outputs of the matrices that lead inward (queries, keys, values, gate, up) and
//! the matching inputs of the matrix that leads back (output, down); the sum over ranks is the
//! layer's output. A layer that cannot be split is computed whole by every rank.

use std::ops::Range;

use mlxk_core::Result;

use crate::checkpoint::cursor::Cursor;

/// Numbers and sizes of the heads of an attention layer.
#[derive(Clone, Copy)]
pub struct Heads {
    /// Heads of queries.
    pub queries: usize,
    /// Heads of keys and values, each shared by `queries / keys` query heads.
    pub keys: usize,
    /// Elements of a query or key.
    pub size: usize,
    /// Elements of a value.
    pub value_size: usize,
    /// Gates of a head.
    pub gates: usize,
}

/// Cuts the attention layer at `w` to this rank's heads: kv heads with all their query heads.
/// Returns the heads that remain.
pub fn heads(w: &mut Cursor, all: &Heads) -> Result<Heads> {
    let &Heads { queries, keys, size, value_size, gates } = all;
    let whole = keys == 0 || !queries.is_multiple_of(keys) || norm_spans_heads(w, all);
    let Some(share) = w.share().filter(|_| !whole) else { return Ok(*all) };
    let each = queries / keys;
    let group = w.group("o_proj", queries * value_size);
    let lot = group / gcd(group, each * value_size);
    let Some(kv) = share.of(keys, lot) else { return Ok(*all) };
    let own = kv.start * each..kv.end * each;
    let elements = |heads: &Range<usize>, size: usize| heads.start * size..heads.end * size;
    for (name, heads, size) in [
        ("q_proj", &own, size),
        ("gate_proj", &own, gates),
        ("k_proj", &kv, size),
        ("v_proj", &kv, value_size),
    ] {
        w.keep_rows(name, 0, elements(heads, size))?;
    }
    w.keep_columns("o_proj", queries * value_size, elements(&own, value_size), share.rank == 0)?;
    w.keep("sinks", 0, own.clone())?;
    for (name, of, heads) in [("q_norm", &own, queries), ("k_norm", &kv, keys)] {
        let mut norm = w.at(name);
        if norm.has("weight") && norm.form("weight")?.0 == [heads, size] {
            norm.keep("weight", 0, of.clone())?;
        }
    }
    Ok(Heads { queries: own.len(), keys: kv.len(), ..*all })
}

/// True if a norm spans several heads, so that a rank cannot compute it from its own heads.
fn norm_spans_heads(w: &mut Cursor, all: &Heads) -> bool {
    let spans = |mut norm: Cursor, heads: usize| {
        let form = norm.form("weight").map(|(shape, _)| shape);
        form.is_ok_and(|shape| heads > 1 && shape == [heads * all.size])
            || norm.at("norms").has("0.weight")
    };
    w.at("attn_sub_norm").has("weight")
        || spans(w.at("q_norm"), all.queries)
        || spans(w.at("k_norm"), all.keys)
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
