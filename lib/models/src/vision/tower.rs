//! The interface of vision towers.

use mlx_rs::Array;
use mlx_rs::error::Result;
use serde_json::Value;

use super::mrope::MropePositions;
use crate::checkpoint::cursor::Cursor;

/// A vision tower with the projector that leads to the language model.
pub trait Tower {
    /// Features of pictures. `pixels` [rows, columns] are the patches of all pictures, one picture
    /// after another, in the order in which the family's image processor gives them; `grid` has for
    /// each picture its frames or tiles, and the patches of each from top to bottom and from left to
    /// right.
    fn encode(&self, pixels: &Array, grid: &[[i32; 3]]) -> Result<Features>;

    /// Positions of a prompt whose runs of `image_token` stand for pictures of `grids`; `None` if
    /// the positions of the family's prompts are consecutive.
    ///
    /// # Errors
    /// If the image tokens are not as many as the pictures have.
    fn positions(
        &self,
        _ids: &[u32],
        _image_token: u32,
        _grids: &[[i32; 3]],
    ) -> mlxk_core::Result<Option<MropePositions>> {
        Ok(None)
    }
}

/// Features that take the places of the embeddings of image tokens.
pub struct Features {
    /// Features of all pictures, one picture after another: [image tokens, hidden size of the
    /// language model].
    pub rows: Array,
    /// Features that are added to the hidden states of the image tokens, each of the shape of `rows`:
    /// the first after the first layer of the language model, and so on (arXiv 2406.04334).
    pub deep: Vec<Array>,
}

/// Constructor of a tower from config.json and the tensors of the tower.
pub type Load = fn(&Value, Cursor) -> mlxk_core::Result<Box<dyn Tower>>;
