//! Many VMs in one call: `/v1/usage`, the newest sample of each, and `/v1/usage/range`, what each used over a time and what
//! all of them did together.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use serde::ser::SerializeMap as _;
use serde_json::Value;

use super::{
    answer::{self, At, Described, answers},
    api,
    http::Views,
    problem::Problem,
    usage::{self, RangeQuery, Span, VmNamed, VmPoints},
};
use crate::account::{
    VmState, VmView,
    past::{COLUMNS, NAMES, Past, Point, Range},
    snapshot::Sample,
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
    Json(Newest { vms: vms.iter().filter_map(|vm| newest(vm)).collect() }).into_response()
}

answers! {
    /// The newest sample of each VM that lives and has one, by vm_id.
    struct Newest<'a> {
        vms: Vec<VmSample<'a>> = "Each VM's.";
    }

    /// What many VMs used, and all of them together.
    struct ManyPast {
        ..span: Span,
        ..vms: ManyPoints,
    }

    /// What each VM used.
    struct ManyPoints {
        vms: Vec<VmBuckets> = "Each VM's buckets.";
        total: Total = "All of them together.";
    }

    /// What one VM used.
    struct VmBuckets {
        ..vm: VmNamed,
        ..points: VmPoints,
    }

    /// Sums over VMs.
    struct Total {
        points: Vec<Sum> = "Each bucket.";
    }

    /// The sum of means.
    struct Mean {
        mean: f64 = "Of those that were measured.";
    }
}

/// A sample and whose it is.
#[derive(Clone, Debug)]
pub struct VmSample<'a> {
    vm_id: &'a str,
    sample: &'a Sample,
}

impl serde::Serialize for VmSample<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Flat<'a> {
            vm_id: &'a str,
            #[serde(flatten)]
            sample: &'a Sample,
        }
        Flat { vm_id: self.vm_id, sample: self.sample }.serialize(serializer)
    }
}

impl Described for VmSample<'_> {
    fn schema() -> Value {
        let mut keys = vec![("vm_id", "The VM.", String::schema(), true)];
        keys.extend(sample_keys());
        answer::object(keys)
    }
}

impl Described for Sample {
    fn schema() -> Value {
        answer::object(sample_keys())
    }
}

/// The keys of a sample: its instant, and the columns of the history.
fn sample_keys() -> Vec<(&'static str, &'static str, Value, bool)> {
    let column = |name: &'static str| {
        let schema = if name.ends_with("_bytes") { u64::schema() } else { f64::schema() };
        let help = match name {
            "cpu_percent" => "CPU use, 100 = one core.",
            "cpu_delay_percent" => "Time runnable but not running, 100 = one thread waiting all the time.",
            "memory_used_bytes" => "Resident memory, hugetlb included.",
            "memory_limit_bytes" => "Configured memory.",
            "network_in_bytes_per_sec" => "Bytes into the guest, a second.",
            "network_out_bytes_per_sec" => "Bytes out of the guest, a second.",
            "disk_read_bytes_per_sec" => "Bytes read from storage, a second.",
            "disk_write_bytes_per_sec" => "Bytes written to storage, a second.",
            "requests_per_sec" => "Requests a second, as the workload says.",
            "latency_p95_ms" => "The 95th percentile of their latency, as the workload says.",
            _ => "A value of that time.",
        };
        (name, help, schema, false)
    };
    let at = ("at", "When it was taken.", At::schema(), true);
    [at].into_iter().chain(NAMES.map(column)).collect()
}

/// A bucket of the total: where it begins, and each value that any VM has.
#[derive(Clone, Debug)]
pub struct Sum {
    at: At,
    values: [Option<Mean>; COLUMNS],
}

impl serde::Serialize for Sum {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("at", &self.at)?;
        for (name, value) in NAMES.iter().zip(&self.values) {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

impl Described for Sum {
    fn schema() -> Value {
        let mut keys = vec![("at", "Where it begins.", At::schema(), true)];
        keys.extend(NAMES.map(|name| (name, "As in a sample.", Mean::schema(), false)));
        answer::object(keys)
    }
}

fn newest(vm: &VmView) -> Option<VmSample<'_>> {
    Some(VmSample { vm_id: &vm.fixed.vm_id, sample: vm.latest.as_deref()? })
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

fn told(history: &dyn Past, ids: &[String], range: &Range) -> ManyPast {
    let mut total = vec![[None; COLUMNS]; usize::try_from(range.count()).unwrap_or(0)];
    let mut vms = Vec::with_capacity(ids.len());
    for id in ids {
        let points = history.range(id, range).unwrap_or_else(|| range.empty());
        add(&mut total, &points);
        let points = VmPoints { points: points.iter().map(usage::shown).collect() };
        vms.push(VmBuckets { vm: VmNamed { vm_id: id.clone() }, points });
    }
    let total = Total { points: sums(range, &total) };
    ManyPast { span: usage::span(range), vms: ManyPoints { vms, total } }
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

fn sums(range: &Range, total: &[[Option<f64>; COLUMNS]]) -> Vec<Sum> {
    let one = |(point, sums): (Point, &[Option<f64>; COLUMNS])| Sum {
        at: At(usage::at(point.at_ms)),
        values: sums.map(|sum| sum.map(|mean| Mean { mean })),
    };
    range.empty().into_iter().zip(total).map(one).collect()
}
