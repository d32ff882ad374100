//! The safetensors format: headers, the index of a sharded model, and a writer; headers of npz files.

mod header;
mod index;
mod npz;
mod rebuild;
mod writer;

pub use header::{Header, MAX_HEADER, Tensor};
pub use index::{INDEX, Index};
pub use rebuild::rebuild_index;
pub use safetensors::Dtype;
pub use writer::{Entry, SHARD, stream, write};
