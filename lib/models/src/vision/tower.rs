//! Interface of vision towers.

use mlx_rs::Array;
use mlx_rs::error::Result;
use serde_json::Value;

use super::mrope::MropePositions;
use crate::checkpoint::cursor::Cursor;

/// Vision tower with the projector to the language model.
pub trait Tower {
    /// Features of a picture.
    ///
    /// # Errors
    /// If the picture has another form than the family's image processor gives, or MLX fails.
    fn encode(&self, picture: &Picture) -> Result<Features>;

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

/// Picture as a tower takes it.
pub struct Picture<'a> {
    /// Patches [rows, columns], in the order of the family's image processor.
    pub pixels: &'a Array,
    /// Frames or tiles, and rows and columns of patches of each.
    pub grid: [i32; 3],
    /// Tiles from top to bottom and from left to right, beside the whole picture as a tile; zeros if
    /// the picture is one piece.
    pub tiles: [i32; 2],
    /// Rows and columns of the patches of all tiles side by side, without those that are padding.
    pub kept: [i32; 2],
}

/// Features that replace the embeddings of image tokens.
#[derive(Clone, Debug)]
pub struct Features {
    /// Features of the picture [image tokens, hidden size of the language model].
    pub rows: Array,
    /// Features that are added to the hidden states of the image tokens, each of the shape of
    /// `rows`: the first after the first layer of the language model, and so on (arXiv 2406.04334).
    pub deep: Vec<Array>,
}

impl From<Array> for Features {
    fn from(rows: Array) -> Features {
        Features { rows, deep: Vec::new() }
    }
}

/// Constructor of a tower from config.json and the tensors of the tower.
pub type Load = fn(&Value, Cursor) -> mlxk_core::Result<Box<dyn Tower>>;
