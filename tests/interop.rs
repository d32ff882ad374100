//! Beside the Hub's own client: `hf` of two versions at the same Hub, in the same cache, at once.
//!
//! `make interop` runs these with HF_CLIENTS naming a folder that holds `1.33/bin/hf` and
//! `2.4/bin/hf`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use mlxk_testhub::{Access, Fault, Hub, OWNER, Rule};

use crate::env::{Env, Run, safetensors};

/// A home, a Hub, and one version of the Hub's client.
struct Side {
    env: Env,
    hub: Hub,
    bin: PathBuf,
    xet: bool,
}

/// The versions, each in a home of its own. The newer one lays the cache out in another way.
fn sides() -> [Side; 2] {
    let clients = std::env::var_os("HF_CLIENTS").expect("HF_CLIENTS names no folder: make interop");
    ["1.33", "2.4"].map(|version| {
        let bin = Path::new(&clients).join(version);
        let side = Side { env: Env::new(), hub: Hub::start(), bin, xet: true };
        let repo = side.hub.repo("org/M");
        repo.file("config.json", r#"{"model_type": "llama", "num_hidden_layers": 1}"#);
        repo.file("tokenizer.json", "{}").file("sub/notes.txt", "");
        repo.file("tokenizer_config.json", r#"{"chat_template": "{{ messages }}"}"#);
        repo.file("model.safetensors", safetensors());
        repo.keep_in_xet();
        side
    })
}

impl Side {
    /// The same, where what is fetched comes as slowly as its path says.
    fn without_xet(self) -> Side {
        Side { xet: false, ..self }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = self.env.at_home(Command::new(program));
        command.env("HF_ENDPOINT", self.hub.endpoint()).env("HF_TOKEN", OWNER);
        command.env("HF_HUB_DISABLE_TELEMETRY", "1").env("HF_HUB_DISABLE_UPDATE_CHECK", "1");
        // So that both layouts of a cache are met.
        if self.bin.ends_with("1.33") {
            command.env("HF_HUB_DISABLE_SHARED_BLOBS", "1");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn hf(&self, args: &str) -> Command {
        let mut command = self.command(&self.bin.join("bin/hf"));
        if !self.xet {
            command.env("HF_HUB_DISABLE_XET", "1");
        }
        command.args(args.split(' '));
        command
    }

    /// What `hf` prints, if it ends well.
    fn hf_ok(&self, args: &str) -> String {
        ended_well(self.hf(args).output().unwrap())
    }

    fn python_ok(&self, code: &str) -> String {
        let code = format!("from huggingface_hub import *\n{code}");
        let mut command = self.command(&self.bin.join("bin/python"));
        ended_well(command.args(["-c", &code]).output().unwrap())
    }

    fn ours(&self, program: &str) -> Run {
        let run = self.env.run(program).env("HF_ENDPOINT", self.hub.endpoint());
        run.env("HF_TOKEN", OWNER).env("HF_HUB_DISABLE_XET", if self.xet { "0" } else { "1" })
    }

    /// The cached snapshot holds what the Hub has.
    fn is_whole(&self, repo: &str) {
        let folder = self.env.hub().join(format!("models--{}", repo.replace('/', "--")));
        let commit = fs::read_to_string(folder.join("refs/main")).unwrap();
        assert_eq!(commit, self.hub.repo(repo).commit());
        for (path, content) in self.hub.repo(repo).files("main") {
            let cached = fs::read(folder.join("snapshots").join(&commit).join(&path));
            assert!(cached.unwrap() == content, "{path}");
        }
    }

    /// What the Hub gave away of files since it last forgot.
    fn served(&self) -> u64 {
        ["/objects/", "/xorbs/", "/resolve-cache/"].map(|part| self.hub.served(part)).iter().sum()
    }
}

fn ended_well(output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}{stderr}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs huggingface_hub: make interop"]
fn their_client_works_with_the_hub_for_tests() {
    for side in sides().into_iter().chain(sides().map(Side::without_xet)) {
        side.hf_ok("download org/M");
        side.is_whole("org/M");
        side.hf_ok("cache verify org/M");
        assert!(side.hf_ok("models info org/M").contains(&side.hub.repo("org/M").commit()));
        let new = side.env.home().join("new");
        fs::create_dir(&new).unwrap();
        fs::write(new.join("a.txt"), "a").unwrap();
        // Large enough for an upload in parts.
        fs::write(new.join("b.safetensors"), vec![7; 40_000_000]).unwrap();
        side.hf_ok("repos create org/New --private");
        side.hf_ok("upload org/New new");
        let by_xet = side.hub.requests().iter().any(|request| request.path == "/v1/shards");
        assert_eq!(by_xet, side.xet);
        let paths: Vec<_> =
            side.hub.repo("org/New").files("main").into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["a.txt", "b.safetensors"]);
        side.hf_ok("repos branch create org/New dev");
        side.hf_ok("upload org/New new/a.txt c.txt --revision dev");
        assert_eq!(side.hub.repo("org/New").files("dev").len(), 3);
        side.hf_ok("upload org/New new . --delete *.txt --exclude a.txt");
        assert_eq!(side.hub.repo("org/New").files("main").len(), 1);
    }
}

#[test]
#[ignore = "needs huggingface_hub: make interop"]
fn what_they_downloaded_is_ours() {
    for side in sides() {
        side.hf_ok("download org/M");
        assert!(side.hub.served("/xorbs/") > 0, "it comes from Xet storage");
        let shared = side.env.hub().join("blobs/.huggingface-shared-blobs").exists();
        assert_eq!(shared, side.bin.ends_with("2.4"));
        side.is_whole("org/M");
        let listed = side.env.run("mlxk-ls").args(["--all", "org/M"]).records();
        assert_eq!(listed[0]["hash"], side.hub.repo("org/M").commit(), "{}", listed[0]);
        let health = side.env.run("mlxk-health").args(["--verify", "org/M"]).records();
        assert_eq!(health[0]["health"], "healthy", "{}", health[0]);
        side.hub.forget();
        side.ours("mlxk-pull").args(["org/M"]).ok();
        assert_eq!(side.served(), 0);
        side.ours("mlxk-rm").args(["--force", "org/M"]).ok();
        let left = side.hf_ok("cache ls --format json");
        assert!(!left.contains("org/M"), "{left}");
        let prune = side.hf_ok("cache prune --dry-run");
        assert!(!prune.contains("would free"), "{prune}");
    }
}

#[test]
#[ignore = "needs huggingface_hub: make interop"]
fn what_we_pulled_is_theirs() {
    for side in sides() {
        side.ours("mlxk-pull").args(["org/M"]).ok();
        side.is_whole("org/M");
        side.hub.forget();
        side.python_ok("snapshot_download('org/M', local_files_only=True)");
        let config = "AutoConfig.from_pretrained('org/M', local_files_only=True)";
        let layers = format!("from transformers import *\nprint({config}.num_hidden_layers)");
        assert_eq!(side.python_ok(&layers).trim(), "1");
        assert!(!side.hub.requests().iter().any(|request| request.path.contains("org/M")));
        assert!(side.hf_ok("cache ls").contains("org/M"));
        side.hf_ok("cache verify org/M --fail-on-missing-files --fail-on-extra-files");
        side.hf_ok("download org/M");
        assert_eq!(side.served(), 0);
        side.hf_ok("cache rm model/org/M --yes");
        assert_eq!(side.ours("mlxk-ls").args(["--all"]).ok(), "");
    }
}

#[test]
#[ignore = "needs huggingface_hub: make interop"]
fn both_may_transfer_at_once() {
    for side in sides().map(Side::without_xet) {
        side.hub.repo("org/M").file("large.model", vec![1; 3_000_000]);
        side.hub.fault(Rule::on("/objects/"), Fault::Slow { rate: 2_000_000 });
        let theirs = side.hf("download org/M").spawn().unwrap();
        thread::sleep(Duration::from_millis(900));
        side.ours("mlxk-pull").args(["org/M"]).ok();
        ended_well(theirs.wait_with_output().unwrap());
        side.is_whole("org/M");
        side.hf_ok("cache verify org/M");
        side.ours("mlxk-health").args(["--verify", "org/M"]).ok();
        let left = side.env.files().into_iter().map(|(path, _)| path);
        let left: Vec<_> = left.filter(|path| path.to_string_lossy().contains("incomp")).collect();
        assert_eq!(left, [""; 0].map(PathBuf::from));
    }
}

/// Whoever deletes what another transfers, what is there at the end is whole, or a rerun makes it so.
#[test]
#[ignore = "needs huggingface_hub: make interop"]
fn one_may_delete_while_the_other_transfers() {
    for side in sides().map(Side::without_xet) {
        side.hub.repo("org/M").file("large.model", vec![1; 3_000_000]);
        side.hub.fault(Rule::on("/objects/"), Fault::Slow { rate: 2_000_000 });
        side.ours("mlxk-pull").args(["org/M", "--include", "*.json"]).ok();
        let mut pull = side.env.command("mlxk-pull");
        pull.env("HF_ENDPOINT", side.hub.endpoint()).env("HF_HUB_DISABLE_XET", "1").arg("org/M");
        pull.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        side.hub.fault(Rule::on("large.model"), Fault::Slow { rate: 250_000 });
        let mut ours = pull.spawn().unwrap();
        thread::sleep(Duration::from_millis(300));
        side.hf_ok("cache rm model/org/M --yes");
        assert!(ours.try_wait().unwrap().is_none(), "it was to be deleted before its end");
        let ended = ours.wait_with_output().unwrap();
        if ended.status.success() {
            side.hf_ok("cache verify org/M --fail-on-missing-files");
        }
        side.hub.behave();
        side.ours("mlxk-pull").args(["org/M"]).ok();
        side.is_whole("org/M");
        side.ours("mlxk-rm").args(["--force", "org/M"]).ok();
        side.hub.fault(Rule::on("large.model"), Fault::Slow { rate: 250_000 });
        let theirs = side.hf("download org/M").spawn().unwrap();
        thread::sleep(Duration::from_millis(1200));
        side.ours("mlxk-rm").args(["--force", "org/M"]).end();
        theirs.wait_with_output().unwrap();
        side.hub.behave();
        side.hf_ok("download org/M");
        side.is_whole("org/M");
    }
}

#[test]
#[ignore = "needs huggingface_hub: make interop"]
fn what_we_clone_and_push_is_theirs() {
    for side in sides() {
        side.ours("mlxk-clone").args(["org/M", "work"]).ok();
        let work = side.env.workspaces().join("work");
        side.hf_ok(&format!("cache verify org/M --local-dir {}", work.display()));
        fs::write(work.join("README.md"), "changed").unwrap();
        side.ours("mlxk-push").args(["work", "org/New", "--private", "--create"]).ok();
        side.hf_ok("download org/New");
        side.is_whole("org/New");
        side.hf_ok("cache verify org/New");
        let readme = side.hub.repo("org/New").files("main");
        let readme = readme.iter().find(|(path, _)| path == "README.md");
        assert_eq!(readme.unwrap().1, "changed");
        // What they uploaded need not be pushed again.
        side.hub.repo("org/Third").access(Access::Private);
        side.hf_ok(&format!("upload org/Third {} --exclude .mlxk_workspace.json", work.display()));
        let commit = side.hub.repo("org/Third").commit();
        side.ours("mlxk-push").args(["work", "org/Third", "--private"]).ok();
        assert_eq!(side.hub.repo("org/Third").commit(), commit);
    }
}

/// In a cache whose models share blobs, what we fetch is shared with what they fetch.
#[test]
#[ignore = "needs huggingface_hub: make interop"]
fn what_we_share_is_theirs() {
    let [_, side] = sides();
    side.hub.repo("org/N").file("model.safetensors", safetensors()).keep_in_xet();
    side.hub.repo("org/First").file("first.safetensors", vec![1; 100_000]).keep_in_xet();
    side.hf_ok("download org/First"); // makes the store
    side.ours("mlxk-pull").args(["org/M"]).ok();
    side.is_whole("org/M");
    side.hf_ok("cache verify org/M --fail-on-missing-files --fail-on-extra-files");
    side.hub.forget();
    side.hf_ok("download org/N");
    assert_eq!(side.served(), 0, "they take it from the store");
    let payloads = || side.env.files().iter().filter(|(path, _)| shared(path)).count();
    assert_eq!(payloads(), 2);
    side.hf_ok("cache rm model/org/M --yes");
    assert_eq!(payloads(), 2, "it is in use");
    side.is_whole("org/N");
    side.hf_ok("cache rm model/org/N --yes");
    assert_eq!(payloads(), 1);
}

/// A payload of the store: `blobs/XX/HASH`, without an ending.
fn shared(path: &Path) -> bool {
    let parts: Vec<_> = path.iter().rev().take(3).collect();
    path.extension().is_none() && parts.get(2).is_some_and(|name| *name == "blobs")
}
