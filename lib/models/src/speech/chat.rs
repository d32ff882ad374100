//! Language models that hear: the features of a window of audio stand in a prompt, and the answer is
//! its text.

use crate::audio::tower::AudioTower;
use crate::language::Language;

/// Language model with a tower for audio.
pub struct Chat {
    /// The tower.
    pub tower: Box<dyn AudioTower>,
    /// The language model.
    pub language: Box<dyn Language>,
    /// Prompts and answers.
    pub form: ChatForm,
}

/// Texts of prompts and answers about a window.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatForm {
    /// Text before the context, which is what the speech is about.
    pub start: &'static str,
    /// Text between the context and the features.
    pub middle: &'static str,
    /// Token in whose places the features stand.
    pub audio: u32,
    /// Text behind the features.
    pub end: &'static str,
    /// Texts before and behind the name of the language, with which the answer starts.
    pub language: [&'static str; 2],
    /// Languages that the model knows: the code and the name in its answers.
    pub languages: Vec<(&'static str, &'static str)>,
}
