//! Cache of a sequence on other ranks.

use std::ops::Range;

/// Handle of the cache that other ranks hold for a sequence; dropping it frees that cache.
pub trait Remote {
    /// Identifier of the sequence on the ranks.
    fn sequence(&self) -> u64;

    /// True if any number of tokens can be removed from the end.
    fn forgets(&self) -> bool;

    /// Removes the last `tokens` tokens on all ranks; false if one of them cannot.
    fn forget(&self, tokens: usize) -> bool;

    /// True if the tokens of a block attend to each other in a layer of a rank.
    fn has_blocks(&self) -> bool;

    /// Sets the blocks of the sequence, by positions, on all ranks.
    fn set_blocks(&self, blocks: &[Range<i32>]);

    /// Copy of the handle and of the cache on the ranks.
    fn copy(&self) -> Box<dyn Remote>;
}

impl Clone for Box<dyn Remote> {
    fn clone(&self) -> Box<dyn Remote> {
        self.copy()
    }
}
