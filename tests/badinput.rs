//! What is broken or hostile gets one clear line, and loses or writes nothing.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::env::{Env, Model, safetensors};

/// Checks that the model `org/m` is listed and shown as unhealthy in one line that says `part`, and
/// that nothing else happens.
fn unhealthy(build: impl FnOnce(Model) -> Model, part: &str) {
    let env = Env::new();
    build(env.model("org/m")).write();
    unhealthy_in(&env, part);
}

fn unhealthy_in(env: &Env, part: &str) {
    let before = env.files();
    let ended = env.run("mlxk-health").args(["--human", "org/m"]).end();
    let line = ended.stdout();
    let reason = line.strip_prefix("unhealthy org/m — ").and_then(|line| line.strip_suffix('\n'));
    let reason = reason.filter(|reason| reason.contains(part) && !reason.contains('\n'));
    let reason = reason.unwrap_or_else(|| panic!("no `{part}` in {ended:?}"));
    assert_eq!((ended.status(), ended.stderr().as_str()), (1, ""), "{ended:?}");
    assert_eq!(env.run("mlxk-ls").ok(), "");
    assert_eq!(env.run("mlxk-ls").args(["-a"]).records()[0]["reason"], reason);
    assert_eq!(env.run("mlxk-show").args(["org/m"]).records()[0]["reason"], reason);
    let refused = env.run("mlxk-run").args(["org/m", "x"]).end();
    refused.refused(1, &format!("mlxk-run: org/m: {reason}"));
    env.run("mlxk-rm").args(["--dry-run", "org/m"]).ok();
    assert_eq!(env.files(), before);
}

fn header(length: u64, json: &str, data: usize) -> Vec<u8> {
    let mut file = length.to_le_bytes().to_vec();
    file.extend(json.as_bytes());
    file.extend(vec![0; data]);
    file
}

#[test]
fn a_truncated_tensor_file() {
    let mut cut = safetensors();
    cut.truncate(2000);
    unhealthy(
        |m| m.file("model.safetensors", cut),
        "model.safetensors: truncated: the tensors end at byte 4068, the file at 2000",
    );
    unhealthy(|m| m.file("model.safetensors", b"abc"), "model.safetensors: ");
}

#[test]
fn a_tensor_file_that_lies() {
    let outside = r#"{"w":{"dtype":"F32","shape":[1000],"data_offsets":[0,9999999]}}"#;
    unhealthy(
        |m| m.file("model.safetensors", header(outside.len() as u64, outside, 4000)),
        "tensor \"w\" (F32 [1000]) needs 4000 bytes",
    );
    let shape = r#"{"w":{"dtype":"F32","shape":[3000],"data_offsets":[0,4000]}}"#;
    unhealthy(
        |m| m.file("model.safetensors", header(shape.len() as u64, shape, 4000)),
        "tensor \"w\" (F32 [3000]) needs 12000 bytes",
    );
    unhealthy(|m| m.file("model.safetensors", header(10_000_000_000, "{}", 100)), "10000000000");
}

#[test]
fn an_index_that_leaves_the_model() {
    let index = json!({"weight_map": {"w": "../../../../../etc/hostname"}}).to_string();
    unhealthy(
        |m| m.file("model.safetensors.index.json", index),
        "Index points outside the model: w is in",
    );
}

#[test]
fn a_link_that_leaves_the_cache() {
    let env = Env::new();
    let snapshot = env.model("org/m").write();
    symlink("/etc/passwd", snapshot.join("extra.json")).unwrap();
    unhealthy_in(&env, "extra.json links to /etc/passwd, outside the cache");
}

#[test]
fn a_configuration_that_is_no_object() {
    unhealthy(|m| m.file("config.json", "[1, 2]"), "config.json is empty or invalid: a list");
    unhealthy(|m| m.file("config.json", "{\"model_type\": "), "config.json contains invalid JSON");
    unhealthy(|m| m.file("config.json", ""), "config.json");
}

#[test]
fn an_unknown_architecture() {
    let env = Env::new();
    env.model("org/m").config("model_type", json!("quux")).write();
    let record = &env.run("mlxk-ls").args(["-a"]).records()[0];
    assert_eq!(
        (&record["health"], &record["runtime_compatible"]),
        (&json!("healthy"), &json!(false))
    );
    assert!(record["reason"].as_str().unwrap().starts_with("Model type 'quux' not supported"));
}

#[test]
fn names_that_are_not_text() {
    let env = Env::with_three();
    let name = OsStr::from_bytes(b"models--org--\xff\xfe");
    fs::create_dir_all(env.hub().join(name).join("snapshots").join(OsStr::from_bytes(b"\xf0")))
        .unwrap();
    let snapshot = env.model("org/m").write();
    fs::write(snapshot.join(OsStr::from_bytes(b"\xff.json")), "{}").unwrap();
    for program in ["mlxk-ls", "mlxk-health"] {
        let ended = env.run(program).args(["--human"]).end();
        assert!(ended.stdout().contains("Good-4bit"), "{ended:?}");
        assert!(!ended.stderr().contains("panicked"), "{ended:?}");
    }
    assert_eq!(env.run("mlxk-show").args(["--files", "org/m"]).end().status(), 0);
    let ended = env.run("mlxk-show").args([OsStr::from_bytes(b"\xff")]).end();
    ended.refused(2, "mlxk-show: invalid UTF-8 was detected in one or more arguments");
}

#[test]
fn a_line_that_is_no_record() {
    let env = Env::with_three();
    let nested = [&b"{\"name\":"[..], &vec![b'['; 1 << 20]].concat();
    for (line, message) in [
        (&b"{oops}\n"[..], "not a JSON record: key must be a string, column 2"),
        (b"{\"name\":7}\n", "a record without a `name`"),
        (b"\xff\xfe\n", "not UTF-8 text"),
        (&nested, "not a JSON record: recursion limit exceeded, column 135"),
    ] {
        for program in ["mlxk-health", "mlxk-show", "mlxk-rm"] {
            let message = format!("{program}: standard input, line 1: {message}");
            env.run(program).stdin(line).end().refused(1, &message);
        }
    }
}

#[test]
fn no_models_at_all() {
    let env = Env::new();
    let message = format!("mlxk-ls: no models in {}", env.hub().display());
    for form in ["--human", "--ndjson"] {
        let ended = env.run("mlxk-ls").args([form]).end();
        assert_eq!((ended.status(), ended.stderr().lines().next()), (0, Some(&*message)));
    }
    assert_eq!(env.run("mlxk-ls").ok(), "");
    let ended = env.run("mlxk-health").args(["--human"]).end();
    assert_eq!(ended.stdout(), "Summary: total 0, healthy 0, unhealthy 0\n");
    assert_eq!(ended.status(), 0);
    env.run("mlxk-show").args(["m"]).end().refused(1, "mlxk-show: m: no such model");
}

#[test]
fn places_that_are_no_directories() {
    let env = Env::new();
    let file = env.home().join("file");
    fs::write(&file, "").unwrap();
    for name in ["HF_HOME", "HF_HUB_CACHE", "MLXK_WORKSPACE_HOME"] {
        let run = |program| env.run(program).env(name, &file);
        let listed = run("mlxk-ls").args(["--ndjson"]).end();
        assert_eq!((listed.status(), listed.stdout().as_str()), (0, ""), "{listed:?}");
        assert!(listed.stderr().starts_with("mlxk-ls: no models in "), "{listed:?}");
        for program in ["mlxk-show", "mlxk-health", "mlxk-rm", "mlxk-run"] {
            let message = format!("{program}: m: no such model");
            run(program)
                .args(["m"])
                .args((program == "mlxk-run").then_some("x"))
                .end()
                .refused(1, &message);
        }
    }
}

#[test]
fn a_ref_that_leads_nowhere_leaves_the_newest_snapshot() {
    let env = Env::new();
    let snapshot = env.model("org/m").write();
    let main = snapshot.ancestors().nth(2).unwrap().join("refs/main");
    for commit in [&b""[..], b"../../..", b"\xff\xfe", b"0123456789abcdef0123456789abcdef01234567"]
    {
        fs::write(&main, commit).unwrap();
        env.run("mlxk-health").args(["org/m"]).ok();
    }
    fs::remove_file(&main).unwrap();
    fs::create_dir(&main).unwrap();
    env.run("mlxk-health").args(["org/m"]).ok();
}

#[test]
fn a_directory_that_may_not_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let env = Env::with_three();
    let snapshot = env.model("org/closed").write();
    fs::set_permissions(&snapshot, fs::Permissions::from_mode(0o000)).unwrap();
    let readable = fs::read_dir(&snapshot).is_ok();
    let ended = env.run("mlxk-ls").end();
    fs::set_permissions(&snapshot, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(ended.stdout().contains("Good-4bit"), "the others are listed");
    if !readable {
        assert!(ended.stderr().contains("closed"), "{ended:?}");
        assert_eq!(ended.status(), 1);
    }
}
