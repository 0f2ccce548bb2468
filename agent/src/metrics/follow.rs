//! Counts VMs that were created and destroyed, from the bus: a VM counts once its line is durable.

use super::{MetricsCollector, Shared};
use crate::{
    ledger::Kind,
    lifecycle::{Bus, Happening, Interest, Subscription},
};

/// Where the bus counts what this subscriber lost.
pub const STAGE: &str = "metrics";
/// Events that may wait: four full groups of the ledger.
const CAPACITY: usize = 4_096;

/// Subscribes to what is counted.
#[must_use]
pub fn attach(bus: &Bus) -> Subscription {
    bus.attach("metrics", STAGE, Interest::of(&[Kind::VmComputeStart, Kind::VmComputeStop]), CAPACITY)
}

/// Counts until the subscription ends.
pub async fn follow(subscription: Subscription, metrics: Shared) {
    while let Some(event) = subscription.next().await {
        match event.happening {
            Happening::Started => metrics.inc_vm_created(),
            Happening::Stopped => metrics.inc_vm_destroyed(),
            _ => {}
        }
    }
}
