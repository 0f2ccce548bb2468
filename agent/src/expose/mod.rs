//! Views over the published snapshot: Prometheus text and the HTTP API. The only folder that imports prometheus and
//! the HTTP server. Reading changes nothing and waits for no other view.

pub mod agent;
pub mod annotation;
pub mod api;
pub mod catalog;
pub mod collector;
pub mod disk;
pub mod family;
pub mod http;
pub mod memory;
mod network;
pub mod problem;
pub mod serve;
pub mod status;
pub mod storage;
pub mod usage;
pub mod vm;
pub mod work;
pub mod work_detail;

pub use collector::Collected;
pub use status::Status;
