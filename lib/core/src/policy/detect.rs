//! Detection of a model's framework and abilities: vision, audio, speech, embedding, chat.

use serde_json::Value;

use crate::architecture::Architecture;
use crate::probe::sentence::MODULES;
use crate::probe::{Facts, Shard};

/// Vision models by `model_type`; these have no `vision_config` in some checkpoints.
const VISION_TYPES: [&str; 6] =
    ["llava_next", "phi3_v", "mllama", "paligemma", "idefics", "smolvlm"];

/// Models that take audio, by a part of the `model_type`.
const AUDIO_TYPES: [&str; 5] = ["gemma3n", "voxtral", "whisper", "vibevoice", "audio"];

/// Models that only transcribe speech, by a part of the `model_type`.
const SPEECH_TYPES: [&str; 6] =
    ["whisper", "vibevoice", "voxtral", "parakeet", "moonshine", "qwen3_asr"];

/// Classes of NeMo's speech models, which state no `model_type`.
const NEMO_CLASSES: [&str; 3] =
    ["EncDecRNNTBPEModel", "EncDecHybridRNNTCTCBPEModel", "EncDecCTCModelBPE"];

/// Decoders, by `model_type`, that embed text if the model's name indicates it.
const DECODER_TYPES: [&str; 2] = ["qwen3", "mistral"];

/// The framework that wrote the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    /// MLX.
    Mlx,
    /// llama.cpp, whose files are GGUF.
    Gguf,
    /// PyTorch, or another framework that writes safetensors.
    PyTorch,
    /// No weights of a known format.
    Unknown,
}

impl Framework {
    /// The `framework` of records.
    pub fn name(self) -> &'static str {
        match self {
            Framework::Mlx => "MLX",
            Framework::Gguf => "GGUF",
            Framework::PyTorch => "PyTorch",
            Framework::Unknown => "Unknown",
        }
    }
}

/// The framework, judged by the files, the name, the README, the configuration and the headers.
pub fn framework(facts: &Facts) -> Framework {
    let any = |end| facts.files.iter().any(|file| file.is(end));
    match () {
        () if any("gguf") && !any("safetensors") => Framework::Gguf,
        () if is_mlx(facts) => Framework::Mlx,
        () if any("safetensors") || any("bin") => Framework::PyTorch,
        () => Framework::Unknown,
    }
}

fn is_mlx(facts: &Facts) -> bool {
    let mlx = |text: &String| text.eq_ignore_ascii_case("mlx");
    let headers = || facts.shards.iter().filter_map(|shard| shard.header.as_ref().ok());
    facts.found.name.contains("mlx-community/")
        || source(facts).contains("mlx-community/")
        || facts.readme.tags.iter().chain(&facts.readme.library).any(mlx)
        || facts.config.get("quantization").is_some()
        || headers().filter_map(|header| header.metadata.get("format")).any(mlx)
        || nemo(facts)
        || facts.shards.iter().any(|shard| shard.path.extension() == Some("npz".as_ref()))
}

/// The model that a workspace was cloned from; empty if unknown.
fn source(facts: &Facts) -> String {
    facts.sentinel.str("source_repo").unwrap_or_default()
}

/// The `model_type` of the configuration, in lower case; that of static embeddings, of OpenAI's form
/// of Whisper and of NeMo's speech models, which may state none, if the model is one.
pub fn model_type(facts: &Facts) -> Option<String> {
    let stated = facts.config.str("model_type").map(|name| name.to_lowercase());
    let implied = || match () {
        () if static_embedding(facts) => Some("static_embedding".to_owned()),
        () if model2vec(facts) => Some("model2vec".to_owned()),
        () if nemo(facts) => Some(Architecture::Parakeet.name().to_owned()),
        () if dimensions(facts) => Some(Architecture::Whisper.name().to_owned()),
        () => None,
    };
    stated.or_else(implied)
}

/// True if the configuration is NeMo's, of a speech model with a transducer or CTC.
fn nemo(facts: &Facts) -> bool {
    let target = facts.config.str("target").unwrap_or_default();
    let class = target.rsplit('.').next().unwrap_or_default();
    target.starts_with("nemo.collections.asr.") && NEMO_CLASSES.contains(&class)
}

/// The architecture, if it is supported.
pub fn architecture(facts: &Facts) -> Option<Architecture> {
    Architecture::find(&model_type(facts)?)
}

/// True if the configuration is the list of dimensions that OpenAI's form of Whisper has.
fn dimensions(facts: &Facts) -> bool {
    ["n_mels", "n_audio_state", "n_text_state"].iter().all(|key| facts.config.get(key).is_some())
}

/// True if the weights are those of model2vec: a table with the name `embeddings`.
fn model2vec(facts: &Facts) -> bool {
    let shards = facts.weights();
    let headers = shards.iter().filter_map(|shard| shard.header.as_ref().ok());
    headers.flat_map(|header| &header.tensors).any(|tensor| tensor.name == "embeddings")
}

/// True if the model is a table of vectors, one for each token, in a folder of its own, as
/// sentence-transformers writes it: there is no `config.json`.
pub fn static_embedding(facts: &Facts) -> bool {
    let table = |shard: &Shard| {
        let folder = shard.path.parent().map(|folder| folder.to_string_lossy());
        folder.is_some_and(|folder| folder.ends_with("StaticEmbedding"))
    };
    !facts.config.exists() && facts.has(MODULES) && facts.shards.iter().any(table)
}

/// True if the model takes images.
///
/// A supported multimodal `model_type` is not sufficient: some of its models have only the text
/// part, so the configuration decides. A processor beside an architecture of text alone is left of
/// the model that it was taken from.
pub fn vision(facts: &Facts) -> bool {
    let processor = || {
        is_true(facts.config.get("image_processor"))
            || embedded_processor(facts)
            || processor_file(facts)
    };
    is_filled(facts.config.get("vision_config"))
        || model_type(facts).is_some_and(|name| VISION_TYPES.contains(&name.as_str()))
        || !is_text_only(facts) && processor()
}

/// True if the architecture is a supported one of text alone.
pub fn is_text_only(facts: &Facts) -> bool {
    architecture(facts).is_some_and(|architecture| !architecture.is_multimodal())
}

fn embedded_processor(facts: &Facts) -> bool {
    match facts.config.get("preprocessor_config") {
        Some(Value::Object(fields)) => !is_video(&|key| fields.get(key).cloned()),
        _ => false,
    }
}

/// True if a processor file exists that is neither for video nor for audio.
fn processor_file(facts: &Facts) -> bool {
    let names =
        ["preprocessor_config.json", "processor_config.json", "image_processor_config.json"];
    let there = facts.files.iter().any(|file| names.iter().any(|name| file.path.ends_with(name)));
    there
        && !facts.has("video_preprocessor_config.json")
        && !is_video(&|key| facts.preprocessor_config.get(key))
        && facts.preprocessor_config.get("feature_extractor_type").is_none()
}

fn is_video(get: &dyn Fn(&str) -> Option<Value>) -> bool {
    get("temporal_patch_size").is_some()
        || get("processor_class").is_some_and(|class| class == "AutoVideoProcessor")
}

/// True if the model takes audio.
pub fn audio(facts: &Facts) -> bool {
    let extractor = facts.preprocessor_config.str("feature_extractor_type");
    let extractor = extractor.filter(|_| !is_text_only(facts));
    is_filled(facts.config.get("audio_config"))
        || model_type(facts).is_some_and(|name| AUDIO_TYPES.iter().any(|part| name.contains(part)))
        || extractor.is_some_and(|name| name.to_lowercase().contains("whisper"))
}

/// True if the model only transcribes speech.
pub fn speech(facts: &Facts) -> bool {
    model_type(facts).is_some_and(|name| SPEECH_TYPES.iter().any(|part| name.contains(part)))
}

/// True if the model can translate speech: a multilingual Whisper, except the turbo models, which
/// were not trained for translation. Its name or its sizes say what it is.
pub fn translation(facts: &Facts) -> bool {
    let is_english = |part: &str| part.split('.').skip(1).any(|end| end == "en");
    let cannot =
        |name: &str| name.split(['-', '_']).any(|part| part == "turbo" || is_english(part));
    let size = |keys: [&str; 2]| keys.iter().find_map(|key| facts.config.get(key)?.as_u64());
    let english = size(["n_vocab", "vocab_size"]) == Some(51_864);
    let layers =
        [["n_audio_layer", "encoder_layers"], ["n_text_layer", "decoder_layers"]].map(size);
    let turbo = layers == [Some(32), Some(4)];
    model_type(facts).as_deref() == Some("whisper")
        && !english
        && !turbo
        && !is_named(facts, cannot)
}

/// True if the model embeds text: an encoder, a model with the modules of sentence-transformers,
/// one that attends to tokens after a token, a decoder without its head, or one whose name indicates
/// it.
///
/// `gemma3_text` is the type of both decoders and encoders, and counts as a decoder otherwise.
pub fn embedding(facts: &Facts) -> bool {
    let name = model_type(facts).unwrap_or_default();
    let decoder = is_causal(facts) || DECODER_TYPES.contains(&name.as_str());
    facts.has(MODULES)
        || Architecture::find(&name).is_some_and(Architecture::is_encoder)
        || !attends_back_only(facts)
        || headless(facts)
        || decoder && name != "gemma3_text" && is_named(facts, |name| name.contains("embed"))
}

/// True if a class of `architectures` is that of a supported language model without its head.
fn headless(facts: &Facts) -> bool {
    architecture(facts).is_some_and(|known| !known.is_multimodal())
        && !is_causal(facts)
        && architectures(facts).iter().any(|name| name.ends_with("Model"))
}

/// True if the model scores pairs of texts: a classifier with one label, or a decoder whose name
/// indicates it.
pub fn rerank(facts: &Facts) -> bool {
    match architectures(facts).iter().any(|name| is_classifier(name)) {
        true => labels(facts) == 1,
        false => is_causal(facts) && is_named(facts, |name| name.contains("rerank")),
    }
}

/// True if the model's name is that of a Qwen3-Reranker, which is asked in a frame.
pub fn qwen3_reranker(facts: &Facts) -> bool {
    is_named(facts, |name| name.contains("qwen3") && name.contains("rerank"))
}

/// True if a class of `architectures` is a classifier of texts.
pub fn is_classifier(class: &str) -> bool {
    class.ends_with("ForSequenceClassification")
}

/// The number of labels of a classifier, two unless the configuration states another.
fn labels(facts: &Facts) -> usize {
    let counted = facts.config.get("num_labels").and_then(|count| count.as_u64());
    match facts.config.get("id2label") {
        Some(Value::Object(labels)) => labels.len(),
        _ => counted.and_then(|count| usize::try_from(count).ok()).unwrap_or(2),
    }
}

/// True if a token of the model attends only to those before it, as that of a language model does.
pub fn attends_back_only(facts: &Facts) -> bool {
    facts.config.get("is_causal") != Some(Value::Bool(false))
        && facts.config.get("use_bidirectional_attention") != Some(Value::Bool(true))
}

/// True if the model is trained for chat.
pub fn chat(facts: &Facts) -> bool {
    facts.chat_template
        || model_type(facts).as_deref() == Some("chat")
        || is_named(facts, |name| name.contains("instruct") || name.contains("chat"))
}

/// The `architectures` of the configuration.
pub fn architectures(facts: &Facts) -> Vec<String> {
    match facts.config.get("architectures") {
        Some(Value::Array(names)) => {
            names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

/// True if one of the `architectures` is a causal language model.
pub fn is_causal(facts: &Facts) -> bool {
    let causal = |name: &String| name.contains("ForCausalLM") || name.ends_with("LMHeadModel");
    architectures(facts).iter().any(causal)
}

/// True if a class of `architectures` is an encoder, alone or with the head of its training.
pub fn is_encoder(class: &str) -> bool {
    ["Model", "ForMaskedLM", "ForPreTraining"].iter().any(|end| class.ends_with(end))
}

/// True if a class of `architectures` writes down speech: not a classifier of sounds, nor a decoder
/// alone.
pub fn is_speech(class: &str) -> bool {
    !["ForAudioClassification", "ForCausalLM", "Encoder"].iter().any(|end| class.ends_with(end))
}

/// True if `test` holds for the model's name, without its organization, or for that of its source.
fn is_named(facts: &Facts, test: impl Fn(&str) -> bool) -> bool {
    [&facts.found.name, &source(facts)].into_iter().any(|name| {
        let name = name.trim_end_matches('/').to_lowercase();
        test(name.rsplit('/').next().unwrap_or_default())
    })
}

fn is_filled(value: Option<Value>) -> bool {
    matches!(value, Some(Value::Object(fields)) if !fields.is_empty())
}

/// True if the value is present and true in Python's sense: not null, false, zero or empty.
fn is_true(value: Option<Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(truth)) => truth,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
    }
}
