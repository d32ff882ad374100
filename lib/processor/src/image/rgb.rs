//! Pictures in memory: eight bits a channel, red, green and blue.

use sha2::{Digest, Sha256};

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
}

impl Size {
    /// Width times height; `None` if the product does not fit.
    pub fn pixels(self) -> Option<usize> {
        self.width.checked_mul(self.height)
    }
}

/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Width and height; neither is 0.
    pub size: Size,
    /// Row after row from the top, three bytes a pixel: `3 * width * height` bytes.
    pub pixels: Vec<u8>,
}

impl Rgb {
    /// SHA-256 of the picture's size, its pixels, and the `processed` size that the model sees.
    ///
    /// Caches of features and of prompts are keyed by it: the same picture has the same key in
    /// whatever lossless file it comes, and another key when other limits change its size.
    pub fn hash(&self, processed: Size) -> [u8; 32] {
        let mut hash = Sha256::new();
        for side in [self.size.width, self.size.height, processed.width, processed.height] {
            hash.update((side as u64).to_le_bytes());
        }
        hash.update(&self.pixels);
        hash.finalize().into()
    }
}
