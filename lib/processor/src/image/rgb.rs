//! Pictures in memory: RGB with eight bits per channel.

use sha2::{Digest, Sha256};

/// A width and a height, of pictures in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Width.
    pub width: usize,
    /// Height.
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
    /// Pixels in row-major order from the top, three bytes each: `3 * width * height` bytes.
    pub pixels: Vec<u8>,
}

impl Rgb {
    /// SHA-256 of the picture's size, its pixels, and the `processed` size that the model sees.
    ///
    /// Key of the caches of features and prompts: a picture has the same key in every lossless file
    /// format, and another key if other limits change its processed size.
    pub fn hash(&self, processed: Size) -> [u8; 32] {
        let mut hash = Sha256::new();
        for side in [self.size.width, self.size.height, processed.width, processed.height] {
            hash.update((side as u64).to_le_bytes());
        }
        hash.update(&self.pixels);
        hash.finalize().into()
    }

    /// The region of `size` whose upper left corner is at (`left`, `top`), in pixels; black outside
    /// the picture.
    pub fn crop(&self, left: isize, top: isize, size: Size) -> Rgb {
        let mut pixels = vec![0; 3 * size.width * size.height];
        let old = |new: usize, offset: isize, end: usize| {
            new.checked_add_signed(offset).filter(|&old| old < end)
        };
        for (y, line) in pixels.chunks_exact_mut(3 * size.width).enumerate() {
            let Some(y) = old(y, top, self.size.height) else { continue };
            for (x, pixel) in line.chunks_exact_mut(3).enumerate() {
                let Some(x) = old(x, left, self.size.width) else { continue };
                let at = 3 * (y * self.size.width + x);
                pixel.copy_from_slice(&self.pixels[at..at + 3]);
            }
        }
        Rgb { size, pixels }
    }

    /// The centre region of `size`; a smaller picture is padded with black on both sides, with the
    /// larger half of an odd number at the left and the top.
    pub fn centre(&self, size: Size) -> Rgb {
        let offset = |old: usize, new: usize| (old as isize - new as isize).div_euclid(2);
        let left = offset(self.size.width, size.width);
        self.crop(left, offset(self.size.height, size.height), size)
    }

    /// Square tiles of `side` pixels, in row-major order.
    pub fn tiles(&self, side: usize) -> Vec<Rgb> {
        let across = self.size.width / side;
        let tile = |i: usize| {
            let (left, top) = (i % across * side, i / across * side);
            self.crop(left as isize, top as isize, Size { width: side, height: side })
        };
        (0..across * (self.size.height / side)).map(tile).collect()
    }
}
