//! OpenAI's transcriptions and translations: speech in an audio file to text.

mod form;
mod options;
mod respond;

pub use respond::respond;
