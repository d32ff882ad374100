//! A rank's share of a layer: its rows of the matrices that lead inward, and the columns that belong
//! to them of the one that leads back. What the ranks' columns make adds up to what the layer makes.
//!
//! What cannot be shared stays whole on every rank, which then computes all of it.

use std::ops::Range;

use mlxk_core::Result;
use serde::{Deserialize, Serialize};

use crate::mixture::MoeArch;
use crate::nn::{MlpArch, Sizes};
use crate::weights::Cursor;

/// Which share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which rank's.
    pub rank: usize,
    /// In how many it is shared.
    pub size: usize,
}

impl Share {
    /// Its part of `count` things that stay together in lots of `lot`; none if some rank would have
    /// none.
    fn of(self, count: usize, lot: usize) -> Option<Range<usize>> {
        let lots = count / lot;
        let start = |rank: usize| rank * lots / self.size * lot;
        let whole = count.is_multiple_of(lot) && lots >= self.size;
        whole.then(|| start(self.rank)..start(self.rank + 1))
    }
}

/// Takes what is not this rank's from the attention layer at `w`: keys and values stay with all
/// queries that look at them. Returns the sizes of what is left.
pub fn heads(w: &mut Cursor, sizes: &Sizes) -> Result<Sizes> {
    let &Sizes { heads, kv_heads, head_dim, value_dim, .. } = sizes;
    let whole = kv_heads == 0 || !heads.is_multiple_of(kv_heads) || looks_at_all_heads(w, sizes);
    let Some(share) = w.share().filter(|_| !whole) else { return Ok(*sizes) };
    let each = heads / kv_heads;
    let group = w.group("o_proj", heads * value_dim);
    let lot = group / common_divisor(group, each * value_dim);
    let Some(kv) = share.of(kv_heads, lot) else { return Ok(*sizes) };
    let own = kv.start * each..kv.end * each;
    let elements = |heads: &Range<usize>, size: usize| heads.start * size..heads.end * size;
    let gates = if sizes.gate.is_some_and(|gate| gate.by_head) { 1 } else { value_dim };
    for (name, heads, size) in [
        ("q_proj", &own, head_dim),
        ("gate_proj", &own, gates),
        ("k_proj", &kv, head_dim),
        ("v_proj", &kv, value_dim),
    ] {
        w.keep_rows(name, 0, elements(heads, size))?;
    }
    w.keep_columns("o_proj", heads * value_dim, elements(&own, value_dim), share.rank == 0)?;
    w.keep("sinks", 0, own.clone())?;
    for (name, of, heads) in [("q_norm", &own, heads), ("k_norm", &kv, kv_heads)] {
        let mut norm = w.at(name);
        if norm.has("weight") && norm.form("weight")?.0 == [heads, head_dim] {
            norm.keep("weight", 0, of.clone())?;
        }
    }
    Ok(Sizes { heads: own.len(), kv_heads: kv.len(), ..*sizes })
}

/// Whether a norm spans several heads, so that no rank can do with some of them.
fn looks_at_all_heads(w: &mut Cursor, sizes: &Sizes) -> bool {
    let spans = |mut norm: Cursor, heads: usize| {
        let form = norm.form("weight").map(|(shape, _)| shape);
        form.is_ok_and(|shape| heads > 1 && shape == [heads * sizes.head_dim])
            || norm.at("norms").has("0.weight")
    };
    w.at("attn_sub_norm").has("weight")
        || spans(w.at("q_norm"), sizes.heads)
        || spans(w.at("k_norm"), sizes.kv_heads)
}

/// The same for the feed-forward layer at `w`.
pub fn inner(w: &mut Cursor, arch: &MlpArch) -> Result<MlpArch> {
    let Some(share) = w.share().filter(|_| !w.at("ffn_sub_norm").has("weight")) else {
        return Ok(*arch);
    };
    let own = share.of(arch.inner, w.group("down_proj", arch.inner));
    let Some(own) = own else { return Ok(*arch) };
    for name in ["gate_proj", "up_proj"] {
        w.keep_rows(name, 0, own.clone())?;
    }
    w.keep_columns("down_proj", arch.inner, own.clone(), share.rank == 0)?;
    Ok(MlpArch { inner: own.len(), ..*arch })
}

/// The same for the experts at `w`, of each of which every rank has a share: how wide they are.
pub fn experts(w: &mut Cursor, arch: &MoeArch) -> Result<usize> {
    let Some(share) = w.share() else { return Ok(arch.inner) };
    let own = share.of(arch.inner, w.group("down_proj", arch.inner));
    let Some(own) = own else { return Ok(arch.inner) };
    for name in ["gate_proj", "up_proj"] {
        w.keep_rows(name, 1, own.clone())?;
    }
    w.keep_columns("down_proj", arch.inner, own.clone(), share.rank == 0)?;
    Ok(own.len())
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_there_is_in_whole_lots_and_none_is_empty() {
        let all = |size, count, lot| -> Option<Vec<Range<usize>>> {
            (0..size).map(|rank| Share { rank, size }.of(count, lot)).collect()
        };
        assert_eq!(all(2, 3, 1), Some(vec![0..1, 1..3]));
        assert_eq!(all(2, 192, 64), Some(vec![0..64, 64..192]));
        assert_eq!(all(3, 2, 1), None);
        assert_eq!(all(2, 100, 64), None);
    }
}
