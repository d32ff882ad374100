//! The task of a model, its capabilities, and whether it can run, decided from its facts.

pub mod detect;
pub mod encoder;

use serde_json::Value;

use crate::architecture::{Architecture, NetworkKind};
use crate::generation_config::{self, GenerationConfig};
use crate::health::{Health, one_line};
use crate::probe::Facts;
use crate::quantization::{CONVERTIBLE, EQUIVALENT, Mode};
use crate::tensors::Dtype;
use detect::{Framework, architecture};
use encoder::EncoderPlan;

/// The task of a model, and whether it can run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The framework that wrote the weights.
    pub framework: Framework,
    /// The model's task.
    pub task: Task,
    /// The `model_type` of records: `chat`, `base`, `embedding`, `rerank`
    /// or `audio`.
    pub model_type: &'static str,
    /// The `capabilities` of records.
    pub capabilities: Vec<&'static str>,
    /// The architecture, if it is supported.
    pub architecture: Option<Architecture>,
    /// Success if the model can run, or else the reason why it cannot.
    pub runnable: Result<(), String>,
    /// The context length in tokens, if the configuration states one.
    pub context_length: Option<u64>,
    /// The properties of an embedding model or of a reranker; none for other tasks.
    pub encoder: Option<EncoderPlan>,
}

/// The task of a model: its input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Text to text.
    Text,
    /// Text and images to text.
    Vision,
    /// Audio to text.
    Audio,
    /// Text to embedding vectors.
    Embedding,
    /// Pairs of texts to scores.
    Rerank,
}

impl Task {
    /// The name of the task in messages.
    pub fn name(self) -> &'static str {
        match self {
            Task::Text => "text",
            Task::Vision => "vision",
            Task::Audio => "audio",
            Task::Embedding => "embeddings",
            Task::Rerank => "reranking",
        }
    }
}

/// Decides the plan for a model.
pub fn decide(facts: &Facts, health: &Health) -> Plan {
    let task = task(facts);
    let model_type = match task {
        Task::Embedding => "embedding",
        Task::Rerank => "rerank",
        Task::Audio => "audio",
        Task::Vision => "chat",
        Task::Text if detect::chat(facts) => "chat",
        Task::Text => "base",
    };
    let framework = detect::framework(facts);
    let context_length = context_length(facts);
    Plan {
        framework,
        task,
        model_type,
        capabilities: capabilities(facts, task),
        architecture: architecture(facts),
        runnable: runnable(facts, health, framework, task).map_err(|reason| one_line(&reason)),
        encoder: match task {
            Task::Embedding => Some(EncoderPlan::embedder(facts, context_length)),
            Task::Rerank => Some(EncoderPlan::reranker(facts, context_length)),
            Task::Text | Task::Vision | Task::Audio => None,
        },
        context_length,
    }
}

fn task(facts: &Facts) -> Task {
    match () {
        () if detect::rerank(facts) => Task::Rerank,
        () if detect::embedding(facts) => Task::Embedding,
        () if detect::speech(facts) => Task::Audio,
        () if detect::vision(facts) => Task::Vision,
        () => Task::Text,
    }
}

fn capabilities(facts: &Facts, task: Task) -> Vec<&'static str> {
    let chat = task == Task::Vision || detect::chat(facts);
    let all: &[(&str, bool)] = match task {
        Task::Embedding => &[("embeddings", true)],
        Task::Rerank => &[("rerank", true)],
        Task::Audio => &[("audio", true), ("audio-translate-en", detect::translation(facts))],
        Task::Vision | Task::Text => &[
            ("text-generation", true),
            ("chat", chat),
            ("vision", task == Task::Vision),
            ("audio", detect::audio(facts)),
        ],
    };
    all.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect()
}

/// Checks that the model can run; the error is the first rule that it breaks.
///
/// Checkpoints of MLX and of transformers run alike if their architecture is supported. Code in a
/// checkpoint never runs: a `model_file` would replace the architecture, so it is refused; an
/// `auto_map` names code for libraries that do not know the `model_type`, so beside a supported one
/// it is ignored. Weight files may have any name if their headers are valid.
fn runnable(
    facts: &Facts,
    health: &Health,
    framework: Framework,
    task: Task,
) -> Result<(), String> {
    if !health.healthy {
        return Err(health.reason.clone());
    }
    match framework {
        Framework::Mlx | Framework::PyTorch => {}
        Framework::Gguf => {
            return Err("Incompatible framework: GGUF (mlxk-convert imports it)".to_owned());
        }
        Framework::Unknown => return Err("Incompatible framework: Unknown".to_owned()),
    }
    let architecture = supported(facts, task)?;
    match task {
        Task::Text => {}
        Task::Vision if architecture.is_multimodal() => {}
        Task::Embedding => encoder::check(facts)?,
        Task::Rerank => {}
        Task::Audio if architecture.kind() == NetworkKind::Speech => {}
        Task::Vision | Task::Audio => {
            return Err(format!("Only text models can run, and this one is for {}", task.name()));
        }
    }
    quantization(facts, architecture)?;
    layers(facts)?;
    dtypes(facts)?;
    generation(facts)?;
    match facts.tokenizer() {
        Some(_) => Ok(()),
        // The vocabulary is in the configuration, or known.
        None if architecture.kind() == NetworkKind::Speech => Ok(()),
        None => Err("tokenizer.json missing (needed to run the model)".to_owned()),
    }
}

/// The supported architecture of the model.
fn supported(facts: &Facts, task: Task) -> Result<Architecture, String> {
    let has = |key| facts.config.get(key).is_some_and(|value| !value.is_null());
    if has("model_file") {
        return Err("requires executing model-supplied code (config.json: model_file)".to_owned());
    }
    let Some(name) = detect::model_type(facts) else {
        return Err("config.json missing model_type field".to_owned());
    };
    let Some(architecture) = Architecture::find(&name) else {
        let code = match has("auto_map") {
            true => "; code of its own (config.json: auto_map) is never run",
            false => "",
        };
        return Err(format!("Model type '{name}' not supported{code}"));
    };
    let writes_text = |name: &String| {
        architecture.is_multimodal()
            && (name.contains("ForConditionalGeneration") || name.ends_with("ChatModel"))
    };
    let named = detect::architectures(facts);
    if let Some(class) = architecture.class().filter(|class| !named.iter().any(|n| n == class)) {
        let found = named.join(", ");
        return Err(format!("Architecture '{found}' of '{name}' not supported (only {class})"));
    }
    let encodes = named.iter().any(|name| detect::is_encoder(name));
    let writes = detect::is_causal(facts) || named.iter().any(writes_text);
    let classifies = || named.iter().any(|name| detect::is_classifier(name));
    let hears = architecture.kind() == NetworkKind::Speech;
    let (fits, purpose) = match (task, architecture.is_encoder()) {
        (Task::Audio, _) if hears => {
            (named.iter().any(|name| detect::is_speech(name)), "write down speech")
        }
        (Task::Rerank, true) => (true, "rank text"),
        (Task::Rerank, false) => (writes || classifies(), "rank text"),
        (_, true) => (encodes, "embed text"),
        (Task::Embedding, false) => (encodes || writes, "embed text"),
        (_, false) => (writes, "write text"),
    };
    match named.first() {
        Some(first) if !fits => {
            Err(format!("Architecture '{first}' not supported: it does not {purpose}"))
        }
        _ => Ok(architecture),
    }
}

/// Checks that the weights are unquantized, or quantized in a mode that runs or can be converted.
fn quantization(facts: &Facts, architecture: Architecture) -> Result<(), String> {
    match (facts.config.get("quantization"), quantization_config(facts)) {
        (Some(settings), _) => modes(&settings),
        (None, Some(config)) => quant_method(&config, architecture),
        (None, None) => Ok(()),
    }
}

/// The `quantization_config` of the configuration, or of its `text_config`.
fn quantization_config(facts: &Facts) -> Option<Value> {
    let within = || facts.config.get("text_config")?.get("quantization_config").cloned();
    facts.config.get("quantization_config").or_else(within)
}

/// Checks that every `mode` in the `quantization` of MLX, for all layers and for single ones, is
/// supported.
fn modes(settings: &Value) -> Result<(), String> {
    let layers = settings.as_object().into_iter().flat_map(|fields| fields.values());
    let mut modes = [settings].into_iter().chain(layers).filter_map(|layer| layer.get("mode"));
    let unknown = |mode: &&Value| mode.as_str().and_then(Mode::find).is_none();
    modes.find(unknown).map_or(Ok(()), unsupported)
}

/// Checks that weights quantized by another tool run as they are, or can be converted.
///
/// A `quantization_config` without `quant_method` is a copy of the settings of MLX.
fn quant_method(config: &Value, architecture: Architecture) -> Result<(), String> {
    let Some(method) = config.get("quant_method") else {
        return Ok(());
    };
    let known = method.as_str().unwrap_or_default();
    if architecture.quant_method() == Some(known) || EQUIVALENT.contains(&known) {
        return Ok(());
    }
    if !CONVERTIBLE.contains(&known) {
        return unsupported(method);
    }
    let format = config.get("format").and_then(Value::as_str).unwrap_or("unknown");
    match (known, config.get("bits").and_then(Value::as_u64)) {
        ("compressed-tensors", _) if format != "pack-quantized" => {
            Err(format!("compressed-tensors of format '{format}' not supported"))
        }
        ("awq" | "gptq", Some(bits)) if bits != 4 => {
            Err(format!("{known} of {bits} bits not supported (supported: 4)"))
        }
        _ => Ok(()),
    }
}

fn unsupported(mode: &Value) -> Result<(), String> {
    let mode = mode.as_str().unwrap_or("unknown");
    let known = Mode::ALL.map(Mode::name).join(", ");
    Err(format!("Quantization mode '{mode}' not supported (supported: {known})"))
}

/// Checks that all weights have a supported dtype, which is the only sign of some quantizations.
fn dtypes(facts: &Facts) -> Result<(), String> {
    use Dtype::{BF16, BOOL, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
    const KNOWN: [Dtype; 13] = [F16, BF16, F32, F64, BOOL, I8, I16, I32, I64, U8, U16, U32, U64];
    let method = quantization_config(facts).and_then(|config| config.get("quant_method").cloned());
    let small: &[Dtype] = match method.is_some_and(|method| method == "fp8") {
        true => &[Dtype::F8_E4M3, Dtype::F8_E8M0],
        false => &[],
    };
    let headers = facts.weights().into_iter().filter_map(|shard| shard.header.as_ref().ok());
    match headers
        .flat_map(|header| &header.tensors)
        .find(|t| !KNOWN.contains(&t.dtype) && !small.contains(&t.dtype))
    {
        Some(tensor) => {
            Err(format!("Weights of type {} not supported: {}", tensor.dtype, tensor.name))
        }
        None => Ok(()),
    }
}

/// Checks that no layer has an Engram memory, which no supported architecture has.
fn layers(facts: &Facts) -> Result<(), String> {
    let text = facts.config.get("text_config");
    let below = text.as_ref().and_then(|text| text.get("engram_layer_ids").cloned());
    match facts.config.get("engram_layer_ids").or(below) {
        Some(Value::Array(layers)) if !layers.is_empty() => {
            let layers: Vec<String> = layers.iter().map(Value::to_string).collect();
            Err(format!("Engram memory not supported (config.json: layers {})", layers.join(", ")))
        }
        _ => Ok(()),
    }
}

/// Checks that the recommended sampling and the tokens that end a text can be read.
fn generation(facts: &Facts) -> Result<(), String> {
    GenerationConfig::read(&facts.generation_config)
        .map_err(|reason| format!("generation_config.json: {reason}"))?;
    let ends = generation_config::end_tokens(facts);
    ends.map(drop).map_err(|(file, reason)| format!("{file}: {reason}"))
}

/// The first positive integer among the keys for the context length, `text_config` included.
fn context_length(facts: &Facts) -> Option<u64> {
    const KEYS: [&str; 5] = [
        "max_position_embeddings",
        "n_positions",
        "context_length",
        "max_sequence_length",
        "seq_len",
    ];
    let text = facts.config.get("text_config");
    let top = KEYS.iter().filter_map(|key| facts.config.get(key));
    let below = KEYS.iter().filter_map(|key| text.as_ref()?.get(key).cloned());
    top.chain(below).find_map(|value| positive(&value))
}

fn positive(value: &Value) -> Option<u64> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_u64(),
    };
    number.filter(|number| *number > 0)
}
