//! Flags on the command line that the kind of a model does not take.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use mlxk_core::{Error, Result};
use mlxk_processor::sampling::{FIELDS, OWN_FIELDS};

/// Flags that only speech models take, by their ids.
const SPEECH: [&str; 18] = [
    "audio",
    "@",
    "audio_format",
    "language",
    "task",
    "translate",
    "format",
    "max_line_width",
    "max_line_count",
    "max_words_per_line",
    "highlight_words",
    "word_timestamps",
    "no_timestamps",
    "no_condition",
    "hotwords",
    "clip",
    "vad",
    "no_vad",
];

/// Arguments that models of both kinds take, by their ids.
const BOTH: [&str; 10] = [
    "model",
    "words",
    "prompt",
    "no_stream",
    "verbose",
    "ndjson",
    "json",
    "batch",
    "temperature",
    "seed",
];

/// Ids of the arguments that are on the command line.
#[derive(Clone, Debug, Default)]
pub struct Given(Vec<String>);

impl Given {
    /// Checks that a speech model takes all flags.
    ///
    /// # Errors
    /// If there is a flag for models that write text.
    pub fn suit_speech(&self) -> Result<()> {
        let other = |id: &&String| !SPEECH.contains(&id.as_str()) && !BOTH.contains(&id.as_str());
        match self.0.iter().find(other) {
            Some(id) => Err(Error::command(format!("{} is not for speech models", flag(id)))),
            None => Ok(()),
        }
    }

    /// Checks that the model `name`, which writes down no speech, takes all flags.
    ///
    /// # Errors
    /// `CapabilityNotSupported` if there is audio; if there is another flag for speech models.
    pub fn suit_text(&self, name: &str) -> Result<()> {
        let hint = "mlxk-ls -f type=audio lists models that write down speech";
        if self.has_audio() {
            let error = Error::unsupported("not a speech model: it takes no audio");
            return Err(error.about(name).hint(hint));
        }
        match self.0.iter().find(|id| SPEECH.contains(&id.as_str())) {
            Some(id) => {
                let message = format!("{} is for speech models, and {name} is none", flag(id));
                Err(Error::command(message).hint(hint))
            }
            None => Ok(()),
        }
    }

    /// True if there is audio to transcribe.
    pub fn has_audio(&self) -> bool {
        self.0.iter().any(|id| id == "audio" || id == "@")
    }
}

/// The flag of an id; that of a list of sampling states one item.
fn flag(id: &str) -> String {
    let list = FIELDS.iter().chain(OWN_FIELDS).any(|f| f.name == id && f.form.is_list());
    match id {
        "@" => "-@".to_owned(),
        _ if list => format!("--{}", id.trim_end_matches('s').replace('_', "-")),
        _ => format!("--{}", id.replace('_', "-")),
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

/// The ids must be read before other fields take their values out of the matches.
impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Given, clap::Error> {
        let given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        // Names of groups are those of types.
        let is_flag = |id: &&str| !id.starts_with(char::is_uppercase);
        let ids = matches.ids().map(|id| id.as_str()).filter(is_flag).filter(given);
        Ok(Given(ids.map(str::to_owned).collect()))
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        *self = Given::from_arg_matches(matches)?;
        Ok(())
    }
}
