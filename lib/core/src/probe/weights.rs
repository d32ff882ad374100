//! Selection of the files that hold a model's weights.

use std::path::Path;

use super::walk::{self, File};
use crate::tensors::Index;

/// Beginnings of the names of safetensors files that are loaded only if there are no others: adapters,
/// the original form of Mistral's models, states of a training.
const SECONDARY: [&str; 4] = ["adapter", "consolidated", "optimizer", "training"];

/// The files of the model's weights among its sorted `files`.
///
/// The index names them. Without an index they are the first of these that is not empty:
/// `model.safetensors`; `model*.safetensors`; other safetensors files beside `config.json`; all
/// safetensors files there; all below; all GGUF files.
pub fn select<'a>(files: &'a [File], index: Option<&Index>) -> Vec<&'a File> {
    if let Some(index) = index {
        let named = index.files().map(Path::new);
        return named.filter_map(|path| walk::find(files, path)).collect();
    }
    let safetensors = || files.iter().filter(|file| file.is("safetensors"));
    let root = || safetensors().filter(|file| file.path.components().count() == 1);
    let begins = |file: &File, with: &str| file.path.to_string_lossy().starts_with(with);
    let secondary = |file: &&File| SECONDARY.iter().any(|with| begins(file, with));
    let tries: [Vec<&File>; 6] = [
        root().filter(|file| file.path == Path::new("model.safetensors")).collect(),
        root().filter(|file| begins(file, "model")).collect(),
        root().filter(|file| !secondary(file)).collect(),
        root().collect(),
        safetensors().collect(),
        files.iter().filter(|file| file.is("gguf")).collect(),
    ];
    tries.into_iter().find(|files| !files.is_empty()).unwrap_or_default()
}
