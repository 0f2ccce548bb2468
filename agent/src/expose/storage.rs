//! What is stored for VMs, as the status tells it.

use super::{
    answer::{At, Nullable, answers},
    status::Feature,
};
use crate::storage::tally::{PlaceTally, Tally};

/// Pools named in a row.
const TOLD: usize = 3;

answers! {
    /// What is stored for VMs.
    struct StorageStatus {
        vms: u64 = "Disks of VMs that the ledger has open.";
        snapshots_and_images: u64 = "Snapshots and images of no VM that the ledger has open.";
        unknown: u64 = "Files of which nothing is known now.";
        lost: u64 = "Open intervals of VMs of which the ledger names no file.";
        unsettled: bool = "Whether what runs has not been asked yet.";
        pools: Vec<StoragePlace> = "Each pool.";
        outside: Nullable<StoragePlace> = "Files outside of all pools.";
    }

    /// A pool, or the files outside of all.
    struct StoragePlace {
        path: String = "Its directory; empty outside of pools.";
        state: &'static str = "watched or unknown.";
        why: Nullable<String> = "What is wrong.";
        files: u64 = "Files that are there.";
        nameless: u64 = "Files without a name that the kernel has not let go.";
        unknown: u64 = "Files of which nothing is known now.";
        unknown_files: Vec<UnknownFile> = "The first few of them.";
        looked_at: Nullable<At> = "When the newest look began.";
        look_seconds: f64 = "How long it took.";
        remote: bool = "Whether it is a network's file system, whose changes go unnoticed between two looks.";
        skipped: SkippedFiles = "What was left out.";
    }

    /// A file of which nothing is known.
    struct UnknownFile {
        path: String = "Where it is.";
        why: String = "Why.";
    }

    /// What a look left out.
    struct SkippedFiles {
        not_files: u64 = "Names that are neither files nor directories.";
        beyond_bounds: u64 = "Files and directories beyond the bounds.";
        failed: u64 = "What could not be looked at.";
        unwatched: u64 = "Files that could not be watched.";
        birthless: u64 = "Files without an instant of birth.";
    }
}

/// The section of `/v1/status`.
#[must_use]
pub fn status(tally: &Tally) -> StorageStatus {
    StorageStatus {
        vms: tally.counts.vms,
        snapshots_and_images: tally.counts.things,
        unknown: tally.counts.unknown,
        lost: tally.lost,
        unsettled: tally.unsettled,
        pools: tally.places.iter().filter(|place| !place.path.is_empty()).map(place).collect(),
        outside: Nullable(tally.places.last().map(place)),
    }
}

fn place(place: &PlaceTally) -> StoragePlace {
    let skipped = place.state.skipped;
    let file = |(path, why): &(String, String)| UnknownFile { path: path.clone(), why: why.clone() };
    let trouble = place.trouble();
    StoragePlace {
        path: place.path.clone(),
        state: if trouble.is_some() { "unknown" } else { "watched" },
        why: Nullable(trouble),
        files: place.counts.there,
        nameless: place.counts.nameless,
        unknown: place.counts.unknown,
        unknown_files: place.unknown.iter().map(file).collect(),
        looked_at: Nullable(place.looked_at.map(At::unix)),
        look_seconds: place.state.took_ns as f64 / 1e9,
        remote: place.state.remote,
        skipped: SkippedFiles {
            not_files: skipped.not_files,
            beyond_bounds: skipped.beyond,
            failed: skipped.failed,
            unwatched: skipped.unwatched,
            birthless: skipped.birthless,
        },
    }
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
