//! Encoders of sound, from spectra or samples to the hidden states of frames.

pub mod conformer;
pub mod conv;
pub mod relative_attention;
pub mod subsampling;
