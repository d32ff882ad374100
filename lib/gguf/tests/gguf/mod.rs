//! Writer of small GGUF files, valid or damaged.
#![allow(dead_code, clippy::unwrap_used)] // every test uses its own part, and fails by panicking

/// Builder of a GGUF file.
#[derive(Clone)]
pub struct Builder {
    version: u32,
    keys: Vec<(String, Vec<u8>)>,
    tensors: Vec<Tensor>,
}

#[derive(Clone)]
struct Tensor {
    name: String,
    shape: Vec<u64>,
    dtype: u32,
    offset: Option<u64>,
    data: Vec<u8>,
}

pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

pub fn integer(n: u32) -> Vec<u8> {
    [4u32.to_le_bytes(), n.to_le_bytes()].concat()
}

pub fn float(x: f32) -> Vec<u8> {
    [6u32.to_le_bytes(), x.to_le_bytes()].concat()
}

pub fn boolean(b: bool) -> Vec<u8> {
    [&7u32.to_le_bytes()[..], &[b.into()]].concat()
}

pub fn string(s: &str) -> Vec<u8> {
    [&8u32.to_le_bytes()[..], &text(s)].concat()
}

/// Encoded array of encoded elements; `kind` is the number of their type.
pub fn list(kind: u32, elements: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let elements: Vec<_> = elements.into_iter().collect();
    let count = (elements.len() as u64).to_le_bytes();
    [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &count, &elements.concat()].concat()
}

pub fn strings(texts: &[impl AsRef<str>]) -> Vec<u8> {
    list(8, texts.iter().map(|s| text(s.as_ref())))
}

pub fn integers(numbers: &[i32]) -> Vec<u8> {
    list(5, numbers.iter().map(|n| n.to_le_bytes().to_vec()))
}

pub fn floats(numbers: &[f32]) -> Vec<u8> {
    list(6, numbers.iter().map(|x| x.to_le_bytes().to_vec()))
}

/// Encoded F32 weights.
pub fn f32s(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

impl Builder {
    pub fn empty() -> Builder {
        Builder { version: 3, keys: Vec::new(), tensors: Vec::new() }
    }

    /// Llama with one layer and ascending F32 weights: hidden size 32, 4 heads, 2 kv heads, 8
    /// embedding rows.
    pub fn llama() -> Builder {
        Builder::of("llama")
    }

    /// Model of the size of [`llama`](Self::llama) in another architecture.
    pub fn of(architecture: &str) -> Builder {
        let mut file = Builder::empty().set("general.architecture", string(architecture));
        for (key, n) in [
            ("block_count", 1),
            ("context_length", 128),
            ("embedding_length", 32),
            ("feed_forward_length", 64),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
        ] {
            file = file.set(&format!("{architecture}.{key}"), integer(n));
        }
        let epsilon = format!("{architecture}.attention.layer_norm_rms_epsilon");
        file = file.set(&epsilon, float(1e-5)).byte_level();
        for (name, shape) in [
            ("token_embd", &[8, 32][..]),
            ("blk.0.attn_norm", &[32]),
            ("blk.0.attn_q", &[32, 32]),
            ("blk.0.attn_k", &[16, 32]),
            ("blk.0.attn_v", &[16, 32]),
            ("blk.0.attn_output", &[32, 32]),
            ("blk.0.ffn_norm", &[32]),
            ("blk.0.ffn_gate", &[64, 32]),
            ("blk.0.ffn_up", &[64, 32]),
            ("blk.0.ffn_down", &[32, 64]),
            ("output_norm", &[32]),
        ] {
            let count: u64 = shape.iter().product();
            let data: Vec<_> = (0..count).map(|i| i as f32).collect();
            file = file.tensor(&format!("{name}.weight"), shape, 0, f32s(&data));
        }
        file
    }

    /// Adds a byte-level tokenizer with the tokens `<end>`, `a`, `b`, a space, `ab`, ` ab`.
    fn byte_level(self) -> Builder {
        self.set("tokenizer.ggml.model", string("gpt2"))
            .set("tokenizer.ggml.pre", string("gpt-2"))
            .set("tokenizer.ggml.tokens", strings(&["<end>", "a", "b", "Ġ", "ab", "Ġab"]))
            .set("tokenizer.ggml.token_type", integers(&[3, 1, 1, 1, 1, 1]))
            .set("tokenizer.ggml.merges", strings(&["a b", "Ġ ab"]))
            .set("tokenizer.ggml.eos_token_id", integer(0))
            .set("tokenizer.chat_template", string("{{ messages[0].content }}"))
    }

    /// Sets a metadata key to an encoded value: the number of its type, then the value.
    pub fn set(mut self, key: &str, value: Vec<u8>) -> Builder {
        match self.keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.to_owned(), value)),
        }
        self
    }

    pub fn version(self, version: u32) -> Builder {
        Builder { version, ..self }
    }

    /// Adds a metadata key even if it exists.
    pub fn again(mut self, key: &str, value: Vec<u8>) -> Builder {
        self.keys.push((key.to_owned(), value));
        self
    }

    pub fn without(mut self, name: &str) -> Builder {
        self.keys.retain(|(key, _)| key != name);
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    /// Sets a tensor; `shape` is rows first.
    pub fn tensor(mut self, name: &str, shape: &[u64], dtype: u32, data: Vec<u8>) -> Builder {
        let shape = shape.iter().rev().copied().collect();
        let tensor = Tensor { name: name.to_owned(), shape, dtype, offset: None, data };
        match self.tensors.iter_mut().find(|tensor| tensor.name == name) {
            Some(old) => *old = tensor,
            None => self.tensors.push(tensor),
        }
        self
    }

    /// Overrides the offset of a tensor in the tensor table.
    pub fn offset(mut self, name: &str, offset: u64) -> Builder {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap().offset = Some(offset);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            out.extend(text(key));
            out.extend(value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            out.extend(text(&tensor.name));
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(tensor.dtype.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }
}
