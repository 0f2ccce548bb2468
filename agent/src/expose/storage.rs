//! What is stored for VMs, as the status tells it.

use serde_json::{Value, json};

use super::status::Feature;
use crate::{
    clock::rfc3339,
    storage::tally::{PlaceTally, Tally},
};

/// Pools named in a row.
const TOLD: usize = 3;

/// The section of `/v1/status`.
#[must_use]
pub fn status(tally: &Tally) -> Value {
    let outside = tally.places.last().map(place);
    let pools: Vec<Value> = tally.places.iter().filter(|place| !place.path.is_empty()).map(place).collect();
    json!({
        "vms": tally.counts.vms, "snapshots_and_images": tally.counts.things, "unknown": tally.counts.unknown,
        "lost": tally.lost, "unsettled": tally.unsettled, "pools": pools, "outside": outside,
    })
}

fn place(place: &PlaceTally) -> Value {
    let skipped = place.state.skipped;
    let unknown: Vec<Value> = place.unknown.iter().map(|(path, why)| json!({"path": path, "why": why})).collect();
    json!({
        "path": place.path,
        "state": if place.trouble().is_some() { "unknown" } else { "watched" },
        "why": place.trouble(),
        "files": place.counts.there, "nameless": place.counts.nameless, "unknown": place.counts.unknown,
        "unknown_files": unknown,
        "looked_at": place.looked_at.map(rfc3339),
        "look_seconds": place.state.took_ns as f64 / 1e9,
        "remote": place.state.remote,
        "skipped": {
            "not_files": skipped.not_files, "beyond_bounds": skipped.beyond, "failed": skipped.failed,
            "unwatched": skipped.unwatched, "birthless": skipped.birthless,
        },
    })
}

/// Whether all pools are looked after; nothing where none is configured and nothing is out of sight.
#[must_use]
pub fn feature(tally: &Tally) -> Option<Feature> {
    let trouble: Vec<String> = tally
        .places
        .iter()
        .filter_map(|place| {
            let name = if place.path.is_empty() { "outside of pools" } else { place.path.as_str() };
            Some(format!("{name}: {}", place.trouble()?))
        })
        .collect();
    if trouble.is_empty() && tally.places.len() < 2 {
        return None;
    }
    let more = if trouble.len() > TOLD { "; …" } else { "" };
    let fine = trouble.is_empty();
    Some(Feature {
        name: "storage_pools".to_owned(),
        available: fine,
        gives: "storage of images and snapshots, from their beginning to their deletion".to_owned(),
        why: trouble.into_iter().take(TOLD).collect::<Vec<_>>().join("; ") + more,
        advice: if fine {
            String::new()
        } else {
            "mount what is missing: its storage goes on in the ledger until it is seen to be gone".to_owned()
        },
    })
}
