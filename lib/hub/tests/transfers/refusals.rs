//! What is refused before anything is created: no access, no such thing, names that lead away.

use mlxk_core::remote::Token;
use mlxk_core::{Kind, Result};
use mlxk_hub::pull::{Choice, Plan, Wish};
use mlxk_testhub::{Access, Fault, OWNER, Origin, Rule, STRANGER};

use crate::env::{Env, files};

fn refused(result: Result<Plan>, env: &Env, kind: Kind) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    assert!(files(env.home.path()).is_empty(), "nothing is created");
    error.to_string()
}

#[test]
fn a_model_that_is_not_ours_leaves_no_trace() {
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
fn what_does_not_exist_is_named() {
    let env = Env::with_model();
    let choice = Choice::default();
    let said = refused(env.pull_at("nope", &choice), &env, Kind::HashNotFound);
    assert!(said.contains("org/M@nope"), "{said}");
    let wish = Wish { id: "org/none", revision: "main", choice: &choice, bad: &[] };
    let error = env.pull_with(wish, u64::MAX).unwrap_err();
    assert!(matches!(error.kind, Kind::AccessDenied | Kind::RepoNotFound), "{error}");
    for id in ["../../x", "a//b", "org/"] {
        let wish = Wish { id, revision: "main", choice: &choice, bad: &[] };
        refused(env.pull_with(wish, u64::MAX), &env, Kind::Validation);
    }
    refused(env.pull_at("../x", &choice), &env, Kind::Validation);
    let none = Choice { include: vec!["*.gguf".into()], exclude: Vec::new() };
    refused(env.pull_at("main", &none), &env, Kind::Validation);
}

/// A connection that breaks may come back; a file that is missing does not.
#[test]
fn a_file_that_its_storage_has_lost_is_not_waited_for() {
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
fn a_file_that_would_lie_elsewhere_is_refused() {
    for path in ["../../x", "/etc/x", "a\\..\\b", "a/../../b"] {
        let env = Env::with_model();
        env.hub.repo("org/M").file(path, "evil");
        let said = refused(env.pull(), &env, Kind::Validation);
        assert!(said.contains(path), "{said}");
    }
}

#[test]
fn a_token_is_shown_to_the_hub_alone() {
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
fn a_server_that_is_no_hub_is_said_so() {
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
fn lists_of_many_pages_are_read_to_the_end() {
    let env = Env::with_model();
    env.hub.page(1);
    assert_eq!(env.pull().unwrap().listing.files.len(), 3);
    let env = Env::with_model();
    env.hub.fault(Rule::on("/tree/").times(1), Fault::Cut { after: 10 });
    env.pull().unwrap();
}
