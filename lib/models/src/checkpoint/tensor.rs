//! A tensor of a checkpoint: it lies in a mapped file, or is made of others when it is asked for.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use memmap2::{MmapMut, UncheckedAdvice};
use mlx_rs::{Array, Dtype};
use mlxk_core::tensors::Dtype as Disk;
use mlxk_core::{Error, Kind, Result};
use mlxk_tensor::mlx;

/// A tensor, whose elements are row-major and little-endian.
#[derive(Clone)]
pub struct Tensor {
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
    elements: Elements,
}

#[derive(Clone)]
enum Elements {
    Stored(Bytes),
    /// Those of some tensors, one after another.
    Joined(Arc<[Tensor]>),
    Made(Arc<dyn Fn() -> Result<Bytes> + Send + Sync>),
}

/// A part of a file mapped privately, which writes, should there be any, do not reach; or memory.
#[derive(Clone)]
pub struct Bytes {
    file: Arc<MmapMut>,
    /// Where in the file, within its length.
    range: Range<usize>,
}

impl Tensor {
    /// A tensor that lies in a file.
    pub fn stored(dtype: Dtype, shape: Vec<usize>, bytes: Bytes) -> Tensor {
        Tensor { dtype, shape, elements: Elements::Stored(bytes) }
    }

    /// A tensor that `make` makes, whenever its elements are asked for.
    pub fn made(
        dtype: Dtype,
        shape: Vec<usize>,
        make: impl Fn() -> Result<Bytes> + Send + Sync + 'static,
    ) -> Tensor {
        Tensor { dtype, shape, elements: Elements::Made(Arc::new(make)) }
    }

    /// A tensor of the elements of `parts`, one after another, which are of the type `dtype`.
    pub fn joined(dtype: Dtype, shape: Vec<usize>, parts: Vec<Tensor>) -> Tensor {
        Tensor { dtype, shape, elements: Elements::Joined(parts.into()) }
    }

    /// Bytes of its elements.
    pub fn size(&self) -> usize {
        self.shape.iter().product::<usize>() * size(self.dtype)
    }

    /// The same elements in another shape, which has as many.
    pub fn shaped(self, shape: Vec<usize>) -> Tensor {
        Tensor { shape, ..self }
    }

    /// The same bytes as elements of another type, in a shape that has as many.
    pub fn viewed(self, dtype: Dtype, shape: Vec<usize>) -> Tensor {
        Tensor { dtype, shape, ..self }
    }

    /// Its elements. Errors if they cannot be made.
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

    /// Gives its elements to `read`; those of a file leave memory afterwards.
    pub fn read<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let bytes = self.bytes()?;
        let result = read(bytes.as_slice());
        if let Elements::Stored(bytes) = &self.elements {
            bytes.forget(0..bytes.range.len());
        }
        Ok(result)
    }

    /// Gives at most `size` bytes of its elements at a time to `read`, of each that it is joined of
    /// by itself; those of a file leave memory afterwards.
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

    /// The tensor as an array of its own type, over the mapped file if its place there is aligned.
    /// Errors if its elements cannot be made.
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
    /// A part of a file, which must be within it.
    pub fn within(file: &Arc<MmapMut>, range: Range<usize>) -> Bytes {
        Bytes { file: file.clone(), range }
    }

    /// A copy in memory. Errors if there is none.
    pub fn of(bytes: &[u8]) -> Result<Bytes> {
        Bytes::joined(std::iter::once(bytes))
    }

    /// A copy in memory of some, one after another. Errors if there is none.
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

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }

    /// A part of them, which must be within them.
    pub fn part(&self, range: Range<usize>) -> Bytes {
        let start = self.range.start;
        Bytes { file: self.file.clone(), range: start + range.start..start + range.end }
    }

    /// Lets a part of bytes of a file leave memory, to be read again should they be asked for again.
    fn forget(&self, range: Range<usize>) {
        let start = self.range.start + range.start;
        // SAFETY: nobody writes to the map of a file, so that what is forgotten is what the file
        // holds. That it may fail to leave memory does no harm.
        let _ = unsafe {
            self.file.unchecked_advise_range(UncheckedAdvice::DontNeed, start, range.len())
        };
    }
}

/// The bytes of an array. Those of a file leave memory with it: on a CPU, where MLX copies what it is
/// given, at once.
struct Lent {
    bytes: Bytes,
    /// Whether they are those of a file.
    stored: bool,
}

// SAFETY: the mapping lives and stays where it is while one `Arc` holds it, and is private and
// writable. No two tensors share bytes, so a buffer that MLX reuses is nobody else's.
unsafe impl mlx::Memory for Lent {
    fn address(&self) -> *mut c_void {
        self.bytes.as_slice().as_ptr().cast_mut().cast()
    }
}

impl Drop for Lent {
    /// Forgets whole pages alone: in a part of one, another array may have been written to.
    fn drop(&mut self) {
        let Range { start, end } = self.bytes.range;
        let (first, last) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
        if self.stored && first < last {
            self.bytes.forget(first - start..last - start);
        }
    }
}

/// A multiple of the size of pages everywhere.
const PAGE: usize = 1 << 16;

/// The types of MLX, and those of files that are the same. MLX has no floats of 8 bits: they are
/// bytes to it.
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

/// MLX's type of elements of a file, if it has it.
pub fn in_memory(dtype: Disk) -> Option<Dtype> {
    TYPES.iter().find(|(_, disk)| *disk == dtype).map(|(dtype, _)| *dtype)
}

/// What a file calls a type of MLX, if it can hold it.
pub fn on_disk(dtype: Dtype) -> Option<Disk> {
    TYPES.iter().find(|(memory, _)| *memory == dtype).map(|(_, disk)| *disk)
}

/// The bytes of an element.
pub fn size(dtype: Dtype) -> usize {
    on_disk(dtype).map_or(1, |dtype| dtype.bitsize() / 8)
}
