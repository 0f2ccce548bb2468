//! Views over the published snapshot: Prometheus text and the HTTP API. The only folder that imports prometheus and
//! the HTTP server. Reading changes nothing and waits for no other view. Without the cargo feature `metrics` families
//! are built of nothing and `/metrics` is not found.

pub mod agent;
pub mod annotation;
pub mod answer;
pub mod api;
pub mod catalog;
#[cfg(feature = "metrics")]
pub mod collector;
mod compress;
pub mod connection;
pub mod disk;
mod etag;
#[cfg(feature = "metrics")]
pub mod family;
#[cfg(not(feature = "metrics"))]
#[path = "family_off.rs"]
pub mod family;
pub mod fleet;
pub mod http;
mod known;
pub mod memory;
mod network;
pub mod openapi;
pub mod own_status;
pub mod page;
pub mod problem;
#[cfg(feature = "metrics")]
pub mod prometheus_metrics;
pub mod serve;
pub mod status;
pub mod storage;
pub mod stream;
pub mod usage;
pub mod vm;
pub mod web;
pub mod work;
pub mod work_detail;

#[cfg(feature = "metrics")]
pub use {collector::Collected, prometheus_metrics::PrometheusMetrics};

pub use status::Status;
