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

const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const YOUTU: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const KIMI: &str = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const JAIS2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}";
const BAILING: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const EXAONE_MOE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+";
const SEED: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const UFAKZEKA: &str =
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const MINICPM5: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words, punctuation and line ends of DeepSeek V3 and its kin.
const DEEPSEEK3: &str = r#"[!"\#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#;
const SPARK: &str = r#"[!"\#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"#;
const KANA: &str = "[一-龥぀-ゟ゠-ヿ]+";
/// Text between the punctuation of many scripts.
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const CHAMELEON: [&str; 6] = [
    "<sentinel:[0-9]+>",
    "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    r"([\t\n]|    |  )",
    r"\p{N}",
    r"[\p{P}!-/:-@\[-`{-~]",
    GPT2,
];
/// Scripts without spaces between words, as AFMoE splits them.
const UNSPACED: &str = "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+";

/// Known pre-tokenizers, by llama.cpp's names (src/llama-vocab.cpp). Where it notes the regex of the
/// model's own tokenizer.json, that one stands here.
const PRE_TOKENIZERS: [(&[&str], PreTokenizer); 31] = [
    (
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "gigachat",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "granite-docling",
        ],
        split(&[GPT2]),
    ),
    (
        &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        split(&[r"\p{N}", GPT2]),
    ),
    (
        &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        PreTokenizer { ignore_merges: true, add_bos: true, ..split(&[LLAMA3]) },
    ),
    (&["smaug-bpe", "dbrx", "chatglm-bpe"], split(&[LLAMA3])),
    (&["glm4", "glm5"], PreTokenizer { ignore_merges: true, ..split(&[LLAMA3]) }),
    (&["jais-2"], split(&[JAIS2])),
    (&["minicpm5"], PreTokenizer { ignore_merges: true, ..split(&[r"\p{N}{1,3}", MINICPM5]) }),
    (
        &["qwen2", "stablelm2", "deepseek-r1-qwen", "f2llmv2"],
        PreTokenizer { nfc: true, ..split(&[QWEN2]) },
    ),
    (&["kormo", "megrez", "hunyuan", "solar-open", "grok-2"], split(&[QWEN2])),
    (&["qwen35"], split(&[QWEN35])),
    (&["laguna"], split(&[r"[^\n]+|[\n]+", QWEN2])),
    (&["falcon"], split(&FALCON)),
    (&["deepseek-coder"], split(&["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}"])),
    (
        &["deepseek-llm"],
        split(&["[\r\n]", CASED, r"\s?[!-/:-~！-／：-～‘-‟\x{3000}-。]+", r"\s+$", CJK, r"\p{N}+"]),
    ),
    (
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        split(&[r"\p{N}{1,3}", KANA, DEEPSEEK3]),
    ),
    (&["spark2_5"], split(&[r"\p{N}{1,3}", KANA, SPARK, r"\p{N}"])),
    (
        &["youtu"],
        PreTokenizer {
            ignore_merges: true,
            ..split(&["[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+", YOUTU])
        },
    ),
    (&["tekken"], PreTokenizer { ignore_merges: true, add_bos: true, ..split(&[TEKKEN]) }),
    (&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], split(&[GPT4O])),
    (&["granite-embed-multi-97m"], PreTokenizer { ignore_merges: true, ..split(&[GPT4O]) }),
    (&["tiny_aya", "cohere2moe"], split(&[r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O])),
    (&["kimi-k2"], split(&[KIMI])),
    (&["superbpe"], split(&[r"\p{N}+", r"(?=(\d{3})+(?!\d))"])),
    (&["bailingmoe", "bailingmoe2", "llada-moe"], split(&[BAILING])),
    (&["seed-coder"], split(&[SEED])),
    (&["exaone-moe"], split(&[EXAONE_MOE])),
    (&["ufakzeka"], split(&[UFAKZEKA])),
    (&["poro-chat", "bloom", "gpt3-finnish"], split(&[BLOOM])),
    (&["viking"], split(&[BLOOM, r"\p{N}"])),
    (&["chameleon"], PreTokenizer { add_bos: true, ..split(&CHAMELEON) }),
    (&["afmoe"], split(&[r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", UNSPACED, DEEPSEEK3])),
];

/// Names of pre-tokenizers whose tokens are raw UTF-8 with `▁` for a space.
const SPACED: [&str; 3] = ["gemma4", "granite-embed-multi-311m", "sarvam-moe"];

/// Default of llama.cpp for a file that names no pre-tokenizer.
const DEFAULT: PreTokenizer = split(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]);

const fn split(patterns: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer { patterns, nfc: false, ignore_merges: false, add_bos: false }
}

/// True if the tokens are raw UTF-8, as those of SentencePiece are, and not those of bytes.
pub fn is_spaced(gguf: &Gguf) -> Result<bool, String> {
    let name: Option<&str> = gguf.find("tokenizer.ggml.pre")?;
    Ok(name.is_some_and(|name| SPACED.contains(&name)))
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
