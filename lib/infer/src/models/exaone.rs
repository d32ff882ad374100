//! EXAONE 4 (arXiv 2507.11407): norms after each part; layers without a window have no positions.

use mlxk_core::Result;
use serde_json::Value;

use super::Language;
use super::config::{Config, invalid};
use super::decoder::{Arch, Decoder, Norms};
use super::llama;
use crate::weights::Cursor;

/// An exaone4. `sliding_window_pattern` has a letter for each layer in turn, `L` for those with a
/// window; without it all layers see everything and know positions.
pub fn load_4(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let mut arch = Arch { norms: Norms::AFTER, ..llama::arch(&c, None, false)? };
    let pattern: Option<Value> = c.get("sliding_window_pattern")?;
    let slides: Box<dyn Fn(usize) -> bool> = match pattern {
        None => return Decoder::load(arch, w),
        Some(Value::String(letters)) if !letters.is_empty() => {
            Box::new(move |i| letters.as_bytes()[i % letters.len()] == b'L')
        }
        Some(Value::Number(n)) if n.as_u64().is_some_and(|n| n > 0) => {
            let every = n.as_u64().unwrap_or(1) as usize;
            Box::new(move |i| !(i + 1).is_multiple_of(every))
        }
        Some(other) => return Err(invalid(format!("`sliding_window_pattern` cannot be {other}"))),
    };
    for (i, layer) in arch.layers.iter_mut().enumerate() {
        layer.window = c.window(i, slides(i))?;
        layer.rope = layer.rope.take().filter(|_| layer.window.is_some());
    }
    Decoder::load(arch, w)
}
