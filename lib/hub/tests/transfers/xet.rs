//! Files from Xet storage, and by plain ranges where that fails.

use std::thread;

use mlxk_core::remote::Token;
use mlxk_hub::pull::{Choice, Wish};
use mlxk_testhub::{Fault, OWNER, Origin, Rule};

use crate::env::{Env, LARGE, content};

const STORAGE: &str = "/xorbs/";
const PLAIN: &str = "/objects/";

/// A chunk of the test Hub: less than that of a packing may be lost where a connection breaks.
const CHUNK: u64 = 64 << 10;

fn with_model() -> Env {
    let env = Env::with_model();
    env.hub.repo("org/M").keep_in_xet();
    env
}

fn is_whole(env: &Env) {
    env.pull().unwrap();
    assert!(env.read("model.safetensors") == content(LARGE));
    env.assert_true();
}

#[test]
fn files_come_from_the_storage() {
    let env = with_model();
    is_whole(&env);
    assert_eq!(env.hub.served(PLAIN), 0);
    assert!(env.hub.served(STORAGE) > 0);
}

#[test]
fn who_wants_no_xet_gets_plain_ranges() {
    let mut env = with_model();
    env.remote.xet = false;
    is_whole(&env);
    assert_eq!(env.hub.served(PLAIN), LARGE as u64);
}

#[test]
fn what_breaks_goes_on_from_the_last_whole_chunk() {
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
                is_whole(&env);
                assert_eq!(env.hub.served(PLAIN), 0, "{fault:?}");
            });
        }
    });
}

#[test]
fn a_storage_that_fails_gives_way_to_plain_ranges() {
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
                is_whole(&env);
                assert!(env.hub.served(PLAIN) > 0, "{fault:?}");
            });
        }
    });
}

#[test]
fn content_that_the_storage_has_wrong_comes_by_plain_ranges() {
    let env = with_model();
    // Within a chunk that is not packed, so that nothing but the digest can tell.
    env.hub.fault(Rule::on(STORAGE), Fault::Corrupt { at: 1000 });
    is_whole(&env);
    assert_eq!(env.hub.served(PLAIN), LARGE as u64);
}

#[test]
fn a_run_that_was_ended_is_gone_on_with() {
    let env = with_model();
    let choice = Choice::default();
    let wish = Wish { id: "org/M", revision: "main", choice: &choice, bad: &[] };
    env.pull_with(wish, 9 << 20).unwrap_err();
    let whole = with_model();
    is_whole(&whole);
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
fn tokens_are_shown_to_those_who_gave_them() {
    let mut env = with_model();
    env.remote.token = Token::new(OWNER);
    is_whole(&env);
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
