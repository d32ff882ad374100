//! Byte-level BPE (`gpt2` in GGUF); a file names its pre-tokenizer, whose regexes are listed here.

use serde_json::{Value, json};

use super::vocabulary::Vocabulary;
use super::{document, template};
use crate::read::Gguf;

/// Pre-tokenizer named in `tokenizer.ggml.pre`, and the settings that come with it.
struct PreTokenizer {
    /// Regexes applied one after another; matches and the text between them are the pieces.
    patterns: &'static [&'static str],
    /// True if the text is normalized to NFC first.
    nfc: bool,
    /// True if a piece that is a token is taken without merging (`ignore_merges`).
    ignore_merges: bool,
    /// True if the BOS token is added unless the file says otherwise.
    add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const FALCON: [&str; 3] = [
    r"[\p{P}\$\+<=>\^~\|`]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    "[0-9][0-9][0-9]",
];
/// Letters of scripts with upper and lower case.
const CASED: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const CJK: &str = "[一-龥ࠀ-一가-퟿]+";

/// Known pre-tokenizers, by llama.cpp's names.
const PRE_TOKENIZERS: [(&[&str], PreTokenizer); 10] = [
    (&["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "gigachat"], split(&[GPT2])),
    (
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        split(&[r"\p{N}", GPT2]),
    ),
    (
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
        PreTokenizer { ignore_merges: true, add_bos: true, ..split(&[LLAMA3]) },
    ),
    (&["smaug-bpe", "dbrx"], split(&[LLAMA3])),
    (&["qwen2", "stablelm2", "deepseek-r1-qwen"], PreTokenizer { nfc: true, ..split(&[QWEN2]) }),
    (&["qwen35"], split(&[QWEN35])),
    (&["falcon"], split(&FALCON)),
    (&["deepseek-coder"], split(&["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}"])),
    (
        &["deepseek-llm"],
        split(&["[\r\n]", CASED, r"\s?[!-/:-~！-／：-～‘-‟\x{3000}-。]+", r"\s+$", CJK, r"\p{N}+"]),
    ),
    (&["tekken"], PreTokenizer { ignore_merges: true, add_bos: true, ..split(&[TEKKEN]) }),
];

/// Default of llama.cpp for a file that names no pre-tokenizer.
const DEFAULT: PreTokenizer = split(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]);

const fn split(patterns: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer { patterns, nfc: false, ignore_merges: false, add_bos: false }
}

/// The tokenizer.json of a byte-level BPE tokenizer.
pub fn tokenizer(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Value, String> {
    let split = pre_tokenizer(gguf.find("tokenizer.ggml.pre")?)?;
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false,
    });
    let post_processor = match template(gguf, vocabulary, split.add_bos)? {
        Some(template) => json!({ "type": "Sequence", "processors": [bytes, template] }),
        None => bytes.clone(),
    };
    let pieces = split.patterns.iter().map(|pattern| {
        json!({
            "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false,
        })
    });
    let pre_tokenizers: Vec<_> = pieces.chain([bytes.clone()]).collect();
    let parts = json!({
        "normalizer": split.nfc.then(|| json!({ "type": "NFC" })),
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": pre_tokenizers },
        "post_processor": post_processor,
        "decoder": bytes,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": split.ignore_merges,
            "vocab": vocabulary.map(),
            "merges": merges(gguf, vocabulary)?,
        },
    });
    Ok(document(vocabulary, parts))
}

/// Pre-tokenizer with llama.cpp's name `name`; an error that lists the known ones.
fn pre_tokenizer(name: Option<&str>) -> Result<&'static PreTokenizer, String> {
    let name = match name {
        None | Some("default") => return Ok(&DEFAULT),
        Some(name) => name,
    };
    let split = PRE_TOKENIZERS.iter().find(|(names, _)| names.contains(&name));
    split.map(|(_, split)| split).ok_or_else(|| {
        let known: Vec<_> = PRE_TOKENIZERS.iter().flat_map(|(names, _)| *names).copied().collect();
        format!("the pre-tokenizer {name:?} is not known; these are: {}", known.join(", "))
    })
}

/// Merges as pairs of tokens; an error if a part or the result of a merge is not a token.
pub fn merges(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Vec<Value>, String> {
    let lines: &[&str] = gguf.need("tokenizer.ggml.merges")?;
    let pair = |(number, line): (usize, &&str)| {
        let wrong = |what| format!("the merge {number}, {line:?}, {what}");
        let (left, right) = line.split_once(' ').ok_or_else(|| wrong("is no pair"))?;
        let joined = left.to_owned() + right;
        match [left, right, &joined].iter().all(|token| vocabulary.ids.contains_key(token)) {
            true => Ok(json!([left, right])),
            false => Err(wrong("speaks of what is no token")),
        }
    };
    lines.iter().enumerate().map(pair).collect()
}
