//! Networks that write down speech, by the way their output becomes tokens.

/// Network that writes down speech.
pub enum Speech {}
