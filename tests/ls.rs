//! mlxk-ls: what is listed, in which order and form.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::env::{COMMIT, Env, Run};

fn names(run: Run) -> Vec<String> {
    let records = run.records();
    records.iter().map(|record| record["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn only_what_can_run_is_listed_without_all() {
    let env = Env::with_three();
    assert_eq!(names(env.run("mlxk-ls")), ["mlx-community/Good-4bit"]);
    let all = ["mlx-community/Good-4bit", "org/Broken", "org/Strange"];
    assert_eq!(names(env.run("mlxk-ls").args(["--all"])), all);
    let envelope = env.run("mlxk-ls").envelope(0);
    assert_eq!(envelope["data"]["count"], 3, "the envelope never leaves any out");
}

#[test]
fn a_record_says_what_the_model_is() {
    let env = Env::with_three();
    let mut records = env.run("mlxk-ls").records();
    let size = records[0]["size_bytes"].take();
    assert!(size.as_u64().unwrap() > 4000, "{size}");
    records[0]["last_modified"].take();
    let expected = json!({
        "name": "mlx-community/Good-4bit", "hash": COMMIT, "size_bytes": null,
        "last_modified": null, "framework": "MLX", "model_type": "chat",
        "capabilities": ["text-generation", "chat"], "context_length": 2048, "health": "healthy",
        "runtime_compatible": true, "reason": null, "cached": true, "source": "cache",
        "origin": null,
        "content_hash": null, "hash_modified": null, "clean": null,
    });
    assert_eq!(records, [expected]);
}

#[test]
fn patterns_are_parts_of_names_or_paths() {
    let env = Env::with_three();
    let directory = env.model("mine").write_workspace();
    let ls = |pattern: &str| names(env.run("mlxk-ls").args(["--all", pattern]));
    assert_eq!(ls("STRANGE"), ["org/Strange"]);
    assert_eq!(ls("in"), [directory.to_str().unwrap()]);
    assert_eq!(ls("./ws"), [directory.to_str().unwrap()]);
    assert_eq!(ls("nothing"), [""; 0]);
    let two = names(env.run("mlxk-ls").args(["-a", "strange", "broken", "strange"]));
    assert_eq!(two, ["org/Broken", "org/Strange"]);
}

#[test]
fn filters_narrow_and_sorts_order() {
    let env = Env::new();
    env.model("org/big-mlx-old").file("extra.bin.txt", vec![0; 50_000]).age(86400 * 9).write();
    env.model("org/small-new").quantized().age(60).write();
    env.model("org/middle").file("extra.txt", vec![0; 10_000]).age(86400 * 2).write();
    let ls = |args: &[&str]| names(env.run("mlxk-ls").args(["--all"]).args(args));
    assert_eq!(ls(&["-f", "size>20KB"]), ["org/big-mlx-old"]);
    assert_eq!(ls(&["-f", "modified>1d", "-f", "modified<1w"]), ["org/middle"]);
    assert_eq!(ls(&["-f", "bits=4"]), ["org/small-new"]);
    assert_eq!(ls(&["-f", "framework!=MLX", "-f", "refs=main"]), ["org/big-mlx-old", "org/middle"]);
    assert_eq!(ls(&["-f", "accessed<1h"]).len(), 3);
    assert_eq!(ls(&["-f", "accessed>1h"]).len(), 0);
    assert_eq!(ls(&["--sort", "size"]), ["org/big-mlx-old", "org/middle", "org/small-new"]);
    assert_eq!(ls(&["--sort", "modified", "--limit", "1"]), ["org/small-new"]);
    assert_eq!(ls(&["--sort", "modified:asc", "--limit", "1"]), ["org/big-mlx-old"]);
}

#[test]
fn every_revision_is_listed_on_request() {
    let env = Env::new();
    let other = "2".repeat(40);
    env.model("org/m").commit(&other).write();
    env.model("org/m").write();
    assert_eq!(env.run("mlxk-ls").args(["-q"]).ok(), "org/m\n");
    let all = env.run("mlxk-ls").args(["-q", "--revisions"]).ok();
    assert_eq!(all, format!("org/m@{COMMIT}\norg/m@{other}\n"));
}

#[test]
fn the_table_is_as_it_always_was() {
    let env = Env::with_three();
    env.model("mine").write_workspace();
    let table = |args: &[&str]| env.run("mlxk-ls").args(["--human"]).args(args).ok();
    assert_eq!(
        table(&["Good"]),
        "Name      | Hash    | Size  | Modified | Src   | Type\n\
         ----------+---------+-------+----------+-------+-----\n\
         Good-4bit | 1111111 | 4.3KB | 10m ago  | cache | chat\n"
    );
    assert_eq!(
        table(&["--all", "--health"]),
        "Name        | Hash    | Size  | Modified | Src   | Clean | Framework | Type | Health   \n\
         ------------+---------+-------+----------+-------+-------+-----------+------+----------\n\
         mine        | -       | 4.2KB | 10m ago  | ws?   | —     | PyTorch   | chat | healthy  \n\
         Good-4bit   | 1111111 | 4.3KB | 10m ago  | cache | —     | MLX       | chat | healthy  \n\
         org/Broken  | 1111111 | 148B  | 10m ago  | cache | —     | Unknown   | chat | unhealthy\n\
         org/Strange | 1111111 | 4.2KB | 10m ago  | cache | —     | PyTorch   | chat | healthy* \n"
    );
    assert_eq!(
        table(&["--all", "--health", "--verbose", "Strange"]),
        "Name        | Hash    | Size  | Modified | Src   | Clean | Framework | Type | Integrity | Runtime | Reason                    \n\
         ------------+---------+-------+----------+-------+-------+-----------+------+-----------+---------+---------------------------\n\
         org/Strange | 1111111 | 4.2KB | 10m ago  | cache | —     | PyTorch   | chat | healthy   | no      | Model type 'quux' not     \n\
        \x20           |         |       |          |       |       |           |      |           |         | supported                 \n"
    );
    assert_eq!(
        table(&["nothing", "--health"]),
        "Name | Hash | Size | Modified | Src | Type | Health\n\
         -----+------+------+----------+-----+------+-------\n"
    );
}

#[test]
fn the_environment_says_where_to_look() {
    let env = Env::with_three();
    let ls = |name: &str, value: &str| {
        names(env.run("mlxk-ls").env("HF_HOME", "/nowhere").env(name, value)).len()
    };
    assert_eq!(ls("HF_HUB_CACHE", env.hub().to_str().unwrap()), 1);
    assert_eq!(ls("HUGGINGFACE_HUB_CACHE", env.hub().to_str().unwrap()), 1);
    assert_eq!(ls("HF_HOME", "~/hf"), 1);
    assert_eq!(ls("HF_HUB_CACHE", ""), 0);
}

#[test]
fn a_listing_never_reads_standard_input() {
    let env = Env::with_three();
    assert_eq!(names(env.run("mlxk-ls").stdin("org/Strange\n")), ["mlx-community/Good-4bit"]);
}

#[test]
fn a_workspace_keeps_its_path_and_gets_a_short_name() {
    let env = Env::new();
    let directory = env.model("mine").quantized().write_workspace();
    let records = env.run("mlxk-ls").records();
    assert_eq!(records[0]["name"], directory.to_str().unwrap());
    assert_eq!(records[0]["display_name"], "mine");
    assert_eq!((&records[0]["cached"], &records[0]["hash"]), (&json!(false), &Value::Null));
}

/// A directory that nobody can read, not even root: a link to itself.
fn unreadable(env: &Env, model: &str) {
    let snapshots = env.hub().join(model).join("snapshots");
    fs::remove_dir_all(&snapshots).unwrap();
    symlink(&snapshots, &snapshots).unwrap();
}

#[test]
fn a_model_that_cannot_be_read_is_one_entry_of_one_document() {
    let env = Env::with_three();
    unreadable(&env, "models--org--Strange");
    let data = &env.run("mlxk").args(["list"]).envelope(0)["data"];
    assert_eq!(data["count"], 3);
    let reason = data["models"][2]["reason"].as_str().unwrap();
    assert!(reason.starts_with("cannot be read: "), "{reason}");
    let data = &env.run("mlxk").args(["health"]).envelope(1)["data"];
    assert_eq!(data["summary"]["unhealthy_count"], 2);
}

#[test]
fn a_workspace_home_that_cannot_be_read_hides_no_cached_model() {
    let env = Env::with_three();
    // Nobody can read a link to itself, not even root.
    fs::remove_dir_all(env.workspaces()).unwrap();
    symlink(env.workspaces(), env.workspaces()).unwrap();
    let home = env.workspaces().display().to_string();
    for args in [&["--all", "-q"][..], &["--all", "-q", "good", "org/"]] {
        let listed = env.run("mlxk-ls").args(args).end();
        assert_eq!((listed.status(), listed.stdout().lines().count()), (1, 3), "{listed:?}");
        let said = listed.stderr();
        assert_eq!((said.lines().count(), said.matches(&home).count()), (1, 1), "{listed:?}");
    }
    let envelope = env.run("mlxk").args(["list", "--all"]).envelope(1);
    assert_eq!((&envelope["status"], &envelope["data"]["count"]), (&json!("error"), &json!(3)));
    let checked = env.run("mlxk-health").args(["--ndjson"]).end();
    assert_eq!((checked.status(), checked.stdout().lines().count()), (1, 3), "{checked:?}");
}

#[test]
fn names_reach_a_terminal_and_a_script_as_plain_text() {
    let env = Env::new();
    env.model("org/\u{1b}]0;title\u{7}\u{9b}31m\nb\u{202e}").quantized().write();
    let shown = "org/\u{fffd}]0;title\u{fffd}\u{fffd}31m\u{fffd}b\u{fffd}";
    assert_eq!(env.run("mlxk-ls").args(["-q"]).ok(), format!("{shown}\n"));
    for (program, args) in [
        ("mlxk-ls", vec!["--human", "--verbose"]),
        ("mlxk-show", vec!["--human", "org", "--files"]),
        ("mlxk-health", vec!["--human"]),
        ("mlxk-rm", vec!["--human", "-n", "org"]),
    ] {
        let text = env.run(program).args(&args).ok();
        assert!(text.contains(shown), "{program}: {text:?}");
        let obeyed = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!text.contains(obeyed), "{program}: {text:?}");
    }
    let line = env.run("mlxk-ls").ok();
    assert!(line.contains("\\u009b31m\\nb\\u202e") && line.lines().count() == 1, "{line:?}");
}

#[test]
fn a_pattern_that_selects_nothing_is_said() {
    let env = Env::with_three();
    let ended = env.run("mlxk-ls").args(["-q", "nosuch", "Good", "*-4bit"]).end();
    assert_eq!((ended.status(), &*ended.stdout()), (0, "mlx-community/Good-4bit\n"));
    assert!(ended.stderr().starts_with("mlxk-ls: nosuch: no model of that name\n"), "{ended:?}");
}

#[test]
fn paths_and_origins_are_columns_on_request() {
    let env = Env::with_three();
    let sentinel = json!({"managed": true, "source_repo": "org/source"}).to_string();
    let directory = env.model("mine").quantized().file(".mlxk_workspace.json", sentinel);
    let directory = directory.write_workspace();
    let table = env.run("mlxk-ls").args(["--human", "--full-paths", "--origin"]).ok();
    let mut lines = table.lines();
    let columns = |line: &str| line.split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let header = columns(lines.next().unwrap());
    assert_eq!(header, ["Name", "Hash", "Size", "Modified", "Src", "Origin", "Type"]);
    let mine = columns(lines.nth(1).unwrap());
    assert_eq!((&*mine[0], &*mine[5]), (directory.to_str().unwrap(), "org/source"));
    assert_eq!(columns(lines.next().unwrap())[0], "mlx-community/Good-4bit");
}

#[test]
fn a_revision_that_is_no_commit_is_listed_by_its_name() {
    let env = Env::new();
    env.model("org/m").write();
    let snapshots = env.hub().join("models--org--m/snapshots");
    fs::create_dir(snapshots.join("old")).unwrap();
    let all = env.run("mlxk-ls").args(["-qa", "--revisions"]).ok();
    assert!(all.contains("org/m@old\n"), "{all}");
    let listing = env.run("mlxk-ls").args(["-a", "--revisions", "-f", "health=unhealthy"]).ok();
    let ended = env.run("mlxk-rm").stdin(listing).end();
    ended.refused(1, "mlxk-rm: org/m: a record without a hash, which says no revision");
    assert!(snapshots.join("old").exists() && snapshots.join(COMMIT).exists());
}
