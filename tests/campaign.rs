//! Transfers that end at random points: whatever happened, a rerun completes them, and only them.
//!
//! `MLXK_CAMPAIGN=1000 cargo test --test suite campaign -- --nocapture` runs as many transfers and
//! tells how they ended; `MLXK_SEED` repeats a run.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use mlxk_testhub::{Fault, Hub, Rule};

use crate::env::{Env, program_path};

/// Transfers in a run of all tests.
const TRANSFERS: u64 = 48;
/// Transfers at a time; most of their time is waiting.
const AT_ONCE: usize = 4;
/// Bytes a second on a connection. A transfer takes about a second then.
const RATE: u64 = 24_000_000;
/// Bytes that may be on their way on all connections when a transfer dies.
const LOST: u64 = 6 << 20;
/// Bytes by which content that is packed differs from what it stands for, at most.
const PACKING: u64 = 256 << 10;
const REPO: &str = "org/Model";

/// How a transfer ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Accident {
    Kill,
    Terminate,
    Cut,
    Stall,
    FullDisk,
}

const ACCIDENTS: [Accident; 5] =
    [Accident::Kill, Accident::Terminate, Accident::Cut, Accident::Stall, Accident::FullDisk];

#[test]
fn transfers_that_ended_anywhere_are_completed_by_a_rerun() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect(name));
    let transfers: u64 = number("MLXK_CAMPAIGN").unwrap_or(TRANSFERS);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let seed: u64 = number("MLXK_SEED").unwrap_or(now);
    let ends = Mutex::new(BTreeMap::new());
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let nth = next.fetch_add(1, Ordering::Relaxed)
                    && nth < transfers
                {
                    let accident = ACCIDENTS[nth as usize % ACCIDENTS.len()];
                    eprintln!("transfer {nth} of seed {seed}: {accident:?}");
                    let hit = Transfer::new(Chance(seed ^ (nth << 32))).run(accident);
                    *ends.lock().unwrap().entry((accident, hit)).or_insert(0) += 1;
                }
            });
        }
    });
    let ends = ends.into_inner().unwrap();
    println!("seed {seed}, {transfers} transfers (accident, it hit: how many): {ends:?}");
    let hits: u64 = ends.iter().filter(|((_, hit), _)| *hit).map(|(_, count)| count).sum();
    assert!(hits > transfers / 2, "most of the accidents come too late to tell anything");
}

/// A home, a Hub with a repository, and a disk that can be full.
struct Transfer {
    /// Into a workspace, not into the cache.
    clone: bool,
    /// Large files come from Xet storage.
    xet: bool,
    env: Env,
    hub: Hub,
    disk: Disk,
    chance: Chance,
    bytes: u64,
}

impl Transfer {
    fn new(mut chance: Chance) -> Transfer {
        let (env, hub) = (Env::new(), Hub::start());
        let repo = hub.repo(REPO);
        for (path, content) in repository() {
            repo.file(path, &content[..]);
        }
        let xet = chance.below(2) == 0;
        if xet {
            repo.keep_in_xet();
        }
        let bytes = repository().iter().map(|(_, content)| content.len() as u64).sum();
        let disk = Disk::below(env.home());
        fs::create_dir(disk.path.join("workspaces")).unwrap();
        Transfer { clone: chance.below(4) == 0, xet, env, hub, disk, chance, bytes }
    }

    /// One or two accidents, and the run that goes to the end. True if an accident hit.
    fn run(mut self, accident: Accident) -> bool {
        let mut hit = false;
        let accidents = 1 + self.chance.below(2);
        for _ in 0..accidents {
            self.hub.fault(Rule::default(), Fault::Slow { rate: RATE });
            hit |= self.meet(accident);
            self.hub.behave();
            self.nothing_looks_whole_and_is_not();
            if self.disk.path.join("workspaces/Model").exists() {
                self.all_is_there(); // a second clone would be refused
                return hit;
            }
        }
        let before = self.served();
        let missing = self.missing();
        self.hub.forget();
        let ended = self.transfer(&[]).stderr(Stdio::inherit()).output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        let fetched = self.served();
        let differ = fetched.abs_diff(missing.unwrap_or(fetched));
        let packing = if self.xet { PACKING } else { 0 };
        assert!(differ <= packing, "the rerun fetches {fetched}, missing were {missing:?}");
        let lost = (before + fetched).saturating_sub(self.bytes + packing);
        assert!(lost <= LOST * accidents, "{lost} bytes had come and were not kept");
        self.nothing_looks_whole_and_is_not();
        self.all_is_there();
        hit
    }

    /// Lets a transfer meet the accident; true if it did not get to its end.
    fn meet(&mut self, accident: Accident) -> bool {
        let point = self.chance.below(self.bytes);
        match accident {
            Accident::Kill => self.signal(libc::SIGKILL, point),
            Accident::Terminate => self.signal(libc::SIGTERM, point),
            Accident::Cut => {
                let after = self.chance.below(2 << 20);
                self.hub.fault(Rule::on(self.large()).times(4), Fault::Cut { after });
                self.signal(libc::SIGKILL, point)
            }
            Accident::Stall => {
                let rule = Rule::on(self.large()).after(self.chance.below(3));
                self.hub.fault(rule, Fault::Stall { after: self.chance.below(2 << 20) });
                self.signal(libc::SIGTERM, point)
            }
            Accident::FullDisk => self.fill(point),
        }
    }

    /// Ends the transfer when `point` bytes were sent, or nothing is any more.
    fn signal(&self, signal: i32, point: u64) -> bool {
        let mut child = self.transfer(&[]).stderr(Stdio::null()).spawn().unwrap();
        self.wait(&mut child, point);
        // SAFETY: the child was not waited for, so that its number is still its own.
        unsafe { libc::kill(child.id() as i32, signal) };
        !child.wait().unwrap().success()
    }

    /// Leaves no room on the disk when `point` bytes were sent.
    fn fill(&self, point: u64) -> bool {
        let mut child = self.transfer(&[]).stderr(Stdio::piped()).spawn().unwrap();
        self.wait(&mut child, point);
        self.disk.fill();
        let output = child.wait_with_output().unwrap();
        self.disk.free();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let told = ["No space left", "the disk has no room"].iter().any(|why| stderr.contains(why));
        assert!(output.status.success() || told, "{stderr}");
        !output.status.success()
    }

    /// Returns when `point` bytes were sent, nothing is any more, or the child ended.
    fn wait(&self, child: &mut Child, point: u64) {
        let before = self.served();
        let mut seen = (0, Instant::now());
        while child.try_wait().unwrap().is_none() {
            let served = self.served() - before;
            if served != seen.0 {
                seen = (served, Instant::now());
            }
            let silent = seen.0 > 0 && seen.1.elapsed() > Duration::from_millis(300);
            if served >= point || silent || seen.1.elapsed() > Duration::from_secs(20) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn transfer(&self, args: &[&str]) -> Command {
        let program = if self.clone { "mlxk-clone" } else { "mlxk-pull" };
        let mut command = self.env.at_home(self.disk.command(program));
        let mounted = self.env.home().join("disk");
        command.env("HF_ENDPOINT", self.hub.endpoint()).env("HF_HUB_CACHE", mounted.join("hub"));
        command.env("MLXK_WORKSPACE_HOME", mounted.join("workspaces"));
        command.arg(REPO).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    /// The bytes that a run would fetch, where the program says so.
    fn missing(&self) -> Option<u64> {
        if self.clone {
            return None;
        }
        let output = self.transfer(&["--dry-run", "--ndjson"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let last = String::from_utf8(output.stdout).unwrap();
        let record: serde_json::Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
        Some(record["planned_bytes"].as_u64().unwrap_or_else(|| panic!("{record}")))
    }

    fn served(&self) -> u64 {
        self.hub.served(self.large()) + self.hub.served("/resolve-cache/")
    }

    /// The path of what large files come from.
    fn large(&self) -> &'static str {
        if self.xet { "/xorbs/" } else { "/objects/" }
    }

    fn folder(&self) -> PathBuf {
        self.disk.path.join("hub/models--org--Model")
    }

    /// What has the name of its content, or of a file of the repository, has that content.
    fn nothing_looks_whole_and_is_not(&self) {
        let blobs: BTreeMap<_, _> = self.hub.repo(REPO).blobs("main").into_iter().collect();
        for path in files(&self.folder().join("blobs")) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let right = blobs.get(name).is_some_and(|right| fs::read(&path).unwrap() == *right);
            assert!(right || name.ends_with(".incomplete"), "{name}");
        }
        let snapshots = files(&self.folder().join("snapshots")).into_iter();
        for path in snapshots.chain(files(&self.disk.path.join("workspaces"))) {
            let known = repository().iter().find(|(name, _)| path.ends_with(name));
            let right = known.is_none_or(|(_, right)| fs::read(&path).unwrap() == *right);
            assert!(right, "{}", path.display());
        }
    }

    /// The files are all where the program says they are, and nothing else is left of it.
    fn all_is_there(&self) {
        let commit = self.hub.repo(REPO).commit();
        let snapshot = match self.clone {
            true => self.disk.path.join("workspaces/Model"),
            false => self.folder().join("snapshots").join(commit),
        };
        for (name, content) in repository() {
            assert!(fs::read(snapshot.join(name)).unwrap() == *content, "{name}");
        }
        let blobs = files(&self.folder().join("blobs")).len();
        assert_eq!(blobs, if self.clone { 0 } else { repository().len() });
        let sentinel = usize::from(self.clone);
        assert_eq!(files(&snapshot).len(), repository().len() + sentinel);
    }
}

/// The files of the repository: one in several ranges, some small ones, an empty one.
fn repository() -> &'static [(&'static str, Vec<u8>)] {
    static FILES: OnceLock<Vec<(&str, Vec<u8>)>> = OnceLock::new();
    let random = |seed, bytes: usize| {
        let mut chance = Chance(seed);
        let words = std::iter::repeat_with(|| chance.next().to_le_bytes());
        words.take(bytes.div_ceil(8)).flatten().take(bytes).collect()
    };
    FILES.get_or_init(|| {
        vec![
            ("config.json", r#"{"model_type": "llama"}"#.into()),
            ("model-00001-of-00002.safetensors", random(1, 18_000_001)),
            ("model-00002-of-00002.safetensors", random(2, 3_000_000)),
            ("sub/empty.txt", Vec::new()),
            ("sub/more.bin", random(3, 70_000)),
            ("tokenizer.json", random(4, 1_500_000)),
        ]
    })
}

/// A directory, on a disk of its own where that can be had.
struct Disk {
    /// Where it is for the test; programs have it as `disk` in their home.
    path: PathBuf,
    ballast: Option<PathBuf>,
    /// The process in whose view of the file systems the disk is.
    holder: Option<Child>,
}

impl Disk {
    fn below(home: &Path) -> Disk {
        let path = home.join("disk");
        fs::create_dir(&path).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c"]);
        command.arg("mount -t tmpfs -o size=96m disk \"$0\" && echo && exec cat").arg(&path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut holder) = command.spawn() else {
            return Disk { path, ballast: None, holder: None };
        };
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            return Disk { path, ballast: None, holder: Some(holder) };
        }
        let view = format!("/proc/{}/root", holder.id());
        let path = PathBuf::from(view).join(path.strip_prefix("/").unwrap());
        Disk { ballast: Some(path.join("ballast")), path, holder: Some(holder) }
    }

    /// A program that sees the disk.
    fn command(&self, program: &str) -> Command {
        let program = program_path(program);
        let Some(holder) = self.holder.as_ref().filter(|_| self.ballast.is_some()) else {
            return Command::new(program);
        };
        let mut command = Command::new("nsenter");
        command.args(["--user", "--mount", "--preserve-credentials", "--target"]);
        command.arg(holder.id().to_string()).arg("--").arg(program);
        command
    }

    /// Takes what room there is.
    fn fill(&self) {
        if let Some(ballast) = &self.ballast {
            let mut file = fs::File::create(ballast).unwrap();
            let block = vec![1; 1 << 20];
            let error = (0..).find_map(|_| file.write_all(&block).err()).unwrap();
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        }
    }

    fn free(&self) {
        if let Some(ballast) = &self.ballast {
            // Not by its removal: a child of another thread may have it open for a moment.
            fs::write(ballast, "").unwrap();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            let _ = holder.kill(); // it may have ended
            let _ = holder.wait();
        }
    }
}

/// Numbers that look random: SplitMix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// The files below a directory, if there is one.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}
