//! Positions of the rows of a sequence, as rotary embeddings use them.

/// Positions of rows that are rotated.
#[derive(Clone, Copy, Debug)]
pub enum Positions<'a> {
    /// Consecutive positions from this one on.
    Offset(i32),
    /// Positions of each row in time, height and width (M-RoPE).
    Rows(&'a [[i32; 3]]),
}

impl From<i32> for Positions<'_> {
    fn from(offset: i32) -> Self {
        Positions::Offset(offset)
    }
}

impl Positions<'_> {
    /// Smallest position that is larger than those of all `length` rows.
    pub fn end(self, length: i32) -> i32 {
        match self {
            Positions::Offset(offset) => offset + length,
            Positions::Rows(rows) => {
                rows.iter().flatten().max().map_or(0, |last| last.saturating_add(1))
            }
        }
    }
}

/// Positions of the next rows of one sequence, for all its layers.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowPositions<'a> {
    /// Positions of each row; `None` if they are consecutive.
    pub rows: Option<&'a [[i32; 3]]>,
    /// Difference between position and index of consecutive rows, which images before them cause.
    pub delta: i32,
}

impl<'a> RowPositions<'a> {
    /// Positions of rows from index `offset` of the sequence on.
    pub fn from(self, offset: i32) -> Positions<'a> {
        match self.rows {
            Some(rows) => Positions::Rows(rows),
            None => Positions::Offset(offset + self.delta),
        }
    }
}
