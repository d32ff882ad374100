//! Tasks of models, and the rules by which they can run.

use crate::env::Env;
use crate::model::{Model, in_cache, inspect, shard, shard_of};
use mlxk_core::{Architecture, Task};
use serde_json::json;

#[test]
fn models_of_each_kind_are_told_apart() {
    let llama = Model::new;
    let typed = |name: &str| llama().config(json!({"model_type": name}));
    let untold = || llama().json("tokenizer_config.json", json!({}));
    let image = json!({"image_mean": [0.5]});
    let cases: &[(&str, Model, &str, &[&str])] = &[
        ("m", llama(), "chat", &["text-generation", "chat"]),
        ("m", untold(), "base", &["text-generation"]),
        (
            "m",
            untold().json(".mlxk_workspace.json", json!({"source_repo": "org/Llama-Instruct"})),
            "chat",
            &["text-generation", "chat"],
        ),
        ("Llama-Instruct", untold(), "chat", &["text-generation", "chat"]),
        ("m", untold().file("chat_template.jinja", "x"), "chat", &["text-generation", "chat"]),
        (
            "m",
            untold().json("tokenizer.json", json!({"chat_template": "x"})),
            "chat",
            &["text-generation", "chat"],
        ),
        (
            "m",
            untold().json("tokenizer.json", json!({"vocab": {"\"chat_template\"": 1}})),
            "base",
            &["text-generation"],
        ),
        (
            "m",
            llama().json("tokenizer_config.json", json!({"chat_template": [{"name": "default"}]})),
            "chat",
            &["text-generation", "chat"],
        ),
        ("m", typed("bert"), "embedding", &["embeddings"]),
        ("Qwen3-Embedding-0.6B", typed("qwen3"), "embedding", &["embeddings"]),
        ("embeddinggemma", typed("gemma3_text"), "chat", &["text-generation", "chat"]),
        (
            "m",
            typed("gemma3_text").config(json!({"use_bidirectional_attention": true})),
            "embedding",
            &["embeddings"],
        ),
        ("m", typed("qwen2").config(json!({"is_causal": false})), "embedding", &["embeddings"]),
        ("m", typed("qwen2").json("modules.json", json!([])), "embedding", &["embeddings"]),
        (
            "m",
            typed("mistral").config(json!({"architectures": ["MistralModel"]})),
            "embedding",
            &["embeddings"],
        ),
        (
            "m",
            typed("bert").config(json!({
                "architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}
            })),
            "rerank",
            &["rerank"],
        ),
        ("whisper-small", typed("whisper"), "audio", &["audio", "audio-translate-en"]),
        ("whisper-tiny.en", typed("whisper"), "audio", &["audio"]),
        ("whisper-tiny.en-mlx", typed("whisper"), "audio", &["audio"]),
        ("whisper-large-v3-turbo", typed("whisper"), "audio", &["audio"]),
        ("m", typed("whisper").config(json!({"n_vocab": 51_864})), "audio", &["audio"]),
        (
            "m",
            typed("whisper").config(json!({"encoder_layers": 32, "decoder_layers": 4})),
            "audio",
            &["audio"],
        ),
        ("m", typed("llava"), "chat", &["text-generation", "chat"]),
        ("m", typed("llava_next"), "chat", &["text-generation", "chat", "vision"]),
        (
            "m",
            typed("gemma3").json("preprocessor_config.json", image.clone()),
            "chat",
            &["text-generation", "chat", "vision"],
        ),
        (
            "m",
            untold().json("preprocessor_config.json", image.clone()),
            "base",
            &["text-generation"],
        ),
        (
            "m",
            untold().json("preprocessor_config.json", json!({"temporal_patch_size": 2})),
            "base",
            &["text-generation"],
        ),
        (
            "m",
            untold()
                .json("preprocessor_config.json", image)
                .json("video_preprocessor_config.json", json!({})),
            "base",
            &["text-generation"],
        ),
        (
            "m",
            untold().config(json!({"vision_config": null, "audio_config": null})),
            "base",
            &["text-generation"],
        ),
        (
            "m",
            untold().config(json!({"audio_config": {"a": 1}})),
            "base",
            &["text-generation", "audio"],
        ),
    ];
    for (at, (name, model, kind, capabilities)) in cases.iter().enumerate() {
        let plan = model.plan_as(name);
        assert_eq!(
            (plan.model_type, plan.capabilities.as_slice()),
            (*kind, *capabilities),
            "case {at}"
        );
    }
    assert_eq!(typed("llava_next").plan().task, Task::Vision);
}

#[test]
fn the_framework_is_read_from_what_the_model_says_of_itself() {
    let plain = Model::new;
    let readme = |text: &str| plain().file("README.md", text);
    let written = br#"{"__metadata__":{"format":"mlx"}}"#;
    let by_mlx = [&(written.len() as u64).to_le_bytes()[..], written].concat();
    let cases = [
        (plain(), "PyTorch"),
        (plain().config(json!({"quantization": {"bits": 4}})), "MLX"),
        (plain().file("model.safetensors", by_mlx), "MLX"),
        (readme("---\nlicense: mit\ntags:\n- text\n- MLX\n---\n"), "MLX"),
        (readme("---\ntags: [a, 'mlx']\n---\n"), "MLX"),
        (readme("---\r\nlibrary_name: \"mlx\"\r\n---\r\n"), "MLX"),
        (readme("---\ntags:\n  - a\n\n  - mlx\nother:\n- x\n"), "MLX"),
        (readme("---\nlanguages:\n- mlx\n---\n"), "PyTorch"),
        (readme("---\nlicense: mit\n---\ntags:\n- mlx\n"), "PyTorch"),
        (readme("tags:\n- mlx\n"), "PyTorch"),
        (plain().without("model.safetensors").file("m.gguf", "x"), "GGUF"),
        (plain().without("model.safetensors"), "Unknown"),
    ];
    for (at, (model, framework)) in cases.iter().enumerate() {
        assert_eq!(model.plan().framework.name(), *framework, "case {at}");
    }
    let clone = plain().json(".mlxk_workspace.json", json!({"source_repo": "mlx-community/x"}));
    assert_eq!(clone.plan().framework.name(), "MLX");
    let gguf = plain().without("model.safetensors").file("m.gguf", "x");
    assert_eq!(gguf.file("README.md", "---\ntags: [mlx]\n").plan().framework.name(), "GGUF");
    let env = Env::new();
    let snapshot = plain().cached(&env, "mlx-community/model");
    let model = inspect(&in_cache("mlx-community/model", &snapshot));
    assert_eq!(model.plan.framework.name(), "MLX");
}

#[test]
fn what_can_run_runs_and_what_cannot_says_why() {
    let llama = Model::new;
    for &architecture in Architecture::ALL {
        let model = llama().config(json!({"model_type": architecture.name()}));
        let model = match architecture.is_multimodal() {
            true => model.json("preprocessor_config.json", json!({"temporal_patch_size": 2})),
            false => model,
        };
        let plan = match architecture.class() {
            Some(class) => model.config(json!({"architectures": [class]})).plan(),
            None => model.plan(),
        };
        assert_eq!((plan.architecture, plan.runnable), (Some(architecture), Ok(())));
    }
    let runs = [
        llama().config(json!({"quantization": {"bits": 4, "group_size": 64}})),
        llama().config(json!({"quantization": {"bits": 4, "mode": "affine", "model.layers.0": {"bits": 8}, "lm_head": false}})),
        llama().config(json!({"quantization_config": {"bits": 4, "group_size": 64}})),
        llama().config(json!({"quantization_config": {"quant_method": "mxfp4"}})),
        llama().config(json!({"quantization": {"bits": 4, "mode": "mxfp4", "lm_head": {"mode": "nvfp4"}}})),
        llama().config(json!({"auto_map": {"AutoModel": "modeling.Model"}})),
        llama().config(json!({"architectures": ["LlamaForCausalLM"], "model_file": null})),
        llama().config(json!({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]})),
        llama().config(json!({"model_type": "bitnet",
            "quantization_config": {"quant_method": "bitnet"}})),
        llama().config(json!({"model_type": "bert", "architectures": ["BertModel"]})),
        llama().config(json!({"model_type": "bert", "architectures": ["BertForMaskedLM"]})),
        llama().without("model.safetensors").file("weights.00.safetensors", shard(&["a"])),
        llama()
            .config(json!({"model_type": "gemma3", "vision_config": {"hidden_size": 8},
                "architectures": ["Gemma3ForConditionalGeneration"]}))
            .json("preprocessor_config.json", json!({})),
    ];
    for (at, model) in runs.iter().enumerate() {
        assert_eq!(model.plan().runnable, Ok(()), "case {at}");
    }
    for name in Architecture::ALL.iter().filter(|a| a.is_multimodal()).flat_map(|a| a.names()) {
        let seeing = llama().config(json!({"model_type": name, "vision_config": {"depth": 8},
            "architectures": ["SomeForConditionalGeneration"]}));
        let plan =
            seeing.json("preprocessor_config.json", json!({"temporal_patch_size": 2})).plan();
        assert_eq!((plan.task, plan.runnable), (Task::Vision, Ok(())), "{name}");
    }
    let typed = |name: &str| llama().config(json!({"model_type": name}));
    let refused = [
        (llama().without("model.safetensors").file("m.gguf", "x"), "Incompatible framework: GGUF"),
        (
            llama().config(json!({"model_file": "m.py"})),
            "requires executing model-supplied code (config.json: model_file)",
        ),
        (
            typed("nobody").config(json!({"auto_map": {}})),
            "Model type 'nobody' not supported; \
             code of its own (config.json: auto_map) is never run",
        ),
        (typed("nobody"), "Model type 'nobody' not supported"),
        (
            typed("bailing_hybrid").config(json!({"architectures": ["BailingMoeV2_5ForCausalLM"]})),
            "Architecture 'BailingMoeV2_5ForCausalLM' of 'bailing_hybrid' not supported \
             (only BailingMoeV3ForCausalLM)",
        ),
        (llama().config(json!({"model_type": null})), "config.json missing model_type field"),
        (
            llama().config(json!({"architectures": ["LlamaForSequenceClassification"]})),
            "Architecture 'LlamaForSequenceClassification' not supported",
        ),
        (
            typed("bert").config(json!({"architectures": ["BertForSequenceClassification"]})),
            "Architecture 'BertForSequenceClassification' not supported: it does not embed text",
        ),
        (
            llama().config(json!({"quantization": {"bits": 4, "mode": "mxfp3"}})),
            "Quantization mode 'mxfp3' not supported (supported: affine, mxfp4, nvfp4, mxfp8)",
        ),
        (
            llama()
                .config(json!({"quantization": {"bits": 4, "lm_head": {"bits": 4, "mode": "q4"}}})),
            "Quantization mode 'q4' not supported",
        ),
        (
            llama().config(json!({"quantization_config": {"quant_method": "aqlm"}})),
            "Quantization mode 'aqlm' not supported",
        ),
        (
            llama()
                .config(json!({"text_config": {"quantization_config": {"quant_method": "aqlm"}}})),
            "Quantization mode 'aqlm' not supported",
        ),
        (
            llama().without("tokenizer.json").without("tokenizer_config.json"),
            "tokenizer.json missing",
        ),
        (
            typed("idefics").json("preprocessor_config.json", json!({})),
            "Model type 'idefics' not supported",
        ),
        (
            llama().config(json!({"vision_config": {"depth": 2}, "image_processor": true})),
            "Only text models can run",
        ),
        (
            llama().json("generation_config.json", json!({"top_p": 7})),
            "generation_config.json: `top_p` is out of range: 7",
        ),
        (
            llama().json("generation_config.json", json!({"eos_token_id": "</s>"})),
            "generation_config.json: `eos_token_id` is not a token or a list of tokens: \"</s>\"",
        ),
        (
            llama().config(json!({"eos_token_id": [2, [3]]})),
            "config.json: `eos_token_id` is not a token or a list of tokens: [2,[3]]",
        ),
        (
            llama().file("model.safetensors", shard_of("F8_E4M3", &["a"])),
            "Weights of type F8_E4M3 not supported: a",
        ),
        (
            llama().config(json!({"text_config": {"engram_layer_ids": [2, 14]}})),
            "Engram memory not supported (config.json: layers 2, 14)",
        ),
    ];
    for (model, reason) in refused {
        let error = model.plan().runnable.unwrap_err();
        assert!(error.starts_with(reason), "{error}\n  not {reason}");
    }
    let odd = json!({"top_k": -1, "temperature": null, "eos_token_id": ["2", null, 3]});
    assert_eq!(llama().json("generation_config.json", odd).plan().runnable, Ok(()));
}

#[test]
fn the_context_length_is_the_first_that_makes_sense() {
    let cases = [
        (json!({"max_position_embeddings": 4096, "seq_len": 1}), Some(4096)),
        (json!({"max_position_embeddings": null, "n_positions": 1024}), Some(1024)),
        (json!({"max_position_embeddings": true, "context_length": "2048"}), Some(2048)),
        (json!({"max_position_embeddings": 0, "text_config": {"seq_len": 512}}), Some(512)),
        (json!({"max_position_embeddings": -1, "text_config": 7}), None),
    ];
    for (config, length) in cases {
        assert_eq!(Model::new().config(config.clone()).plan().context_length, length, "{config}");
    }
}

#[test]
fn a_template_in_a_large_tokenizer_is_found_wherever_it_lies() {
    for before in (65_500..65_540).chain([131_060, 200_000]) {
        let pad = "x".repeat(before);
        let tokenizer = format!(r#"{{"pad":"{pad}","chat_template":"x","more":"{pad}"}}"#);
        let model = Model::new().json("tokenizer_config.json", json!({}));
        let plan = model.file("tokenizer.json", tokenizer).plan();
        assert_eq!(plan.model_type, "chat", "{before} bytes before it");
    }
}

#[test]
fn of_a_repeated_field_the_last_counts() {
    let twice = r#"{"model_type": "nobody", "model_type": "llama"}"#;
    assert_eq!(Model::new().file("config.json", twice).plan().runnable, Ok(()));
}

#[test]
fn numbers_that_only_python_knows_are_null_and_texts_stay_as_they_are() {
    let config = r#"{"max_position_embeddings": Infinity, "seq_len": 7, "model_type": "\"NaN"}"#;
    let plan = Model::new().file("config.json", config).plan();
    assert_eq!(plan.context_length, Some(7));
    assert!(plan.runnable.unwrap_err().starts_with("Model type '\"nan' not supported"));
}
