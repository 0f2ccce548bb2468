//! Which questions there are.

/// What may be in an answer.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// JSON of this component.
    Json(&'static str),
    /// Text of this type.
    Text(&'static str),
}

/// A parameter: its name, where it stands, its schema's type, and what it means.
pub(super) type Parameter = (&'static str, &'static str, &'static str, &'static str);

/// One question.
pub(super) struct Question {
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) parameters: &'static [Parameter],
    pub(super) body: Body,
    /// Statuses beside 200 and what they mean; an error's body is a problem.
    pub(super) more: &'static [(&'static str, &'static str)],
}

const VM_ID: Parameter = ("vm_id", "path", "string", "The VM's vm_id.");
const SINCE: Parameter = ("since", "query", "string", "From when on: RFC 3339 or Unix seconds.");
const UNTIL: Parameter = ("until", "query", "string", "Up to when, likewise; now if absent.");
const RANGE: Parameter =
    ("range", "query", "string", "The time before until instead of since, such as 10s, 5m, 7d; 1h if absent.");
const RESOLUTION: Parameter =
    ("resolution", "query", "string", "Length of a bucket, such as 10s; auto, about 120 buckets, if absent.");
const LAST: Parameter =
    ("Last-Event-ID", "header", "string", "The id of the last event that was seen, to go on behind it.");
const UNKNOWN: (&str, &str) = ("404", "There is no such VM.");
const BAD: (&str, &str) = ("400", "A parameter cannot be used; it is named.");
const FULL: (&str, &str) = ("503", "Too many streams are open.");

pub(super) const QUESTIONS: [Question; 12] = [
    Question {
        path: "/metrics",
        id: "metrics",
        summary: "Everything in Prometheus' text format; docs/metrics.md lists it.",
        parameters: &[],
        body: Body::Text("text/plain"),
        more: &[],
    },
    Question {
        path: "/healthz",
        id: "health",
        summary: "Whether samples are taken and lines written.",
        parameters: &[],
        body: Body::Text("text/plain"),
        more: &[("503", "Not so; the detail says why.")],
    },
    Question {
        path: "/v1/status",
        id: "status",
        summary: "How the agent is, what it can measure, and what was lost.",
        parameters: &[],
        body: Body::Json("AgentStatus"),
        more: &[],
    },
    Question {
        path: "/v1/vms",
        id: "vms",
        summary: "The VMs.",
        parameters: &[("detail", "query", "boolean", "Everything known of each VM instead of the short form.")],
        body: Body::Json("VmList"),
        more: &[("304", "It is what the ETag in If-None-Match stands for."), BAD],
    },
    Question {
        path: "/v1/vms/{vm_id}",
        id: "vm",
        summary: "All that is known of a VM's newest life.",
        parameters: &[VM_ID],
        body: Body::Json("VmDetail"),
        more: &[UNKNOWN],
    },
    Question {
        path: "/v1/vms/{vm_id}/usage",
        id: "usage",
        summary: "A VM's newest sample.",
        parameters: &[VM_ID],
        body: Body::Json("Sample"),
        more: &[("204", "There is none yet."), UNKNOWN],
    },
    Question {
        path: "/v1/vms/{vm_id}/usage/range",
        id: "usage_range",
        summary: "A VM's past in buckets.",
        parameters: &[VM_ID, SINCE, UNTIL, RANGE, RESOLUTION],
        body: Body::Json("VmPast"),
        more: &[BAD, UNKNOWN],
    },
    Question {
        path: "/v1/vms/{vm_id}/usage/stream",
        id: "usage_stream",
        summary: "A VM's samples as they are taken: `sample`, whose id is Unix ms, `dropped` {count}, `end`.",
        parameters: &[VM_ID, LAST],
        body: Body::Text("text/event-stream"),
        more: &[BAD, UNKNOWN, FULL],
    },
    Question {
        path: "/v1/events",
        id: "events",
        summary: "Ledger lines as they become durable: the event is the line's kind, its id the line's seq.",
        parameters: &[("kinds", "query", "string", "Kinds, separated by commas; all but heartbeats if absent."), LAST],
        body: Body::Text("text/event-stream"),
        more: &[BAD, FULL],
    },
    Question {
        path: "/v1/usage",
        id: "usage_of_all",
        summary: "The newest sample of each VM that lives and has one.",
        parameters: &[],
        body: Body::Json("Newest"),
        more: &[],
    },
    Question {
        path: "/v1/usage/range",
        id: "usage_range_of_many",
        summary: "The past of many VMs, and their sum.",
        parameters: &[
            ("vms", "query", "string", "vm_ids, separated by commas; those that run if absent."),
            SINCE,
            UNTIL,
            RANGE,
            RESOLUTION,
        ],
        body: Body::Json("ManyPast"),
        more: &[BAD, UNKNOWN],
    },
    Question {
        path: "/v1/openapi.json",
        id: "openapi",
        summary: "This document.",
        parameters: &[],
        body: Body::Text("application/json"),
        more: &[("304", "It is what the ETag in If-None-Match stands for.")],
    },
];
