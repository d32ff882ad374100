//! What `mlxk-show` tells of a speech model: its languages, and the bands of its spectrogram.

use mlxk_core::policy::detect;
use mlxk_core::{Facts, Inspected, Task};
use serde_json::Value;

/// Languages of the vocabularies that OpenAI published, by their sizes.
const VOCABULARIES: [(u64, usize); 3] = [(51_864, 1), (51_865, 99), (51_866, 100)];

/// Facts of a speech model.
pub struct Speech {
    /// Number of languages that the model writes, if it is known.
    pub languages: Option<usize>,
    /// True if the model translates to English.
    pub translates: bool,
    /// Number of mel bands of its spectrogram, if it has one.
    pub mels: Option<u64>,
}

impl Speech {
    /// Facts of the model; none if it is no speech model.
    pub fn of(model: &Inspected) -> Option<Speech> {
        let facts = &model.facts;
        (model.plan.task == Task::Audio).then(|| Speech {
            languages: languages(facts),
            translates: detect::translation(facts),
            mels: number(facts, &["num_mel_bins", "n_mels"]),
        })
    }
}

/// The languages that the settings of generation state, or else those of a vocabulary of this size.
fn languages(facts: &Facts) -> Option<usize> {
    let stated = facts.generation_config.get("lang_to_id");
    let stated = stated.as_ref().and_then(Value::as_object).map(|languages| languages.len());
    let size = number(facts, &["vocab_size", "n_vocab"]);
    let known = || VOCABULARIES.iter().find(|(known, _)| Some(*known) == size);
    match facts.generation_config.get("is_multilingual") {
        Some(Value::Bool(false)) => Some(1),
        _ => stated.or_else(|| known().map(|(_, count)| *count)),
    }
}

fn number(facts: &Facts, keys: &[&str]) -> Option<u64> {
    keys.iter().find_map(|key| facts.config.get(key)?.as_u64())
}
