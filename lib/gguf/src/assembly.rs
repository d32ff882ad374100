//! Assembly of an MLX tensor's bytes from tensors of the file: reordered, converted or repacked.

use std::borrow::Cow;
use std::ops::Range;

use half::{bf16, f16};
use mlxk_core::Float;
use rayon::prelude::*;

use crate::affine::{self, Component, GROUP};
use crate::architecture::Elementwise;
use crate::dequant::dequantize;
use crate::dtype::Type;
use crate::read::Tensor;

/// Bytes that are assembled at a time.
const CHUNK: usize = 4 << 20;

/// Sources and transforms of one MLX tensor.
#[derive(Clone, Debug)]
pub struct Assembly<'a> {
    /// Sources, whose rows follow one another.
    pub pieces: Vec<Piece<'a>>,
    /// Order of the rows of all pieces together.
    pub merged: Option<Vec<usize>>,
    /// Order of the columns.
    pub columns: Option<Vec<usize>>,
    map: Elementwise,
    form: Form,
    scalar: f32,
}

/// Rows of one tensor of the file.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// Shape of the tensor, after transposition.
    pub shape: Vec<usize>,
    tensor: Tensor<'a>,
    order: Option<Vec<usize>>,
    transposed: bool,
}

/// Form of the assembled bytes.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Elements in their type in the file.
    Copied,
    /// Elements converted to a float type.
    Cast(Float),
    /// Component of a quantized matrix.
    Packed(Component),
    /// Scalar from the metadata, of a float type.
    Scalar(Float),
}

impl<'a> Piece<'a> {
    /// All rows of `tensor`, with its last two axes swapped if `transposed`.
    pub fn new(tensor: Tensor<'a>, transposed: bool) -> Result<Piece<'a>, String> {
        let mut shape = tensor.shape.clone();
        if transposed {
            let axes = shape.len();
            if axes < 2 {
                return Err("a vector cannot be transposed".into());
            }
            shape.swap(axes - 1, axes - 2);
        }
        Ok(Piece { tensor, order: None, transposed, shape })
    }

    /// Piece of the same tensor with the rows that `order` lists; `None` lists all.
    pub fn with_rows(&self, order: Option<Vec<usize>>) -> Piece<'a> {
        Piece { order, ..self.clone() }
    }

    /// Number of rows; the rows of a vector are its elements.
    pub fn rows(&self) -> usize {
        let all = || self.shape.iter().product::<usize>() / self.width();
        self.order.as_ref().map_or_else(all, Vec::len)
    }

    /// Length of a row in elements.
    pub fn width(&self) -> usize {
        match self.shape[..] {
            [] | [_] => 1,
            [.., last] => last,
        }
    }

    /// Elements of a transposed tensor in their new order; `None` if it is not transposed.
    fn transposed_elements(&self) -> Option<Vec<f32>> {
        let [.., columns, rows] = self.shape[..] else { return None };
        if !self.transposed {
            return None;
        }
        let count = self.tensor.shape.iter().product();
        let mut all = vec![0.0; count];
        dequantize(self.tensor.dtype, self.tensor.data, &mut all);
        let mut out = Vec::with_capacity(count);
        for matrix in all.chunks_exact(rows * columns) {
            for column in 0..columns {
                out.extend((0..rows).map(|row| matrix[row * columns + column]));
            }
        }
        Some(out)
    }
}

impl<'a> Assembly<'a> {
    /// Assembly of `pieces`; an error if their rows differ in length.
    pub fn new(pieces: Vec<Piece<'a>>, map: Elementwise) -> Result<Assembly<'a>, String> {
        let uneven = pieces.windows(2).any(|pair| pair[0].width() != pair[1].width());
        if uneven {
            return Err("its parts have rows of different lengths".into());
        }
        Ok(Assembly { pieces, merged: None, columns: None, map, form: Form::Copied, scalar: 0.0 })
    }

    /// Assembly of a single number from the metadata.
    pub fn scalar(scalar: f32, float: Float) -> Assembly<'a> {
        let form = Form::Scalar(float);
        Assembly {
            pieces: Vec::new(),
            merged: None,
            columns: None,
            map: Elementwise::Identity,
            form,
            scalar,
        }
    }

    /// Copy of the assembly with another form of its bytes.
    pub fn with_form(self, form: Form) -> Assembly<'a> {
        Assembly { form, ..self }
    }

    /// Name of the first source tensor, for messages.
    pub fn name(&self) -> &'a str {
        self.pieces.first().map_or("", |piece| piece.tensor.name)
    }

    /// Number of rows of all pieces.
    pub fn rows(&self) -> usize {
        self.pieces.iter().map(Piece::rows).sum()
    }

    /// Length of a row in elements.
    pub fn width(&self) -> usize {
        self.pieces.first().map_or(1, Piece::width)
    }

    /// Type of all pieces; `None` if they differ.
    pub fn dtype(&self) -> Option<Type> {
        let first = self.pieces.first()?.tensor.dtype;
        self.pieces.iter().all(|piece| piece.tensor.dtype == first).then_some(first)
    }

    /// True if a piece is quantized.
    pub fn is_quantized(&self) -> bool {
        self.pieces.iter().any(|piece| !piece.tensor.dtype.is_float())
    }

    /// True if the order of columns, if any, moves whole blocks of `dtype`.
    pub fn keeps_blocks(&self, dtype: Type) -> bool {
        let whole = |block: &[usize]| {
            let first = block[0];
            first.is_multiple_of(dtype.block())
                && block.iter().enumerate().all(|(i, column)| *column == first + i)
        };
        self.columns.as_ref().is_none_or(|columns| columns.chunks(dtype.block()).all(whole))
    }

    /// Ranges of rows that need little memory each; a single range for a transposed tensor.
    pub fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        let rows = self.rows();
        let whole = rows == 0 || self.pieces.iter().any(|piece| piece.transposed);
        let each = if whole { rows.max(1) } else { (CHUNK / self.row_size()).max(1) };
        (0..rows.max(1)).step_by(each).map(move |start| start..rows.min(start + each))
    }

    /// Assembles the bytes of `rows`.
    ///
    /// # Errors
    /// A phrase, if a number does not fit its type.
    pub fn bytes(&self, rows: Range<usize>) -> Result<Cow<'a, [u8]>, String> {
        if let Form::Scalar(float) = self.form {
            let mut out = vec![0; float.bytes()];
            cast(&[self.scalar], float, &mut out)?;
            return Ok(out.into());
        }
        let size = self.row_size();
        if let (Form::Copied, [piece], None, None) =
            (self.form, &self.pieces[..], &self.merged, &self.columns)
            && piece.order.is_none()
        {
            return Ok(Cow::Borrowed(&piece.tensor.data[rows.start * size..rows.end * size]));
        }
        let transposed: Vec<_> = self.pieces.iter().map(Piece::transposed_elements).collect();
        let mut out = vec![0; rows.len() * size];
        out.par_chunks_mut(size).enumerate().with_min_len(32).try_for_each(|(row, out)| {
            let (piece, row) = self.source(rows.start + row);
            match &transposed[piece] {
                Some(numbers) => {
                    let width = self.width();
                    self.write_elements(numbers[row * width..][..width].to_vec(), out)
                }
                None => self.fill(&self.pieces[piece], row, out),
            }
        })?;
        Ok(out.into())
    }

    /// Index of the piece that a row comes from, and its row in that tensor.
    fn source(&self, row: usize) -> (usize, usize) {
        let mut row = self.merged.as_ref().map_or(row, |order| order[row]);
        for (number, piece) in self.pieces.iter().enumerate() {
            match row.checked_sub(piece.rows()) {
                Some(rest) => row = rest,
                None => return (number, piece.order.as_ref().map_or(row, |order| order[row])),
            }
        }
        unreachable!("an order is one of the rows there are")
    }

    /// Size of an assembled row in bytes.
    fn row_size(&self) -> usize {
        let width = self.width();
        let dtype = self.pieces[0].tensor.dtype;
        match self.form {
            Form::Copied => width * dtype.bytes(),
            Form::Cast(float) | Form::Scalar(float) => width * float.bytes(),
            Form::Packed(Component::Codes) => width * affine::bits(dtype).unwrap_or(4) / 8,
            Form::Packed(_) if dtype == Type::MXFP4 => width / GROUP,
            Form::Packed(_) => width / GROUP * 2,
        }
    }

    /// Assembles row `row` of a piece that is not transposed.
    fn fill(&self, piece: &Piece, row: usize, out: &mut [u8]) -> Result<(), String> {
        let (dtype, width) = (piece.tensor.dtype, self.width());
        let size = width / dtype.block() * dtype.bytes();
        let from = &piece.tensor.data[row * size..][..size];
        match self.form {
            Form::Cast(_) | Form::Scalar(_) => {
                let mut numbers = vec![0.0; width];
                dequantize(dtype, from, &mut numbers);
                self.write_elements(numbers, out)?;
            }
            Form::Copied => out.copy_from_slice(&self.blocks(dtype, from)),
            Form::Packed(component) => {
                affine::repack(dtype, component, &self.blocks(dtype, from), out)?
            }
        }
        Ok(())
    }

    /// Blocks of a row with its columns reordered.
    fn blocks<'b>(&self, dtype: Type, row: &'b [u8]) -> Cow<'b, [u8]> {
        let Some(columns) = &self.columns else { return Cow::Borrowed(row) };
        let block =
            |columns: &[usize]| &row[columns[0] / dtype.block() * dtype.bytes()..][..dtype.bytes()];
        columns.chunks(dtype.block()).map(block).collect::<Vec<_>>().concat().into()
    }

    /// Writes the elements of a row: reordered, mapped and converted.
    fn write_elements(&self, mut numbers: Vec<f32>, out: &mut [u8]) -> Result<(), String> {
        if let Some(columns) = &self.columns {
            numbers = columns.iter().map(|column| numbers[*column]).collect();
        }
        numbers.iter_mut().for_each(|x| *x = self.map.apply(*x));
        match self.form {
            Form::Cast(float) => cast(&numbers, float, out),
            _ => Ok(()),
        }
    }
}

/// Converts `numbers` to `float`; an error if a finite number overflows f16.
fn cast(numbers: &[f32], float: Float, out: &mut [u8]) -> Result<(), String> {
    let pairs = numbers.iter().zip(out.chunks_exact_mut(float.bytes()));
    match float {
        Float::F32 => pairs.for_each(|(x, out)| out.copy_from_slice(&x.to_le_bytes())),
        Float::BF16 => {
            pairs.for_each(|(x, out)| out.copy_from_slice(&bf16::from_f32(*x).to_le_bytes()));
        }
        Float::F16 => {
            for (x, out) in pairs {
                let half = f16::from_f32(*x);
                if half.is_infinite() && x.is_finite() {
                    return Err(format!("{x} does not fit f16, but bf16 and f32"));
                }
                out.copy_from_slice(&half.to_le_bytes());
            }
        }
    }
    Ok(())
}
