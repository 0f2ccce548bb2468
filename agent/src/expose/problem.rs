//! Errors as HTTP shows them: `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;

use super::answer::{self, Described};

/// One error.
#[derive(Debug, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<Cow<'static, str>>,
}

impl Described for Problem {
    fn schema() -> Value {
        answer::object(vec![
            ("type", "about:blank: the status says it.", String::schema(), true),
            ("title", "The status in words.", String::schema(), true),
            ("status", "The status.", u32::schema(), true),
            ("detail", "What is wrong, and what to do.", String::schema(), true),
            ("parameter", "The parameter that cannot be used.", String::schema(), false),
        ])
    }
}

impl Problem {
    /// No such thing; `detail` says which.
    #[must_use]
    pub fn not_found(detail: String) -> Self {
        Self { kind: "about:blank", title: "Not Found", status: 404, detail, parameter: None }
    }

    /// A parameter that cannot be used.
    #[must_use]
    pub fn parameter(parameter: &'static str, detail: String) -> Self {
        Self { kind: "about:blank", title: "Bad Request", status: 400, detail, parameter: Some(parameter.into()) }
    }

    /// The same of a parameter whose name came with the request.
    #[must_use]
    pub fn named(parameter: String, detail: String) -> Self {
        Self { parameter: Some(parameter.into()), ..Self::parameter("", detail) }
    }

    /// Not without saying who asks.
    #[must_use]
    pub fn unauthorized(detail: String) -> Self {
        Self { kind: "about:blank", title: "Unauthorized", status: 401, detail, parameter: None }
    }

    /// Not for this peer.
    #[must_use]
    pub fn forbidden(detail: String) -> Self {
        Self { kind: "about:blank", title: "Forbidden", status: 403, detail, parameter: None }
    }

    /// The agent cannot answer now.
    #[must_use]
    pub fn unavailable(detail: String) -> Self {
        Self { kind: "about:blank", title: "Service Unavailable", status: 503, detail, parameter: None }
    }

    /// The rest of the request did not come.
    #[must_use]
    pub fn late(detail: String) -> Self {
        Self { kind: "about:blank", title: "Request Timeout", status: 408, detail, parameter: None }
    }

    /// The agent failed.
    #[must_use]
    pub fn internal(detail: String) -> Self {
        Self { kind: "about:blank", title: "Internal Server Error", status: 500, detail, parameter: None }
    }

    /// Wrong method.
    #[must_use]
    pub fn method(detail: String) -> Self {
        Self { kind: "about:blank", title: "Method Not Allowed", status: 405, detail, parameter: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}
