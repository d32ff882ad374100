//! A home of its own for a test: a cache, workspaces, and the programs run in it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The commit that a model has unless a test says otherwise.
pub const COMMIT: &str = "1111111111111111111111111111111111111111";

pub struct Env {
    home: TempDir,
}

impl Env {
    pub fn new() -> Env {
        let env = Env { home: TempDir::new().unwrap() };
        fs::create_dir_all(env.hub()).unwrap();
        fs::create_dir_all(env.workspaces()).unwrap();
        env
    }

    /// One healthy and runnable model, one healthy that cannot run, one broken.
    pub fn with_three() -> Env {
        let env = Env::new();
        env.model("mlx-community/Good-4bit").quantized().write();
        env.model("org/Strange").config("model_type", json!("quux")).write();
        env.model("org/Broken").without("model.safetensors").write();
        env
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn hub(&self) -> PathBuf {
        self.home().join("hf/hub")
    }

    pub fn workspaces(&self) -> PathBuf {
        self.home().join("ws")
    }

    pub fn model(&self, name: &str) -> Model<'_> {
        Model::new(self, name)
    }

    pub fn run(&self, program: &str) -> Run {
        Run { command: self.command(program), input: None }
    }

    /// The program in this home, for a test that runs it by itself.
    pub fn command(&self, program: &str) -> Command {
        self.at_home(Command::new(program_path(program)))
    }

    /// Any program in this home.
    pub fn at_home(&self, mut command: Command) -> Command {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("HF_HOME", self.home().join("hf"))
            .env("MLXK_WORKSPACE_HOME", self.workspaces())
            .current_dir(self.home());
        command
    }

    /// Every file below the home with its size, to see that nothing was written.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        fn walk(directory: &Path, all: &mut Vec<(PathBuf, u64)>) {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let metadata = fs::symlink_metadata(entry.path()).unwrap();
                all.push((entry.path(), metadata.len()));
                if metadata.is_dir() {
                    walk(&entry.path(), all);
                }
            }
        }
        let mut all = Vec::new();
        walk(self.home(), &mut all);
        all.sort();
        all
    }
}

pub fn program_path(program: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_mlxk")).with_file_name(program)
}

/// A model to write: in the cache as the Hub's client lays it out, or as a workspace.
pub struct Model<'a> {
    env: &'a Env,
    name: String,
    commit: String,
    files: Vec<(String, Vec<u8>)>,
    config: Value,
    age: Duration,
}

impl<'a> Model<'a> {
    fn new(env: &'a Env, name: &str) -> Self {
        let template = json!({"chat_template": "{{ messages }}"}).to_string();
        Model {
            env,
            name: name.to_owned(),
            commit: COMMIT.to_owned(),
            files: vec![
                ("model.safetensors".to_owned(), safetensors()),
                ("tokenizer.json".to_owned(), b"{}".to_vec()),
                ("tokenizer_config.json".to_owned(), template.into_bytes()),
            ],
            config: json!({
                "model_type": "llama",
                "architectures": ["LlamaForCausalLM"],
                "max_position_embeddings": 2048,
                "num_hidden_layers": 1,
            }),
            age: Duration::from_secs(600),
        }
    }

    pub fn quantized(self) -> Self {
        self.config("quantization", json!({"bits": 4, "group_size": 64}))
    }

    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    pub fn commit(self, commit: &str) -> Self {
        Model { commit: commit.to_owned(), ..self }
    }

    pub fn age(self, seconds: u64) -> Self {
        Model { age: Duration::from_secs(seconds), ..self }
    }

    /// Adds a file, or replaces it.
    pub fn file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self = self.without(name);
        self.files.push((name.to_owned(), bytes.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.files.retain(|(file, _)| file != name);
        self
    }

    /// Writes it into the cache; the snapshot's directory.
    pub fn write(self) -> PathBuf {
        let repo = self.env.hub().join(format!("models--{}", self.name.replace('/', "--")));
        let snapshot = repo.join("snapshots").join(&self.commit);
        for directory in [&repo.join("refs"), &repo.join("blobs"), &snapshot] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(repo.join("refs/main"), &self.commit).unwrap();
        for (name, bytes) in self.all_files() {
            let blob = format!("{}-{name}", &self.commit[..8]);
            fs::write(repo.join("blobs").join(&blob), bytes).unwrap();
            symlink(format!("../../blobs/{blob}"), snapshot.join(name)).unwrap();
        }
        self.grow_old(&snapshot);
        snapshot
    }

    /// Writes it as a workspace; its directory.
    pub fn write_workspace(self) -> PathBuf {
        let directory = self.env.workspaces().join(&self.name);
        fs::create_dir_all(&directory).unwrap();
        for (name, bytes) in self.all_files() {
            fs::write(directory.join(name), bytes).unwrap();
        }
        self.grow_old(&directory);
        directory
    }

    fn all_files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = self.files.clone();
        if files.iter().all(|(name, _)| name != "config.json") {
            files.push(("config.json".to_owned(), self.config.to_string().into_bytes()));
        }
        files
    }

    fn grow_old(&self, directory: &Path) {
        let then = SystemTime::now() - self.age;
        fs::File::open(directory).unwrap().set_modified(then).unwrap();
    }
}

/// One tensor of 1000 floats.
pub fn safetensors() -> Vec<u8> {
    let header = br#"{"w":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend([0; 4000]);
    file
}

/// A program to run.
pub struct Run {
    command: Command,
    input: Option<Vec<u8>>,
}

impl Run {
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives it a pipe to read from.
    pub fn stdin(self, input: impl Into<Vec<u8>>) -> Self {
        Run { input: Some(input.into()), ..self }
    }

    pub fn end(mut self) -> Ended {
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), self.input) {
            // A program that does not read its input is the business of the test's assertions.
            let _ = stdin.write_all(&input);
        }
        Ended(child.wait_with_output().unwrap())
    }

    /// What it prints, if it ends well.
    pub fn ok(self) -> String {
        let ended = self.end();
        assert_eq!(ended.status(), 0, "{ended:?}");
        ended.stdout()
    }

    /// The records that it prints, if it ends well.
    pub fn records(self) -> Vec<Value> {
        records(&self.ok())
    }

    /// The envelope that it prints, which must be as published, if it ends with `status`.
    pub fn envelope(self, status: i32) -> Value {
        let ended = self.args(["--json"]).end();
        assert_eq!(ended.status(), status, "{ended:?}");
        let envelope = serde_json::from_str(&ended.stdout()).unwrap();
        crate::schema::validate(&envelope);
        envelope
    }
}

pub fn records(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is left of a program after Ctrl-C, by which it must die soon.
pub fn interrupted(mut child: Child) -> Output {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let late = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > late {
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGINT), "{output:?}");
    output
}

#[derive(Debug)]
pub struct Ended(Output);

impl Ended {
    /// The exit status; death by signal fails the test.
    pub fn status(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// Checks that it failed with `status`, wrote nothing to stdout, and said `message` first.
    pub fn refused(&self, status: i32, message: &str) {
        assert_eq!((self.status(), self.stdout().as_str()), (status, ""), "{self:?}");
        assert_eq!(self.stderr().lines().next(), Some(message), "{self:?}");
    }
}
