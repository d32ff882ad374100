//! Positions of the rows of a sequence, which rotary embeddings turn by.

/// Positions of rows that are to be rotated.
#[derive(Clone, Copy, Debug)]
pub enum Positions<'a> {
    /// Consecutive positions, the first of which is given.
    Offset(i32),
    /// Positions of each row in time, in height and in width.
    Rows(&'a [[i32; 3]]),
}

impl From<i32> for Positions<'_> {
    fn from(offset: i32) -> Self {
        Positions::Offset(offset)
    }
}

impl Positions<'_> {
    /// Smallest number that is larger than the positions of all `length` rows.
    pub fn end(self, length: i32) -> i32 {
        match self {
            Positions::Offset(offset) => offset + length,
            Positions::Rows(rows) => {
                rows.iter().flatten().max().map_or(0, |last| last.saturating_add(1))
            }
        }
    }
}

/// Positions of the next rows of one sequence, from which those of its layers follow.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowPositions<'a> {
    /// Positions of each row, if they are not consecutive.
    pub rows: Option<&'a [[i32; 3]]>,
    /// Difference between the position of a row and its place in the sequence, behind pictures.
    pub delta: i32,
}

impl<'a> RowPositions<'a> {
    /// Positions of rows, the first of which is number `offset` of the sequence.
    pub fn from(self, offset: i32) -> Positions<'a> {
        match self.rows {
            Some(rows) => Positions::Rows(rows),
            None => Positions::Offset(offset + self.delta),
        }
    }
}
