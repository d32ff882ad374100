//! Files beside a model that are no part of it: what systems and editors leave, and other forms of the
//! same model.

use std::path::{Component, Path};

use crate::workspace::sentinel;

/// Files that operating systems leave, besides hidden ones.
const OF_SYSTEMS: [&str; 4] = ["Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r"];

/// Ends of the names of backups and swap files of editors.
const OF_EDITORS: [&str; 7] = ["~", "#", ".bak", ".orig", ".rej", ".swp", ".swo"];

/// Directories that hold the same model in the form of another program, or what was left of its
/// training.
const OTHER_FORMS: [&str; 13] = [
    "__MACOSX",
    "__pycache__",
    "coreml",
    "flax",
    "logs",
    "metal",
    "mlc",
    "onnx",
    "openvino",
    "original",
    "runs",
    "tensorrt",
    "tf",
];

/// True if the file `path` of a model's directory is no part of the model, judged by its name or by
/// that of a directory.
pub fn is_beside(path: &Path) -> bool {
    let directories = path.parent().into_iter().flat_map(Path::components);
    directories.into_iter().any(|part| is_other_form(part)) || is_litter(path)
}

/// True if the file `path` is what a system or an editor left. A hidden file is one, such as the
/// `._NAME` of macOS, except the sentinel of a workspace.
pub fn is_litter(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hidden = name.starts_with('.') && name != sentinel::NAME;
    hidden
        || name.starts_with("~$")
        || OF_SYSTEMS.contains(&&*name)
        || OF_EDITORS.iter().any(|end| name.ends_with(end))
}

/// True for the directories of [`OTHER_FORMS`], and for the checkpoints of a training.
fn is_other_form(part: Component) -> bool {
    let name = part.as_os_str().to_string_lossy();
    OTHER_FORMS.contains(&&*name) || name.starts_with("checkpoint-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_systems_editors_and_other_programs_are_beside_a_model() {
        for beside in [
            "._model.safetensors",
            ".DS_Store",
            ".config.json.swp",
            "model.safetensors~",
            "Thumbs.db",
            "config.json.orig",
            "original/consolidated.00.pth",
            "onnx/model.onnx",
            "text/onnx/model.onnx_data",
            "checkpoint-500/model.safetensors",
        ] {
            assert!(is_beside(Path::new(beside)), "{beside}");
        }
        for part in ["model.safetensors", "1_Pooling/config.json", sentinel::NAME, "original"] {
            assert!(!is_beside(Path::new(part)), "{part}");
        }
    }
}
