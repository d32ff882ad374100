//! Pictures in memory: eight bits a channel, red, green and blue.

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

    /// The part of `size` whose upper left corner is `left` and `top` from the picture's; black
    /// where it goes beyond the picture.
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

    /// The middle of the picture; what is missing to `size` is black on both sides, the greater half
    /// of an odd number before the picture.
    pub fn centre(&self, size: Size) -> Rgb {
        let offset = |old: usize, new: usize| (old as isize - new as isize).div_euclid(2);
        let left = offset(self.size.width, size.width);
        self.crop(left, offset(self.size.height, size.height), size)
    }

    /// Square tiles of `side` pixels, row after row.
    pub fn tiles(&self, side: usize) -> Vec<Rgb> {
        let across = self.size.width / side;
        let tile = |i: usize| {
            let (left, top) = (i % across * side, i / across * side);
            self.crop(left as isize, top as isize, Size { width: side, height: side })
        };
        (0..across * (self.size.height / side)).map(tile).collect()
    }
}
