//! What can be made to go wrong, and with which requests.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};

/// A way to misbehave. Bytes count from the beginning of the answer's body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The connection is closed after so many bytes.
    Cut {
        /// Bytes that are still sent.
        after: u64,
    },
    /// Nothing more is sent after so many bytes; the connection stays.
    Stall {
        /// Bytes that are still sent.
        after: u64,
    },
    /// So many bytes a second.
    Slow {
        /// Bytes a second.
        rate: u64,
    },
    /// The byte at this place of the file is another one.
    Corrupt {
        /// Bytes before it in the file, also when a range is served.
        at: u64,
    },
    /// The length that is announced is more by this; the connection is closed where bytes end.
    Longer {
        /// Bytes that are announced and do not come.
        by: u64,
    },
    /// The length that is announced is less by this, and no more is sent.
    Shorter {
        /// Bytes that are kept back.
        by: u64,
    },
    /// The whole file comes, whatever range is asked for.
    IgnoreRange,
    /// The ETag is another one than before.
    NewEtag,
    /// An answer of this status and no content.
    Status {
        /// The HTTP status.
        code: u16,
        /// Seconds in a Retry-After header.
        retry_after: Option<u64>,
    },
    /// A redirect to where the request went.
    RedirectLoop,
    /// A redirect with this in its Location header.
    Redirect {
        /// The value of the header.
        to: String,
    },
    /// The body is compressed, whether that was asked for or not.
    Gzip,
    /// A byte order mark before the body.
    Bom,
    /// The answer has a link to a next page that was not there before.
    NextPage,
}

/// Which requests a fault is for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// What the path contains.
    path: String,
    /// GET, HEAD, ...; all if none.
    method: Option<String>,
    /// How many such requests are left alone first.
    after: u64,
    /// How many it is for; all if none.
    times: Option<u64>,
}

/// The faults in force.
#[derive(Default)]
pub struct Faults(Mutex<Vec<Planned>>);

struct Planned {
    rule: Rule,
    fault: Fault,
    seen: u64,
}

impl Rule {
    /// Requests whose path contains `path`. A large file's redirect and its bytes are two requests;
    /// `/objects/` is in the path of the second only.
    pub fn on(path: &str) -> Rule {
        Rule { path: path.to_string(), ..Rule::default() }
    }

    /// Only requests with this method.
    pub fn method(self, method: &str) -> Rule {
        Rule { method: Some(method.to_string()), ..self }
    }

    /// Leaves the first `requests` alone.
    pub fn after(self, requests: u64) -> Rule {
        Rule { after: requests, ..self }
    }

    /// Only so many requests.
    pub fn times(self, requests: u64) -> Rule {
        Rule { times: Some(requests), ..self }
    }

    fn selects(&self, method: &str, path: &str) -> bool {
        path.contains(&self.path) && self.method.as_ref().is_none_or(|only| only == method)
    }
}

impl Faults {
    pub fn add(&self, rule: Rule, fault: Fault) {
        self.0.lock().unwrap().push(Planned { rule, fault, seen: 0 });
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// The faults for a request, which counts as one of those that a rule selects.
    pub fn of(&self, method: &str, path: &str) -> Vec<Fault> {
        let mut planned = self.0.lock().unwrap();
        let selected = planned.iter_mut().filter(|planned| planned.rule.selects(method, path));
        selected.filter_map(Planned::meet).collect()
    }
}

impl Planned {
    fn meet(&mut self) -> Option<Fault> {
        let nth = self.seen.checked_sub(self.rule.after);
        self.seen += 1;
        nth.filter(|nth| self.rule.times.is_none_or(|times| *nth < times))
            .map(|_| self.fault.clone())
    }
}
