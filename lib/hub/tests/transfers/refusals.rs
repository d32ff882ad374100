//! Pulls refused before anything is created: no access, unknown names, unsafe paths.

use mlxk_core::remote::Token;
use mlxk_core::{Kind, Result};
use mlxk_hub::pull::{FileFilter, PullOptions, PullPlan};
use mlxk_testhub::{Access, Fault, OWNER, Origin, Rule, STRANGER};

use crate::env::{Env, files};

fn refused(result: Result<PullPlan>, env: &Env, kind: Kind) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    assert!(files(env.home.path()).is_empty(), "nothing is created");
    error.to_string()
}

#[test]
fn a_model_without_access_leaves_no_trace() {
    for (access, token) in [
        (Access::Private, None),
        (Access::Private, Token::new(STRANGER)),
        (Access::Gated, None),
        (Access::Gated, Token::new(STRANGER)),
    ] {
        let mut env = Env::with_model();
        env.hub.repo("org/M").access(access);
        env.remote.token = token;
        let error = env.pull().unwrap_err();
        assert!(matches!(error.kind, Kind::AccessDenied | Kind::RepoNotFound), "{error}");
        assert!(error.subject.contains("org/M"), "{error}");
        assert!(files(env.home.path()).is_empty());
        env.remote.token = Token::new(OWNER);
        env.pull().unwrap();
    }
}

#[test]
fn unknown_models_and_revisions_are_named() {
    let env = Env::with_model();
    let filter = FileFilter::default();
    let said = refused(env.pull_at("nope", &filter), &env, Kind::HashNotFound);
    assert!(said.contains("org/M@nope"), "{said}");
    let options = PullOptions { id: "org/none", revision: "main", filter: &filter, bad: &[] };
    let error = env.pull_with(options, u64::MAX).unwrap_err();
    assert!(matches!(error.kind, Kind::AccessDenied | Kind::RepoNotFound), "{error}");
    for id in ["../../x", "a//b", "org/"] {
        let options = PullOptions { id, revision: "main", filter: &filter, bad: &[] };
        refused(env.pull_with(options, u64::MAX), &env, Kind::Validation);
    }
    refused(env.pull_at("../x", &filter), &env, Kind::Validation);
    let none = FileFilter { include: vec!["*.gguf".into()], exclude: Vec::new() };
    refused(env.pull_at("main", &none), &env, Kind::Validation);
}

/// A broken connection is transient; a missing file is final.
#[test]
fn a_file_that_storage_has_lost_is_not_retried() {
    let env = Env::with_model();
    env.hub.fault(Rule::on("/objects/"), Fault::Status { code: 404, retry_after: None });
    let error = env.pull().unwrap_err();
    assert_eq!(error.kind, Kind::DownloadFailed);
    assert!(error.subject.contains("org/M: model.safetensors"), "{error}");
    assert!(error.message.ends_with("where the Hub keeps the file, has none (status 404)"));
    let asked = env.hub.requests().iter().filter(|r| r.path.contains("/objects/")).count();
    assert!(asked <= 2, "once for each of its pieces: {asked}");
}

#[test]
fn paths_that_traverse_are_refused() {
    for path in ["../../x", "/etc/x", "a\\..\\b", "a/../../b"] {
        let env = Env::with_model();
        env.hub.repo("org/M").file(path, "evil");
        let said = refused(env.pull(), &env, Kind::Validation);
        assert!(said.contains(path), "{said}");
    }
}

#[test]
fn the_token_is_sent_to_the_hub_alone() {
    let mut env = Env::with_model();
    env.remote.token = Token::new(OWNER);
    env.pull().unwrap();
    let requests = env.hub.requests();
    let (api, storage): (Vec<_>, Vec<_>) =
        requests.iter().partition(|request| request.origin == Origin::Api);
    assert!(!storage.is_empty() && !api.is_empty());
    assert!(api.iter().all(|request| request.authorization.is_some()));
    assert!(storage.iter().all(|request| request.authorization.is_none()));
}

#[test]
fn a_server_that_is_no_hub_is_reported() {
    let mut env = Env::with_model();
    env.remote.endpoint = env.hub.storage().to_owned();
    assert!(env.pull().unwrap_err().message.contains("on the Hub"));
    env.remote.endpoint = "nonsense".into();
    assert!(mlxk_hub::Hub::new(env.remote.clone(), || false).is_err());
    env.remote.offline = true;
    let error = mlxk_hub::Hub::new(env.remote.clone(), || false).unwrap_err();
    assert!(error.message.contains("offline"), "{error}");
}

#[test]
fn file_lists_of_many_pages_are_read_to_the_end() {
    let env = Env::with_model();
    env.hub.page(1);
    assert_eq!(env.pull().unwrap().listing.files.len(), 3);
    let env = Env::with_model();
    env.hub.fault(Rule::on("/tree/").times(1), Fault::Cut { after: 10 });
    env.pull().unwrap();
}

#[test]
fn a_list_without_end_is_refused() {
    let env = Env::with_model();
    env.hub.fault(Rule::on("/tree/"), Fault::NextPage);
    let said = refused(env.pull(), &env, Kind::DownloadFailed);
    assert!(said.contains("lists files without end"), "{said}");
}

#[test]
fn directories_of_git_are_refused() {
    for path in [".git/config", "sub/.GIT/hooks/x", "git~1/config", ".g\u{200c}it/config"] {
        let env = Env::with_model();
        env.hub.repo("org/M").file(path, "[core]");
        let said = refused(env.pull(), &env, Kind::Validation);
        assert!(said.contains("the directory of a repository"), "{said}");
    }
}

#[test]
fn redirects_into_local_networks_are_refused() {
    for to in [
        "http://169.254.169.254/latest/meta-data",
        "http://2852039166/",
        "http://[::ffff:169.254.169.254]/",
        "http://10.0.0.1/",
        "//192.168.0.1/",
        "http://[fd00::1]/",
    ] {
        let env = Env::with_model();
        env.hub.fault(Rule::on("/resolve/"), Fault::Redirect { to: to.into() });
        let error = env.pull().unwrap_err();
        assert!(error.message.contains("an address in a local network"), "{to}: {error}");
    }
}
