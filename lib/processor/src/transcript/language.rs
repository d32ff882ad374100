//! Languages of speech: their codes and English names, as Whisper has them.

use mlxk_core::{Error, Result};

/// Languages in the order of Whisper's tokens, each as its code and its English name. The last one
/// came with large-v3.
pub const LANGUAGES: [(&str, &str); 100] = [
    ("en", "english"),
    ("zh", "chinese"),
    ("de", "german"),
    ("es", "spanish"),
    ("ru", "russian"),
    ("ko", "korean"),
    ("fr", "french"),
    ("ja", "japanese"),
    ("pt", "portuguese"),
    ("tr", "turkish"),
    ("pl", "polish"),
    ("ca", "catalan"),
    ("nl", "dutch"),
    ("ar", "arabic"),
    ("sv", "swedish"),
    ("it", "italian"),
    ("id", "indonesian"),
    ("hi", "hindi"),
    ("fi", "finnish"),
    ("vi", "vietnamese"),
    ("he", "hebrew"),
    ("uk", "ukrainian"),
    ("el", "greek"),
    ("ms", "malay"),
    ("cs", "czech"),
    ("ro", "romanian"),
    ("da", "danish"),
    ("hu", "hungarian"),
    ("ta", "tamil"),
    ("no", "norwegian"),
    ("th", "thai"),
    ("ur", "urdu"),
    ("hr", "croatian"),
    ("bg", "bulgarian"),
    ("lt", "lithuanian"),
    ("la", "latin"),
    ("mi", "maori"),
    ("ml", "malayalam"),
    ("cy", "welsh"),
    ("sk", "slovak"),
    ("te", "telugu"),
    ("fa", "persian"),
    ("lv", "latvian"),
    ("bn", "bengali"),
    ("sr", "serbian"),
    ("az", "azerbaijani"),
    ("sl", "slovenian"),
    ("kn", "kannada"),
    ("et", "estonian"),
    ("mk", "macedonian"),
    ("br", "breton"),
    ("eu", "basque"),
    ("is", "icelandic"),
    ("hy", "armenian"),
    ("ne", "nepali"),
    ("mn", "mongolian"),
    ("bs", "bosnian"),
    ("kk", "kazakh"),
    ("sq", "albanian"),
    ("sw", "swahili"),
    ("gl", "galician"),
    ("mr", "marathi"),
    ("pa", "punjabi"),
    ("si", "sinhala"),
    ("km", "khmer"),
    ("sn", "shona"),
    ("yo", "yoruba"),
    ("so", "somali"),
    ("af", "afrikaans"),
    ("oc", "occitan"),
    ("ka", "georgian"),
    ("be", "belarusian"),
    ("tg", "tajik"),
    ("sd", "sindhi"),
    ("gu", "gujarati"),
    ("am", "amharic"),
    ("yi", "yiddish"),
    ("lo", "lao"),
    ("uz", "uzbek"),
    ("fo", "faroese"),
    ("ht", "haitian creole"),
    ("ps", "pashto"),
    ("tk", "turkmen"),
    ("nn", "nynorsk"),
    ("mt", "maltese"),
    ("sa", "sanskrit"),
    ("lb", "luxembourgish"),
    ("my", "myanmar"),
    ("bo", "tibetan"),
    ("tl", "tagalog"),
    ("mg", "malagasy"),
    ("as", "assamese"),
    ("tt", "tatar"),
    ("haw", "hawaiian"),
    ("ln", "lingala"),
    ("ha", "hausa"),
    ("ba", "bashkir"),
    ("jw", "javanese"),
    ("su", "sundanese"),
    ("yue", "cantonese"),
];

/// Codes of the languages, in the same order.
pub const CODES: [&str; LANGUAGES.len()] = {
    let (mut codes, mut at) = ([""; LANGUAGES.len()], 0);
    while at < codes.len() {
        codes[at] = LANGUAGES[at].0;
        at += 1;
    }
    codes
};

/// Further names of languages, each with its code.
const ALIASES: [(&str, &str); 12] = [
    ("burmese", "my"),
    ("valencian", "ca"),
    ("flemish", "nl"),
    ("haitian", "ht"),
    ("letzeburgesch", "lb"),
    ("pushto", "ps"),
    ("panjabi", "pa"),
    ("moldavian", "ro"),
    ("moldovan", "ro"),
    ("sinhalese", "si"),
    ("castilian", "es"),
    ("mandarin", "zh"),
];

/// The English name of a language in lower case; none if the code is unknown.
pub fn name(code: &str) -> Option<&'static str> {
    LANGUAGES.iter().find(|(known, _)| *known == code).map(|(_, name)| *name)
}

/// The code of a language, which is given by its code, also with a region as in `pt-BR`, or by its
/// English name; none for `auto` and the empty text, which let the model detect the language.
///
/// # Errors
/// If no language is called so.
pub fn parse(text: &str) -> Result<Option<&'static str>> {
    let wanted = text.trim().to_lowercase();
    if wanted.is_empty() || wanted == "auto" {
        return Ok(None);
    }
    let base = wanted.split(['-', '_']).next().unwrap_or_default();
    let code = |base: &str| LANGUAGES.iter().find(|(code, _)| *code == base);
    let named = LANGUAGES.iter().find(|(_, name)| *name == wanted);
    let alias = || ALIASES.iter().find(|(name, _)| *name == wanted).map(|(_, code)| *code);
    let found = code(base).or(named).map(|(code, _)| *code).or_else(alias);
    found.map(Some).ok_or_else(|| {
        let message = format!("`language`: no language is called {text:?}");
        Error::validation(message).hint("a code such as en or de, an English name, or auto")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_known_by_code_region_name_and_alias() {
        for (text, code) in [
            ("de", Some("de")),
            ("EN", Some("en")),
            ("pt-BR", Some("pt")),
            ("zh_TW", Some("zh")),
            ("German", Some("de")),
            ("Haitian Creole", Some("ht")),
            ("Castilian", Some("es")),
            ("yue", Some("yue")),
            ("auto", None),
            (" ", None),
        ] {
            assert_eq!(parse(text).unwrap(), code, "{text}");
        }
        for text in ["xx", "Klingon", "e", "englisch"] {
            assert!(parse(text).unwrap_err().message.contains(text), "{text}");
        }
        assert_eq!((name("haw"), name("xx")), (Some("hawaiian"), None));
    }
}
