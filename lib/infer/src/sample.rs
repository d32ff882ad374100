//! How the next token is chosen from the logits.

/// How to choose. All values are those of the caller: there are no defaults here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token; above, the flatter the more random.
    pub temperature: f32,
    /// Keep the most likely tokens that together have this probability; 1 (or 0) keeps all.
    pub top_p: f32,
    /// Keep this many of the most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep tokens at least this likely in proportion to the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divide (or, below zero, multiply) the logits of the last 20 tokens by this; 1 is none.
    pub repetition_penalty: f32,
    /// The same seed, prompt and settings give the same tokens.
    pub seed: u64,
}
