//! Cache of a sequence on other ranks.

/// What other ranks hold of a sequence. Dropping it lets them drop theirs.
pub trait Remote {
    /// Number by which the ranks know the sequence.
    fn sequence(&self) -> u64;

    /// True if any number of tokens can be forgotten.
    fn forgets(&self) -> bool;

    /// Lets the ranks forget the last `tokens`; false if one of them cannot.
    fn forget(&self, tokens: usize) -> bool;

    /// A copy, which the ranks hold too.
    fn copy(&self) -> Box<dyn Remote>;
}

impl Clone for Box<dyn Remote> {
    fn clone(&self) -> Box<dyn Remote> {
        self.copy()
    }
}
