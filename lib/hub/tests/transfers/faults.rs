//! Connections that break, stall, or bring wrong bytes.

use std::fs;
use std::thread;

use mlxk_core::Kind;
use mlxk_hub::pull::{FileFilter, PullOptions};
use mlxk_testhub::{Fault, Rule};

use crate::env::{Env, LARGE, content, files};

const OBJECT: &str = "/objects/";

#[test]
fn a_broken_download_resumes_where_it_stopped() {
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
            scope.spawn(move || assert_survives(fault));
        }
    });
}

fn assert_survives(fault: Fault) {
    let env = Env::with_model();
    env.hub.fault(Rule::on(OBJECT).times(2), fault.clone());
    env.pull().unwrap_or_else(|e| panic!("{fault:?}: {e}"));
    assert_eq!(env.read("model.safetensors"), content(LARGE), "{fault:?}");
    if !matches!(fault, Fault::IgnoreRange | Fault::Longer { .. }) {
        // Bytes in flight when the connection breaks are lost.
        let (served, most) = (env.hub.served(OBJECT), LARGE as u64 + 100_000);
        assert!(served <= most, "{fault:?}: {served}");
    }
    env.assert_blobs_valid();
}

#[test]
fn a_server_without_range_support_is_enough() {
    let env = Env::with_model();
    env.hub.fault(Rule::on(OBJECT), Fault::IgnoreRange);
    env.pull().unwrap();
    assert_eq!(env.read("model.safetensors"), content(LARGE));
}

#[test]
fn a_cancelled_run_is_resumed() {
    let env = Env::with_model();
    let filter = FileFilter::default();
    let options = PullOptions { id: "org/M", revision: "main", filter: &filter, bad: &[] };
    let error = env.pull_with(options, 9 << 20).unwrap_err();
    assert_eq!(error.message, "interrupted");
    assert!(!env.repo().join("refs/main").exists());
    assert!(files(&env.repo().join("snapshots")).is_empty(), "no snapshot before it is whole");
    env.assert_blobs_valid();
    env.hub.forget();
    let plan = env.pull().unwrap();
    assert!(plan.present >= 9 << 20, "{}", plan.present);
    assert_eq!(env.hub.served(OBJECT), LARGE as u64 - plan.present, "only what was missing");
    assert_eq!(env.read("model.safetensors"), content(LARGE));
    assert_eq!(files(&env.repo().join("blobs")).len(), 3, "nothing is left of the parts");
}

#[test]
fn wrong_content_is_never_published() {
    let env = Env::with_model();
    env.hub.fault(Rule::on(OBJECT), Fault::Corrupt { at: 5_000_000 });
    let error = env.pull().unwrap_err();
    assert_eq!(error.kind, Kind::DownloadFailed);
    assert_eq!(error.subject, "org/M: model.safetensors");
    assert!(error.message.contains("other content"), "{error}");
    assert!(!env.blob(&content(LARGE)).exists());
    env.assert_blobs_valid();
    env.hub.behave();
    env.pull().unwrap();
    assert_eq!(env.read("model.safetensors"), content(LARGE));
}

#[test]
fn wrong_content_of_a_small_file_is_detected() {
    let env = Env::with_model();
    env.hub.fault(Rule::on("config.json").method("GET"), Fault::Corrupt { at: 1 });
    assert!(env.pull().unwrap_err().message.contains("other content"));
    env.assert_blobs_valid();
}

#[test]
fn content_that_fails_verification_is_fetched_once_more() {
    let env = Env::with_model();
    env.hub.fault(Rule::on(OBJECT).times(1), Fault::Corrupt { at: 77 });
    env.pull().unwrap();
    assert_eq!(env.read("model.safetensors"), content(LARGE));
}

#[test]
fn a_size_mismatch_is_refused() {
    let env = Env::with_model();
    env.pull().unwrap();
    let env = Env::with_model();
    env.hub.repo("org/M").claim_size("model.safetensors", LARGE as u64 + 10);
    let error = env.pull().unwrap_err();
    assert!(error.message.contains("bytes"), "{error}");
    assert!(!env.repo().join("refs/main").exists());
}

#[test]
fn retries_end_if_the_hub_never_recovers() {
    let env = Env::with_model();
    env.hub.fault(Rule::on(OBJECT), Fault::Status { code: 503, retry_after: Some(0) });
    let error = env.pull().unwrap_err();
    assert!(error.message.contains("503"), "{error}");
    let env = Env::with_model();
    env.hub.fault(Rule::on("config.json"), Fault::RedirectLoop);
    assert!(env.pull().unwrap_err().message.contains("redirects in circles"));
}

#[test]
fn a_corrupted_partial_download_is_detected() {
    let env = Env::with_model();
    let filter = FileFilter::default();
    let options = PullOptions { id: "org/M", revision: "main", filter: &filter, bad: &[] };
    env.pull_with(options, 9 << 20).unwrap_err();
    let parts = files(&env.repo().join("blobs"));
    let part = parts.iter().find(|path| path.to_string_lossy().ends_with(".mlxk.incomplete"));
    let part = part.unwrap();
    let length = fs::metadata(part).unwrap().len();
    fs::write(part, vec![7; length as usize]).unwrap();
    env.pull().unwrap();
    assert_eq!(env.read("model.safetensors"), content(LARGE));
}

#[test]
fn answers_may_be_compressed_or_begin_with_a_byte_order_mark() {
    let env = Env::with_model();
    env.hub.fault(Rule::on(""), Fault::Gzip);
    env.hub.fault(Rule::on("/revision/"), Fault::Bom);
    env.hub.fault(Rule::on("/tree/"), Fault::Bom);
    env.pull().unwrap();
    env.assert_blobs_valid();
    assert_eq!(env.read("model.safetensors"), content(LARGE));
}

#[test]
fn a_redirect_may_be_relative() {
    let env = Env::with_model();
    for to in ["config.json", "?again", "./sub/../config.json"] {
        let redirect = Fault::Redirect { to: to.into() };
        env.hub.fault(Rule::on("/config.json").times(1), redirect);
        env.hub.repo("org/M").file("config.json", format!("{{\"{to}\": 1}}"));
        env.pull().unwrap();
        env.hub.behave();
    }
}
