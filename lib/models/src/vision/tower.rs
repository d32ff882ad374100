//! Interface of vision towers.

use mlx_rs::Array;
use mlx_rs::error::Result;
use serde_json::Value;

use super::mrope::MropePositions;
use crate::checkpoint::cursor::Cursor;

/// Vision tower with the projector to the language model.
pub trait Tower {
    /// Features of images. `pixels` [rows, columns] are the patches of all images, one after
    /// another, in the order of the family's image processor; `grid` has the frames or tiles, rows
    /// and columns of patches of each image.
    fn encode(&self, pixels: &Array, grid: &[[i32; 3]]) -> Result<Features>;

    /// Positions of a prompt whose runs of `image_token` stand for images of `grids`; `None` if the
    /// positions of the family's prompts are consecutive.
    ///
    /// # Errors
    /// If the number of image tokens differs from that of the images.
    fn positions(
        &self,
        _ids: &[u32],
        _image_token: u32,
        _grids: &[[i32; 3]],
    ) -> mlxk_core::Result<Option<MropePositions>> {
        Ok(None)
    }
}

/// Features that replace the embeddings of image tokens.
pub struct Features {
    /// Features of all images, one after another: [image tokens, hidden size of the language
    /// model].
    pub rows: Array,
    /// Features that are added to the hidden states of the image tokens, each of the shape of
    /// `rows`: the first after the first layer of the language model, and so on (arXiv 2406.04334).
    pub deep: Vec<Array>,
}

/// Constructor of a tower from config.json and the tensors of the tower.
pub type Load = fn(&Value, Cursor) -> mlxk_core::Result<Box<dyn Tower>>;
