//! What a vision tower is given of a picture.

use mlxk_core::Result;

use super::rgb::{Rgb, Size};

/// A picture as a vision tower takes it, and what the prompt must know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    /// A matrix `[rows, columns]`, row after row.
    pub values: Vec<f32>,
    /// Rows of the matrix: one for each patch.
    pub rows: usize,
    /// Columns of the matrix: the values of a patch, in the family's order.
    pub columns: usize,
    /// Patches in time, from top to bottom, and from left to right.
    pub grid: [usize; 3],
    /// Image tokens in the prompt: rows that the tower and its projector give.
    pub tokens: usize,
    /// Size to which the picture was resized.
    pub size: Size,
    /// SHA-256 of the picture and of the size it was resized to ([`Rgb::hash`]).
    pub hash: [u8; 32],
}

/// A family's rule from a picture to the rows of its tower.
pub trait Rule: Send + Sync {
    /// Resizes, normalises and cuts up a picture.
    ///
    /// Fails with `Kind::Validation` if the family cannot take a picture of this shape.
    fn apply(&self, picture: &Rgb) -> Result<Pixels>;
}
