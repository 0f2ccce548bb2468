//! `/v1/vms/{vm_id}/usage` and `/v1/vms/{vm_id}/usage/range`: what a VM uses, and used over a time, in buckets.

use axum::{
    Json,
    extract::{
        Path as UrlPath, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::ser::SerializeMap as _;
use serde_json::Value;

use super::{
    answer::{self, At, Described, answers},
    api,
    http::{Views, not_text, unknown},
    problem::Problem,
};
use crate::{
    account::past::{COLUMNS, NAMES, Point, Range, RangeError, Stat},
    clock::{self, rfc3339},
};

/// What is answered where neither `since` nor `range` is given.
const DEFAULT_MS: u64 = 3_600_000;

/// Parameters as they stand in the URL. Others than these are refused: a misspelt one must not give another answer
/// than was asked for.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeQuery {
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
    pub(super) range: Option<String>,
    pub(super) resolution: Option<String>,
}

/// The newest sample; 204 where there is none yet.
pub async fn latest(State(views): State<Views>, vm_id: Result<UrlPath<String>, PathRejection>) -> Response {
    let Ok(UrlPath(vm_id)) = vm_id else { return not_text() };
    let snapshot = views.snapshot();
    match api::find(&snapshot, &vm_id) {
        Some(vm) => match &vm.latest {
            Some(sample) => Json(sample.as_ref()).into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        },
        None => unknown(&vm_id),
    }
}

/// One VM's past.
pub async fn range(
    State(views): State<Views>,
    vm_id: Result<UrlPath<String>, PathRejection>,
    query: Result<Query<RangeQuery>, QueryRejection>,
) -> Response {
    let Ok(UrlPath(vm_id)) = vm_id else { return not_text() };
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return Problem::parameter("query", error.body_text()).into_response(),
    };
    let range = match resolve_now(&views, &query) {
        Ok(range) => range,
        Err(problem) => return problem.into_response(),
    };
    // A week takes milliseconds to unpack: not on a thread that serves others meanwhile.
    let history = std::sync::Arc::clone(&views.history);
    let asked = vm_id.clone();
    let found = tokio::task::spawn_blocking(move || history.range(&asked, &range)).await;
    let points = match found {
        Ok(Some(points)) => points,
        // A VM that has no sample yet is no error: all its buckets are empty.
        Ok(None) if api::find(&views.snapshot(), &vm_id).is_some() => range.empty(),
        Ok(None) => return unknown(&vm_id),
        Err(error) => return Problem::internal(format!("the answer was not finished: {error}")).into_response(),
    };
    Json(VmPast {
        vm: VmNamed { vm_id },
        span: span(&range),
        points: VmPoints { points: points.iter().map(shown).collect() },
    })
    .into_response()
}

answers! {
    /// A VM's past.
    struct VmPast {
        ..vm: VmNamed,
        ..span: Span,
        ..points: VmPoints,
    }

    /// Whose it is.
    struct VmNamed {
        vm_id: String = "The VM.";
    }

    /// What an answer covers.
    struct Span {
        since: At = "From when on, itself excluded.";
        until: At = "Up to when.";
        resolution_seconds: u64 = "The length of a bucket.";
    }

    /// What a VM used.
    struct VmPoints {
        points: Vec<Bucket> = "Each bucket, aligned to the epoch; one without samples has count 0 and nothing else.";
    }

    /// What one value did in a bucket.
    struct Course {
        mean: f64 = "The mean of the samples that have it.";
        min: f64 = "The least.";
        max: f64 = "The most.";
        last: f64 = "That of the latest sample.";
    }
}

/// One bucket: where it begins, how many samples it has, and each value that they have.
#[derive(Clone, Debug)]
pub struct Bucket {
    at: At,
    count: u64,
    values: [Option<Course>; COLUMNS],
}

impl serde::Serialize for Bucket {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("at", &self.at)?;
        map.serialize_entry("count", &self.count)?;
        for (name, value) in NAMES.iter().zip(&self.values) {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

impl Described for Bucket {
    fn schema() -> Value {
        let mut keys =
            vec![("at", "Where it begins.", At::schema(), true), ("count", "Samples in it.", u64::schema(), true)];
        keys.extend(NAMES.map(|name| (name, "As in a sample.", Course::schema(), false)));
        answer::object(keys)
    }
}

/// What an answer covers.
pub(super) fn span(range: &Range) -> Span {
    Span {
        since: At(at(range.since_ms)),
        until: At(at(range.until_ms)),
        resolution_seconds: range.resolution_ms / 1_000,
    }
}

/// What is asked for, at this time and with the interval now in force.
pub(super) fn resolve_now(views: &Views, query: &RangeQuery) -> Result<Range, Problem> {
    let now = clock::now().map_err(|error| Problem::internal(format!("the clock cannot be read: {error}")))?;
    resolve(query, now.unix_ns / 1_000_000, *views.history_ns.borrow() / 1_000_000)
}

pub(super) fn shown(point: &Point) -> Bucket {
    let course = |stat: Stat| Course { mean: stat.mean, min: stat.min, max: stat.max, last: stat.last };
    Bucket { at: At(at(point.at_ms)), count: point.count, values: point.values.map(|stat| stat.map(course)) }
}

pub(super) fn at(unix_ms: u64) -> String {
    rfc3339(unix_ms.saturating_mul(1_000_000))
}

/// What is asked for, with what is not said filled in; `interval_ms` lies between two samples.
fn resolve(query: &RangeQuery, now_ms: u64, interval_ms: u64) -> Result<Range, Problem> {
    let until_ms = query.until.as_deref().map_or(Ok(now_ms), |text| instant("until", text))?;
    let since_ms = match (&query.since, &query.range) {
        (Some(_), Some(_)) => {
            let both = "give since or range, not both: range is the time before until";
            return Err(Problem::parameter("range", both.to_owned()));
        }
        (Some(since), None) => instant("since", since)?,
        (None, Some(range)) => until_ms.saturating_sub(length("range", range)?),
        (None, None) => until_ms.saturating_sub(DEFAULT_MS),
    };
    let resolution_ms = match query.resolution.as_deref() {
        None | Some("auto") => None,
        Some(text) => Some(length("resolution", text)?),
    };
    if let Some(part) = resolution_ms.filter(|ms| ms % 1_000 != 0) {
        let why = format!("resolution must be whole seconds, not {part} ms");
        return Err(Problem::parameter("resolution", why));
    }
    Range::new(since_ms, until_ms, resolution_ms, interval_ms).map_err(|error| {
        let parameter = match error {
            RangeError::Empty => "since",
            RangeError::TooMany { .. } | RangeError::Resolution => "resolution",
        };
        Problem::parameter(parameter, error.to_string())
    })
}

/// RFC 3339 or Unix seconds, in milliseconds.
fn instant(parameter: &'static str, text: &str) -> Result<u64, Problem> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..1e11).contains(seconds));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked above")]
    let from_seconds = seconds.map(|seconds| (seconds * 1e3).round() as u64);
    let from_text = || clock::parse_rfc3339(text).map(|ns| ns / 1_000_000);
    from_seconds.or_else(from_text).ok_or_else(|| {
        let why = format!("{parameter}={text:?} is neither an RFC 3339 time in UTC nor Unix seconds");
        Problem::parameter(parameter, why)
    })
}

/// A length such as `10s` or `7d`, in milliseconds.
fn length(parameter: &'static str, text: &str) -> Result<u64, Problem> {
    let parsed = humantime::parse_duration(text).ok().and_then(|length| u64::try_from(length.as_millis()).ok());
    parsed.filter(|ms| *ms > 0).ok_or_else(|| {
        let why = format!("{parameter}={text:?} is no length of time such as 10s, 5m or 7d");
        Problem::parameter(parameter, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: u64 = 1_700_000_000_000;

    fn asked(since: Option<&str>, until: Option<&str>, range: Option<&str>, resolution: Option<&str>) -> RangeQuery {
        let own = |text: Option<&str>| text.map(str::to_owned);
        RangeQuery { since: own(since), until: own(until), range: own(range), resolution: own(resolution) }
    }

    #[test]
    fn what_is_not_said_is_the_last_hour_in_about_120_points() {
        let range = resolve(&RangeQuery::default(), NOW, 10_000).unwrap();
        assert_eq!((range.since_ms, range.until_ms, range.resolution_ms), (NOW - 3_600_000, NOW, 30_000));
    }

    #[test]
    fn times_are_rfc_3339_or_unix_seconds() {
        for text in ["1699999000", "1699999000.0", "2023-11-14T21:56:40Z"] {
            let range = resolve(&asked(Some(text), None, None, Some("10s")), NOW, 10_000).unwrap();
            assert_eq!(range.since_ms, 1_699_999_000_000, "{text}");
        }
    }

    #[test]
    fn a_bad_parameter_is_named() {
        let cases = [
            (asked(Some("x"), None, None, None), "since"),
            (asked(None, Some("-1"), None, None), "until"),
            (asked(None, None, Some("0s"), None), "range"),
            (asked(Some("1"), None, Some("1h"), None), "range"),
            (asked(None, None, None, Some("1500ms")), "resolution"),
            (asked(None, None, Some("365d"), Some("1s")), "resolution"),
            (asked(Some("1700000001"), None, None, None), "since"),
        ];
        for (query, due) in cases {
            let problem = serde_json::to_value(resolve(&query, NOW, 10_000).unwrap_err()).unwrap();
            assert_eq!((&problem["parameter"], &problem["status"]), (&json!(due), &json!(400)), "{query:?}");
        }
    }

    proptest! {
        #[test]
        fn no_parameter_panics(since in "\\PC{0,20}", range in "\\PC{0,12}", resolution in "[0-9a-z]{0,9}") {
            let _ = resolve(&asked(Some(&since), None, None, Some(&resolution)), NOW, 10_000);
            let _ = resolve(&asked(None, None, Some(&range), None), NOW, 10_000);
        }
    }
}
