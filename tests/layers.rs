//! The layers of the house: which crate may use which, which folder which, and no circles.
//!
//! ARCHITECTURE.md draws the same arrows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates below lib, each with those that it may use.
const CRATES: [(&str, &[&str]); 9] = [
    ("core", &[]),
    ("cli", &["core"]),
    ("gguf", &["core"]),
    ("hub", &["core"]),
    ("processor", &["core"]),
    ("serve", &["core", "processor"]),
    ("tensor", &["core"]),
    ("models", &["core", "tensor"]),
    ("engine", &["core", "models", "processor", "tensor"]),
];

/// The crates that link MLX, and thus cannot be built without `make mlx`.
const MLX: [&str; 3] = ["engine", "models", "tensor"];

/// Folders of crates, each with the folders of its crate that it may use.
const FOLDERS: [(&str, &str, &[&str]); 24] = [
    ("tensor", "cpu", &[]),
    ("tensor", "cache", &[]),
    ("tensor", "ops", &["cache", "cpu"]),
    ("models", "checkpoint", &[]),
    ("models", "nn", &["checkpoint"]),
    ("models", "text", &["checkpoint", "nn"]),
    ("models", "vision", &["checkpoint", "nn"]),
    ("models", "encoder", &["checkpoint", "nn"]),
    ("models", "convert", &["checkpoint"]),
    ("models", "audio", &["checkpoint", "nn"]),
    ("models", "speech", &["audio", "checkpoint", "nn", "text"]),
    ("engine", "sample", &[]),
    ("engine", "batch", &["sample"]),
    ("engine", "distributed", &[]),
    ("engine", "scheduler", &["distributed", "transcribe"]),
    ("engine", "transcribe", &["sample"]),
    ("processor", "audio", &[]),
    ("processor", "image", &[]),
    ("processor", "schema", &[]),
    ("processor", "transcript", &[]),
    ("core", "store", &[]),
    ("core", "workspace", &["probe", "store", "tensors"]),
    ("serve", "openai", &[]),
    ("serve", "search", &["openai"]),
];

/// The packages with a network client, and the crates that may use them.
const NETWORK: (&[&str], &[&str]) = (&["ureq"], &["hub", "serve"]);

#[test]
fn crates_use_only_the_crates_below_them() {
    let names: BTreeSet<String> = entries(&lib()).iter().map(|path| name(path)).collect();
    assert_eq!(names, CRATES.iter().map(|(name, _)| (*name).to_owned()).collect());
    for (krate, allowed) in CRATES {
        let used = dependencies(krate);
        let ours = used.iter().filter_map(|package| package.strip_prefix("mlxk-"));
        let wrong: Vec<&str> = ours.filter(|used| !allowed.contains(used)).collect();
        assert_eq!(wrong, [""; 0], "lib/{krate} may use {allowed:?}");
    }
}

#[test]
fn only_some_crates_need_mlx_or_the_network() {
    let using = |packages: &[&str]| -> Vec<&str> {
        let uses = |krate: &&str| packages.iter().any(|p| dependencies(krate).contains(*p));
        CRATES.iter().map(|(krate, _)| *krate).filter(uses).collect()
    };
    let mut mlx = using(&["mlx-rs", "mlx-sys"]);
    mlx.sort_unstable();
    assert_eq!(mlx, MLX);
    assert_eq!(using(NETWORK.0), NETWORK.1);
}

#[test]
fn folders_use_only_the_folders_below_them() {
    for (krate, folder, allowed) in FOLDERS {
        let root = lib().join(krate).join("src");
        let folders: BTreeSet<String> =
            entries(&root).iter().filter(|path| path.is_dir()).map(|path| name(path)).collect();
        assert!(folders.contains(folder), "lib/{krate}/src/{folder} is gone");
        for (module, imports) in imports(&root) {
            if module.first().map(String::as_str) != Some(folder) {
                continue;
            }
            for import in imports {
                let Some(other) = import.first() else { continue };
                let fine = other == folder || !folders.contains(other);
                assert!(
                    fine || allowed.contains(&other.as_str()),
                    "lib/{krate}: {} uses {other}, which is not below {folder}",
                    module.join("::")
                );
            }
        }
    }
}

#[test]
fn no_two_files_use_each_other() {
    for (krate, _) in CRATES {
        let uses = imports(&lib().join(krate).join("src"));
        for start in uses.keys() {
            let mut path = vec![start.clone()];
            assert!(
                !circle(start, &uses, &mut path, &mut BTreeSet::new()),
                "lib/{krate}: {}",
                path.iter().map(|module| module.join("::")).collect::<Vec<_>>().join(" > ")
            );
        }
    }
}

/// True if a way of imports leads from the end of `path` back to `start`; `path` is that way.
fn circle(
    start: &Module,
    uses: &BTreeMap<Module, BTreeSet<Module>>,
    path: &mut Vec<Module>,
    seen: &mut BTreeSet<Module>,
) -> bool {
    let Some(last) = path.last().cloned() else { return false };
    for next in uses.get(&last).into_iter().flatten() {
        if next == start {
            return true;
        }
        if seen.insert(next.clone()) {
            path.push(next.clone());
            if circle(start, uses, path, seen) {
                return true;
            }
            path.pop();
        }
    }
    false
}

/// Path of a module in its crate.
type Module = Vec<String>;

/// The modules of the crate at `root`, each with those of the same crate that it uses. Tests inside a
/// file do not count, nor do a module's own children.
fn imports(root: &Path) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut files = Vec::new();
    walk(root, &mut files);
    let module = |path: &PathBuf| -> Module {
        let inside = path.strip_prefix(root).unwrap().with_extension("");
        let mut module: Module =
            inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        module.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
        module
    };
    let modules: BTreeMap<Module, String> =
        files.iter().map(|path| (module(path), code(path))).collect();
    let handed_on: BTreeMap<(Module, String), Module> = modules
        .iter()
        .flat_map(|(module, code)| {
            uses(code, true).into_iter().filter_map(|path| {
                let target = absolute(&path, module, &modules)?;
                let (item, from) = target.split_last()?;
                let face = (module.clone(), item.clone());
                modules.contains_key(from).then(|| (face, from.to_vec()))
            })
        })
        .collect();
    let target = |path: &[String]| -> Option<Module> {
        let depth = (0..=path.len()).rev().find(|&n| modules.contains_key(&path[..n]))?;
        let mut module = path[..depth].to_vec();
        while let Some(item) = path.get(depth)
            && let Some(from) = handed_on.get(&(module.clone(), item.clone()))
            && *from != module
        {
            module = from.clone();
        }
        Some(module)
    };
    modules
        .iter()
        .map(|(module, code)| {
            let paths =
                uses(code, false).into_iter().filter_map(|p| absolute(&p, module, &modules));
            let others = paths.filter_map(|path| target(&path));
            // A module's children are parts of it: they know it, and it may know them.
            let others = others.filter(|other| !other.starts_with(module));
            (module.clone(), others.collect())
        })
        .collect()
}

/// `path` from the root of its crate, if it leads into the crate.
fn absolute(path: &str, module: &Module, modules: &BTreeMap<Module, String>) -> Option<Module> {
    let parts: Vec<&str> = path.split("::").map(str::trim).collect();
    let (first, rest) = parts.split_first()?;
    let own = |base: &[String], rest: &[&str]| -> Module {
        base.iter().cloned().chain(rest.iter().map(|part| (*part).to_owned())).collect()
    };
    match *first {
        "crate" => Some(own(&[], rest)),
        "self" => Some(own(module, rest)),
        "super" => Some(own(module.split_last().map_or(&[][..], |(_, up)| up), rest)),
        child => {
            let child = own(module, &[child]);
            modules.contains_key(&child).then(|| own(module, &parts))
        }
    }
}

/// The paths that `code` uses, one for each leaf of a tree: those that it hands on, or all others.
fn uses(code: &str, handed_on: bool) -> Vec<String> {
    let mut paths = Vec::new();
    for statement in code.split(';') {
        let words = statement.trim_start();
        let last = words.rsplit('\n').next().unwrap_or(words);
        let start = words.rfind("use ").filter(|_| words.contains("use "));
        let Some(start) = start else { continue };
        let public = words[..start].trim_end().ends_with("pub") || last.starts_with("pub use");
        let whole = words[..start].rsplit('\n').next().unwrap_or_default().trim();
        if !["", "pub"].contains(&whole) || public != handed_on {
            continue;
        }
        leaves("", words[start + 4..].trim(), &mut paths);
    }
    if !handed_on {
        for (at, _) in code.match_indices("crate::") {
            let end = code[at..].find(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
            let path = &code[at..end.map_or(code.len(), |end| at + end)];
            paths.push(path.trim_end_matches(':').to_owned());
        }
    }
    paths
}

/// The leaves of the tree `a::{b, c::d}`, each as a path.
fn leaves(before: &str, tree: &str, paths: &mut Vec<String>) {
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree).trim();
        paths.push(format!("{before}{path}").trim_end_matches("::self").to_owned());
        return;
    };
    let before = format!("{before}{}", &tree[..open]);
    let mut depth = 0;
    let mut first = open + 1;
    for (at, c) in tree.char_indices().skip_while(|(at, _)| *at < open) {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if (c == ',' && depth == 1) || (c == '}' && depth == 0) {
            let leaf = tree[first..at].trim();
            if !leaf.is_empty() {
                leaves(&before, leaf, paths);
            }
            first = at + 1;
        }
    }
}

/// The code of a file without its comments and the tests inside it.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let product = text.split("#[cfg(test)]\nmod ").next().unwrap_or(&text);
    let product = product.split("#[cfg(test)]\npub mod tests").next().unwrap_or(product);
    product.lines().map(|line| line.split("//").next().unwrap_or(line).to_owned() + "\n").collect()
}

/// The packages that a crate depends on, those of its tests left out.
fn dependencies(krate: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(lib().join(krate).join("Cargo.toml")).unwrap();
    let mut found = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && !line.contains("dev-dependencies");
        } else if inside {
            let end = line.find(['.', ' ', '=']).unwrap_or(0);
            found.insert(line[..end].to_owned());
        }
    }
    found
}

fn lib() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("lib")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        match path.is_dir() {
            true => walk(&path, files),
            false if path.extension().is_some_and(|end| end == "rs") => files.push(path),
            false => {}
        }
    }
}
