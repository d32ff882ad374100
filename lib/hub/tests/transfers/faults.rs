//! Connections that break, stall, or bring the wrong bytes.

use std::fs;
use std::thread;

use mlxk_core::Kind;
use mlxk_hub::pull::{Choice, Wish};
use mlxk_testhub::{Fault, Rule};

use crate::env::{Env, LARGE, content, files};

const OBJECT: &str = "/objects/";

#[test]
fn what_breaks_is_fetched_from_there_on() {
    let faults = [
        Fault::Cut { after: 100_000 },
        Fault::Stall { after: 100_000 },
        Fault::Longer { by: 1000 },
        Fault::Shorter { by: 1000 },
        Fault::Status { code: 500, retry_after: None },
        Fault::Status { code: 429, retry_after: Some(0) },
        Fault::Status { code: 403, retry_after: None },
        Fault::IgnoreRange,
        Fault::NewEtag,
    ];
    thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || is_borne(fault));
        }
    });
}

fn is_borne(fault: Fault) {
    let env = Env::with_model();
    env.hub.fault(Rule::on(OBJECT).times(2), fault.clone());
    env.pull().unwrap_or_else(|e| panic!("{fault:?}: {e}"));
    assert_eq!(env.read("model.safetensors"), content(LARGE), "{fault:?}");
    if !matches!(fault, Fault::IgnoreRange | Fault::Longer { .. }) {
        // What a client has not read yet of a connection that broke is lost to it.
        let (served, most) = (env.hub.served(OBJECT), LARGE as u64 + 100_000);
        assert!(served <= most, "{fault:?}: {served}");
    }
    env.assert_true();
}

#[test]
fn a_server_without_ranges_will_do() {
    let env = Env::with_model();
    env.hub.fault(Rule::on(OBJECT), Fault::IgnoreRange);
    env.pull().unwrap();
    assert_eq!(env.read("model.safetensors"), content(LARGE));
}

#[test]
fn a_run_that_was_ended_is_gone_on_with() {
    let env = Env::with_model();
    let choice = Choice::default();
    let wish = Wish { id: "org/M", revision: "main", choice: &choice, bad: &[] };
    let error = env.pull_with(wish, 9 << 20).unwrap_err();
    assert_eq!(error.message, "interrupted");
    assert!(!env.repo().join("refs/main").exists());
    assert!(files(&env.repo().join("snapshots")).is_empty(), "no snapshot before it is whole");
    env.assert_true();
    env.hub.forget();
    let plan = env.pull().unwrap();
    assert!(plan.present >= 9 << 20, "{}", plan.present);
    assert_eq!(env.hub.served(OBJECT), LARGE as u64 - plan.present, "only what was missing");
    assert_eq!(env.read("model.safetensors"), content(LARGE));
    assert_eq!(files(&env.repo().join("blobs")).len(), 3, "nothing is left of the parts");
}

#[test]
fn wrong_content_never_gets_a_name() {
    let env = Env::with_model();
    env.hub.fault(Rule::on(OBJECT), Fault::Corrupt { at: 5_000_000 });
    let error = env.pull().unwrap_err();
    assert_eq!(error.kind, Kind::DownloadFailed);
    assert_eq!(error.subject, "org/M: model.safetensors");
    assert!(error.message.contains("other content"), "{error}");
    assert!(!env.blob(&content(LARGE)).exists());
    env.assert_true();
    env.hub.behave();
    env.pull().unwrap();
    assert_eq!(env.read("model.safetensors"), content(LARGE));
}

#[test]
fn wrong_content_of_a_small_file_is_noticed_too() {
    let env = Env::with_model();
    env.hub.fault(Rule::on("config.json").method("GET"), Fault::Corrupt { at: 1 });
    assert!(env.pull().unwrap_err().message.contains("other content"));
    env.assert_true();
}

#[test]
fn content_that_was_wrong_once_is_fetched_once_more() {
    let env = Env::with_model();
    env.hub.fault(Rule::on(OBJECT).times(1), Fault::Corrupt { at: 77 });
    env.pull().unwrap();
    assert_eq!(env.read("model.safetensors"), content(LARGE));
}

#[test]
fn a_size_that_is_not_the_listed_one_is_refused() {
    let env = Env::with_model();
    env.pull().unwrap();
    let env = Env::with_model();
    env.hub.repo("org/M").claim_size("model.safetensors", LARGE as u64 + 10);
    let error = env.pull().unwrap_err();
    assert!(error.message.contains("bytes"), "{error}");
    assert!(!env.repo().join("refs/main").exists());
}

#[test]
fn a_hub_that_never_recovers_is_given_up() {
    let env = Env::with_model();
    env.hub.fault(Rule::on(OBJECT), Fault::Status { code: 503, retry_after: Some(0) });
    let error = env.pull().unwrap_err();
    assert!(error.message.contains("503"), "{error}");
    let env = Env::with_model();
    env.hub.fault(Rule::on("config.json"), Fault::RedirectLoop);
    assert!(env.pull().unwrap_err().message.contains("redirects in circles"));
}

#[test]
fn a_part_that_is_not_what_it_says_is_noticed() {
    let env = Env::with_model();
    let choice = Choice::default();
    let wish = Wish { id: "org/M", revision: "main", choice: &choice, bad: &[] };
    env.pull_with(wish, 9 << 20).unwrap_err();
    let parts = files(&env.repo().join("blobs"));
    let part = parts.iter().find(|path| path.to_string_lossy().ends_with(".mlxk.incomplete"));
    let part = part.unwrap();
    let length = fs::metadata(part).unwrap().len();
    fs::write(part, vec![7; length as usize]).unwrap();
    env.pull().unwrap();
    assert_eq!(env.read("model.safetensors"), content(LARGE));
}
