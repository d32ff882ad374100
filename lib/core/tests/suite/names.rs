//! Listings of models, and resolution of names.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use crate::env::Env;
use mlxk_core::list::{self, Listed};
use mlxk_core::resolve::resolve;
use mlxk_core::store::{Found, Places, Revisions, cache};
use mlxk_core::{Error, Kind, Spec};

fn places(env: &Env) -> Places {
    Places { root: env.root(), hub: env.hub(), workspaces: Some(env.home()) }
}

fn find(env: &Env, name: &str) -> Result<Found, Error> {
    resolve(&Spec::parse(name).unwrap(), &places(env))
}

fn names(env: &Env) -> Vec<String> {
    let found = list::all(&places(env), Revisions::Current).models;
    found.into_iter().map(|found| found.name).collect()
}

fn selected(env: &Env, pattern: &str) -> Vec<Listed> {
    list::matching(&places(env), pattern, Revisions::Current).unwrap().models
}

/// Sets the time of a directory `seconds` into the future.
fn touch(path: &std::path::Path, seconds: u64) {
    let time = SystemTime::now() + Duration::from_secs(seconds);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_name_survives_its_directory() {
    for name in ["org/name", "gpt2", "org/model--dash", "a-b/c-d.e", "org/---"] {
        assert_eq!(cache::decode(&cache::encode(name)).as_deref(), Some(name));
    }
    for directory in ["datasets--org--name", "models--", ".locks", "blobs"] {
        assert_eq!(cache::decode(directory), None);
    }
}

#[test]
fn lists_workspaces_then_the_cache_by_name() {
    let env = Env::new();
    env.snapshot("org/zeta", 'a').file("config.json", "{}");
    env.snapshot("gpt2", 'a').file("config.json", "{}");
    env.snapshot("org/model--dash", 'a').shared("config.json", "{}");
    env.snapshot("org/TEST-CACHE-SENTINEL-x", 'a');
    env.workspace("two", &[]);
    env.workspace("one", &[]);
    fs::create_dir(env.home().join("no-model")).unwrap();
    fs::create_dir_all(env.hub().join("datasets--org--data/snapshots/x")).unwrap();
    let home = env.home();
    let home = home.to_str().unwrap();
    let expected = [&format!("{home}/one"), &format!("{home}/two"), "gpt2", "org/model--dash"];
    assert_eq!(names(&env), [&expected[..], &["org/zeta"]].concat());
}

#[test]
fn places_that_do_not_exist_are_empty() {
    let nowhere = Places {
        root: "/nowhere".into(),
        hub: "/nowhere/hub".into(),
        workspaces: Some("/nowhere/w".into()),
    };
    assert_eq!(list::all(&nowhere, Revisions::All).models, []);
    let e = resolve(&Spec::parse("x").unwrap(), &nowhere).unwrap_err();
    assert_eq!(e.kind, Kind::ModelNotFound);
}

#[test]
fn the_current_revision_is_main_else_the_newest() {
    let env = Env::new();
    let old = env.snapshot("org/m", 'a');
    let new = env.snapshot("org/m", 'b');
    touch(&new.path, 100);
    assert_eq!(find(&env, "org/m").unwrap().path, new.path);
    let old = old.reference("main");
    assert_eq!(find(&env, "org/m").unwrap().path, old.path);
    fs::write(old.repo.join("refs/main"), "../refs").unwrap();
    assert_eq!(find(&env, "org/m").unwrap().path, new.path);
    fs::write(old.repo.join("refs/main"), [0xff, 0xfe]).unwrap();
    assert_eq!(find(&env, "org/m").unwrap().path, new.path);
    let all = list::all(&places(&env), Revisions::All).models;
    assert_eq!(all.iter().map(|f| &f.path).collect::<Vec<_>>(), [&new.path, &old.path]);
}

#[test]
fn a_model_without_a_snapshot_is_still_there() {
    let env = Env::new();
    let gone = env.snapshot("org/m", 'a');
    fs::remove_dir_all(gone.repo.join("snapshots")).unwrap();
    let found = find(&env, "m").unwrap();
    assert_eq!((found.revision, found.path), (None, gone.repo.join("snapshots")));
}

#[test]
fn a_revision_is_a_ref_or_the_beginning_of_a_commit() {
    let env = Env::new();
    let a = env.snapshot("org/m", 'a').reference("refs/pr/1");
    let b = env.snapshot("org/m", 'b').reference("main");
    fs::create_dir(b.path.with_file_name(format!("bbbb{}", "c".repeat(36)))).unwrap();
    for (wanted, revision) in
        [("aaaa", &a), ("refs/pr/1", &a), ("main", &b), (b.revision.as_str(), &b)]
    {
        assert_eq!(find(&env, &format!("org/m@{wanted}")).unwrap().path, revision.path);
        assert_eq!(find(&env, &format!("m@{wanted}")).unwrap().path, revision.path);
    }
    let missing = find(&env, "org/m@dddd").unwrap_err();
    assert_eq!((missing.kind, missing.matches.len()), (Kind::HashNotFound, 3));
    let several = find(&env, "org/m@bbbb").unwrap_err();
    assert_eq!((several.kind, several.matches.len()), (Kind::AmbiguousMatch, 2));
}

#[test]
fn an_exact_name_is_never_shadowed_by_a_part_of_another() {
    let env = Env::new();
    let gpt2 = env.snapshot("gpt2", 'a').file("config.json", "{}");
    let short = env.snapshot("mlx-community/phi", 'a').file("config.json", "{}");
    env.snapshot("org/phi-large", 'a').file("config.json", "{}");
    env.workspace("my-gpt2-ws", &[]);
    let own = env.workspace("own", &[]);
    env.workspace("own-2", &[]);
    assert_eq!(find(&env, "gpt2").unwrap().path, gpt2.path);
    assert_eq!(find(&env, "phi").unwrap().path, short.path);
    assert_eq!(find(&env, "models--mlx-community--phi").unwrap().path, short.path);
    assert_eq!(find(&env, "own").unwrap().path, own);
}

#[test]
fn a_part_of_several_names_picks_none() {
    let env = Env::new();
    env.snapshot("org/Qwen-7B", 'a').file("config.json", "{}");
    env.snapshot("org/other", 'b').file("config.json", "{}");
    let workspace = env.workspace("my-qwen", &[]);
    let e = find(&env, "QWEN").unwrap_err();
    assert_eq!(e.kind, Kind::AmbiguousMatch);
    assert_eq!(e.matches, [workspace.to_str().unwrap(), "org/Qwen-7B"]);
    assert_eq!(find(&env, "qwen-").unwrap().name, "org/Qwen-7B");
    assert_eq!(find(&env, "org/@bbb").unwrap().name, "org/other");
}

#[test]
fn a_record_names_its_model_and_no_other() {
    let env = Env::new();
    let m = env.snapshot("org/m", 'a').file("config.json", "{}");
    env.snapshot("mlx-community/only", 'a').file("config.json", "{}");
    env.workspace("org", &[]);
    let exact = |name, revision| resolve(&Spec::exact(name, revision).unwrap(), &places(&env));
    assert_eq!(exact("org/m", Some(&m.revision)).unwrap().path, m.path);
    for part in ["m", "org", "only"] {
        assert_eq!(exact(part, None).unwrap_err().kind, Kind::ModelNotFound);
    }
}

#[test]
fn a_path_means_a_workspace() {
    let env = Env::new();
    let path = env.workspace("w", &[]);
    assert_eq!(find(&env, &format!("{}/../w/", path.display())).unwrap().path, path);
    fs::remove_file(path.join("config.json")).unwrap();
    env.snapshot("org/w", 'a');
    assert_eq!(find(&env, path.to_str().unwrap()).unwrap_err().kind, Kind::ModelNotFound);
}

#[test]
fn a_near_miss_is_hinted_at() {
    let env = Env::new();
    env.snapshot("mlx-community/Llama-3.2-1B", 'a').file("config.json", "{}");
    let hint = find(&env, "llama3.2-1B").unwrap_err().hint.unwrap();
    assert_eq!(hint, "did you mean mlx-community/Llama-3.2-1B?");
}

#[test]
fn patterns_select() {
    let env = Env::new();
    env.snapshot("org/Llama", 'a').file("config.json", "{}").reference("main");
    env.snapshot("org/Llama", 'b').file("config.json", "{}");
    let path = env.workspace("llama-own", &[]);
    env.workspace("zeta", &[]);
    let shown = |pattern: &str| -> Vec<_> {
        let listed = selected(&env, pattern).into_iter();
        listed.map(|l| l.display_name.unwrap_or(l.found.name)).collect()
    };
    assert_eq!(shown(""), ["llama-own", "zeta", "org/Llama"]);
    assert_eq!(shown("LLAMA"), ["llama-own", "org/Llama"]);
    assert_eq!(selected(&env, "llama@bb")[0].found.revision.as_ref().unwrap()[..2], *"bb");
    let home = env.home();
    assert_eq!(shown(home.to_str().unwrap()).len(), 2);
    assert_eq!(shown(&format!("{}/ll", home.display())), [path.to_str().unwrap()]);
    assert_eq!(shown(path.to_str().unwrap()), [path.to_str().unwrap()]);
    assert_eq!(shown("/nowhere/at/all"), [""; 0]);
}

#[test]
fn odd_names_do_no_harm() {
    let env = Env::new();
    env.snapshot("org/m", 'a').file("config.json", "{}");
    let odd = env.hub().join(OsStr::from_bytes(b"models--org--\xff\xfe"));
    if fs::create_dir_all(odd.join("snapshots").join(OsStr::from_bytes(b"\xff"))).is_ok() {
        assert_eq!(names(&env).len(), 2);
    }
    fs::write(env.hub().join("models--a-file"), "").unwrap();
    let long = "n".repeat(5000);
    for name in ["Model@", "@abc", "@", " ", "a//b", "a\\b", "\0", "..", "org/m@@a", &long] {
        assert!(Spec::parse(name).and_then(|spec| resolve(&spec, &places(&env))).is_err());
    }
}
