//! Whether the agent does its work: pure judgement over a snapshot.

use crate::account::Snapshot;

/// Samples that may be late before the loop counts as stuck.
const LATE: u64 = 10;
/// The least patience, nanoseconds.
const PATIENCE_NS: u64 = 5_000_000_000;

/// Fine, or what is wrong.
///
/// # Errors
/// A sentence for a person.
pub fn check(snapshot: &Snapshot, now_boot_ns: u64, sample_ns: u64) -> Result<(), String> {
    if snapshot.serial == 0 {
        return Err("no sample has been taken yet".to_owned());
    }
    let age = now_boot_ns.saturating_sub(snapshot.taken.boot_ns);
    if age > PATIENCE_NS.max(sample_ns.saturating_mul(LATE)) {
        return Err(format!("the sample loop is stuck: the newest sample is {} s old", age / 1_000_000_000));
    }
    if let Some(why) = &snapshot.host.network_stalled {
        return Err(why.clone());
    }
    let ledger = &snapshot.host.ledger;
    if ledger.busy_ns > PATIENCE_NS {
        let (seconds, lines) = (ledger.busy_ns / 1_000_000_000, ledger.spooled);
        return Err(format!("the ledger hangs: a write has taken {seconds} s so far, {lines} lines wait in memory"));
    }
    if ledger.degraded || ledger.refused > 0 {
        let error = ledger.last_error.as_deref().unwrap_or("its memory is full");
        return Err(format!("the ledger cannot be written, {} lines wait in memory: {error}", ledger.spooled));
    }
    if let Some(why) = &ledger.hurt {
        return Err(format!("an older file of the ledger is not as it was written: {why}"));
    }
    Ok(())
}
