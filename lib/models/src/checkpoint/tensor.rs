//! Tensor of a checkpoint: stored in a mapped file, or made from other tensors when it is read.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use memmap2::{MmapMut, UncheckedAdvice};
use mlx_rs::{Array, Dtype};
use mlxk_core::tensors::Dtype as Disk;
use mlxk_core::{Error, Kind, Result};
use mlxk_tensor::mlx;

/// Tensor with row-major, little-endian elements.
#[derive(Clone)]
pub struct Tensor {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<usize>,
    elements: Elements,
}

/// Source of the elements.
#[derive(Clone)]
enum Elements {
    Stored(Bytes),
    /// Elements of several tensors, one after another.
    Joined(Arc<[Tensor]>),
    Made(Arc<dyn Fn() -> Result<Bytes> + Send + Sync>),
}

/// Range of a privately mapped file, or of anonymous memory. Writes do not reach the file.
#[derive(Clone)]
pub struct Bytes {
    file: Arc<MmapMut>,
    /// Range within the file.
    range: Range<usize>,
}

impl Tensor {
    /// Tensor in a file.
    pub fn stored(dtype: Dtype, shape: Vec<usize>, bytes: Bytes) -> Tensor {
        Tensor { dtype, shape, elements: Elements::Stored(bytes) }
    }

    /// Tensor that `make` makes whenever it is read.
    pub fn made(
        dtype: Dtype,
        shape: Vec<usize>,
        make: impl Fn() -> Result<Bytes> + Send + Sync + 'static,
    ) -> Tensor {
        Tensor { dtype, shape, elements: Elements::Made(Arc::new(make)) }
    }

    /// Concatenation of `parts`, which are of type `dtype`.
    pub fn joined(dtype: Dtype, shape: Vec<usize>, parts: Vec<Tensor>) -> Tensor {
        Tensor { dtype, shape, elements: Elements::Joined(parts.into()) }
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.shape.iter().product::<usize>() * size(self.dtype)
    }

    /// Tensor with these elements and another shape of the same size.
    pub fn shaped(self, shape: Vec<usize>) -> Tensor {
        Tensor { shape, ..self }
    }

    /// Tensor with these bytes as elements of another type, in a shape of the same size.
    pub fn viewed(self, dtype: Dtype, shape: Vec<usize>) -> Tensor {
        Tensor { dtype, shape, ..self }
    }

    /// Elements as bytes. Errors if they cannot be made.
    pub fn bytes(&self) -> Result<Bytes> {
        match &self.elements {
            Elements::Stored(bytes) => Ok(bytes.clone()),
            Elements::Made(make) => make(),
            Elements::Joined(parts) => {
                let mut all = Vec::with_capacity(self.size());
                for part in parts.iter() {
                    part.read(|bytes| all.extend_from_slice(bytes))?;
                }
                Bytes::of(&all)
            }
        }
    }

    /// Passes the elements to `read`. Pages of a file are released from memory afterwards.
    pub fn read<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let bytes = self.bytes()?;
        let result = read(bytes.as_slice());
        if let Elements::Stored(bytes) = &self.elements {
            bytes.forget(0..bytes.range.len());
        }
        Ok(result)
    }

    /// Passes the elements to `read` in blocks of at most `size` bytes, the parts of a
    /// concatenation one by one. Pages of a file are released from memory afterwards.
    pub fn consume(&self, size: usize, read: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if let Elements::Joined(parts) = &self.elements {
            return parts.iter().try_for_each(|part| part.consume(size, read));
        }
        let bytes = self.bytes()?;
        for (n, block) in bytes.as_slice().chunks(size).enumerate() {
            read(block)?;
            if let Elements::Stored(bytes) = &self.elements {
                bytes.forget(n * size..n * size + block.len());
            }
        }
        Ok(())
    }

    /// Converts to an array of the same type, over the mapped file if the tensor is aligned there.
    /// Errors if the elements cannot be made.
    pub fn array(&self) -> Result<Array> {
        let shape: Vec<i32> = self.shape.iter().map(|&n| n as i32).collect();
        let bytes = self.bytes()?;
        let data = bytes.as_slice().as_ptr();
        Ok(if data.align_offset(8) == 0 {
            let lent = Lent { bytes, stored: matches!(self.elements, Elements::Stored(_)) };
            // SAFETY: the range holds the tensor, and no element is larger than 8 bytes.
            unsafe { mlx::over(lent, &shape, self.dtype) }
        } else {
            // SAFETY: the range holds the tensor; it is copied here.
            unsafe { Array::from_raw_data(data.cast(), &shape, self.dtype) }
        })
    }
}

impl Bytes {
    /// Range of a file; must lie within it.
    pub fn within(file: &Arc<MmapMut>, range: Range<usize>) -> Bytes {
        Bytes { file: file.clone(), range }
    }

    /// Copy in memory. Errors if memory is short.
    pub fn of(bytes: &[u8]) -> Result<Bytes> {
        Bytes::joined(std::iter::once(bytes))
    }

    /// Concatenation in memory. Errors if memory is short.
    pub fn joined<'a>(pieces: impl Iterator<Item = &'a [u8]> + Clone) -> Result<Bytes> {
        let length = pieces.clone().map(<[u8]>::len).sum();
        let mut memory = MmapMut::map_anon(usize::max(length, 1))
            .map_err(|e| Error::new(Kind::InsufficientMemory, "weights", e.to_string()))?;
        let mut rest = &mut memory[..];
        for piece in pieces {
            let (start, after) = rest.split_at_mut(piece.len());
            start.copy_from_slice(piece);
            rest = after;
        }
        Ok(Bytes { file: Arc::new(memory), range: 0..length })
    }

    /// All bytes of the range.
    pub fn as_slice(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }

    /// Part of the range; must lie within it.
    pub fn part(&self, range: Range<usize>) -> Bytes {
        let start = self.range.start;
        Bytes { file: self.file.clone(), range: start + range.start..start + range.end }
    }

    /// Releases pages of a file from memory; they are read again when accessed.
    fn forget(&self, range: Range<usize>) {
        let start = self.range.start + range.start;
        // SAFETY: nobody writes to the map of a file, so that what is forgotten is what the file
        // holds. That it may fail to leave memory does no harm.
        let _ = unsafe {
            self.file.unchecked_advise_range(UncheckedAdvice::DontNeed, start, range.len())
        };
    }
}

/// Memory of an array. Pages of a file are released when the array is dropped, which on a CPU is at
/// once, because MLX copies them.
struct Lent {
    bytes: Bytes,
    /// True if the bytes are those of a file.
    stored: bool,
}

// SAFETY: the mapping lives and stays where it is while one `Arc` holds it, and is private and
// writable. No two tensors share bytes, so a buffer that MLX reuses has no other reader.
unsafe impl mlx::Memory for Lent {
    fn address(&self) -> *mut c_void {
        self.bytes.as_slice().as_ptr().cast_mut().cast()
    }
}

impl Drop for Lent {
    /// Releases whole pages only: a page at the end may belong to another array that was written
    /// to.
    fn drop(&mut self) {
        let Range { start, end } = self.bytes.range;
        let (first, last) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
        if self.stored && first < last {
            self.bytes.forget(first - start..last - start);
        }
    }
}

/// Multiple of the page size of every platform.
const PAGE: usize = 1 << 16;

/// Types of MLX and the equal types of files. MLX lacks 8-bit floats, which are bytes to it.
const TYPES: [(Dtype, Disk); 15] = [
    (Dtype::Bool, Disk::BOOL),
    (Dtype::Uint8, Disk::U8),
    (Dtype::Uint8, Disk::F8_E4M3),
    (Dtype::Uint8, Disk::F8_E8M0),
    (Dtype::Int8, Disk::I8),
    (Dtype::Uint16, Disk::U16),
    (Dtype::Int16, Disk::I16),
    (Dtype::Uint32, Disk::U32),
    (Dtype::Int32, Disk::I32),
    (Dtype::Uint64, Disk::U64),
    (Dtype::Int64, Disk::I64),
    (Dtype::Float16, Disk::F16),
    (Dtype::Bfloat16, Disk::BF16),
    (Dtype::Float32, Disk::F32),
    (Dtype::Float64, Disk::F64),
];

/// Type in MLX of elements of a file; `None` if MLX lacks it.
pub fn in_memory(dtype: Disk) -> Option<Dtype> {
    TYPES.iter().find(|(_, disk)| *disk == dtype).map(|(dtype, _)| *dtype)
}

/// Type in a file of elements in MLX; `None` if files cannot hold it.
pub fn on_disk(dtype: Dtype) -> Option<Disk> {
    TYPES.iter().find(|(memory, _)| *memory == dtype).map(|(_, disk)| *disk)
}

/// Size of an element in bytes.
pub fn size(dtype: Dtype) -> usize {
    on_disk(dtype).map_or(1, |dtype| dtype.bitsize() / 8)
}
