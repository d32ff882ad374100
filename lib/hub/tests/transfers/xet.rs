//! Downloads from Xet storage, with range requests as fallback.

use std::thread;

use mlxk_core::remote::Token;
use mlxk_hub::pull::{FileFilter, PullOptions};
use mlxk_testhub::{Fault, OWNER, Origin, Rule};

use crate::env::{Env, LARGE, content};

const STORAGE: &str = "/xorbs/";
const PLAIN: &str = "/objects/";

/// Size of a chunk of the test Hub in bytes; what a broken connection loses is less than a chunk.
const CHUNK: u64 = 64 << 10;

fn with_model() -> Env {
    let env = Env::with_model();
    env.hub.repo("org/M").keep_in_xet();
    env
}

fn assert_complete(env: &Env) {
    env.pull().unwrap();
    assert!(env.read("model.safetensors") == content(LARGE));
    env.assert_blobs_valid();
}

#[test]
fn files_come_from_the_storage() {
    let env = with_model();
    assert_complete(&env);
    assert_eq!(env.hub.served(PLAIN), 0);
    assert!(env.hub.served(STORAGE) > 0);
}

#[test]
fn without_xet_files_come_by_range_requests() {
    let mut env = with_model();
    env.remote.xet = false;
    assert_complete(&env);
    assert_eq!(env.hub.served(PLAIN), LARGE as u64);
}

#[test]
fn a_broken_download_resumes_at_the_last_whole_chunk() {
    let faults = [
        Fault::Cut { after: 300_000 },
        Fault::Stall { after: 300_000 },
        Fault::Longer { by: 1000 },
        Fault::Shorter { by: 1000 },
        Fault::Status { code: 500, retry_after: None },
        Fault::Status { code: 429, retry_after: Some(0) },
        Fault::IgnoreRange,
    ];
    thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || {
                let env = with_model();
                env.hub.fault(Rule::on(STORAGE).times(2), fault.clone());
                assert_complete(&env);
                assert_eq!(env.hub.served(PLAIN), 0, "{fault:?}");
            });
        }
    });
}

#[test]
fn failing_storage_falls_back_to_range_requests() {
    let refused = |code| Fault::Status { code, retry_after: Some(0) };
    let faults = [
        ("xet-read-token", refused(404)),
        ("xet-read-token", Fault::Corrupt { at: 0 }),
        ("/v1/reconstructions/", refused(401)),
        ("/v1/reconstructions/", Fault::Corrupt { at: 3 }),
        (STORAGE, refused(503)),
        (STORAGE, Fault::Cut { after: 0 }),
        (STORAGE, Fault::Corrupt { at: 0 }),
    ];
    thread::scope(|scope| {
        for (path, fault) in faults {
            scope.spawn(move || {
                let env = with_model();
                env.hub.fault(Rule::on(path), fault.clone());
                assert_complete(&env);
                assert!(env.hub.served(PLAIN) > 0, "{fault:?}");
            });
        }
    });
}

#[test]
fn wrong_content_of_storage_comes_by_range_requests() {
    let env = with_model();
    // Inside an uncompressed chunk, so that only the digest detects it.
    env.hub.fault(Rule::on(STORAGE), Fault::Corrupt { at: 1000 });
    assert_complete(&env);
    assert_eq!(env.hub.served(PLAIN), LARGE as u64);
}

#[test]
fn a_cancelled_run_is_resumed() {
    let env = with_model();
    let filter = FileFilter::default();
    let options = PullOptions { id: "org/M", revision: "main", filter: &filter, bad: &[] };
    env.pull_with(options, 9 << 20).unwrap_err();
    let whole = with_model();
    assert_complete(&whole);
    let all = whole.hub.served(STORAGE);
    env.hub.forget();
    let plan = env.pull().unwrap();
    assert!(plan.present >= 9 << 20, "{}", plan.present);
    assert!(env.read("model.safetensors") == content(LARGE));
    let share = all as f64 * (LARGE as u64 - plan.present) as f64 / LARGE as f64;
    let served = env.hub.served(STORAGE) as f64;
    assert!(served < share + 4.0 * CHUNK as f64 + 0.1 * all as f64, "{served} of {all}");
}

#[test]
fn tokens_are_sent_only_to_their_issuers() {
    let mut env = with_model();
    env.remote.token = Token::new(OWNER);
    assert_complete(&env);
    for request in env.hub.requests() {
        let shown = request.authorization.as_deref();
        match request.origin {
            Origin::Api => assert_eq!(shown, Some(&*format!("Bearer {OWNER}"))),
            Origin::Storage if request.path.starts_with("/v1/") => {
                assert_eq!(shown, Some("Bearer xet-token"));
            }
            Origin::Storage => assert_eq!(shown, None),
        }
    }
}
