//! The safetensors format: headers, the index of a sharded model, and a writer.

mod header;
mod index;
mod rebuild;
mod writer;

pub use header::{Header, MAX_HEADER, Tensor};
pub use index::{INDEX, Index};
pub use rebuild::rebuild_index;
pub use safetensors::Dtype;
pub use writer::{Entry, SHARD, stream, write};
