//! Where a VM's workload is asked for its own metrics, and what was found there: the words that views show.

use serde::Serialize;

/// One VM's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// As the label has it.
    pub address: String,
    /// The metric that requests are counted in; absent if there is none of those looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<String>,
    /// The metric of their latency, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// Why there is no signal now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
