//! Many VMs in one call: `/v1/usage`, the newest sample of each, and `/v1/usage/range`, what each used over a time and what
//! all of them did together.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::{
    api,
    http::Views,
    problem::Problem,
    usage::{self, RangeQuery},
};
use crate::account::{
    VmState, VmView,
    past::{COLUMNS, NAMES, Past, Point, Range},
};

/// Buckets of one answer, over all VMs.
const MOST_POINTS: u64 = 250_000;

/// Parameters as they stand in the URL.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManyQuery {
    /// vm_ids, separated by commas; without it those that run.
    vms: Option<String>,
    since: Option<String>,
    until: Option<String>,
    range: Option<String>,
    resolution: Option<String>,
}

/// The newest sample of each VM that lives and has one, by vm_id.
pub async fn latest(State(views): State<Views>) -> Response {
    let snapshot = views.snapshot();
    let mut vms: Vec<_> = snapshot.vms.iter().filter(|vm| vm.end.is_none()).collect();
    vms.sort_by(|a, b| a.fixed.vm_id.cmp(&b.fixed.vm_id));
    Json(json!({ "vms": vms.iter().filter_map(|vm| newest(vm)).collect::<Vec<_>>() })).into_response()
}

fn newest(vm: &VmView) -> Option<Value> {
    let Ok(Value::Object(sample)) = serde_json::to_value(vm.latest.as_deref()?) else { return None };
    let mut all = Map::from_iter([("vm_id".to_owned(), json!(vm.fixed.vm_id))]);
    all.extend(sample);
    Some(Value::Object(all))
}

/// The past of many VMs, and their sum.
pub async fn range(State(views): State<Views>, query: Result<Query<ManyQuery>, QueryRejection>) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return Problem::parameter("query", error.body_text()).into_response(),
    };
    let ManyQuery { vms, since, until, range, resolution } = query;
    let range = match usage::resolve_now(&views, &RangeQuery { since, until, range, resolution }) {
        Ok(range) => range,
        Err(problem) => return problem.into_response(),
    };
    let ids = match asked(&views, vms.as_deref()) {
        Ok(ids) => ids,
        Err(problem) => return problem.into_response(),
    };
    let points = range.count().saturating_mul(ids.len() as u64);
    if points > MOST_POINTS {
        let why = format!("{points} points of {} VMs are asked for, {MOST_POINTS} are the most", ids.len());
        return Problem::parameter("resolution", why).into_response();
    }
    let history = Arc::clone(&views.history);
    match tokio::task::spawn_blocking(move || told(history.as_ref(), &ids, &range)).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => Problem::internal(format!("the answer was not finished: {error}")).into_response(),
    }
}

fn asked(views: &Views, vms: Option<&str>) -> Result<Vec<String>, Problem> {
    let snapshot = views.snapshot();
    let Some(vms) = vms else {
        let running = snapshot.vms.iter().filter(|vm| vm.state() != VmState::Stopped);
        let mut ids: Vec<_> = running.map(|vm| vm.fixed.vm_id.clone()).collect();
        ids.sort();
        return Ok(ids);
    };
    let mut ids: Vec<String> = Vec::new();
    for id in vms.split(',').filter(|id| !id.is_empty()) {
        if api::find(&snapshot, id).is_none() && views.history.len(id) == 0 {
            return Err(Problem::not_found(format!("no VM has the vm_id {id:?}")));
        }
        if !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
    }
    Ok(ids)
}

fn told(history: &dyn Past, ids: &[String], range: &Range) -> Value {
    let mut total = vec![[None; COLUMNS]; usize::try_from(range.count()).unwrap_or(0)];
    let mut vms = Vec::with_capacity(ids.len());
    for id in ids {
        let points = history.range(id, range).unwrap_or_else(|| range.empty());
        add(&mut total, &points);
        vms.push(json!({ "vm_id": id, "points": points.iter().map(usage::shown).collect::<Vec<_>>() }));
    }
    let mut answer = usage::head(range);
    answer.insert("vms".to_owned(), Value::Array(vms));
    answer.insert("total".to_owned(), json!({ "points": sums(range, &total) }));
    Value::Object(answer)
}

/// Means are added up; a VM that was not measured adds nothing.
fn add(total: &mut [[Option<f64>; COLUMNS]], points: &[Point]) {
    for (sums, point) in total.iter_mut().zip(points) {
        for (sum, stat) in sums.iter_mut().zip(point.values) {
            if let Some(stat) = stat {
                *sum = Some(sum.unwrap_or(0.0) + stat.mean);
            }
        }
    }
}

fn sums(range: &Range, total: &[[Option<f64>; COLUMNS]]) -> Vec<Value> {
    let one = |(point, sums): (Point, &[Option<f64>; COLUMNS])| {
        let mut object = Map::from_iter([("at".to_owned(), json!(usage::at(point.at_ms)))]);
        let each =
            NAMES.iter().zip(sums).filter_map(|(name, sum)| Some(((*name).to_owned(), json!({ "mean": (*sum)? }))));
        object.extend(each);
        Value::Object(object)
    };
    range.empty().into_iter().zip(total).map(one).collect()
}
