//! Sampling parameters. One table has a row for each option of a request; records, flags, `/set`
//! and all APIs follow it.

use std::sync::Arc;

use mlxk_core::{Error, Kind, Result};
use serde_json::Value;

use crate::breakers::Breakers;
use crate::fields::wrong;
use crate::form::FieldValue;

pub use crate::form::Form;

/// Declares [`Options`], [`Sampling`] and the tables of their fields from rows: a description, the
/// name and the type, the default where the sampler has one, the placeholder in usage messages, and
/// the form.
macro_rules! options {
    (
        sampling {$(
            $(#[doc = $line:literal])+
            $name:ident: $type:ty = $default:expr, $placeholder:literal, $form:expr;
        )+}
        common {$(
            $(#[doc = $common_line:literal])+
            $common:ident: $common_type:ty, $common_placeholder:literal, $common_form:expr;
        )+}
        own {$(
            $(#[doc = $own_line:literal])+
            $own:ident: $own_type:ty, $own_placeholder:literal, $own_form:expr;
        )+}
    ) => {
        /// Options of a request. What is absent is left to the defaults of the server and of the
        /// model.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Options {
            $($(#[doc = $line])+ pub $name: Option<$type>,)+
            $($(#[doc = $common_line])+ pub $common: Option<$common_type>,)+
            $($(#[doc = $own_line])+ pub $own: Option<$own_type>,)+
        }

        /// Sampling parameters of a sequence, with all defaults filled in.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Sampling {
            $($(#[doc = $line])+ pub $name: $type,)+
            /// Tokens that XTC never drops.
            pub xtc_spared: Vec<u32>,
            /// Sequence breakers of DRY; none are known where DRY is off.
            pub dry_breakers: Option<Arc<Breakers>>,
            /// Seed of the random numbers: the same seed, prompt and parameters give the same
            /// tokens.
            pub seed: u64,
            /// Number of most likely tokens in the log probabilities of each token; none are
            /// computed if it is absent.
            pub logprobs: Option<u32>,
        }

        /// Fields that have the same name and form in records, flags and all APIs.
        pub const FIELDS: &[Field] = &[
            $(options!(@field $name, $placeholder, $form,
                |sampling| Some(sampling.$name.write()), $($line),+),)+
            $(options!(@field $common, $common_placeholder, $common_form, |_| None, $($common_line),+),)+
        ];

        /// Fields of records and flags that some APIs call by another name, or give another form.
        pub const OWN_FIELDS: &[Field] = &[
            $(options!(@field $own, $own_placeholder, $own_form, |_| None, $($own_line),+),)+
        ];

        impl Options {
            /// Options with those of `defaults` in place of absent ones.
            pub fn or(self, defaults: &Options) -> Options {
                Options {
                    $($name: self.$name.or_else(|| defaults.$name.clone()),)+
                    $($common: self.$common.or_else(|| defaults.$common.clone()),)+
                    $($own: self.$own.or_else(|| defaults.$own.clone()),)+
                }
            }

            fn over(&self, defaults: &Sampling, seed: u64) -> Sampling {
                Sampling {
                    $($name: self.$name.clone().unwrap_or_else(|| defaults.$name.clone()),)+
                    xtc_spared: defaults.xtc_spared.clone(),
                    dry_breakers: defaults.dry_breakers.clone(),
                    seed,
                    logprobs: self.logprobs,
                }
            }
        }

        impl Sampling {
            /// Parameters of greedy decoding, which always takes the most likely token.
            pub const GREEDY: Sampling = Sampling {
                $($name: $default,)+
                xtc_spared: Vec::new(),
                dry_breakers: None,
                seed: 0,
                logprobs: None,
            };

            /// Checks the ranges of all parameters.
            ///
            /// # Errors
            /// [`Kind::Validation`] if a value is out of its range; the message names it.
            pub fn check(&self) -> Result<()> {
                Options {
                    $($name: Some(self.$name.clone()),)+
                    logprobs: self.logprobs,
                    ..Options::default()
                }.check()
            }
        }
    };
    (@field $name:ident, $placeholder:literal, $form:expr, $default:expr, $($line:literal),+) => {
        Field {
            name: stringify!($name),
            placeholder: $placeholder,
            form: $form,
            lines: &[$($line),+],
            read: |options, value| {
                options.$name = FieldValue::read(value);
                options.$name.is_some()
            },
            fits: |options, form| options.$name.as_ref().is_none_or(|value| value.fits(form)),
            write: |options| options.$name.as_ref().map(FieldValue::write),
            default: $default,
        }
    };
}

options! {
    sampling {
        /// Temperature, by which logits are divided; 0 takes the most likely token.
        temperature: f32 = 0.0, "X", Form::number(0.0, f32::MAX);
        /// Nucleus sampling: keep the most likely tokens that together have this probability; 1 or
        /// 0 keeps all.
        top_p: f32 = 1.0, "P", Form::number(0.0, 1.0);
        /// Keep this many of the most likely tokens; 0 keeps all.
        top_k: u32 = 0, "N", Form::integer(0);
        /// Keep tokens at least this likely relative to the most likely one; 0 keeps all.
        min_p: f32 = 0.0, "P", Form::number(0.0, 1.0);
        /// Top-n-sigma: keep tokens whose logit is within this many standard deviations of the
        /// largest logit; 0 or less keeps all.
        top_n_sigma: f32 = -1.0, "X", Form::ANY;
        /// Locally typical sampling: keep the tokens whose surprise is nearest to the entropy,
        /// until they have this probability together; 1 keeps all.
        typical_p: f32 = 1.0, "P", Form::number(0.0, 1.0);
        /// Probability that XTC drops the most likely of the tokens above xtc_threshold, all but
        /// the last of them.
        xtc_probability: f32 = 0.0, "P", Form::number(0.0, 1.0);
        /// Probability above which XTC drops tokens.
        xtc_threshold: f32 = 0.1, "P", Form::number(0.0, 0.5);
        /// Divisor of the logits of recent tokens, or factor where they are negative; 1 is no
        /// penalty.
        repetition_penalty: f32 = 1.0, "X", Form::number(f32::MIN_POSITIVE, f32::MAX);
        /// Penalty that is subtracted from the logits of recent tokens.
        presence_penalty: f32 = 0.0, "X", Form::ANY;
        /// Penalty that is subtracted from the logits of recent tokens for each occurrence.
        frequency_penalty: f32 = 0.0, "X", Form::ANY;
        /// Number of recent tokens that penalties apply to, those of the prompt included.
        penalty_context: u32 = 20, "N", Form::integer(1);
        /// DRY: penalty of tokens that would repeat a longer sequence, before its growth; 0 is no
        /// penalty.
        dry_multiplier: f32 = 0.0, "X", Form::number(0.0, f32::MAX);
        /// Growth of the DRY penalty with each token of the repeated sequence.
        dry_base: f32 = 1.75, "X", Form::number(1.0, f32::MAX);
        /// Longest sequence that may be repeated without a DRY penalty, in tokens.
        dry_allowed_length: u32 = 2, "N", Form::integer(0);
        /// Number of recent tokens in which DRY seeks repetitions; -1 is all, 0 is none.
        dry_penalty_last_n: i32 = -1, "N", Form::integer(-1);
        /// Biases that are added to the logits of single tokens.
        logit_bias: Vec<(u32, f32)> = Vec::new(), "ID=X", Form::Biases;
    }
    common {
        /// Strings across which DRY seeks no repetitions; newline, colon, quotation mark and
        /// asterisk if absent, none if it is an empty string.
        dry_sequence_breakers: Vec<String>, "TEXT", Form::Texts;
        /// Token ids that end the completion and are no part of it, besides those of the model.
        stop_ids: Vec<u32>, "ID", Form::Tokens;
    }
    own {
        /// Largest number of tokens of the completion.
        max_tokens: u64, "N", Form::integer(1);
        /// Seed of the random numbers: the same seed and request give the same completion.
        seed: u64, "N", Form::integer(0);
        /// Strings that end the completion and are no part of it.
        stop: Vec<String>, "TEXT", Form::Texts;
        /// Log probabilities of each token, and of this many of the most likely tokens.
        logprobs: u32, "N", Form::Integer { min: 0, max: 20 };
    }
}

/// Option of a request, which records, flags and APIs call by the same name.
#[derive(Debug)]
pub struct Field {
    /// Name in records and APIs, with underscores.
    pub name: &'static str,
    /// Placeholder of the value in usage messages.
    pub placeholder: &'static str,
    /// Form of the value.
    pub form: Form,
    /// Lines of the description.
    lines: &'static [&'static str],
    read: fn(&mut Options, &Value) -> bool,
    fits: fn(&Options, Form) -> bool,
    write: fn(&Options) -> Option<Value>,
    default: fn(&Sampling) -> Option<Value>,
}

impl Field {
    /// Description of the option in one line, without a full stop at its end.
    pub fn text(&self) -> String {
        let text: Vec<&str> = self.lines.iter().map(|line| line.trim()).collect();
        text.join(" ").trim_end_matches('.').to_owned()
    }

    /// Sets the option to a JSON value.
    ///
    /// # Errors
    /// [`Kind::Validation`] if the value has another form, or is out of
    /// its range.
    pub fn set(&self, options: &mut Options, value: &Value) -> Result<()> {
        match (self.read)(options, value) {
            true => self.check(options),
            false => Err(wrong(self.name, self.form.name())),
        }
    }

    /// Checks the range of the option, if it is set.
    ///
    /// # Errors
    /// [`Kind::Validation`] if the value is out of its range.
    pub fn check(&self, options: &Options) -> Result<()> {
        match (self.fits)(options, self.form) {
            true => Ok(()),
            false => Err(wrong(self.name, &self.form.range())),
        }
    }

    /// JSON value of the option, if it is set.
    pub fn get(&self, options: &Options) -> Option<Value> {
        (self.write)(options)
    }

    /// JSON value that the option has by default, if it has one.
    pub fn default(&self, defaults: &Sampling) -> Option<Value> {
        (self.default)(defaults)
    }
}

impl Options {
    /// All fields of options.
    pub fn fields() -> impl Iterator<Item = &'static Field> {
        FIELDS.iter().chain(OWN_FIELDS)
    }

    /// Reads options; `get` gives the JSON value of a field by its name.
    ///
    /// # Errors
    /// [`Kind::Validation`] if a value has another form than its field, or is out of its range.
    pub fn parse<'a>(get: impl Fn(&str) -> Option<&'a Value>) -> Result<Options> {
        let mut options = Options::default();
        for field in Options::fields() {
            if let Some(value) = get(field.name) {
                field.set(&mut options, value)?;
            }
        }
        Ok(options)
    }

    /// Checks the ranges of all options.
    ///
    /// # Errors
    /// [`Kind::Validation`] if a value is out of its range.
    pub fn check(&self) -> Result<()> {
        Options::fields().try_for_each(|field| field.check(self))
    }

    /// Sampling parameters, with `defaults` for what is absent; a seed is drawn if there is none.
    ///
    /// # Errors
    /// If no seed can be drawn.
    pub fn sampling(&self, defaults: &Sampling) -> Result<Sampling> {
        let seed = self.seed.map_or_else(draw_seed, Ok)?;
        Ok(self.over(defaults, seed))
    }
}

impl Sampling {
    /// True if recent tokens are penalised.
    pub fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
    }

    /// Probability mass that nucleus sampling keeps; none if it keeps all tokens.
    pub fn nucleus(&self) -> Option<f32> {
        Some(self.top_p).filter(|&mass| mass > 0.0 && mass < 1.0)
    }

    /// Number of standard deviations that top-n-sigma keeps; none if it keeps all tokens.
    pub fn sigma(&self) -> Option<f32> {
        Some(self.top_n_sigma).filter(|&deviations| deviations > 0.0)
    }

    /// Probability mass that locally typical sampling keeps; none if it keeps all tokens.
    pub fn typical(&self) -> Option<f32> {
        Some(self.typical_p).filter(|&mass| mass < 1.0)
    }

    /// True if DRY penalises repetitions.
    pub fn has_dry(&self) -> bool {
        self.dry_multiplier > 0.0 && self.dry_penalty_last_n != 0
    }

    /// True if a filter may drop tokens.
    pub fn filters(&self) -> bool {
        self.nucleus().is_some()
            || self.sigma().is_some()
            || self.typical().is_some()
            || self.top_k > 0
            || self.min_p > 0.0
            || self.xtc_probability > 0.0
    }
}

/// Seed that every JSON reader can represent: below 2^53.
fn draw_seed() -> Result<u64> {
    getrandom::u64()
        .map(|seed| seed >> 11)
        .map_err(|e| Error::new(Kind::Execution, "", format!("no seed can be drawn: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_seed_can_be_told_and_given_back() {
        let draw = || Options::default().sampling(&Sampling::GREEDY).unwrap();
        assert!(draw().seed < 1 << 53);
        assert_ne!(draw().seed, draw().seed);
        let known = Options { seed: Some(3), ..Options::default() };
        assert_eq!(known.sampling(&Sampling::GREEDY).unwrap().seed, 3);
    }
}
