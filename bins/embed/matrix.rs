//! Files of matrices of 32-bit floats, written row by row: NumPy's .npy and safetensors.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use mlxk_core::store::atomic_write::atomic_write;
use mlxk_core::{Error, Result};

/// Size of a header in bytes: room for any number of rows, which is known at the end, and a multiple of
/// 64, to which NumPy aligns data.
const HEADER: usize = 192;

/// Format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// NumPy's, version 1.0. Source: numpy.lib.format.
    Npy,
    /// Safetensors with the one tensor `embeddings`.
    Safetensors,
}

impl Format {
    /// Format that the end of the name of `path` says.
    ///
    /// # Errors
    /// If it says none.
    pub fn of(path: &Path) -> Result<Format> {
        match path.extension().and_then(|end| end.to_str()) {
            Some("npy") => Ok(Format::Npy),
            Some("safetensors") => Ok(Format::Safetensors),
            _ => {
                let message = "the name ends neither with .npy nor with .safetensors";
                Err(Error::command(message).about(path.display().to_string()))
            }
        }
    }

    /// Header of a matrix of `rows` by `columns`.
    fn header(self, rows: usize, columns: usize) -> Vec<u8> {
        let shape = format!("{rows}, {columns}");
        let (mut header, text, end) = match self {
            Format::Npy => {
                let mut start = b"\x93NUMPY\x01\x00".to_vec();
                start.extend(((HEADER - start.len() - 2) as u16).to_le_bytes());
                let fields =
                    format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
                (start, fields, b'\n')
            }
            Format::Safetensors => {
                let start = ((HEADER - 8) as u64).to_le_bytes().to_vec();
                let bytes = rows * columns * 4;
                let tensor =
                    format!(r#"{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,{bytes}]}}"#);
                (start, format!(r#"{{"embeddings":{tensor}}}"#), b' ')
            }
        };
        header.extend(text.into_bytes());
        header.resize(HEADER - 1, b' ');
        header.push(end);
        header
    }
}

/// Matrix in a file that is being written.
pub struct Matrix<'a> {
    out: BufWriter<&'a mut File>,
    path: &'a Path,
    rows: usize,
}

impl Matrix<'_> {
    /// Writes the next row.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn push(&mut self, row: &[f32]) -> Result<()> {
        self.rows += 1;
        let mut write = || row.iter().try_for_each(|x| self.out.write_all(&x.to_le_bytes()));
        write().map_err(|e| Error::io(self.path, e))
    }
}

/// Writes the file `path` with the rows, of `columns` elements each, that `fill` pushes, and returns
/// their number. The file appears under its name when it is complete.
///
/// # Errors
/// If `fill` or the disk fails; then a former file of that name is unchanged.
pub fn write(
    path: &Path,
    format: Format,
    columns: usize,
    fill: impl FnOnce(&mut Matrix) -> Result<()>,
) -> Result<usize> {
    let at = |e| Error::io(path, e);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut rows = 0;
    atomic_write(path, parent.unwrap_or(Path::new(".")), |file| {
        let mut matrix = Matrix { out: BufWriter::with_capacity(1 << 20, file), path, rows };
        matrix.out.write_all(&format.header(0, columns)).map_err(at)?;
        fill(&mut matrix)?;
        rows = matrix.rows;
        matrix.out.seek(SeekFrom::Start(0)).map_err(at)?;
        matrix.out.write_all(&format.header(rows, columns)).map_err(at)?;
        matrix.out.flush().map_err(at)
    })?;
    Ok(rows)
}
