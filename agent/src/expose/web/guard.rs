//! What each request over TCP passes before it is answered, and each answer before it goes.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{Web, users::Verdict};
use crate::expose::problem::Problem;

/// By the rules in force now, whatever they were when the connection began.
pub(in crate::expose) async fn guard(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let rules = web.rules();
    let mut response = match rules.users.judge(request.headers()).await {
        Verdict::Welcome => next.run(request).await,
        Verdict::Unknown => {
            let mut response = Problem::unauthorized("a user and a password are asked for".to_owned()).into_response();
            let basic = HeaderValue::from_static("Basic realm=\"kvmeter\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
            response
        }
        Verdict::Busy => {
            let why = "too many passwords wait to be checked".to_owned();
            let mut response = Problem::unavailable(why).into_response();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
    };
    for (name, value) in &rules.headers {
        response.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    response
}
