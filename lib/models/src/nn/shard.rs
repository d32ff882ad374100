//! A rank's share of a layer: its rows of the matrices that lead inward, and the columns that belong
//! to them of the one that leads back. What the ranks' columns make adds up to what the layer makes.
//!
//! What cannot be shared stays whole on every rank, which then computes all of it.

use std::ops::Range;

use mlxk_core::Result;

use crate::checkpoint::cursor::Cursor;

/// Heads of an attention layer: how many, and elements of each.
#[derive(Clone, Copy)]
pub struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Heads of keys and values, each shared by `queries / keys` query heads.
    pub keys: usize,
    /// Elements of a query or key.
    pub size: usize,
    /// Elements of a value.
    pub value_size: usize,
    /// Elements of a head's gates.
    pub gates: usize,
}

/// Takes what is not this rank's from the attention layer at `w`: keys and values stay with all
/// queries that look at them. Returns the heads that are left.
pub fn heads(w: &mut Cursor, all: &Heads) -> Result<Heads> {
    let &Heads { queries, keys, size, value_size, gates } = all;
    let whole = keys == 0 || !queries.is_multiple_of(keys) || looks_at_all_heads(w, all);
    let Some(share) = w.share().filter(|_| !whole) else { return Ok(*all) };
    let each = queries / keys;
    let group = w.group("o_proj", queries * value_size);
    let lot = group / common_divisor(group, each * value_size);
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

/// Whether a norm spans several heads, so that no rank can do with some of them.
fn looks_at_all_heads(w: &mut Cursor, all: &Heads) -> bool {
    let spans = |mut norm: Cursor, heads: usize| {
        let form = norm.form("weight").map(|(shape, _)| shape);
        form.is_ok_and(|shape| heads > 1 && shape == [heads * all.size])
            || norm.at("norms").has("0.weight")
    };
    w.at("attn_sub_norm").has("weight")
        || spans(w.at("q_norm"), all.queries)
        || spans(w.at("k_norm"), all.keys)
}

/// Keeps of the feed-forward layer at `w`, `inner` elements wide, this rank's share of those elements.
/// Returns how many they are.
pub fn inner(w: &mut Cursor, inner: usize) -> Result<usize> {
    match w.at("ffn_sub_norm").has("weight") {
        true => Ok(inner),
        false => columns(w, inner, 0),
    }
}

/// Keeps of each of the experts at `w`, `inner` elements wide, this rank's share of those elements.
/// Returns how many they are.
pub fn experts(w: &mut Cursor, inner: usize) -> Result<usize> {
    columns(w, inner, 1)
}

/// Keeps a share of the outputs of `gate_proj` and `up_proj`, along `axis`, and of the inputs of
/// `down_proj`.
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

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
