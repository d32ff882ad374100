//! Bytes of the cache of a sequence, known from the sequence's length.

use super::buffer::{Packing, Vectors};
use super::{Cache, KvLayout, Slot};

/// Longest sequence of a cost estimate, in tokens: positions are 32-bit integers.
const LONGEST: u64 = 1 << 30;

/// Cost of the cache of a sequence.
#[derive(Clone, Debug)]
pub struct CacheCost(Vec<SlotCost>);

#[derive(Clone, Debug)]
enum SlotCost {
    /// Keys and values of each token.
    Kv(KvLayout, [Vectors; 2]),
    /// Rows and their keys, one for every so many tokens.
    CompressedKv(i32, [Vectors; 2]),
    /// Arrays of so many bytes, whatever the length.
    State(u64),
}

impl CacheCost {
    /// Cost of caches like `cache`, which holds a token or more. The caches of other ranks are not
    /// counted.
    pub fn of(cache: &Cache) -> CacheCost {
        let cost = |slot: &Slot| match slot {
            Slot::Kv(kv) => SlotCost::Kv(kv.layout(), kv.vectors()),
            Slot::CompressedKv(rows) => SlotCost::CompressedKv(rows.pace(), rows.vectors()),
            Slot::State(state) => {
                SlotCost::State(state.arrays.iter().flatten().map(|a| a.nbytes() as u64).sum())
            }
            Slot::Remote(_) => SlotCost::State(0),
        };
        CacheCost(cache.slots.iter().map(cost).collect())
    }

    /// Cost with the layout of all keys and values changed.
    pub fn with_layout(self, change: impl Fn(KvLayout) -> KvLayout) -> CacheCost {
        let slots = self.0.into_iter().map(|slot| match slot {
            SlotCost::Kv(layout, vectors) => SlotCost::Kv(change(layout), vectors),
            other => other,
        });
        CacheCost(slots.collect())
    }

    /// Most bytes that each slot takes until it holds `tokens` tokens, of which `chunk` are
    /// appended at a time.
    pub fn bytes_at(&self, tokens: u64, chunk: usize) -> u64 {
        self.slots_at(tokens, chunk).sum()
    }

    fn slots_at(&self, tokens: u64, chunk: usize) -> impl Iterator<Item = u64> {
        let tokens = tokens.min(LONGEST) as i32;
        let chunk = chunk.clamp(1, LONGEST as usize) as i32;
        self.0.iter().map(move |slot| match slot {
            _ if tokens == 0 => 0,
            SlotCost::Kv(layout, vectors) => kv_bytes(layout, vectors, tokens, chunk),
            SlotCost::CompressedKv(pace, vectors) => {
                kv_bytes(&KvLayout::new(None), vectors, (tokens / pace).max(1), chunk)
            }
            SlotCost::State(bytes) => *bytes,
        })
    }
}

/// Most bytes of keys and values on the way to `tokens` tokens.
fn kv_bytes(layout: &KvLayout, vectors: &[Vectors; 2], tokens: i32, chunk: i32) -> u64 {
    let token = |packing: Option<Packing>| vectors.iter().map(|v| v.bytes(packing)).sum::<u64>();
    let tokens = layout.settled(chunk).map_or(tokens, |settled| tokens.min(settled));
    let (mut appended, mut held, mut room, mut most) = (0, 0, 0, 0);
    while appended < tokens {
        // Without a window the room depends on the sum alone; quantisation begins with a chunk.
        let due = match (layout.window, layout.packing) {
            (None, Some(packing)) if appended < packing.start => {
                (packing.start - appended).saturating_add(chunk - 1) / chunk * chunk
            }
            (None, _) => tokens,
            (Some(_), _) => chunk,
        };
        let n = due.min(tokens - appended);
        if held + n > room {
            (held, room) = layout.grown(held, n);
        }
        held += n;
        most = most.max(room as u64 * token(layout.packing_at(appended)));
        appended += n;
    }
    most
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use mlx_rs::{Array, Dtype};

    use super::super::{CompressedKv, Kv, State};
    use super::*;

    const F16: Dtype = Dtype::Float16;

    fn zeros(shape: &[i32], dtype: Dtype) -> Array {
        mlx_rs::ops::zeros_dtype(shape, dtype).unwrap()
    }

    /// Appends `n` tokens to the `tokens` ones of `cache`; keys and values are of different sizes.
    fn append(cache: &mut Cache, tokens: i32, n: i32) {
        let [keys, values] = [64, 32].map(|size| zeros(&[1, 3, n, size], F16));
        for slot in &mut cache.slots {
            match slot {
                Slot::Kv(kv) => kv.append(&keys, &values).unwrap(),
                Slot::CompressedKv(rows) => {
                    let new = (tokens + n) / rows.pace() - rows.held();
                    let [row, key] = [48, 16].map(|size| zeros(&[1, 1, new, size], F16));
                    rows.append(n, &row, &key).unwrap();
                }
                Slot::State(state) => state.arrays[0] = Some(zeros(&[1, 7], Dtype::Float32)),
                Slot::Remote(_) => {}
            }
        }
    }

    fn bytes(cache: &Cache) -> Vec<u64> {
        let slots = cache.slots.iter().cloned();
        slots.map(|slot| Cache { slots: vec![slot] }.bytes()).collect()
    }

    #[test]
    fn a_cost_is_what_caches_of_any_length_take_at_most() {
        let packing = |start| Packing { bits: 4, group_size: 32, start };
        let layouts = [
            KvLayout::new(None),
            KvLayout::new(Some(1)),
            KvLayout::new(Some(300)),
            KvLayout::chunked(600),
            KvLayout::new(None).bounded(500, 4),
            KvLayout::new(None).packed(packing(0)),
            KvLayout::new(None).packed(packing(1000)),
            KvLayout::new(Some(300)).packed(packing(700)),
        ];
        let slots = |layout: &dyn Fn(KvLayout) -> KvLayout| {
            let kv =
                layouts.iter().map(|own| Slot::Kv(Kv::new(None).with_layout(|_| layout(*own))));
            let others = [Slot::CompressedKv(CompressedKv::new(4)), Slot::State(State::new(1))];
            Cache { slots: kv.chain(others).collect() }
        };
        // The sample is not quantised.
        let mut sample = slots(&|layout| KvLayout { packing: None, ..layout });
        append(&mut sample, 0, 1);
        let mut sample = CacheCost::of(&sample).0;
        for (slot, layout) in sample.iter_mut().zip(layouts) {
            if let SlotCost::Kv(own, _) = slot {
                *own = layout;
            }
        }
        let cost = CacheCost(sample);
        for chunk in [1, 100, 256, 512] {
            let mut cache = slots(&|layout| layout);
            let mut most = vec![0; cache.slots.len()];
            let mut tokens = 0;
            while tokens < 3000 {
                append(&mut cache, tokens, chunk);
                tokens += chunk;
                for (most, bytes) in most.iter_mut().zip(bytes(&cache)) {
                    *most = bytes.max(*most);
                }
                let told: Vec<u64> = cost.slots_at(tokens as u64, chunk as usize).collect();
                assert_eq!(told, most, "{tokens} tokens, {chunk} at a time");
            }
            for cost in [&cost, &CacheCost::of(&cache)] {
                let told = cost.bytes_at(tokens as u64, chunk as usize);
                assert_eq!(told, most.iter().sum::<u64>());
            }
        }
        assert_eq!(cost.bytes_at(0, 512), 0);
        assert!(cost.bytes_at(u64::MAX, 512) > 1 << 39);
    }
}
