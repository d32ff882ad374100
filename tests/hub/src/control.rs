//! How another process tells the Hub to misbehave and reads what happened: routes below `/_hub`.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

use crate::Shared;
use crate::fault::{Fault, Rule};
use crate::log::Request;

#[derive(Deserialize)]
struct Plan {
    #[serde(flatten)]
    rule: Rule,
    fault: Fault,
}

pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/_hub/requests", get(requests).delete(forget))
        .route("/_hub/faults", axum::routing::post(fault).delete(behave))
}

async fn requests(State(hub): State<Shared>) -> Json<Vec<Request>> {
    Json(hub.log.requests())
}

async fn forget(State(hub): State<Shared>) {
    hub.log.clear();
}

async fn fault(State(hub): State<Shared>, Json(plan): Json<Plan>) {
    hub.faults.add(plan.rule, plan.fault);
}

async fn behave(State(hub): State<Shared>) {
    hub.faults.clear();
}
